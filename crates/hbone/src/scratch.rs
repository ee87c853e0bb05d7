//! Buffers that a thread has once, whatever the number of its connections.

use std::cell::Cell;

use crate::record::RECORD;

/// TLS records (and DATA frames) filled by one read of an application's socket.
pub(crate) const SLOTS: usize = 16;

/// Octets of one slot: a TLS record that a DATA frame fills.
pub(crate) const SLOT: usize = RECORD;

/// Octets asked of a tunnel's socket at a time, and room for the record that was incomplete before.
const RECEIVE: usize = SLOTS * SLOT + SLOT + 512;

/// See the module.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Records as received.
    pub(crate) wire: Vec<u8>,
    /// Their content.
    pub(crate) plain: Vec<u8>,
    /// Records to be sealed in place, one per slot.
    pub(crate) slots: Vec<u8>,
    /// Records to be sent.
    pub(crate) sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Lends the thread's buffers to `work`. A nested call gets buffers of its own.
    pub(crate) fn lend<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| {
            Box::new(Self {
                wire: vec![0; RECEIVE],
                plain: Vec::with_capacity(RECEIVE),
                slots: vec![0; SLOTS * SLOT],
                sealed: Vec::with_capacity(SLOTS * (SLOT + 64) + 64),
            })
        });
        let result = work(&mut scratch);
        SCRATCH.set(Some(scratch));
        result
    }
}
