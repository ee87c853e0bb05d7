//! What asks a program to stop.
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Why a program stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// Asked through [`StopHandle::stop`], e.g. by `/quitquitquit`.
    Explicit,
}

/// Asks the program to stop from inside; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StopHandle(Arc<Notify>);

impl StopHandle {
    /// Asks to stop; returns at once.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// Waits for signals and for [`StopHandle`].
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    explicit: StopHandle,
}

impl Signals {
    /// Installs the handlers; from now on the signals no longer kill the process.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            explicit: StopHandle::default(),
        })
    }

    /// For those who may ask to stop.
    pub fn handle(&self) -> StopHandle {
        self.explicit.clone()
    }

    /// Waits for the first request to stop and logs it.
    pub async fn stop_requested(&mut self) -> StopCause {
        tokio::select! {
            _ = self.terminate.recv() => {
                tracing::info!(target: "ztunnel::signal::imp", "received signal SIGTERM, starting shutdown");
                StopCause::Terminate
            }
            _ = self.interrupt.recv() => {
                tracing::info!(target: "ztunnel::signal::imp", "received signal SIGINT, starting shutdown");
                StopCause::Interrupt
            }
            () = self.explicit.0.notified() => {
                tracing::info!(target: "ztunnel::signal", "received explicit shutdown signal");
                StopCause::Explicit
            }
        }
    }

    /// Waits for another SIGINT: the person at the terminal does not want to wait.
    pub async fn interrupted(&mut self) {
        self.interrupt.recv().await;
        tracing::info!(target: "ztunnel::signal", "Double Ctrl+C, exit immediately");
    }
}
