//! What the protocol core keeps of one stream.

use std::time::Instant;

use super::budget::Bucket;
use crate::Budget;

/// A stream that is in use, or over but with bytes its owner has not taken yet.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The peer may still send.
    pub(crate) recv_open: bool,
    /// We may still send.
    pub(crate) send_open: bool,
    /// Server: we have answered. Client: the final answer has come.
    pub(crate) answered: bool,
    /// What we may still send.
    pub(crate) send_window: i64,
    /// What the peer may still send.
    pub(crate) recv_window: i64,
    /// Consumed, but not yet given back to the peer.
    pub(crate) uncredited: u32,
    /// Handed to the owner and not yet consumed.
    pub(crate) unconsumed: u64,
    /// `content-length` of the peer's message, less what has come.
    pub(crate) content_left: Option<u64>,
    /// DATA frames without payload.
    pub(crate) empty_data: Bucket,
    /// Over, and no longer counted as open.
    pub(crate) left_the_count: bool,
}

impl Stream {
    pub(crate) fn new(send_window: i64, recv_window: u32, empty_data: Budget, now: Instant) -> Self {
        Self {
            recv_open: true,
            send_open: true,
            answered: false,
            send_window,
            recv_window: i64::from(recv_window),
            uncredited: 0,
            unconsumed: 0,
            content_left: None,
            empty_data: Bucket::new(empty_data, now),
            left_the_count: false,
        }
    }

    /// Counts against the limit of concurrent streams.
    pub(crate) fn is_open(&self) -> bool {
        self.recv_open || self.send_open
    }
}
