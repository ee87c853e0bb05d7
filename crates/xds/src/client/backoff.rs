//! How long to wait before the next stream, by how the last one ended.

use std::time::Duration;

use tonic::{Code, Status};

const FIRST: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(15);
/// A stream that lived this long was healthy: what follows starts from the first wait again.
const HEALTHY: Duration = Duration::from_secs(30);

/// How a stream ended.
#[derive(Clone, Copy, Debug)]
pub enum Ending<'a> {
    /// It could not be opened; `status` is what the server or the transport said.
    NotOpened,
    /// A gRPC status in the middle.
    Status(&'a Status),
    /// A problem on our own side: roots, token, TLS set-up.
    Local,
    /// The server ended it without error.
    Clean,
}

/// The reason a termination is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The stream could not be opened.
    ConnectionError,
    /// It broke.
    Error,
    /// It was closed in a way that asks to come back.
    Reconnect,
    /// It ended cleanly.
    Complete,
}

impl Reason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::ConnectionError, Self::Error, Self::Reconnect, Self::Complete];

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Reconnect => "Reconnect",
            Self::Complete => "Complete",
        }
    }
}

/// The wait between streams, carried across attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { last: FIRST }
    }
}

impl Backoff {
    /// The reason to count and the time to wait after a stream that lived for `lived`.
    pub fn after(&mut self, ending: Ending<'_>, lived: Duration) -> (Reason, Duration) {
        if lived >= HEALTHY {
            self.last = FIRST;
        }
        match ending {
            Ending::NotOpened => (Reason::ConnectionError, self.grow()),
            Ending::Status(status) if asks_to_come_back(status) => {
                self.last = FIRST;
                (Reason::Reconnect, FIRST)
            }
            Ending::Status(_) | Ending::Local => (Reason::Error, self.grow()),
            // A server that only ever opens and closes must not be called in a tight loop.
            Ending::Clean if lived >= HEALTHY => (Reason::Complete, FIRST),
            Ending::Clean => (Reason::Complete, self.grow()),
        }
    }

    fn grow(&mut self) -> Duration {
        self.last = LIMIT.min(self.last * 2);
        self.last
    }
}

fn asks_to_come_back(status: &Status) -> bool {
    match status.code() {
        Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        Code::Unavailable => {
            let text = status.message();
            text.contains("transport is closing") || text.contains("received prior goaway")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    fn waits(ending: Ending<'_>, times: usize) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..times).map(|_| backoff.after(ending, SHORT).1.as_millis()).collect()
    }

    // CO-2.6
    #[test]
    fn failing_to_connect_doubles_from_20_ms_to_15_s() {
        let got = waits(Ending::NotOpened, 12);
        assert_eq!(got, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
    }

    // CO-2.6
    #[test]
    fn statuses_are_told_apart() {
        let cases = [
            (Status::unknown("x"), Reason::Reconnect, 10),
            (Status::cancelled("x"), Reason::Reconnect, 10),
            (Status::deadline_exceeded("x"), Reason::Reconnect, 10),
            (Status::unavailable("transport is closing"), Reason::Reconnect, 10),
            (Status::unavailable("error: received prior goaway: code NO_ERROR"), Reason::Reconnect, 10),
            (Status::unavailable("connection refused"), Reason::Error, 20),
            (Status::internal("x"), Reason::Error, 20),
            (Status::permission_denied("x"), Reason::Error, 20),
        ];
        for (status, reason, wait) in cases {
            let got = Backoff::default().after(Ending::Status(&status), SHORT);
            assert_eq!(got, (reason, Duration::from_millis(wait)), "{status:?}");
        }
    }

    // CO-12.1-11: neither a local problem nor a clean end may spin, and a long healthy stream starts over.
    #[test]
    fn local_problems_and_quick_clean_ends_back_off() {
        assert_eq!(waits(Ending::Local, 3), [20, 40, 80]);
        assert_eq!(waits(Ending::Clean, 3), [20, 40, 80]);
        let mut backoff = Backoff { last: LIMIT };
        let (_, wait) = backoff.after(Ending::Status(&Status::internal("x")), Duration::from_secs(60));
        assert_eq!(wait, Duration::from_millis(20));
        let mut backoff = Backoff { last: LIMIT };
        assert_eq!(backoff.after(Ending::Clean, Duration::from_secs(60)).1, FIRST);
    }
}
