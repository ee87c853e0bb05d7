//! Peer authentication to policies that refuse connections without identity (control-plane 4.3).
//!
//! Conversion and attachment ask one function, [`Enforcement::of`], so that a workload never
//! names a policy that is not sent.

use std::collections::{BTreeMap, HashMap};

use wire::security::{
    Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
};

use super::labels::SelectorIndex;
use super::world::World;
use crate::sources::objects::{MutualTlsMode, PeerAuthentication, PeerAuthenticationSpec, Selector};

const STATIC_STRICT: &str = "istio_converted_static_strict";

/// All objects, sorted so that the oldest comes first.
pub(super) struct PeerAuthentications<'a> {
    root_namespace: &'a str,
    any: bool,
    mesh: MutualTlsMode,
    namespaces: HashMap<&'a str, MutualTlsMode>,
    selecting: HashMap<&'a str, Selecting<'a>>,
}

/// A namespace's objects with selector, oldest first.
#[derive(Default)]
struct Selecting<'a> {
    objects: Vec<&'a PeerAuthentication>,
    index: SelectorIndex<'a, usize>,
}

/// What a selector object demands of the workloads it selects.
enum Enforcement {
    /// Identity everywhere.
    Static,
    /// The object's own policy.
    Own(Vec<Rule>),
    Nothing,
}

impl<'a> PeerAuthentications<'a> {
    pub(super) fn index(world: &World<'a>) -> Self {
        let root_namespace = world.root_namespace();
        let mut objects: Vec<&'a PeerAuthentication> = world
            .objects
            .peer_authentications
            .values()
            .map(AsRef::as_ref)
            .filter(|object: &&PeerAuthentication| world.uses(&object.metadata))
            .collect();
        objects.sort_by_key(|object| object.metadata.age());
        let mut peers = Self {
            root_namespace,
            any: !objects.is_empty(),
            mesh: MutualTlsMode::Unset,
            namespaces: HashMap::new(),
            selecting: HashMap::new(),
        };
        let mut has_mesh = false;
        for object in objects {
            let namespace = object.metadata.namespace.as_str();
            match selected(&object.spec) {
                None if namespace == root_namespace => {
                    if !has_mesh {
                        peers.mesh = object.spec.mtls.mode;
                        has_mesh = true;
                    }
                }
                None => {
                    peers.namespaces.entry(namespace).or_insert(object.spec.mtls.mode);
                }
                // Selectors in the root namespace select nobody.
                Some(_) if namespace == root_namespace => {}
                Some(selector) => {
                    let selecting = peers.selecting.entry(namespace).or_default();
                    selecting.index.insert(&selector.match_labels, selecting.objects.len());
                    selecting.objects.push(object);
                }
            }
        }
        peers
    }

    /// The policies to send.
    pub(super) fn authorizations(&self) -> Vec<Authorization> {
        let statics = self.any.then(|| {
            let matches = vec![Match { not_principals: vec![presence()], ..Match::default() }];
            authorization(
                self.root_namespace,
                STATIC_STRICT.to_owned(),
                vec![Rule { clauses: vec![Clause { matches }] }],
            )
        });
        let converted = self.selecting.iter().flat_map(|(namespace, selecting)| {
            selecting.objects.iter().filter_map(|object| match self.enforcement(namespace, &object.spec) {
                Enforcement::Own(rules) => Some(authorization(namespace, converted_name(object), rules)),
                Enforcement::Static | Enforcement::Nothing => None,
            })
        });
        statics.into_iter().chain(converted).collect()
    }

    /// The keys a workload names: at most one.
    pub(super) fn attached(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        let selecting = (namespace != self.root_namespace).then(|| self.selecting.get(namespace)).flatten();
        let oldest = selecting
            .and_then(|selecting| selecting.objects.get(*selecting.index.matching(labels).first()?))
            .copied();
        let strict = || Some(format!("{}/{STATIC_STRICT}", self.root_namespace));
        let Some(object) = oldest else {
            return if self.is_strict(namespace) { strict() } else { None };
        };
        match self.enforcement(namespace, &object.spec) {
            Enforcement::Nothing => None,
            Enforcement::Static => strict(),
            // Only disabled ports below a strict parent: all of the workload stays strict.
            Enforcement::Own(_) if self.only_disables(namespace, &object.spec) => strict(),
            Enforcement::Own(_) => Some(format!("{namespace}/{}", converted_name(object))),
        }
    }

    /// Is identity demanded of a workload that no selector object selects?
    fn is_strict(&self, namespace: &str) -> bool {
        let own = self.namespaces.get(namespace).copied().unwrap_or_default();
        let mode = if own == MutualTlsMode::Unset { self.mesh } else { own };
        mode == MutualTlsMode::Strict
    }

    fn enforcement(&self, namespace: &str, spec: &PeerAuthenticationSpec) -> Enforcement {
        Enforcement::of(spec, self.is_strict(namespace))
    }

    fn only_disables(&self, namespace: &str, spec: &PeerAuthenticationSpec) -> bool {
        spec.mtls.mode == MutualTlsMode::Unset
            && self.is_strict(namespace)
            && !ports(spec).iter().any(|(_, mode)| *mode == MutualTlsMode::Permissive)
    }
}

impl Enforcement {
    fn of(spec: &PeerAuthenticationSpec, parent_strict: bool) -> Self {
        let ports = ports(spec);
        let mode = spec.mtls.mode;
        let strict = mode == MutualTlsMode::Strict || (mode == MutualTlsMode::Unset && parent_strict);
        let is_open =
            |mode: &MutualTlsMode| matches!(mode, MutualTlsMode::Permissive | MutualTlsMode::Disable);
        if !strict {
            let strict_ports = ports.iter().filter(|(_, mode)| *mode == MutualTlsMode::Strict);
            let rules: Vec<Rule> = strict_ports
                .map(|(port, _)| {
                    let matches = vec![Match {
                        not_principals: vec![presence()],
                        destination_ports: vec![*port],
                        ..Match::default()
                    }];
                    Rule { clauses: vec![Clause { matches }] }
                })
                .collect();
            return if rules.is_empty() { Self::Nothing } else { Self::Own(rules) };
        }
        let exempt: Vec<Match> = ports
            .iter()
            .filter(|(_, mode)| is_open(mode))
            .map(|(port, _)| Match { not_destination_ports: vec![*port], ..Match::default() })
            .collect();
        if exempt.is_empty() {
            return Self::Static;
        }
        let anonymous = || Match { not_principals: vec![presence()], ..Match::default() };
        let first = (mode == MutualTlsMode::Strict).then(anonymous);
        let last = parent_strict.then(anonymous);
        let clauses =
            first.into_iter().chain(exempt).chain(last).map(|m| Clause { matches: vec![m] }).collect();
        Self::Own(vec![Rule { clauses }])
    }
}

/// The selector, if it selects by any label.
fn selected(spec: &PeerAuthenticationSpec) -> Option<&Selector> {
    spec.selector.as_ref().filter(|selector| !selector.match_labels.is_empty())
}

/// Port-level modes in ascending order; the loader admits numbers only.
fn ports(spec: &PeerAuthenticationSpec) -> Vec<(u32, MutualTlsMode)> {
    let listed = spec.port_level_mtls.iter().flatten();
    let mut ports: Vec<(u32, MutualTlsMode)> =
        listed.filter_map(|(port, mtls)| Some((port.parse::<u16>().ok()?.into(), mtls.mode))).collect();
    ports.sort_unstable_by_key(|(port, _)| *port);
    ports
}

fn converted_name(object: &PeerAuthentication) -> String {
    format!("converted_peer_authentication_{}", object.metadata.name)
}

fn authorization(namespace: &str, name: String, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name,
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        ..Authorization::default()
    }
}

fn presence() -> StringMatch {
    StringMatch { match_type: Some(MatchType::Presence(())) }
}
