//! What every translation asks of its surroundings: scope, namespaces, network, trust domain.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::Switches;
use super::labels::matches_selector;
use crate::sources::objects::{MeshConfig, Metadata, Objects};

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
const REVISION: &str = "istio.io/rev";
pub(super) const NETWORK: &str = "topology.istio.io/network";
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

type Labels = BTreeMap<String, String>;

pub(super) struct World<'a> {
    pub(super) objects: &'a Objects,
    pub(super) mesh: &'a MeshConfig,
    pub(super) switches: &'a Switches,
    /// The local network; empty is the one without a name.
    pub(super) network: &'a str,
    /// `None`: all namespaces are in scope.
    scope: Option<BTreeSet<&'a str>>,
}

impl<'a> World<'a> {
    pub(super) fn new(objects: &'a Objects, mesh: &'a MeshConfig, switches: &'a Switches) -> Self {
        let mut world = Self { objects, mesh, switches, network: "", scope: None };
        world.network =
            world.namespace(&switches.system_namespace).and_then(|meta| meta.label(NETWORK)).unwrap_or("");
        if !mesh.discovery_selectors.is_empty() {
            world.scope = Some(world.selected_namespaces());
        }
        world
    }

    fn namespace(&self, name: &str) -> Option<&'a Metadata> {
        self.objects.namespaces.get(name).map(|namespace| &namespace.metadata)
    }

    /// Labels of a namespace; one that is named but not given exists and has only its own name.
    pub(super) fn namespace_labels(&self, name: &str) -> Cow<'a, Labels> {
        let name_label = || (NAMESPACE_NAME.to_owned(), name.to_owned());
        match self.namespace(name) {
            Some(meta) if meta.labels.contains_key(NAMESPACE_NAME) => Cow::Borrowed(&meta.labels),
            Some(meta) => Cow::Owned(
                meta.labels.iter().map(|(k, v)| (k.clone(), v.clone())).chain([name_label()]).collect(),
            ),
            None => Cow::Owned(Labels::from([name_label()])),
        }
    }

    /// A label of a namespace.
    pub(super) fn namespace_label(&self, name: &str, key: &str) -> Option<&'a str> {
        self.namespace(name)?.label(key)
    }

    pub(super) fn namespace_annotation(&self, name: &str, key: &str) -> Option<&'a str> {
        self.namespace(name)?.annotation(key)
    }

    fn selected_namespaces(&self) -> BTreeSet<&'a str> {
        let objects = self.objects;
        let named = objects.namespaces.keys().map(String::as_str);
        let implied = [
            objects.pods.keys().map(|name| name.namespace.as_str()).collect::<BTreeSet<_>>(),
            objects.services.keys().map(|name| name.namespace.as_str()).collect(),
            objects.endpoint_slices.keys().map(|name| name.namespace.as_str()).collect(),
            objects.service_entries.keys().map(|name| name.namespace.as_str()).collect(),
            objects.workload_entries.keys().map(|name| name.namespace.as_str()).collect(),
            objects.authorization_policies.keys().map(|name| name.namespace.as_str()).collect(),
            objects.peer_authentications.keys().map(|name| name.namespace.as_str()).collect(),
            objects.gateways.keys().map(|name| name.namespace.as_str()).collect(),
        ];
        named
            .chain(implied.into_iter().flatten())
            .filter(|name| {
                let labels = self.namespace_labels(name);
                self.mesh.discovery_selectors.iter().any(|selector| matches_selector(selector, &labels))
            })
            .collect()
    }

    /// Is the object in a namespace that this control plane looks at?
    pub(super) fn in_scope(&self, meta: &Metadata) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.contains(meta.namespace.as_str()))
    }

    /// In scope, and meant for this revision: for Istio's own kinds.
    pub(super) fn uses(&self, meta: &Metadata) -> bool {
        let revision = self.switches.revision.as_str();
        let ours = revision.is_empty() || meta.label(REVISION).is_none_or(|label| label == revision);
        ours && self.in_scope(meta)
    }

    pub(super) fn trust_domain(&self) -> &'a str {
        if self.mesh.trust_domain.is_empty() { DEFAULT_TRUST_DOMAIN } else { &self.mesh.trust_domain }
    }

    /// As records carry it: the default is left out.
    pub(super) fn trust_domain_field(&self) -> String {
        let trust_domain = self.trust_domain();
        if trust_domain == DEFAULT_TRUST_DOMAIN { String::new() } else { trust_domain.to_owned() }
    }

    pub(super) fn root_namespace(&self) -> &'a str {
        if self.mesh.root_namespace.is_empty() { "istio-system" } else { &self.mesh.root_namespace }
    }
}
