//! Buffers that a thread has once, whatever the number of its connections.

use std::cell::{Cell, RefCell};

use crate::record::RECORD;

/// TLS records (and DATA frames) filled by one read of an application's socket.
pub(crate) const SLOTS: usize = 16;

/// Octets of one slot: a TLS record that a DATA frame fills.
pub(crate) const SLOT: usize = RECORD;

/// Octets asked of a busy tunnel's socket at a time, and room for the record that was incomplete before.
const RECEIVE: usize = SLOTS * SLOT + SLOT + 512;

/// Octets asked of a tunnel's socket as long as none has ever had so many: what a sign of life needs is little.
const FIRST_RECEIVE: usize = 2 * SLOT;

/// See the module.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Records as received.
    pub(crate) wire: Wire,
    /// Their content.
    pub(crate) plain: Vec<u8>,
    /// Records to be sealed in place, one per slot.
    pub(crate) slots: Slots,
    /// Records to be sent.
    pub(crate) sealed: Vec<u8>,
}

/// The buffer that a tunnel's socket is read into. It grows once it has been filled.
#[derive(Debug)]
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    /// Where what was read before belongs, and behind it where to read to.
    pub(crate) fn split(&mut self, carried: usize) -> (&mut [u8], &mut [u8]) {
        if self.0.len() <= carried {
            self.0.resize(carried + RECEIVE, 0);
        }
        self.0.split_at_mut(carried)
    }

    /// The front: so many octets have been received. If that was all there was room for, there is more room next time.
    pub(crate) fn received(&mut self, octets: usize) -> &mut [u8] {
        if octets >= self.0.len() && octets < RECEIVE {
            self.0.resize(RECEIVE, 0);
        }
        self.0.get_mut(..octets).unwrap_or_default()
    }
}

/// Slots for records; as many as have been asked for.
#[derive(Debug)]
pub(crate) struct Slots(Vec<u8>);

impl Slots {
    /// So many octets, whole slots or a part.
    pub(crate) fn octets(&mut self, octets: usize) -> &mut [u8] {
        if self.0.len() < octets {
            self.0.resize(octets, 0);
        }
        self.0.get_mut(..octets).unwrap_or_default()
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static BATCHES: RefCell<Batches> = const { RefCell::new(Batches { spare: Vec::new(), lent: 0 }) };
}

/// Connections of a thread that may hold a batch at a time; the others send at once.
const MOST_BATCHES: usize = 2;

/// A batch that has become so long is sent without waiting for the end of the tick.
const FULL: usize = 4 * SLOT;

/// The buffers of batches.
struct Batches {
    spare: Vec<Vec<u8>>,
    lent: usize,
}

/// Sealed records of one connection, from several streams maybe, that leave together at the end of the tick. The
/// buffer is the thread's.
#[derive(Debug)]
pub(crate) struct Batch {
    slots: Vec<u8>,
    end: usize,
}

impl Batch {
    /// An empty one, if the thread has one left.
    pub(crate) fn begin() -> Option<Self> {
        BATCHES.with_borrow_mut(|batches| {
            if batches.lent == MOST_BATCHES {
                return None;
            }
            batches.lent += 1;
            Some(Self { slots: batches.spare.pop().unwrap_or_else(|| vec![0; SLOTS * SLOT]), end: 0 })
        })
    }

    /// The sealed records.
    pub(crate) fn records(&self) -> &[u8] {
        self.slots.get(..self.end).unwrap_or_default()
    }

    /// Where further records are made.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.slots.get_mut(self.end..).unwrap_or_default()
    }

    /// Whole slots in that space.
    pub(crate) fn free_slots(&self) -> usize {
        (self.slots.len() - self.end) / SLOT
    }

    /// So many octets of the space are sealed records now.
    pub(crate) fn extend(&mut self, octets: usize) {
        self.end = self.slots.len().min(self.end + octets);
    }

    /// The sealed records, and so many octets behind them.
    pub(crate) fn split(&self, octets: usize) -> (&[u8], &[u8]) {
        let (held, space) = self.slots.split_at(self.end);
        (held, space.get(..octets).unwrap_or_default())
    }

    /// Adds sealed records; `false` if there is no room.
    pub(crate) fn append(&mut self, records: &[u8]) -> bool {
        let Some(space) = self.space().get_mut(..records.len()) else { return false };
        space.copy_from_slice(records);
        self.extend(records.len());
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// It is not worth waiting for more.
    pub(crate) fn is_full(&self) -> bool {
        self.end >= FULL
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        // A thread that ends needs no buffers.
        let _ = BATCHES.try_with(|batches| {
            let mut batches = batches.borrow_mut();
            batches.lent -= 1;
            batches.spare.push(slots);
        });
    }
}

impl Scratch {
    /// Lends the thread's buffers to `work`. A nested call gets buffers of its own.
    pub(crate) fn lend<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| {
            Box::new(Self {
                wire: Wire(vec![0; FIRST_RECEIVE]),
                plain: Vec::with_capacity(RECEIVE),
                slots: Slots(Vec::new()),
                sealed: Vec::with_capacity(SLOTS * (SLOT + 64) + 64),
            })
        });
        let result = work(&mut scratch);
        SCRATCH.set(Some(scratch));
        result
    }
}

/// Lets this thread's buffers go; the next message makes new ones. For a thread that has come to rest.
pub fn let_buffers_go() {
    SCRATCH.take();
    BATCHES.with_borrow_mut(|batches| batches.spare = Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receive_buffer_grows_once_it_has_been_filled() {
        let mut wire = Wire(vec![0; FIRST_RECEIVE]);
        let (front, space) = wire.split(100);
        assert_eq!((front.len(), space.len()), (100, FIRST_RECEIVE - 100));
        assert_eq!(wire.received(FIRST_RECEIVE - 1).len(), FIRST_RECEIVE - 1);
        assert_eq!(wire.split(0).1.len(), FIRST_RECEIVE);
        assert_eq!(wire.received(FIRST_RECEIVE).len(), FIRST_RECEIVE);
        assert_eq!(wire.split(0).1.len(), RECEIVE);
        assert_eq!(wire.received(RECEIVE).len(), RECEIVE);
        assert_eq!(wire.split(0).1.len(), RECEIVE, "and no further");
        assert!(wire.split(2 * RECEIVE).1.len() >= SLOT, "whatever was received during the handshake");
    }

    #[test]
    fn buffers_of_batches_go_too() {
        drop(Batch::begin());
        let spare = || BATCHES.with_borrow(|batches| batches.spare.len());
        assert_eq!(spare(), 1);
        let_buffers_go();
        assert_eq!(spare(), 0);
    }
}
