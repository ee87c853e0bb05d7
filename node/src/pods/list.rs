//! The pods as the dump lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use state::Pod;
use wire::dump;

use crate::connections::ConnectionLists;

/// What the dump shows of every pod; cheap to clone, readable from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodList(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    pod: Pod,
    /// None while the pod is pending.
    connections: Option<ConnectionLists>,
}

impl PodList {
    /// The pod could not be started yet.
    pub(super) fn pending(&self, uid: &str, pod: &Pod) {
        self.set(uid, pod, None);
    }

    /// The pod is served.
    pub(super) fn up(&self, uid: &str, pod: &Pod, connections: ConnectionLists) {
        self.set(uid, pod, Some(connections));
    }

    fn set(&self, uid: &str, pod: &Pod, connections: Option<ConnectionLists>) {
        self.0.lock().insert(uid.to_owned(), Entry { pod: pod.clone(), connections });
    }

    /// The pod is gone.
    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// `workloadState`.
    pub(crate) fn dump(&self) -> BTreeMap<String, dump::PodState> {
        let entries = self.0.lock().clone();
        let shown = entries.into_iter().map(|(uid, Entry { pod, connections })| {
            let info = dump::WorkloadInfo {
                name: pod.name.to_string(),
                namespace: pod.namespace.to_string(),
                service_account: pod.service_account.to_string(),
                ..dump::WorkloadInfo::default()
            };
            let state = if connections.is_some() { "Up" } else { "Pending" };
            let connections = connections.as_ref().map(ConnectionLists::dump);
            (uid, dump::PodState { state: state.to_owned(), connections, info: Some(info) })
        });
        shown.collect()
    }
}
