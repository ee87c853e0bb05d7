//! The queue of lines and the thread that writes them.
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Lines that may wait before those who log wait themselves.
pub const QUEUE_LINES: usize = 10_000;
/// Octets that may wait likewise: lines can be long.
pub const QUEUE_OCTETS: usize = 8 << 20;
/// Lines given to the output at once.
pub const BATCH_LINES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something to write.
    filled: Condvar,
    /// Something was written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<(Vec<u8>, usize)>,
    n_lines: usize,
    octets: usize,
    writing: bool,
}

impl Queue {
    pub(super) fn start(mut output: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let reader = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("logging".into())
            .spawn(move || reader.write_for_ever(&mut output))?;
        Ok(queue)
    }

    pub(super) fn push(&self, lines: Vec<u8>, n_lines: usize) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        while state.n_lines >= QUEUE_LINES || state.octets >= QUEUE_OCTETS {
            self.written.wait(&mut state);
        }
        state.n_lines += n_lines;
        state.octets += lines.len();
        state.chunks.push_back((lines, n_lines));
        drop(state);
        self.filled.notify_one();
    }

    /// Waits until all is written, at most this long.
    pub(super) fn flush(&self, limit: Duration) {
        let mut state = self.state.lock();
        let idle = |state: &mut State| !(state.n_lines == 0 && state.chunks.is_empty() && !state.writing);
        self.written.wait_while_for(&mut state, idle, limit);
    }

    fn write_for_ever(&self, output: &mut impl Write) {
        let mut batch = Vec::new();
        loop {
            self.take_batch(&mut batch);
            // Nowhere is left to tell of an output that fails (a closed pipe); the program goes on.
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            let mut state = self.state.lock();
            state.writing = false;
            drop(state);
            self.written.notify_all();
        }
    }

    /// Waits for lines and takes up to a batch of them; a chunk is never split.
    fn take_batch(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut state = self.state.lock();
        while state.chunks.is_empty() {
            self.filled.wait(&mut state);
        }
        let mut n_taken = 0;
        while let Some((chunk, n_lines)) = state.chunks.pop_front() {
            batch.extend_from_slice(&chunk);
            n_taken += n_lines;
            let next = state.chunks.front().map_or(usize::MAX, |(_, n)| *n);
            if n_taken.saturating_add(next) > BATCH_LINES {
                break;
            }
        }
        state.n_lines = state.n_lines.saturating_sub(n_taken);
        state.octets = state.octets.saturating_sub(batch.len());
        state.writing = true;
    }
}
