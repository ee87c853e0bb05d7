//! A bucket that empties by use and refills with time.

use std::time::Instant;

use super::moment::Moment;
use crate::Budget;

/// What is left of one [`Budget`].
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    left: u32,
    at: Moment,
}

crate::live::codec::portable!(struct Bucket { left, at });

impl Bucket {
    pub(crate) fn new(budget: Budget, now: Instant) -> Self {
        Self { left: budget.burst, at: now.into() }
    }

    /// Takes one; `false` when there is none.
    pub(crate) fn take(&mut self, budget: Budget, now: Instant) -> bool {
        self.take_some(1, budget, now)
    }

    /// Takes several, as far as there are; `false` when there is none.
    pub(crate) fn take_some(&mut self, count: u32, budget: Budget, now: Instant) -> bool {
        if self.left == 0 {
            let elapsed = self.at.elapsed(now).as_millis();
            let back = elapsed.saturating_mul(u128::from(budget.per_second)) / 1000;
            if back == 0 {
                return false;
            }
            self.left = u32::try_from(back).unwrap_or(u32::MAX).min(budget.burst);
            self.at = now.into();
        }
        self.left = self.left.saturating_sub(count);
        true
    }
}
