//! How many streams may begin per second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

/// How long a new stream may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// Spaces out the beginnings of streams; a second's worth may begin at once.
#[derive(Debug)]
pub(super) struct Admission {
    interval: Duration,
    /// When the next stream would begin if there had been no pause.
    next: Mutex<Option<Instant>>,
}

impl Admission {
    pub(super) fn new(per_second: f64) -> Self {
        let interval =
            if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { Duration::ZERO };
        Self { interval, next: Mutex::new(None) }
    }

    /// Waits for a turn, up to a second.
    pub(super) async fn admit(&self) -> Result<(), Box<Status>> {
        let Some(turn) = self.turn(Instant::now()) else {
            return Err(Box::new(Status::resource_exhausted("request rate limit exceeded")));
        };
        sleep_until(turn).await;
        Ok(())
    }

    fn turn(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock();
        let burst = Duration::from_secs(1);
        let earliest = now.checked_sub(burst).unwrap_or(now);
        let slot = next.unwrap_or(earliest).max(earliest);
        let begins = slot.max(now);
        if begins.saturating_duration_since(now) > PATIENCE {
            return None;
        }
        *next = Some(slot + self.interval);
        Some(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_begins_at_once_a_second_waits_and_the_rest_is_refused() {
        let admission = Admission::new(10.0);
        let now = Instant::now() + Duration::from_secs(100);
        let waits: Vec<Option<u128>> = (0..40)
            .map(|_| admission.turn(now).map(|turn| turn.saturating_duration_since(now).as_millis()))
            .collect();
        assert!(waits[..10].iter().all(|wait| *wait == Some(0)), "{waits:?}");
        assert_eq!(waits[11], Some(100));
        assert!(waits[22..].iter().all(Option::is_none), "{waits:?}");
        assert!(admission.turn(now + Duration::from_secs(1)).is_some());
    }
}
