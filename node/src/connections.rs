//! The live connections of a pod: what the dump lists, and what a change of policy may cut.
//!
//! Each traffic thread has its own part, [`Connections`]. The list that the dump reads is behind a
//! lock that only this thread and a dump ever take; the means to cut never leave the thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use state::{Mesh, Pod, Workload};
use tokio::sync::Notify;
use wire::dump;

/// What the dump says about an inbound connection. Streams of one peer to one target share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InboundKey {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) identity: Option<identity::SpiffeId>,
    /// The `host=` of the `forwarded` header.
    pub(crate) forwarded_host: Option<Arc<str>>,
}

/// What the dump says about an outbound connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OutboundKey {
    pub(crate) source: SocketAddr,
    pub(crate) original: SocketAddr,
    pub(crate) actual: SocketAddr,
    pub(crate) protocol: state::Protocol,
}

#[derive(Debug, Default)]
struct Listed {
    inbound: HashMap<InboundKey, usize>,
    outbound: HashMap<OutboundKey, usize>,
}

/// The lists of all traffic threads of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionLists(Arc<Mutex<Vec<Arc<Mutex<Listed>>>>>);

impl ConnectionLists {
    /// The part of one more traffic thread.
    pub(crate) fn part(&self) -> Rc<Connections> {
        let listed = Arc::<Mutex<Listed>>::default();
        self.0.lock().push(Arc::clone(&listed));
        Rc::new(Connections { listed, open: RefCell::default(), next: Cell::new(0) })
    }

    /// The lists as the dump shows them, in a stable order.
    pub(crate) fn dump(&self) -> dump::Connections {
        let (mut inbound, mut outbound) = (HashSet::new(), HashSet::new());
        for listed in self.0.lock().iter() {
            let listed = listed.lock();
            inbound.extend(listed.inbound.keys().cloned());
            outbound.extend(listed.outbound.keys().cloned());
        }
        let inbound = inbound.into_iter().map(|key| dump::Connection {
            src: key.source.to_string(),
            original_dst: key.forwarded_host.map(|host| host.to_string()),
            actual_dst: key.target.to_string(),
            protocol: if key.identity.is_some() { "HBONE" } else { "TCP" }.to_owned(),
        });
        let outbound = outbound.into_iter().map(|key| dump::Connection {
            src: key.source.to_string(),
            original_dst: Some(key.original.to_string()),
            actual_dst: key.actual.to_string(),
            protocol: key.protocol.to_string(),
        });
        let mut lists = dump::Connections { inbound: inbound.collect(), outbound: outbound.collect() };
        for list in [&mut lists.inbound, &mut lists.outbound] {
            list.sort_by(|a, b| {
                (&a.src, &a.original_dst, &a.actual_dst).cmp(&(&b.src, &b.original_dst, &b.actual_dst))
            });
        }
        lists
    }
}

/// The live connections of one pod on one traffic thread.
#[derive(Debug)]
pub(crate) struct Connections {
    listed: Arc<Mutex<Listed>>,
    /// Inbound connections, which policy may cut.
    open: RefCell<BTreeMap<u64, Open>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Open {
    source: SocketAddr,
    facts: policy::Connection,
    cut: Rc<Cut>,
}

#[derive(Debug, Default)]
struct Cut {
    done: Cell<bool>,
    told: Notify,
}

impl Connections {
    /// Lists an inbound connection and makes it subject to policy from now on. To be done before
    /// policy is asked the first time, so that no change is missed.
    pub(crate) fn inbound(self: &Rc<Self>, key: InboundKey, facts: policy::Connection) -> InboundEntry {
        *self.listed.lock().inbound.entry(key.clone()).or_default() += 1;
        let (id, cut) = (self.next.get(), Rc::new(Cut::default()));
        self.next.set(id + 1);
        let open = Open { source: key.source, facts, cut: Rc::clone(&cut) };
        self.open.borrow_mut().insert(id, open);
        InboundEntry { connections: Rc::clone(self), key, id, cut }
    }

    /// Lists an outbound connection.
    pub(crate) fn outbound(self: &Rc<Self>, key: OutboundKey) -> OutboundEntry {
        *self.listed.lock().outbound.entry(key.clone()).or_default() += 1;
        OutboundEntry { connections: Rc::clone(self), key }
    }

    /// Judges every inbound connection again, as things are now, and cuts those no longer allowed.
    ///
    /// A workload that discovery has withdrawn is judged as it was last known: `workload`.
    pub(crate) fn judge_again(&self, mesh: &Mesh, pod: &Pod, last_known: &Workload) {
        let local = mesh.local_workload(pod).map_or(last_known, |workload| workload);
        let policies = mesh.policies_for(local).policies;
        for open in self.open.borrow().values() {
            if open.cut.done.get() || policy::evaluate(&policies, &open.facts).is_allowed() {
                continue;
            }
            let identity = open.facts.source_identity.as_ref();
            tracing::info!(
                target: "ztunnel::proxy::connection_manager",
                "connection {}({})->{} ({}) closed because it's no longer allowed after a policy update",
                open.source,
                identity.map_or("None", |id| id.as_str()),
                open.facts.destination,
                local.uid,
            );
            open.cut.done.set(true);
            open.cut.told.notify_one();
        }
    }

    /// How many inbound connections are open.
    pub(crate) fn n_inbound(&self) -> usize {
        self.open.borrow().len()
    }
}

/// An inbound connection that is listed and subject to policy while this lives.
#[derive(Debug)]
pub(crate) struct InboundEntry {
    connections: Rc<Connections>,
    key: InboundKey,
    id: u64,
    cut: Rc<Cut>,
}

impl InboundEntry {
    /// Resolves when policy no longer allows the connection.
    pub(crate) async fn disallowed(&self) {
        while !self.cut.done.get() {
            self.cut.told.notified().await;
        }
    }
}

impl Drop for InboundEntry {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
        release(&mut self.connections.listed.lock().inbound, &self.key);
    }
}

/// An outbound connection that is listed while this lives.
#[derive(Debug)]
pub(crate) struct OutboundEntry {
    connections: Rc<Connections>,
    key: OutboundKey,
}

impl Drop for OutboundEntry {
    fn drop(&mut self) {
        release(&mut self.connections.listed.lock().outbound, &self.key);
    }
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
