//! How the output leaves: sealed at the end of the tick, or at once behind a large read; what the socket does not take
//! waits, and everything keeps its order.

use super::{Link, MAX_OUTPUT, State};
use crate::ConnectionEnd;
use crate::scratch::{Batch, Scratch};

/// Buffers that have become larger than this are not kept for what is sent next.
const MOST_KEPT: usize = 64 << 10;

impl Link {
    /// Seals and sends the output now.
    pub(crate) fn flush(&self, state: &mut State) {
        if !state.has_output() || state.is_blocked() {
            return;
        }
        Scratch::lend(|scratch| {
            let State { core, records, .. } = &mut *state;
            scratch.sealed.clear();
            let was_full = core.output().len() >= MAX_OUTPUT;
            let sealed = records.seal(core.output(), &mut scratch.sealed);
            core.output().clear();
            if core.output().capacity() > MOST_KEPT {
                *core.output() = Vec::new();
            }
            match sealed {
                Ok(()) => self.send(state, &scratch.sealed),
                Err(error) => state.lose_now(ConnectionEnd::Tls(error.to_string())),
            }
            state.note_sealed(was_full);
        });
    }

    /// Seals the output into the batch where it is small, or sends both now: what is sealed next may follow.
    pub(crate) fn put_by(&self, state: &mut State, batch: &mut Option<Batch>, sealed: &mut Vec<u8>) {
        if state.core.output().is_empty() {
            return;
        }
        sealed.clear();
        let State { core, records, .. } = &mut *state;
        let was_full = core.output().len() >= MAX_OUTPUT;
        let outcome = records.seal(core.output(), sealed);
        core.output().clear();
        match outcome {
            Ok(()) => {
                let is_added = batch.as_mut().is_some_and(|batch| batch.append(sealed));
                // A batch that goes on has room for a read.
                if !is_added || batch.as_ref().is_some_and(Batch::is_full) {
                    state.batch = batch.take();
                    self.send(state, if is_added { &[] } else { sealed });
                }
            }
            Err(error) => state.lose_now(ConnectionEnd::Tls(error.to_string())),
        }
        state.note_sealed(was_full);
    }

    /// Seals what lies in the space of `batch`, which is kept for the end of the tick if it is not full. See
    /// [`Records::seal_slots`]; `before` is a buffer for what leaves first.
    pub(crate) fn send_batch(
        &self,
        state: &mut State,
        mut batch: Batch,
        contents: impl ExactSizeIterator<Item = usize>,
        before: &mut Vec<u8>,
    ) {
        before.clear();
        match state.records.seal_slots(batch.space(), contents, before) {
            Ok(octets) if before.is_empty() => {
                batch.extend(octets);
                let is_full = batch.is_full();
                state.batch = Some(batch);
                if is_full { self.send(state, &[]) } else { state.kick() }
            }
            Ok(octets) => {
                let (held, made) = batch.split(octets);
                self.offer(state, [held, before, made]);
            }
            Err(error) => state.lose_now(ConnectionEnd::Tls(error.to_string())),
        }
    }

    /// Seals what lies in `slots` behind the output and sends it now. See [`Records::seal_slots`]; `before` is a buffer
    /// for what leaves first.
    pub(crate) fn send_slots(
        &self,
        state: &mut State,
        slots: &mut [u8],
        contents: impl ExactSizeIterator<Item = usize>,
        before: &mut Vec<u8>,
    ) {
        before.clear();
        let State { core, records, .. } = &mut *state;
        let was_full = core.output().len() >= MAX_OUTPUT;
        let first = records.seal(core.output(), before);
        core.output().clear();
        match first.and_then(|()| records.seal_slots(slots, contents, before)) {
            Ok(end) => self.send_both(state, before, slots.get(..end).unwrap_or_default()),
            Err(error) => state.lose_now(ConnectionEnd::Tls(error.to_string())),
        }
        state.note_sealed(was_full);
    }

    /// Sends sealed records; what the socket does not take waits.
    pub(crate) fn send(&self, state: &mut State, sealed: &[u8]) {
        self.send_both(state, sealed, &[]);
    }

    /// The same from two buffers, behind the batch.
    fn send_both(&self, state: &mut State, first: &[u8], second: &[u8]) {
        let batch = state.batch.take();
        let held = batch.as_ref().map(Batch::records).unwrap_or_default();
        self.offer(state, [held, first, second]);
    }

    fn offer(&self, state: &mut State, pieces: [&[u8]; 3]) {
        if state.is_mute() {
            return;
        }
        let mut sent = 0;
        if !state.is_blocked() {
            match self.write(pieces) {
                Ok(written) => sent = written,
                Err(error) => return state.write_failed(&error),
            }
        }
        let octets = pieces.iter().map(|piece| piece.len()).sum();
        for piece in pieces {
            state.sealed.extend_from_slice(piece.get(sent..).unwrap_or_default());
            sent = sent.saturating_sub(piece.len());
        }
        let is_all = state.core.output().is_empty();
        state.unsent.note_offered(octets, is_all);
        state.note_taken();
        if state.is_blocked() {
            state.kick();
        }
    }

    /// Offers the socket what it did not take before. `true` when nothing is left.
    pub(crate) fn drain_sealed(&self, state: &mut State) -> bool {
        if !state.is_blocked() {
            return true;
        }
        if state.is_mute() {
            return false;
        }
        let rest = state.sealed.get(state.sent..).unwrap_or_default();
        match self.with_socket(|socket| socket.write(rest)) {
            Ok(written) => {
                state.sent += written;
                state.note_taken();
            }
            Err(error) => state.write_failed(&error),
        }
        if state.is_blocked() {
            return false;
        }
        state.sent = 0;
        // What is made next leaves at once, as a rule.
        state.sealed = Vec::new();
        state.wake_all();
        true
    }
}
