//! What the tunnels of a process hold in memory, whichever thread they live on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Octets received for applications, and to be sent to peers, that they do not take, and what is collected of frames
/// and requests; with a limit for all tunnels.
///
/// Beyond it new streams are refused and windows shrink to their floor; streams that run are never cut for it.
#[derive(Debug)]
pub struct Memory {
    held: AtomicU64,
    limit: u64,
}

impl Memory {
    /// Nothing held; `limit` in octets.
    pub fn new(limit: u64) -> Self {
        Self { held: AtomicU64::new(0), limit }
    }

    /// Octets held now, as of each tunnel's last turn.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The limit, in octets.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn is_short(&self) -> bool {
        self.held() > self.limit
    }

    /// One tunnel holds `now` instead of `before`.
    pub(crate) fn shift(&self, before: u64, now: u64) {
        if now >= before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}
