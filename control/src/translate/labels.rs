//! Label matching, and an index that finds selectors by the labels they match.

use std::collections::{BTreeMap, HashMap};

use crate::sources::objects::{LabelSelector, Requirement};

type Labels = BTreeMap<String, String>;

/// Are all wanted labels there?
pub(super) fn matches_labels(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Labels and expressions of a selector must all hold; an empty one matches everything.
pub(super) fn matches_selector(selector: &LabelSelector, labels: &Labels) -> bool {
    matches_labels(&selector.match_labels, labels)
        && selector.match_expressions.iter().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &Requirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.contains(value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // The loader refuses other operators; matching nothing is the safe reading.
        _ => false,
    }
}

/// Finds, for the labels of a workload, everything that selects it, without trying each selector.
///
/// An entry is filed under one of its label pairs; a lookup tries only the entries of pairs the workload has.
pub(super) struct SelectorIndex<'a, T> {
    by_pair: HashMap<(&'a str, &'a str), Vec<(&'a Labels, T)>>,
    everything: Vec<T>,
}

impl<T> Default for SelectorIndex<'_, T> {
    fn default() -> Self {
        Self { by_pair: HashMap::new(), everything: Vec::new() }
    }
}

impl<'a, T: Copy + Ord> SelectorIndex<'a, T> {
    pub(super) fn insert(&mut self, selector: &'a Labels, entry: T) {
        match selector.first_key_value() {
            Some((key, value)) => self.by_pair.entry((key, value)).or_default().push((selector, entry)),
            None => self.everything.push(entry),
        }
    }

    /// All entries that select these labels, sorted.
    pub(super) fn matching(&self, labels: &Labels) -> Vec<T> {
        let mut found = self.everything.clone();
        for (key, value) in labels {
            let filed = self.by_pair.get(&(key.as_str(), value.as_str())).into_iter().flatten();
            found.extend(
                filed.filter(|(selector, _)| matches_labels(selector, labels)).map(|(_, entry)| *entry),
            );
        }
        found.sort_unstable();
        found
    }

    /// All entries, in no order.
    pub(super) fn all(&self) -> Vec<T> {
        let filed = self.by_pair.values().flatten().map(|(_, entry)| *entry);
        self.everything.iter().copied().chain(filed).collect()
    }
}
