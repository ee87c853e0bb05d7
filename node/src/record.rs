//! The record of one connection: counted when its context is known, followed while it lives,
//! counted and logged exactly once at its end, however it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::access_log::{Addresses, Direction, Failure, Outcome};
use crate::connections::OutboundKey;
use crate::context::{Context, Facts};
use crate::failure::ConnectionError;
use crate::metrics::{Flag, Followed, LiveBytes, Moved};
use crate::threads::Thread;

/// Addresses of a connection, as its lines name them. There are many connections: what is known elsewhere is not kept
/// again.
#[derive(Clone, Debug)]
pub(crate) enum Endpoints {
    /// Those that the dump lists, and the tunnel's authority.
    Listed(Arc<OutboundKey>, Option<Arc<str>>),
    /// Those of several connections.
    Shared(Rc<Ends>),
}

/// See [`Endpoints`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ends {
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
    followed: Option<Followed>,
    finished: bool,
}

impl Record {
    /// Counts a connection that began at `since` and writes its first line.
    pub(crate) fn open(thread: &Rc<Thread>, facts: Facts, mut endpoints: Endpoints, since: Instant) -> Self {
        let context = thread.contexts.of(facts, &thread.counters);
        if let Endpoints::Listed(_, Some(authority)) = &mut endpoints {
            context.share(authority);
        }
        context.series.open();
        thread.log.opened(&context.ends, endpoints.addresses());
        let thread = Rc::clone(thread);
        Self { thread, context, endpoints, since, followed: None, finished: false }
    }

    /// From now on bytes are moved.
    pub(crate) fn follow(&mut self, bytes: LiveBytes) {
        self.followed = Some(self.thread.counters.follow(&self.context.series, bytes));
    }

    /// The connection has ended.
    pub(crate) fn finish(mut self, result: Result<(), &ConnectionError>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), &ConnectionError>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let followed = self.followed.take().map(|followed| self.thread.counters.end(followed));
        let Moved { received, sent } = followed.unwrap_or_default();
        self.context.series.close(result.map_or_else(ConnectionError::flag, |()| Flag::None));
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
        match self {
            Self::Listed(key, hbone) => {
                let (source, destination) = (key.source.into(), key.actual.into());
                Addresses { source, destination, hbone: hbone.as_deref() }
            }
            Self::Shared(ends) => {
                let Ends { source, destination, hbone } = &**ends;
                Addresses { source: *source, destination: *destination, hbone: hbone.as_deref() }
            }
        }
    }
}
