//! The live connections of a pod: what the dump lists, and what a change of policy may cut.
//!
//! Each traffic thread has its own part, [`Connections`]. The list that the dump reads is behind a
//! lock that only this thread and a dump ever take; the means to cut never leave the thread.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use policy::Policy;
use state::{Mesh, Pod, Workload};
use wire::dump;

use crate::address::Address;
use crate::carried::Carriage;
use crate::slots::Slots;

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
    pub(crate) source: Address,
    pub(crate) original: Address,
    pub(crate) actual: Address,
    pub(crate) protocol: state::Protocol,
}

impl InboundKey {
    /// What policy asks about.
    pub(crate) fn facts(&self) -> policy::Connection {
        let (source_ip, source_identity) = (self.source.ip(), self.identity.clone());
        policy::Connection { source_ip, source_identity, destination: self.target }
    }
}

/// Who is listed holds no more than the number of its place.
#[derive(Debug, Default)]
struct Listed {
    inbound: Slots<Arc<InboundKey>>,
    outbound: Slots<Arc<OutboundKey>>,
}

/// The lists of all traffic threads of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionLists(Arc<Mutex<Vec<Arc<Mutex<Listed>>>>>);

impl ConnectionLists {
    /// The part of one more traffic thread.
    pub(crate) fn part(&self) -> Rc<Connections> {
        let listed = Arc::<Mutex<Listed>>::default();
        self.0.lock().push(Arc::clone(&listed));
        Rc::new(Connections {
            listed,
            open: RefCell::default(),
            next: Cell::new(0),
            judged_by: RefCell::default(),
            judged_below: Cell::new(0),
        })
    }

    /// The lists as the dump shows them, in a stable order.
    pub(crate) fn dump(&self) -> dump::Connections {
        let (mut inbound, mut outbound) = (HashSet::new(), HashSet::new());
        for listed in self.0.lock().iter() {
            let listed = listed.lock();
            inbound.extend(listed.inbound.iter().map(|key| InboundKey::clone(key)));
            outbound.extend(listed.outbound.iter().map(|key| OutboundKey::clone(key)));
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
    open: RefCell<BTreeMap<u64, Rc<Open>>>,
    next: Cell<u64>,
    /// The policies that connections were last judged by, and the number below which they were.
    judged_by: RefCell<Vec<Arc<Policy>>>,
    judged_below: Cell<u64>,
}

#[derive(Debug)]
struct Open {
    key: Arc<InboundKey>,
    /// In the list.
    place: u32,
    cut: Cut,
}

/// How an inbound connection learns that policy no longer allows it.
#[derive(Default)]
struct Cut {
    done: Cell<bool>,
    /// Who waits for it until then.
    waiting: Cell<Option<Waker>>,
    /// The connection, once its bytes flow.
    carriage: OnceCell<Weak<Carriage>>,
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cut").field("done", &self.done).finish_non_exhaustive()
    }
}

/// See [`InboundEntry::means_to_cut`].
#[derive(Debug)]
pub(crate) struct MeansToCut(Rc<Open>);

impl MeansToCut {
    /// From now on a cut ends this connection.
    pub(crate) fn ends(self, carriage: &Rc<Carriage>) {
        // Set once: it is carried once.
        let _ = self.0.cut.carriage.set(Rc::downgrade(carriage));
        if self.0.cut.done.get() {
            carriage.cut();
        }
    }
}

impl Connections {
    /// Lists an inbound connection and makes it subject to policy from now on. To be done before
    /// policy is asked the first time, so that no change is missed.
    pub(crate) fn inbound(self: &Rc<Self>, key: Arc<InboundKey>) -> InboundEntry {
        let id = self.number();
        let place = self.listed.lock().inbound.insert(Arc::clone(&key));
        let open = Rc::new(Open { key, place, cut: Cut::default() });
        self.open.borrow_mut().insert(id, Rc::clone(&open));
        InboundEntry { connections: Rc::clone(self), id, open }
    }

    /// Lists an outbound connection.
    pub(crate) fn outbound(self: &Rc<Self>, key: Arc<OutboundKey>) -> OutboundEntry {
        let place = self.listed.lock().outbound.insert(key);
        OutboundEntry { connections: Rc::clone(self), place }
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Judges inbound connections again, as things are now, and cuts those no longer allowed: all of them if other
    /// policies apply than the last time, else those that are new since then. Most changes of a mesh are not of policies.
    /// Returns how many it judged.
    ///
    /// A workload that discovery has withdrawn is judged as it was last known: `workload`.
    pub(crate) fn judge_again(&self, mesh: &Mesh, pod: &Pod, last_known: &Workload) -> usize {
        let local = mesh.local_workload(pod).map_or(last_known, |workload| workload);
        let policies = mesh.policies_for(local).policies;
        let from = if same(&policies, &self.judged_by.borrow()) { self.judged_below.get() } else { 0 };
        self.judged_below.set(self.next.get());
        let (mut judged, mut carried) = (0, Vec::new());
        for Open { key, cut, .. } in self.open.borrow().range(from..).map(|(_, open)| Rc::as_ref(open)) {
            judged += 1;
            if cut.done.get() || policy::evaluate(&policies, &key.facts()).is_allowed() {
                continue;
            }
            tracing::info!(
                target: "ztunnel::proxy::connection_manager",
                "connection {}({})->{} ({}) closed because it's no longer allowed after a policy update",
                key.source,
                key.identity.as_ref().map_or("None", |id| id.as_str()),
                key.target,
                local.uid,
            );
            cut.done.set(true);
            if let Some(waiting) = cut.waiting.take() {
                waiting.wake();
            }
            carried.extend(cut.carriage.get().and_then(Weak::upgrade));
        }
        // What ends is no longer listed.
        carried.into_iter().for_each(|carriage| carriage.cut());
        *self.judged_by.borrow_mut() = policies;
        judged
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
    id: u64,
    open: Rc<Open>,
}

/// While one waits for a cut. What it was to be woken by would keep a task's memory for as long as the connection lives.
struct Waiting<'c>(&'c Cut);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.take();
    }
}

impl InboundEntry {
    /// Resolves when policy no longer allows the connection.
    pub(crate) async fn disallowed(&self) {
        let waiting = Waiting(&self.open.cut);
        poll_fn(|context| {
            if self.is_disallowed() {
                return Poll::Ready(());
            }
            waiting.0.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Policy no longer allows the connection.
    pub(crate) fn is_disallowed(&self) -> bool {
        self.open.cut.done.get()
    }

    /// To have a task ended when policy no longer allows the connection.
    pub(crate) fn means_to_cut(&self) -> MeansToCut {
        MeansToCut(Rc::clone(&self.open))
    }
}

impl Drop for InboundEntry {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
        self.connections.listed.lock().inbound.remove(self.open.place);
    }
}

/// An outbound connection that is listed while this lives.
#[derive(Debug)]
pub(crate) struct OutboundEntry {
    connections: Rc<Connections>,
    place: u32,
}

impl Drop for OutboundEntry {
    fn drop(&mut self) {
        self.connections.listed.lock().outbound.remove(self.place);
    }
}

/// The same policies in the same versions.
fn same(these: &[Arc<Policy>], those: &[Arc<Policy>]) -> bool {
    these.len() == those.len() && these.iter().zip(those).all(|(this, that)| Arc::ptr_eq(this, that))
}

#[cfg(test)]
mod tests;
