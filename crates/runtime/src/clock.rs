//! The time of day and the time that only goes forward.
//!
//! Deciding code takes `now` as an argument. Doing code asks a [`Clock`], so that a test can hold its hands.
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The monotonic time, from the system.
#[expect(clippy::disallowed_methods, reason = "the one home of reading this clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The time of day, from the system.
#[expect(clippy::disallowed_methods, reason = "the one home of reading this clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Where a component reads time; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<(SystemTime, Instant)>>),
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `wall` until its [`Hands`] are moved.
    pub fn manual(wall: SystemTime) -> (Self, Hands) {
        let shared = Arc::new(Mutex::new((wall, monotonic())));
        (Self(Source::Manual(Arc::clone(&shared))), Hands(shared))
    }

    /// The time of day.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => wall(),
            Source::Manual(shared) => shared.lock().0,
        }
    }

    /// The monotonic time.
    pub fn monotonic(&self) -> Instant {
        match &self.0 {
            Source::System => monotonic(),
            Source::Manual(shared) => shared.lock().1,
        }
    }
}

/// The hands of a manual clock.
#[derive(Debug, Clone)]
pub struct Hands(Arc<Mutex<(SystemTime, Instant)>>);

impl Hands {
    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut times = self.0.lock();
        times.0 += by;
        times.1 += by;
    }

    /// Sets the time of day alone, as an administrator might.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.lock().0 = wall;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_by_hand() {
        let (clock, hands) = Clock::manual(SystemTime::UNIX_EPOCH);
        let start = clock.monotonic();
        hands.advance(Duration::from_secs(5));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(clock.monotonic() - start, Duration::from_secs(5));
        hands.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH);
    }
}
