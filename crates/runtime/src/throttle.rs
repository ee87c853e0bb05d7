//! Saying seldom what goes wrong often.
use std::time::{Duration, Instant};

/// Allows one report per period and counts what was left out between two reports.
///
/// Pure: the caller brings the time.
#[derive(Debug)]
pub struct Throttle {
    period: Duration,
    next: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// At most one report in `period`.
    pub const fn new(period: Duration) -> Self {
        Self { period, next: None, left_out: 0 }
    }

    /// Whether this occurrence is to be reported; if so, how many before it were not.
    pub fn report(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.next = Some(now + self.period);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_per_period_tells_how_many_were_left_out() {
        let start = crate::clock::monotonic();
        let at = |millis| start + Duration::from_millis(millis);
        let mut throttle = Throttle::new(Duration::from_secs(1));
        assert_eq!(throttle.report(at(0)), Some(0));
        assert_eq!([1, 500, 999].map(|millis| throttle.report(at(millis))), [None; 3]);
        assert_eq!(throttle.report(at(1000)), Some(3));
        assert_eq!(throttle.report(at(1999)), None);
        assert_eq!(throttle.report(at(9000)), Some(1));
        assert_eq!(throttle.report(at(90_000)), Some(0));
    }
}
