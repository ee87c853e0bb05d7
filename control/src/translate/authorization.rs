//! Authorization policies to what node proxies enforce, and who lists them (control-plane 3.9, 4.2, 4.4).

mod convert;
mod targets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use wire::security::{
    Action as WireAction, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match,
};

use super::StatusCondition;
use super::labels::SelectorIndex;
use super::notes::Notes;
use super::service::parse_bool;
use super::waypoint::{Waypoint, Waypoints};
use super::world::World;
use crate::sources::objects::{Action, AuthorizationPolicy, Kind, Name};

pub(crate) use convert::invalid_values;

const DRY_RUN: &str = "istio.io/dry-run";
const ACCEPTED: &str = "ZtunnelAccepted";
const UNSUPPORTED: &str = "UnsupportedValue";

/// All policies that are sent, and which of them workloads name.
pub(super) struct Policies<'a> {
    pub(super) authorizations: Vec<Authorization>,
    /// Policies with labels to select by, per namespace.
    selecting: HashMap<&'a str, SelectorIndex<'a, &'a Name>>,
    root_namespace: &'a str,
}

impl<'a> Policies<'a> {
    pub(super) fn build(world: &World<'a>, waypoints: &Waypoints<'a>, notes: &mut Notes) -> Self {
        let mut policies = Self {
            authorizations: Vec::new(),
            selecting: HashMap::new(),
            root_namespace: world.root_namespace(),
        };
        let all = world.objects.authorization_policies.iter();
        for (name, policy) in all.filter(|(_, policy)| world.uses(&policy.metadata)) {
            if policy.spec.target_ref.is_some()
                || policy.spec.target_refs.as_ref().is_some_and(|refs| !refs.is_empty())
            {
                notes.condition(
                    Kind::AuthorizationPolicy,
                    &policy.metadata,
                    targets::condition(world, waypoints, policy),
                );
                continue;
            }
            let Some(authorization) = convert(world, policy, notes) else { continue };
            policies.authorizations.push(authorization);
            if let Some(selector) =
                policy.spec.selector.as_ref().filter(|selector| !selector.match_labels.is_empty())
            {
                policies.selecting.entry(&name.namespace).or_default().insert(&selector.match_labels, name);
            }
        }
        if world.switches.allow_waypoints {
            policies
                .authorizations
                .extend(waypoints.iter().filter_map(|waypoint| waypoint_policy(world, waypoint)));
        }
        policies
    }

    /// Keys of the policies that select a workload: of its own namespace and of the root namespace.
    pub(super) fn attached(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        self.keys(namespace, |index| index.matching(labels))
    }

    /// Keys of all policies with selectors that concern a namespace. The endpoints of a service
    /// entry without labels list these (observed); nobody is let through by it.
    pub(super) fn all(&self, namespace: &str) -> Vec<String> {
        self.keys(namespace, SelectorIndex::all)
    }

    fn keys(
        &self,
        namespace: &str,
        pick: impl Fn(&SelectorIndex<'a, &'a Name>) -> Vec<&'a Name>,
    ) -> Vec<String> {
        let root = (namespace != self.root_namespace).then_some(self.root_namespace);
        let indexes =
            [Some(namespace), root].into_iter().flatten().filter_map(|name| self.selecting.get(name));
        let mut keys: Vec<String> = indexes.flat_map(pick).map(Name::to_string).collect();
        keys.sort_unstable();
        keys
    }
}

/// The policy as it is sent, or nothing for those that node proxies cannot enforce.
fn convert(world: &World<'_>, policy: &AuthorizationPolicy, notes: &mut Notes) -> Option<Authorization> {
    let meta = &policy.metadata;
    let dry_run = meta.annotation(DRY_RUN).and_then(parse_bool).unwrap_or(false);
    let mut note = |status, reason, message: String| {
        let condition = StatusCondition { kind: ACCEPTED, status, reason, message };
        notes.condition(Kind::AuthorizationPolicy, meta, condition);
    };
    let action = match policy.spec.action {
        Action::Allow => WireAction::Allow,
        Action::Deny => WireAction::Deny,
        Action::Audit | Action::Custom => {
            let name = if policy.spec.action == Action::Audit { "AUDIT" } else { "CUSTOM" };
            note(false, UNSUPPORTED, format!("action {name} is not enforced"));
            return None;
        }
    };
    if dry_run && !world.switches.dry_run_policies {
        let message = format!("annotation {DRY_RUN} is set and dry run is off");
        note(false, UNSUPPORTED, message);
        return None;
    }
    let converted = convert::rules(policy);
    let (reason, message) = converted.verdict();
    note(true, reason, message);
    for invalid in &converted.invalid {
        notes.remark(Kind::AuthorizationPolicy, meta, "translate-invalid-policy-value", invalid.to_string());
    }
    let selects = policy.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    let scope = match (selects, meta.namespace == world.root_namespace()) {
        (true, _) => Scope::WorkloadSelector,
        (false, true) => Scope::Global,
        (false, false) => Scope::Namespace,
    };
    Some(Authorization {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules: converted.rules,
        dry_run,
        ..Authorization::default()
    })
}

/// Key of the policy that lets a waypoint in; only waypoints that have pods have one.
pub(super) fn waypoint_policy_key(waypoint: &Waypoint<'_>) -> Option<String> {
    let namespace = &waypoint.name.namespace;
    (!waypoint.accounts.is_empty()).then(|| format!("{namespace}/{}", waypoint_policy_name(waypoint)))
}

fn waypoint_policy_name(waypoint: &Waypoint<'_>) -> String {
    format!("istio_allow_waypoint_{}_{}", waypoint.name.namespace, waypoint.name.name)
}

/// Allows the identities of a waypoint's pods (control-plane 4.4).
fn waypoint_policy(world: &World<'_>, waypoint: &Waypoint<'_>) -> Option<Authorization> {
    if waypoint.accounts.is_empty() {
        return None;
    }
    let namespace = &waypoint.name.namespace;
    let principal = |account: &&str| StringMatch {
        match_type: Some(string_match::MatchType::Exact(format!(
            "{}/ns/{namespace}/sa/{account}",
            world.trust_domain()
        ))),
    };
    let matches =
        vec![Match { principals: waypoint.accounts.iter().map(principal).collect(), ..Match::default() }];
    Some(Authorization {
        name: waypoint_policy_name(waypoint),
        namespace: namespace.clone(),
        scope: Scope::WorkloadSelector.into(),
        action: WireAction::Allow.into(),
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        ..Authorization::default()
    })
}
