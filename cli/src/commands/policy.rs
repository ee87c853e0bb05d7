//! `policy`.
use serde::Serialize;
use serde_json::{Map, Value};
use wire::dump::{ConfigDump, Match, Policy};

use super::views::passes;
use crate::render::Table;

/// Keys of a match in the order they are shown.
const MATCH_KEYS: [&str; 12] = [
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "principals",
    "notPrincipals",
    "sourceIps",
    "notSourceIps",
    "destinationIps",
    "notDestinationIps",
    "destinationPorts",
    "notDestinationPorts",
];

/// Sorted by namespace and name.
fn sorted<'a>(dump: &'a ConfigDump, namespace: &str) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> =
        dump.policies.iter().filter(|policy| passes(namespace, &policy.namespace)).collect();
    policies.sort_by_key(|policy| (&policy.namespace, &policy.name));
    policies
}

/// The table.
pub(crate) fn table(dump: &ConfigDump, namespace: &str) -> String {
    let mut table = Table::new(&["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"], 1);
    for policy in sorted(dump, namespace) {
        let Policy { namespace, name, action, scope, .. } = policy;
        table.row([namespace.clone(), name.clone(), action.clone(), scope.clone()]);
    }
    table.render()
}

/// The sorted list.
pub(crate) fn views<'a>(dump: &'a ConfigDump, namespace: &str) -> Vec<View<'a>> {
    let view = |policy: &'a Policy| View {
        name: &policy.name,
        namespace: &policy.namespace,
        scope: &policy.scope,
        action: &policy.action,
        rules: policy
            .rules
            .iter()
            .map(|rule| rule.iter().map(|clause| clause.iter().map(in_order).collect()).collect())
            .collect(),
    };
    sorted(dump, namespace).into_iter().map(view).collect()
}

/// A policy in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct View<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'a str,
    action: &'a str,
    rules: Vec<Vec<Vec<Map<String, Value>>>>,
}

fn in_order(found: &Match) -> Map<String, Value> {
    let Ok(Value::Object(mut map)) = serde_json::to_value(found) else { return Map::new() };
    MATCH_KEYS.into_iter().filter_map(|key| Some((key.to_owned(), map.remove(key)?))).collect()
}
