//! What a process counts about its tunnels, whichever thread they live on.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::Limit;
use crate::core::Stats;

/// Totals over all connections that share these metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections whose TLS handshake succeeded.
    pub connections_opened: AtomicU64,
    /// Of those, connections that have ended.
    pub connections_closed: AtomicU64,
    /// Streams opened or accepted.
    pub streams: AtomicU64,
    /// Streams the peer reset.
    pub resets_received: AtomicU64,
    /// Streams we reset.
    pub resets_sent: AtomicU64,
    /// Requests refused for want of room or because of a drain.
    pub refused: AtomicU64,
    exceeded: [AtomicU64; Limit::ALL.len()],
    /// A connection has ended.
    closed: Notify,
}

impl Metrics {
    /// Resolves once every connection that was opened has said what it had to say, last words and close_notify, and its
    /// peer has closed or had its time to. A process that ends earlier takes some of that with it.
    pub async fn all_closed(&self) {
        loop {
            let changed = self.closed.notified();
            // In this order: what is opened in between is seen.
            let closed = self.connections_closed.load(Ordering::Acquire);
            if closed >= self.connections_opened.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn count_closed(&self) {
        self.connections_closed.fetch_add(1, Ordering::AcqRel);
        self.closed.notify_waiters();
    }

    /// How often peers went beyond this limit.
    pub fn exceeded(&self, limit: Limit) -> u64 {
        self.exceeded.get(limit as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn add_exceeded(&self, limit: Limit, times: u64) {
        if let Some(count) = self.exceeded.get(limit as usize) {
            count.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Adds what happened on one connection since `before`.
    pub(crate) fn add(&self, before: Stats, now: Stats) {
        let add = |total: &AtomicU64, before: u64, now: u64| {
            total.fetch_add(now - before, Ordering::Relaxed);
        };
        add(&self.streams, before.streams, now.streams);
        add(&self.resets_received, before.resets_received, now.resets_received);
        add(&self.resets_sent, before.resets_sent, now.resets_sent);
        add(&self.refused, before.refused, now.refused);
    }
}
