//! The byte relay of plaintext paths: two TCP connections become one.
//!
//! Both directions run until both have ended. An orderly end (FIN) of one side is passed on as an orderly end, a
//! reset (RST) as a reset, so the far side can tell a finished stream from a cut one. One scratch buffer per thread
//! serves all connections, and pipes belong to bulk transfers only: an idle connection holds neither.
mod pump;

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::Either;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::socket::{delivered, rst_on_close};
pub use pump::Way;
use pump::{End, pump};

#[cfg(test)]
mod tests;

/// How long what a side said before it cut its connection may take to reach the other.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Bytes taken from each side so far; may be read while the relay runs.
#[derive(Debug, Default)]
pub struct ByteCounts {
    /// From the first connection to the second.
    pub a_to_b: AtomicU64,
    /// From the second connection to the first.
    pub b_to_a: AtomicU64,
}

/// A relayed connection did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The first connection failed (reset, timed out, …); the second was reset.
    #[error("{0}")]
    A(#[source] io::Error),
    /// The second connection failed; the first was reset.
    #[error("{0}")]
    B(#[source] io::Error),
}

impl RelayError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        "relay-connection-failed"
    }
}

/// Relays until both directions have ended. Dropping the future resets both connections: what was cut must not look
/// complete.
pub async fn relay(a: TcpStream, b: TcpStream, counts: &ByteCounts) -> Result<(), RelayError> {
    relay_by(Way::Adaptive, a, b, counts).await
}

/// The same in a given way: for those who compare them.
pub async fn relay_by(way: Way, a: TcpStream, b: TcpStream, counts: &ByteCounts) -> Result<(), RelayError> {
    let mut joined = Joined { a, b, in_order: false };
    let cut_at = OnceLock::new();
    let result = {
        let (mut read_a, write_a) = joined.a.split();
        let (mut read_b, write_b) = joined.b.split();
        let (forth_ended, back_ended) = (Notify::new(), Notify::new());
        let (a_is_cut, b_is_cut) = (AtomicBool::new(false), AtomicBool::new(false));
        let cut_at = &cut_at;
        let forth = async {
            let ended = async {
                let pumped = pump(&mut read_a, write_b, &a_is_cut, &counts.a_to_b, way).await;
                unless_cut(pumped, cut_at, &b_is_cut, &a_is_cut, back_ended.notified()).await?;
                forth_ended.notify_one();
                reset_unless(back_ended.notified(), read_a.as_ref()).await
            };
            ended.await.map_err(|end| match end {
                End::Reader(error) => RelayError::A(error),
                End::Writer(error) => RelayError::B(error),
            })
        };
        let back = async {
            let ended = async {
                let pumped = pump(&mut read_b, write_a, &b_is_cut, &counts.b_to_a, way).await;
                unless_cut(pumped, cut_at, &a_is_cut, &b_is_cut, forth_ended.notified()).await?;
                back_ended.notify_one();
                reset_unless(forth_ended.notified(), read_b.as_ref()).await
            };
            ended.await.map_err(|end| match end {
                End::Reader(error) => RelayError::B(error),
                End::Writer(error) => RelayError::A(error),
            })
        };
        futures::future::try_join(forth, back).await.map(|_| ())
    };
    joined.in_order = result.is_ok();
    let other = match &result {
        Ok(()) => return result,
        Err(RelayError::A(_)) => &joined.b,
        Err(RelayError::B(_)) => &joined.a,
    };
    // The reset that follows takes along what its socket has not sent. In a box: idle connections have no room for it.
    let until = *cut_at.get_or_init(Instant::now) + LAST_WORDS;
    let _ = Box::pin(tokio::time::timeout_at(until, delivered(other))).await;
    result
}

/// Two connections that end together.
struct Joined {
    a: TcpStream,
    b: TcpStream,
    /// Both directions have ended.
    in_order: bool,
}

impl Drop for Joined {
    fn drop(&mut self) {
        if !self.in_order {
            // The side that failed is gone already; for the other the cut must be visible.
            let _ = rst_on_close(&self.a);
            let _ = rst_on_close(&self.b);
        }
    }
}

/// A side that takes nothing any more may have said its last before it cut its connection: a server that refuses an
/// upload, say. The direction that reads it brings that across first, unless the other side is gone as well.
async fn unless_cut(
    pumped: Result<(), End>,
    cut_at: &OnceLock<Instant>,
    writer_is_cut: &AtomicBool,
    reader_is_cut: &AtomicBool,
    the_writer_is_read: impl Future<Output = ()>,
) -> Result<(), End> {
    if matches!(pumped, Err(End::Writer(_))) {
        writer_is_cut.store(true, Ordering::Relaxed);
        if !reader_is_cut.load(Ordering::Relaxed) {
            let until = *cut_at.get_or_init(Instant::now) + LAST_WORDS;
            let _ = tokio::time::timeout_at(until, the_writer_is_read).await;
        }
    }
    pumped
}

/// A side that has said its last may still be reset while it listens; nobody would notice before the next write to it,
/// which may never come.
async fn reset_unless(other_ended: impl Future<Output = ()>, side: &TcpStream) -> Result<(), End> {
    let reset = async {
        match side.ready(Interest::ERROR).await {
            Ok(_) => side.take_error().unwrap_or_else(Some),
            Err(error) => Some(error),
        }
    };
    let (other_ended, reset) = (std::pin::pin!(other_ended), std::pin::pin!(reset));
    match futures::future::select(other_ended, reset).await {
        Either::Right((Some(error), _)) => Err(End::Reader(error)),
        // Somebody else has seen the error first, and says so.
        Either::Right((None, other_ended)) => {
            other_ended.await;
            Ok(())
        }
        Either::Left(_) => Ok(()),
    }
}
