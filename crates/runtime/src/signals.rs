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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn interrupt_myself() {
        let command = format!("kill -INT {}", std::process::id());
        let sent = std::process::Command::new("/bin/sh").args(["-c", &command]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    // CO-9.3: the first SIGINT asks to stop, the second does not wait for it.
    #[tokio::test]
    async fn a_second_interrupt_is_told_from_the_first() {
        let mut signals = Signals::install().unwrap();
        let limit = Duration::from_secs(10);
        interrupt_myself();
        let cause = tokio::time::timeout(limit, signals.stop_requested()).await;
        assert_eq!(cause, Ok(StopCause::Interrupt));
        let mut second = std::pin::pin!(signals.interrupted());
        assert!(is_pending(second.as_mut()).await, "one is not two");
        interrupt_myself();
        assert!(tokio::time::timeout(limit, second).await.is_ok());
    }

    async fn is_pending(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = future => false,
            () = tokio::task::yield_now() => true,
        }
    }
}
