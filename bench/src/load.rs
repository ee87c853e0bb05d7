//! The load tool: one thread that drives many connections and reports what it saw as JSON.
//!
//! What is measured is a window: it opens when every connection has done its first exchange and a short warm-up has
//! passed, and closes after the given time. CPU time of the proxies is read at both ends. Exchanges under way at the
//! end are finished before connections are closed, so that nothing is left over for whoever is measured next.

mod bulk;
mod exchange;
mod idle;
mod verify;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::processes::cpu_seconds;
use crate::sockets::widen_port_range;

/// Between the first exchange of the slowest connection and the measurement.
const WARM_UP: Duration = Duration::from_millis(250);
/// How long connections may take to do their first exchange, and the last ones to finish.
const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Blocks from the client to the server.
    Upload,
    /// Blocks from the server to the client.
    Download,
    /// Request and echo on kept connections.
    PingPong,
    /// Connect, one request and echo, close.
    Connect,
    /// HTTP requests on kept connections.
    Http,
    /// A connection for each HTTP request.
    HttpClose,
    /// Opens connections and holds them.
    Idle,
    /// Every byte compared.
    Verify,
}

/// Arguments of the load tool.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    pub(crate) kind: Kind,
    pub(crate) to: SocketAddr,
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Processes whose CPU time counts.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpu_of: Vec<u32>,
    /// Idle connections: report at each of these counts and wait for a line on standard input.
    #[arg(long, value_delimiter = ',')]
    pub(crate) steps: Vec<usize>,
}

/// What came out of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Exchanges, connections or (bulk) bytes within the window.
    pub(crate) amount: u64,
    /// The same from the very beginning to the end.
    pub(crate) amount_in_all: u64,
    /// Length of the window.
    pub(crate) seconds: f64,
    /// CPU time of the proxies within the window.
    pub(crate) cpu_seconds: f64,
    /// Microseconds per exchange; zero for bulk.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Connections that failed, and the first reason.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Outcome {
    /// Amount per second.
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { count(self.amount) / self.seconds } else { 0.0 }
    }

    /// Microseconds of CPU time per exchange, or per MB of bulk if `per` is a million.
    pub(crate) fn cpu_per(&self, per: f64) -> f64 {
        if self.amount == 0 { 0.0 } else { self.cpu_seconds * 1e6 * per / count(self.amount) }
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay below 2^52")]
pub(crate) fn count(amount: u64) -> f64 {
    amount as f64
}

/// Runs the load and gives what it saw; `None` if it has reported by itself.
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<Option<Outcome>> {
    widen_port_range();
    runtime::limits::raise_descriptor_limit()?;
    let window = Window::new(args.seconds, args.cpu_of.clone());
    Ok(match args.kind {
        Kind::Upload => Some(bulk::run(args, window, bulk::Direction::Up)?),
        Kind::Download => Some(bulk::run(args, window, bulk::Direction::Down)?),
        Kind::PingPong => Some(exchange::run(args, window, exchange::Exchange::echo(args.size))?),
        Kind::Connect => {
            Some(exchange::run(args, window, exchange::Exchange::echo(args.size).reconnecting())?)
        }
        Kind::Http => Some(exchange::run(args, window, exchange::Exchange::http(false))?),
        Kind::HttpClose => Some(exchange::run(args, window, exchange::Exchange::http(true).reconnecting())?),
        Kind::Idle => {
            idle::run(args)?;
            None
        }
        Kind::Verify => Some(verify::run(args.to)?),
    })
}

/// The stretch of time that counts.
#[derive(Debug)]
struct Window {
    length: Duration,
    cpu_of: Vec<u32>,
    begun: Instant,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Connections are still doing their first exchange.
    Starting,
    WarmingUp(Instant),
    Measuring {
        since: Instant,
        cpu: f64,
    },
    Ending {
        since: Instant,
        seconds: f64,
        cpu: f64,
    },
}

impl Window {
    fn new(seconds: f64, cpu_of: Vec<u32>) -> Self {
        let length = Duration::try_from_secs_f64(seconds).unwrap_or(WARM_UP);
        Self { length, cpu_of, begun: runtime::clock::monotonic(), stage: Stage::Starting }
    }

    /// Moves on with time; true when the measurement begins with this call.
    fn advance(&mut self, now: Instant, all_started: bool) -> anyhow::Result<bool> {
        match self.stage {
            Stage::Starting if all_started => self.stage = Stage::WarmingUp(now),
            Stage::Starting => anyhow::ensure!(
                now - self.begun < START_LIMIT,
                "not every connection had done its first exchange after {START_LIMIT:?}"
            ),
            Stage::WarmingUp(since) if now - since >= WARM_UP => {
                self.stage = Stage::Measuring { since: now, cpu: cpu_seconds(&self.cpu_of)? };
                return Ok(true);
            }
            Stage::Measuring { since, cpu } if now - since >= self.length => {
                let cpu = cpu_seconds(&self.cpu_of)? - cpu;
                self.stage = Stage::Ending { since: now, seconds: (now - since).as_secs_f64(), cpu };
            }
            Stage::Ending { since, .. } => anyhow::ensure!(
                now - since < END_LIMIT,
                "exchanges were still under way {END_LIMIT:?} after the end"
            ),
            Stage::WarmingUp(_) | Stage::Measuring { .. } => {}
        }
        Ok(false)
    }

    fn measures(&self) -> bool {
        matches!(self.stage, Stage::Measuring { .. })
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    fn outcome(&self) -> Outcome {
        match self.stage {
            Stage::Ending { seconds, cpu, .. } => Outcome { seconds, cpu_seconds: cpu, ..Outcome::default() },
            _ => Outcome::default(),
        }
    }
}

/// Counts connections that failed.
#[derive(Debug, Default)]
struct Failures {
    n: u64,
    first: Option<String>,
}

impl Failures {
    /// More would only say the same.
    const LIMIT: u64 = 1000;

    fn add(&mut self, error: impl std::fmt::Display) -> anyhow::Result<()> {
        let first = self.first.get_or_insert_with(|| error.to_string());
        self.n += 1;
        anyhow::ensure!(self.n < Self::LIMIT, "{} connections failed; the first one: {first}", self.n);
        Ok(())
    }
}
