//! The access log: one line per connection, in the two layouts of the log (data-path 10.5).
//!
//! Lines go to a buffer of the thread and from there, batch by batch, to the log's writer. Names
//! of the two ends are put together once per pair of workloads, by `context`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::logging::{Line, Logging, TargetLevel};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Level;

/// The target of these lines in filters and on the lines.
const TARGET: &str = "access";

/// Time between two batches, unless one is full.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Octets of a full batch.
const MAX_BATCH: usize = 64 << 10;

/// Octets of a text by which a peer can lengthen a line.
const MAX_TEXT: usize = 512;

/// The path that a connection took through this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From a local workload.
    Outbound,
    /// To a local workload.
    Inbound,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// One end of a connection as the line names it; empty text is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// Name of the workload, else its canonical service.
    pub(crate) workload: String,
    pub(crate) namespace: String,
    /// Only with mutual TLS.
    pub(crate) identity: String,
    pub(crate) cluster: String,
}

/// Both ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) source: Named,
    /// Hostname of the service that was called.
    pub(crate) service: String,
    pub(crate) destination: Named,
    pub(crate) direction: Direction,
}

/// What is particular to one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// The tunnel's authority.
    pub(crate) hbone: Option<&'a str>,
}

/// How a connection ended. Byte counts are seen from the application on this proxy's side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) duration: Duration,
    pub(crate) failure: Option<Failure<'a>>,
}

/// Text and stable code of what went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) text: &'a str,
    pub(crate) code: &'static str,
}

/// One thread's access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    logging: Logging,
    level: TargetLevel,
    clock: Clock,
    batch: RefCell<Batch>,
    waiting: Notify,
    full: Notify,
}

#[derive(Debug, Default)]
struct Batch {
    text: String,
    n_lines: usize,
}

impl AccessLog {
    pub(crate) fn new(logging: Logging, clock: Clock) -> Self {
        let level = logging.target_level(TARGET);
        Self { logging, level, clock, batch: RefCell::default(), waiting: Notify::new(), full: Notify::new() }
    }

    /// The context of a connection has been built.
    pub(crate) fn opened(&self, ends: &Ends, addresses: Addresses<'_>) {
        self.write(Level::DEBUG, "connection opened", |line| connection(line, ends, addresses));
    }

    /// A connection has ended.
    pub(crate) fn complete(&self, ends: &Ends, addresses: Addresses<'_>, outcome: Outcome<'_>) {
        let level = if outcome.failure.is_some() { Level::ERROR } else { Level::INFO };
        self.write(level, "connection complete", |line| {
            connection(line, ends, addresses);
            line.bare("bytes_sent", outcome.bytes_sent);
            line.bare("bytes_recv", outcome.bytes_received);
            line.text("duration", &format!("{}ms", outcome.duration.as_millis()));
            if let Some(failure) = outcome.failure {
                line.text("error", &cut(failure.text)).text("code", failure.code);
            }
        });
    }

    /// A connection was refused before anything was known about its ends.
    pub(crate) fn failed(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        direction: Direction,
        failure: Failure<'_>,
    ) {
        self.write(Level::WARN, "connection failed", |line| {
            line.display("src.addr", source).display("dst.addr", destination);
            line.text("direction", direction.as_str());
            line.text("error", &cut(failure.text)).text("code", failure.code);
        });
    }

    fn write(&self, level: Level, message: &str, fields: impl FnOnce(&mut Line)) {
        if !self.level.enabled(level) {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        let text = std::mem::take(&mut batch.text);
        let format = self.logging.format();
        let now = self.clock.wall();
        let mut line = Line::begin(text, format, now, level, TARGET, Some(message));
        fields(&mut line);
        batch.text = line.end();
        batch.n_lines += 1;
        self.waiting.notify_one();
        if batch.text.len() >= MAX_BATCH {
            self.full.notify_one();
        }
    }

    /// Hands batches to the writer. A line after a pause goes at once; those that follow wait for each other, because
    /// each batch wakes the writer's thread. Runs for ever.
    pub(crate) async fn hand_over(&self, pause: Duration) {
        let mut next = Instant::now();
        loop {
            self.waiting.notified().await;
            if next > Instant::now() {
                // Too early or not, a batch is flushed once.
                let _ = tokio::time::timeout_at(next, self.full.notified()).await;
            }
            self.flush();
            next = Instant::now() + pause;
        }
    }

    /// Hands over what is waiting now.
    pub(crate) fn flush(&self) {
        let Batch { text, n_lines } = self.batch.take();
        if n_lines > 0 {
            self.logging.push(text.into_bytes(), n_lines);
        }
    }
}

impl Drop for AccessLog {
    /// The last connections end with the thread.
    fn drop(&mut self) {
        self.flush();
    }
}

fn connection(line: &mut Line, ends: &Ends, addresses: Addresses<'_>) {
    line.display("src.addr", addresses.source);
    named(line, &ends.source, ["src.workload", "src.namespace", "src.identity", "src.cluster"]);
    line.display("dst.addr", addresses.destination);
    match addresses.hbone.map(cut).as_deref() {
        Some(authority) if authority.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') => {
            line.display("dst.hbone_addr", authority);
        }
        // Nothing a peer sends may break the line.
        Some(authority) => {
            line.text("dst.hbone_addr", authority);
        }
        None => {}
    }
    known(line, "dst.service", &ends.service);
    named(line, &ends.destination, ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"]);
    line.text("direction", ends.direction.as_str());
}

fn named(line: &mut Line, end: &Named, keys: [&str; 4]) {
    let values = [&end.workload, &end.namespace, &end.identity, &end.cluster];
    for (key, value) in keys.into_iter().zip(values) {
        known(line, key, value);
    }
}

/// A text, or its beginning and how much more there was.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return text.into();
    }
    let (kept, rest) = text.split_at(text.floor_char_boundary(MAX_TEXT));
    format!("{kept}… ({} more octets)", rest.len()).into()
}

fn known(line: &mut Line, key: &str, value: &str) {
    if !value.is_empty() {
        line.text(key, value);
    }
}

#[cfg(test)]
mod tests;
