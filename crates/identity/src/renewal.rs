//! When to ask for the next certificate, and how long to wait after a failure.
use std::time::{Duration, SystemTime};

/// First wait after a failure; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait, and the constant one once failing has lasted [`PATIENCE`].
const LONGEST_WAIT: Duration = Duration::from_secs(150);
/// For how long waits grow and are spread out.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The middle of a validity; its end when start and end are the wrong way round, nothing when the
/// dates cannot be reckoned with.
pub fn half_life(not_before: SystemTime, not_after: SystemTime) -> Option<SystemTime> {
    match not_after.duration_since(not_before) {
        Ok(lifetime) if !lifetime.is_zero() => not_before.checked_add(lifetime / 2),
        _ => Some(not_after),
    }
}

/// The waits of one identity between failed attempts. Success resets it by dropping it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    failures: u32,
    waited: Duration,
}

impl Renewal {
    /// No failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many attempts have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a failure and says how long to wait. `jitter` in `-1.0..=1.0` spreads the wait by up to
    /// a fifth; after fifteen minutes of waiting the wait is constant.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
        let wait = wait.mul_f64(1.0 + 0.2 * jitter.clamp(-1.0, 1.0));
        if self.waited.saturating_add(wait) > PATIENCE {
            self.waited = PATIENCE;
            return LONGEST_WAIT;
        }
        self.waited += wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    // A-MI-02, CO-11.3: half-life computation.
    #[test]
    fn half_life_is_the_middle_of_the_issued_validity() {
        assert_eq!(half_life(at(100), at(200)), Some(at(150)));
        assert_eq!(half_life(at(200), at(200)), Some(at(200)));
        assert_eq!(half_life(at(300), at(200)), Some(at(200)));
    }

    // A-MI-02: waits double up to the cap, then stay constant.
    #[test]
    fn waits_double_to_a_cap_and_stay_there_after_fifteen_minutes() {
        let mut renewal = Renewal::new();
        let waits: Vec<u64> = (0..16).map(|_| renewal.failed(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150, 150, 150, 150, 150, 150]);
        assert_eq!(renewal.failures(), 16);
        assert_eq!(renewal.failed(1.0), LONGEST_WAIT, "no spread once constant");
    }

    #[test]
    fn waits_are_spread_by_a_fifth_at_most() {
        assert_eq!(Renewal::new().failed(1.0), Duration::from_millis(1200));
        assert_eq!(Renewal::new().failed(-1.0), Duration::from_millis(800));
        assert_eq!(Renewal::new().failed(-900.0), Duration::from_millis(800));
    }
}
