//! Who shall be in the mesh, and what each connected proxy knows of it: a value, and the decision what to tell next.
//!
//! Nothing is queued. Every proxy's connection asks for the [`next`](Ledger::next) difference between what shall be and
//! what its proxy knows, tells it, and records the answer. So a lost message, a proxy that says no, a pod withdrawn
//! while it is being added, or the newest proxy going away all end in the same comparison.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use net::{NamespaceId, NetNamespace};
use tokio::time::Instant;

use crate::enrolled::Record;

/// After a proxy could not start a pod, it is asked again no sooner.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// One pod that shall be in the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub record: Record,
    /// `None`: recorded by an earlier agent and not found yet. Its proxy is told to keep it.
    pub namespace: Option<Arc<NetNamespace>>,
    /// Tells this enrollment from another one of the same uid.
    pub generation: u64,
}

/// A connection's number; later ones are larger.
pub(crate) type ConnectionId = u64;

/// What a connection shall tell its proxy.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Add(Pod),
    Keep { uid: String },
    Delete { uid: String },
    SnapshotSent,
}

#[derive(Debug, Default)]
struct Proxy {
    /// Told at connect, in this order; emptied as they are told.
    snapshot: Vec<String>,
    snapshot_sent: bool,
    /// What it has accepted, in which namespace.
    known: BTreeMap<String, NamespaceId>,
    /// What it may have although it did not say so: it is told to forget these too.
    touched: BTreeSet<String>,
    refused: BTreeMap<String, Refusal>,
}

#[derive(Debug, Clone)]
struct Refusal {
    namespace: NamespaceId,
    reason: String,
    at: Instant,
}

/// The whole.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pods: BTreeMap<String, Pod>,
    proxies: BTreeMap<ConnectionId, Proxy>,
    n_connections: ConnectionId,
    n_generations: u64,
}

/// How far an enrollment has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The proxy serves it.
    Accepted,
    /// No proxy is connected.
    NoProxy,
    /// The proxy has not answered yet.
    Waiting,
    /// The proxy could not start it; it will be asked again.
    Refused(String),
    /// Withdrawn, or enrolled anew, in the meantime.
    Gone,
}

impl Ledger {
    /// Enrolls, or replaces what is enrolled under that uid; the number of this enrollment.
    pub(crate) fn enroll(&mut self, record: Record, namespace: Option<Arc<NetNamespace>>) -> u64 {
        self.n_generations += 1;
        let generation = self.n_generations;
        self.pods.insert(record.uid.clone(), Pod { record, namespace, generation });
        generation
    }

    /// Withdraws.
    pub(crate) fn withdraw(&mut self, uid: &str) -> Option<Pod> {
        self.pods.remove(uid)
    }

    pub(crate) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.pods.values().map(|pod| pod.record.clone()).collect()
    }

    /// A proxy has said hello.
    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.n_connections += 1;
        let snapshot = self.pods.keys().rev().cloned().collect();
        self.proxies.insert(self.n_connections, Proxy { snapshot, ..Proxy::default() });
        self.n_connections
    }

    /// A proxy has gone.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        self.proxies.remove(&connection);
    }

    pub(crate) fn n_proxies(&self) -> usize {
        self.proxies.len()
    }

    /// What this connection shall say now; `None`: nothing.
    pub(crate) fn next(&mut self, connection: ConnectionId, now: Instant) -> Option<Message> {
        let newest = self.proxies.last_key_value().map(|(id, _)| *id);
        let proxy = self.proxies.get_mut(&connection)?;
        while let Some(uid) = proxy.snapshot.pop() {
            match self.pods.get(&uid) {
                Some(pod) if pod.namespace.is_some() => return Some(Message::Add(pod.clone())),
                Some(_) => return Some(Message::Keep { uid }),
                // Withdrawn since the connect: the proxy drops it by itself at the end of the snapshot.
                None => {}
            }
        }
        if !proxy.snapshot_sent {
            return Some(Message::SnapshotSent);
        }
        let forgotten = proxy.known.keys().chain(&proxy.touched).find(|uid| !self.pods.contains_key(*uid));
        if let Some(uid) = forgotten {
            return Some(Message::Delete { uid: uid.clone() });
        }
        // New pods go to the newest proxy only: the others are about to leave.
        if newest != Some(connection) {
            return None;
        }
        let missing = self.pods.values().find(|pod| {
            let Some(namespace) = &pod.namespace else { return false };
            let uid = &pod.record.uid;
            let retry_later = proxy.refused.get(uid).is_some_and(|refusal| {
                refusal.namespace == namespace.id() && now.duration_since(refusal.at) < RETRY
            });
            proxy.known.get(uid) != Some(&namespace.id()) && !retry_later
        });
        missing.map(|pod| Message::Add(pod.clone()))
    }

    /// The proxy's answer to a message; `refusal` is the acknowledgement's error.
    pub(crate) fn answered(
        &mut self,
        connection: ConnectionId,
        message: &Message,
        refusal: Option<&str>,
        now: Instant,
    ) {
        let Some(proxy) = self.proxies.get_mut(&connection) else { return };
        match message {
            Message::Add(pod) => {
                let Some(namespace) = &pod.namespace else { return };
                let (uid, namespace) = (pod.record.uid.clone(), namespace.id());
                match refusal {
                    None => {
                        proxy.refused.remove(&uid);
                        proxy.touched.remove(&uid);
                        proxy.known.insert(uid, namespace);
                    }
                    Some(reason) => {
                        // It keeps what it could not start and tries again, until told otherwise.
                        proxy.touched.insert(uid.clone());
                        proxy.known.remove(&uid);
                        proxy.refused.insert(uid, Refusal { namespace, reason: reason.to_owned(), at: now });
                    }
                }
            }
            Message::Keep { uid } => {
                proxy.touched.insert(uid.clone());
            }
            Message::Delete { uid } => {
                proxy.known.remove(uid);
                proxy.touched.remove(uid);
                proxy.refused.remove(uid);
            }
            Message::SnapshotSent => proxy.snapshot_sent = true,
        }
    }

    /// Where an enrollment stands with the newest proxy.
    pub(crate) fn progress(&self, uid: &str, generation: u64) -> Progress {
        let Some(pod) = self.pods.get(uid).filter(|pod| pod.generation == generation) else {
            return Progress::Gone;
        };
        let Some((_, proxy)) = self.proxies.last_key_value() else { return Progress::NoProxy };
        let namespace = pod.namespace.as_ref().map(|namespace| namespace.id());
        if namespace.is_some() && proxy.known.get(uid).copied() == namespace {
            return Progress::Accepted;
        }
        match proxy.refused.get(uid) {
            Some(refusal) if Some(refusal.namespace) == namespace => {
                Progress::Refused(refusal.reason.clone())
            }
            _ => Progress::Waiting,
        }
    }

    /// Has every proxy forgotten this uid?
    pub(crate) fn is_forgotten(&self, uid: &str) -> bool {
        self.proxies.values().all(|proxy| {
            // Until the end of its snapshot it holds on to what it had before.
            proxy.snapshot_sent && !proxy.known.contains_key(uid) && !proxy.touched.contains(uid)
        })
    }
}

#[cfg(test)]
mod tests;
