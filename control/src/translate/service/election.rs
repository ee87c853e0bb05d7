//! Who may answer for a hostname that several objects claim (control-plane 3.7.3).

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::sources::objects::{Name, Service, ServiceEntry, Visibility};

/// An object that claims a hostname.
#[derive(Clone, Copy)]
pub(super) enum Candidate<'a> {
    Service { name: &'a Name, service: &'a Service },
    Entry { name: &'a Name, entry: &'a ServiceEntry, visibility: Visibility },
}

/// The one object that answers for a hostname in its namespace.
pub(super) struct Winner<'a> {
    pub(super) hostname: String,
    pub(super) candidate: Candidate<'a>,
    pub(super) visibility: Visibility,
    /// Answers for callers of other namespaces too.
    pub(super) canonical: bool,
}

impl<'a> Candidate<'a> {
    fn namespace(&self) -> &'a str {
        match self {
            Self::Service { name, .. } | Self::Entry { name, .. } => &name.namespace,
        }
    }

    fn visibility(&self) -> Visibility {
        match self {
            Self::Service { .. } => Visibility::Public,
            Self::Entry { visibility, .. } => *visibility,
        }
    }

    /// Services before entries, older before younger.
    fn rank(&self) -> (bool, (Timestamp, &'a str, &'a str)) {
        match self {
            Self::Service { service, .. } => (false, service.metadata.age()),
            Self::Entry { entry, .. } => (true, entry.metadata.age()),
        }
    }
}

/// One winner per hostname and namespace; of those, one is canonical.
pub(super) fn elect(by_host: BTreeMap<String, Vec<Candidate<'_>>>) -> Vec<Winner<'_>> {
    let mut winners = Vec::new();
    for (hostname, mut candidates) in by_host {
        candidates.sort_by_key(Candidate::rank);
        let canonical = candidates
            .iter()
            .position(|candidate| candidate.visibility() == Visibility::Public)
            .and_then(|index| candidates.get(index))
            .map(Candidate::namespace);
        let mut by_namespace = BTreeMap::new();
        for candidate in candidates {
            by_namespace.entry(candidate.namespace()).or_insert(candidate);
        }
        winners.extend(by_namespace.into_iter().map(|(namespace, candidate)| Winner {
            hostname: hostname.clone(),
            candidate,
            visibility: candidate.visibility(),
            canonical: canonical == Some(namespace) && candidate.visibility() == Visibility::Public,
        }));
    }
    winners
}
