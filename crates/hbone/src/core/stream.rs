//! What the protocol core keeps of one stream.

use std::time::Instant;

use super::budget::Bucket;
use super::relief::Wait;
use super::window::Pace;
use crate::Budgets;

/// A stream that is in use, or over but with bytes its owner has not taken yet.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The peer may still send.
    pub(crate) recv_open: bool,
    /// We may still send.
    pub(crate) send_open: bool,
    /// Server: we have answered. Client: the final answer has come.
    pub(crate) answered: bool,
    /// What we may still send, less the peer's initial window: that may change at any time, for all streams.
    pub(crate) granted: i64,
    /// What the peer may still send.
    pub(crate) recv_window: i64,
    /// What the peer should be able to send ahead of the owner.
    pub(crate) window: u32,
    /// What `window` follows.
    pub(crate) pace: Pace,
    /// Handed to the owner and not yet consumed.
    pub(crate) unconsumed: u64,
    /// How long the first of that, or the request, has waited.
    pub(crate) wait: Wait,
    /// Octets of a request that waits for its answer.
    pub(crate) request: u32,
    /// `content-length` of the peer's message, less what has come. Hardly any peer says one.
    pub(crate) content_left: Option<Box<u64>>,
    /// DATA frames without payload.
    pub(crate) empty_data: Bucket,
    /// DATA frames with next to none.
    pub(crate) small_data: Bucket,
    /// Window updates that allow next to nothing.
    pub(crate) small_windows: Bucket,
    /// Over, and no longer counted as open.
    pub(crate) left_the_count: bool,
}

impl Stream {
    pub(crate) fn new(window: u32, recv_window: u32, budgets: &Budgets, now: Instant) -> Self {
        Self {
            recv_open: true,
            send_open: true,
            answered: false,
            granted: 0,
            recv_window: i64::from(recv_window),
            window,
            pace: Pace::new(now),
            unconsumed: 0,
            wait: Wait::new(now),
            request: 0,
            content_left: None,
            empty_data: Bucket::new(budgets.empty_data, now),
            small_data: Bucket::new(budgets.small_data, now),
            small_windows: Bucket::new(budgets.small_windows, now),
            left_the_count: false,
        }
    }

    /// Octets kept here for an owner who has not taken them.
    pub(crate) fn unread(&self) -> u64 {
        self.unconsumed + u64::from(self.request)
    }

    /// Memory that is promised to the peer or in use.
    pub(crate) fn held(&self) -> i64 {
        let promised = if self.recv_open { self.recv_window } else { 0 };
        promised + i64::try_from(self.unconsumed).unwrap_or(i64::MAX)
    }

    /// Counts against the limit of concurrent streams.
    pub(crate) fn is_open(&self) -> bool {
        self.recv_open || self.send_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_is_small() {
        assert!(size_of::<Stream>() <= 120, "{} octets", size_of::<Stream>());
    }
}
