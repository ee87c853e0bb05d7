//! Steps 6 and 7 of every path: connections whose bytes flow, and how they end.
//!
//! Each is one small task that looks at nothing but its sockets. What ends it before its relay does, a drain or a
//! policy, is waited for once for all of them: waited for by each, it would cost an idle connection half its memory and
//! a busy one a lock per message.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use runtime::drain::{Drain, Guard};
use runtime::tasks::{Place, TaskGroup};
use tokio::task::AbortHandle;
use tracing::Span;

use crate::connections::{InboundEntry, OutboundEntry};
use crate::failure::ConnectionError;
use crate::metrics::OpenSocket;
use crate::record::Record;
use crate::relay::Relay;
use crate::slots::Slots;

/// A connection whose bytes flow. This is all that an idle one holds beside its sockets.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) record: Record,
    pub(crate) entry: Entry,
    /// The accepted socket, where it is this connection's alone.
    pub(crate) open: Option<OpenSocket>,
    /// What its last line belongs to, if anybody wants to know.
    pub(crate) span: Option<Box<Span>>,
    pub(crate) guard: Guard,
}

/// A connection's place in the lists.
#[derive(Debug)]
pub(crate) enum Entry {
    Outbound(#[expect(dead_code, reason = "dropping it is what counts")] OutboundEntry),
    Inbound(InboundEntry),
}

impl Established {
    /// Step 7. Listed until the last line is written, and the drain waits for it.
    fn finish(self, result: Result<(), &ConnectionError>) {
        let Self { record, entry, open, span, guard } = self;
        let write = || record.finish(result);
        match span {
            Some(span) => span.in_scope(write),
            None => write(),
        }
        drop((entry, open));
        drop(guard);
    }

    /// It was ended from outside.
    fn cut(self) {
        let disallowed = matches!(&self.entry, Entry::Inbound(entry) if entry.is_disallowed());
        let why = if disallowed { ConnectionError::PolicyChanged } else { ConnectionError::Drained };
        self.finish(Err(&why));
    }
}

/// The connections of one pod, thread and kind: they are cut together.
#[derive(Debug)]
pub(crate) struct Carried {
    drain: Drain,
    running: RefCell<Slots<Rc<Carriage>>>,
    cut: Cell<bool>,
}

impl Carried {
    /// Connections that are cut with this drain, and with the group at the latest.
    pub(crate) fn until_cut(drain: &Drain, group: &TaskGroup) -> Rc<Self> {
        let (running, cut) = (RefCell::default(), Cell::new(false));
        let carried = Rc::new(Self { drain: drain.clone(), running, cut });
        let (end, drain) = (CutAtEnd(Rc::clone(&carried)), drain.clone());
        group.spawn_local("cut", async move {
            let _end = end;
            drain.cut().await;
        });
        carried
    }

    /// Relays until the relay has ended, the connection is no longer allowed, or all are cut. A task of `group`.
    pub(crate) fn carry(self: &Rc<Self>, group: &TaskGroup, relay: Relay, established: Established) {
        let cut = match &established.entry {
            Entry::Inbound(entry) => Some(entry.means_to_cut()),
            Entry::Outbound(_) => None,
        };
        let mut carriage = None;
        let task = group.spawn_local_of_owner("carried connection", |place| {
            let carrying = Carrying(Rc::new(Carriage {
                work: RefCell::new(Some((relay, established))),
                task: OnceCell::new(),
                number: Cell::new(None),
                carried: Rc::clone(self),
                place: Cell::new(Some(place)),
            }));
            carriage = Some(Rc::clone(&carrying.0));
            carrying
        });
        let Some(carriage) = carriage else { return };
        // Set once: a connection has one task.
        let _ = carriage.task.set(task);
        if self.cut.get() {
            return carriage.cut();
        }
        if let Some(cut) = cut {
            cut.ends(&carriage);
        }
        let number = self.running.borrow_mut().insert(Rc::clone(&carriage));
        carriage.number.set(Some(number));
    }

    /// Cuts all of them, and those to come.
    fn cut(&self) {
        self.cut.set(true);
        for carriage in self.running.take().into_values() {
            carriage.cut();
        }
    }

    /// Nothing comes after all were cut, so a number is that of its own connection.
    fn over(&self, number: u32) {
        let carriage = self.running.borrow_mut().remove(number);
        drop(carriage);
    }
}

/// However the waiting ends.
struct CutAtEnd(Rc<Carried>);

impl Drop for CutAtEnd {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// One connection, shared by its task and by those who may end it: at once, for with the next turn of the event loop
/// others could have moved bytes that nobody counts any more, or closed what its last words leave by.
pub(crate) struct Carriage {
    work: RefCell<Option<(Relay, Established)>>,
    task: OnceCell<AbortHandle>,
    /// Its place among those that run.
    number: Cell<Option<u32>>,
    carried: Rc<Carried>,
    /// Its task's, as long as that lives.
    place: Cell<Option<Place>>,
}

impl fmt::Debug for Carriage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carriage")
    }
}

impl Carriage {
    /// Ends the connection.
    pub(crate) fn cut(&self) {
        let work = self.work.try_borrow_mut().ok().and_then(|mut work| work.take());
        if let Some((relay, established)) = work {
            drop(relay);
            established.cut();
        }
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// The task of one connection. No more than this: what the event loop keeps of a task is twice as large, for the sake of its
/// alignment, from the first octet on that does not fit.
struct Carrying(Rc<Carriage>);

impl Future for Carrying {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Carriage { work, carried, .. } = &*self.0;
        let mut work = work.borrow_mut();
        let Some((relay, _)) = work.as_mut() else { return Poll::Ready(()) };
        let result = ready!(Pin::new(relay).poll(context));
        let over = work.take();
        drop(work);
        let Some((relay, established)) = over else { return Poll::Ready(()) };
        drop(relay);
        if result.is_err() && carried.drain.is_cut() {
            // Whoever was cut at the same time may have been faster than our own cut.
            established.cut();
        } else {
            established.finish(result.as_ref().copied());
        }
        Poll::Ready(())
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        let Carriage { carried, number, place, .. } = &*self.0;
        // However it comes to its end, the group may take it for over only then.
        let _place = place.take();
        self.0.cut();
        if let Some(number) = number.take() {
            carried.over(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // Of the task itself the event loop keeps 128 octets up to here; the relay lies in the other.
        let sizes = [size_of::<Carrying>(), size_of::<Carriage>()];
        assert!(sizes[0] <= 24 && sizes[1] <= 280, "{sizes:?} octets");
    }
}
