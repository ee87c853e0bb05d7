//! Log lines in two layouts (control-and-operations 8), written by a thread of their own.
//!
//! [`Logging::init`] once per process; then `tracing` everywhere. Lines that are too many for tracing (one per
//! connection) are built with [`Line`] and pushed with [`Logging::push`] after asking a [`TargetLevel`].
//! Nothing is dropped: when [`QUEUE_LINES`] lines or [`QUEUE_OCTETS`] wait, those who log wait too.
mod filter;
mod layer;
mod line;
mod queue;

pub use filter::{AdjustError, Alias, TargetLevel};
pub use line::{Format, Line};
pub use queue::{BATCH_LINES, QUEUE_LINES, QUEUE_OCTETS};

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;

use filter::Filter;
use queue::Queue;

/// At exit: how long to wait for room in the queue, and then for the writer.
const FLUSH_WAIT: Duration = Duration::from_millis(1100);

/// What to log and how.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Layout.
    pub format: Format,
    /// Directives that always come first, e.g. `hickory_server::server=off`.
    pub base: &'static str,
    /// Value of `RUST_LOG`: unset means `info`, empty means `error`.
    pub filter: Option<String>,
    /// Other names for our targets in filters.
    pub aliases: &'static [Alias],
    /// What stands for `ztunnel` in the scopes of JSON lines; empty: itself. Only the node proxy is one.
    pub program: &'static str,
}

/// Logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The start-up filter is nonsense.
    #[error("invalid env var RUST_LOG={value} ({reason})")]
    InvalidFilter {
        /// As given.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// Somebody was first.
    #[error("logging is already set up in this process")]
    AlreadySet,
    /// No thread to be had.
    #[error("cannot start the log writer: {0}")]
    Thread(#[from] std::io::Error),
}

impl LoggingError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidFilter { .. } => "config-invalid-env",
            Self::AlreadySet => "logging-already-set",
            Self::Thread(_) => "logging-no-thread",
        }
    }
}

/// Handle to the running logging; cheap to clone.
#[derive(Debug, Clone)]
pub struct Logging {
    queue: Arc<Queue>,
    filter: Arc<Filter>,
    format: Format,
}

impl Logging {
    /// Sets up logging to standard output for the whole process, panics included.
    pub fn init(settings: Settings) -> Result<Self, LoggingError> {
        let (logging, subscriber) = Self::build(settings, std::io::stdout())?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::AlreadySet)?;
        let before = std::panic::take_hook();
        let flush = logging.clone();
        std::panic::set_hook(Box::new(move |info| {
            tracing::error!(target: "panic", "{info}");
            flush.flush();
            before(info);
        }));
        Ok(logging)
    }

    /// The parts, for a process with its own plans and for tests.
    pub fn build(
        settings: Settings,
        output: impl Write + Send + 'static,
    ) -> Result<(Self, impl Subscriber + Send + Sync), LoggingError> {
        let (filter, reloadable) = Filter::start(&settings)?;
        let queue = Queue::start(output)?;
        let format = settings.format;
        let lines = layer::Lines { queue: Arc::clone(&queue), format, program: settings.program };
        let subscriber = tracing_subscriber::registry().with(reloadable).with(lines);
        Ok((Self { queue, filter: Arc::new(filter), format }, subscriber))
    }

    /// The layout.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The filter as `/logging` shows it.
    pub fn filter(&self) -> String {
        self.filter.shown()
    }

    /// Goes back to the start-up filter if `reset`, then adds `spec` if any; the new filter.
    pub fn adjust(&self, spec: Option<&str>, reset: bool) -> Result<String, AdjustError> {
        self.filter.adjust(spec, reset)
    }

    /// The level of one target, followed through every change and cheap to ask.
    pub fn target_level(&self, target: &'static str) -> TargetLevel {
        self.filter.follow(target)
    }

    /// Queues `n_lines` finished lines; waits while the queue is full.
    pub fn push(&self, lines: Vec<u8>, n_lines: usize) {
        self.queue.push(lines, n_lines);
    }

    /// Waits until what was logged is written, but not for long. Call it last.
    pub fn flush(&self) {
        self.queue.flush(FLUSH_WAIT);
    }
}

#[cfg(test)]
mod tests;
