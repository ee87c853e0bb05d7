//! The record of one connection: counted when its context is known, followed while it lives,
//! counted and logged exactly once at its end, however it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::access_log::{Addresses, Direction, Failure, Outcome};
use crate::context::{Context, Facts};
use crate::failure::ConnectionError;
use crate::metrics::{Flag, Followed, LiveBytes};
use crate::threads::Thread;

/// Addresses of a connection, as its lines name them.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// The tunnel's authority.
    pub(crate) hbone: Option<Box<str>>,
}

/// A connection that is counted. Dropping it before it is finished means it was cut.
#[derive(Debug)]
pub(crate) struct Record {
    thread: Rc<Thread>,
    context: Rc<Context>,
    endpoints: Endpoints,
    since: Instant,
    moved: Option<Arc<dyn LiveBytes>>,
    followed: Option<Followed>,
    finished: bool,
}

impl Record {
    /// Counts a connection that began at `since` and writes its first line.
    pub(crate) fn open(thread: &Rc<Thread>, facts: Facts, endpoints: Endpoints, since: Instant) -> Self {
        let context = thread.contexts.of(facts, &thread.counters);
        context.series.open();
        thread.log.opened(&context.ends, endpoints.addresses());
        let thread = Rc::clone(thread);
        Self { thread, context, endpoints, since, moved: None, followed: None, finished: false }
    }

    /// From now on bytes are moved.
    pub(crate) fn follow(&mut self, bytes: Arc<dyn LiveBytes>) {
        self.followed = Some(self.thread.counters.follow(&self.context.series, Arc::clone(&bytes)));
        self.moved = Some(bytes);
    }

    /// The connection has ended.
    pub(crate) fn finish(mut self, result: Result<(), &ConnectionError>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), &ConnectionError>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.followed = None;
        self.context.series.close(result.map_or_else(ConnectionError::flag, |()| Flag::None));
        let moved = self.moved.as_ref();
        let (received, sent) = moved.map_or((0, 0), |bytes| (bytes.received(), bytes.sent()));
        let (bytes_sent, bytes_received) = match self.context.ends.direction {
            Direction::Outbound => (received, sent),
            Direction::Inbound => (sent, received),
        };
        if let Err(error) = result {
            tracing::debug!(target: "ztunnel::proxy", fault = ?error.fault(), code = error.code(), "connection failed");
        }
        let text = result.err().map(ToString::to_string);
        let failure = result.err().zip(text.as_deref());
        let failure = failure.map(|(error, text)| Failure { text, code: error.code() });
        let duration = self.since.elapsed();
        let outcome = Outcome { bytes_sent, bytes_received, duration, failure };
        self.thread.log.complete(&self.context.ends, self.endpoints.addresses(), outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(Err(&ConnectionError::Drained));
    }
}

impl Endpoints {
    fn addresses(&self) -> Addresses<'_> {
        let Self { source, destination, hbone } = self;
        Addresses { source: *source, destination: *destination, hbone: hbone.as_deref() }
    }
}

/// Bytes of a tunnel joined to the originator's own socket: the outbound path.
#[derive(Debug)]
pub(crate) struct FromApplication(pub(crate) Arc<hbone::Counters>);

impl LiveBytes for FromApplication {
    fn received(&self) -> u64 {
        self.0.to_peer()
    }
    fn sent(&self) -> u64 {
        self.0.to_app()
    }
}

/// Bytes of a tunnel that the originator is at the far end of: the inbound path.
#[derive(Debug)]
pub(crate) struct FromPeer(pub(crate) Arc<hbone::Counters>);

impl LiveBytes for FromPeer {
    fn received(&self) -> u64 {
        self.0.to_app()
    }
    fn sent(&self) -> u64 {
        self.0.to_peer()
    }
}

/// Bytes of two joined sockets, the originator's first.
#[derive(Debug)]
pub(crate) struct Joined(pub(crate) Arc<net::relay::ByteCounts>);

impl LiveBytes for Joined {
    fn received(&self) -> u64 {
        self.0.a_to_b.load(Ordering::Relaxed)
    }
    fn sent(&self) -> u64 {
        self.0.b_to_a.load(Ordering::Relaxed)
    }
}
