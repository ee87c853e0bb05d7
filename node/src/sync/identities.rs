//! Fetches certificates ahead of use, for the identities of workloads on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use identity::SpiffeId;
use state::workload::TunnelProtocol;
use state::{Mesh, Workload, WorkloadChange};

use super::Observer;
use crate::certs::CertificateManager;

/// Where certificates are ordered and cancelled.
pub(crate) trait Certificates: Send + 'static {
    /// This identity will be needed.
    fn prefetch(&self, id: SpiffeId);
    /// Nobody on this node has this identity any more.
    fn forget(&self, id: &SpiffeId);
}

impl Certificates for CertificateManager {
    fn prefetch(&self, id: SpiffeId) {
        Self::prefetch(self, [id]);
    }

    fn forget(&self, id: &SpiffeId) {
        Self::forget(self, id);
    }
}

/// Knows which identities live on this node: an identity is needed from its first workload to its last.
#[derive(Debug)]
pub(crate) struct LocalIdentities<C> {
    certificates: C,
    node: Option<Arc<str>>,
    users: BTreeMap<SpiffeId, BTreeSet<Arc<str>>>,
}

impl<C: Certificates> LocalIdentities<C> {
    /// Orders from `certificates` for workloads on `node`; without a node nothing is ordered ahead.
    pub(crate) fn new(certificates: C, node: Option<Arc<str>>) -> Self {
        Self { certificates, node, users: BTreeMap::new() }
    }

    fn wants(&self, workload: &Workload) -> bool {
        let tunnels = workload.native_tunnel || workload.protocol == TunnelProtocol::Hbone;
        tunnels && self.node.as_ref() == Some(&workload.node)
    }
}

impl<C: Certificates> Observer for LocalIdentities<C> {
    fn workloads(&mut self, _mesh: &Mesh, changes: &[WorkloadChange]) {
        let mut left = BTreeSet::new();
        for change in changes {
            if let Some(before) = &change.before
                && let Some(users) = self.users.get_mut(&before.identity)
                && users.remove(&before.uid)
            {
                left.insert(before.identity.clone());
            }
            if let Some(after) = change.after.as_ref().filter(|after| self.wants(after)) {
                let users = self.users.entry(after.identity.clone()).or_default();
                let is_new = users.is_empty() && !left.contains(&after.identity);
                users.insert(Arc::clone(&after.uid));
                if is_new {
                    self.certificates.prefetch(after.identity.clone());
                }
            }
        }
        for id in left {
            if self.users.get(&id).is_some_and(BTreeSet::is_empty) {
                self.users.remove(&id);
                self.certificates.forget(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use prost::Message as _;
    use state::{Delta, ResourceType};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Certificates for Log {
        fn prefetch(&self, id: SpiffeId) {
            self.0.lock().unwrap().push(format!("+{id}"));
        }
        fn forget(&self, id: &SpiffeId) {
            self.0.lock().unwrap().push(format!("-{id}"));
        }
    }

    fn workload(name: &str, account: &str, node: &str, hbone: bool) -> (String, Vec<u8>) {
        let uid = format!("c//Pod/ns/{name}");
        let workload = wire::workload::Workload {
            uid: uid.clone(),
            name: name.to_owned(),
            namespace: "ns".to_owned(),
            service_account: account.to_owned(),
            node: node.to_owned(),
            tunnel_protocol: i32::from(hbone),
            ..Default::default()
        };
        let address =
            wire::workload::Address { r#type: Some(wire::workload::address::Type::Workload(workload)) };
        (uid, address.encode_to_vec())
    }

    // CO-4.2, CO-12.1-7
    #[test]
    fn identities_are_ordered_with_the_first_workload_and_cancelled_with_the_last() {
        let log = Log::default();
        let mut identities = LocalIdentities::new(log.clone(), Some("n1".into()));
        let mut mesh = Mesh::new(state::MeshConfig::default());
        let mut step = |put: &[(String, Vec<u8>)], removed: &[&str]| {
            let resources = put.iter().map(|(name, payload)| (name.as_str(), Some(payload.as_slice())));
            let removed = removed.iter().map(|name| (*name).to_owned());
            let (next, applied) = mesh.apply(Delta::decode(ResourceType::Address, resources, removed));
            mesh = next;
            identities.workloads(&mesh, &applied.workloads);
            std::mem::take(&mut *log.0.lock().unwrap())
        };
        let id = |account: &str| format!("spiffe://cluster.local/ns/ns/sa/{account}");
        let first = [
            workload("a", "one", "n1", true),
            workload("b", "one", "n1", true),
            workload("c", "far", "n2", true),
            workload("d", "plain", "n1", false),
        ];
        assert_eq!(step(&first, &[]), [format!("+{}", id("one"))]);
        assert!(step(&[], &["c//Pod/ns/b"]).is_empty(), "a still has it");
        assert_eq!(
            step(&[workload("a", "two", "n1", true)], &[]),
            [format!("+{}", id("two")), format!("-{}", id("one"))]
        );
        assert_eq!(step(&[], &["c//Pod/ns/a"]), [format!("-{}", id("two"))]);
    }
}
