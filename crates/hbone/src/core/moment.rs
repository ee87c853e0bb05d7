//! An instant in eight octets instead of sixteen: there are several in each stream.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::live::codec::{Malformed, Portable, Reader, Writer};

/// Nanoseconds from an instant that is the same for the whole process, the first that was asked about. Four octets may
/// stand before it without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub(crate) struct Moment(i64);

fn origin(or: Instant) -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| or)
}

fn nanoseconds(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(duration.subsec_nanos()))
}

impl Moment {
    /// Time from here to `now`; none if this is later.
    pub(crate) fn elapsed(self, now: Instant) -> Duration {
        let nanoseconds = Self::from(now).0.saturating_sub(self.0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    }

    /// The instant that this is. Where none was asked about before, which is not possible, it is counted from `or`.
    fn instant(self, or: Instant) -> Instant {
        let (origin, distance) = (origin(or), Duration::from_nanos(self.0.unsigned_abs()));
        let at = if self.0 < 0 { origin.checked_sub(distance) } else { origin.checked_add(distance) };
        at.unwrap_or(origin)
    }
}

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        let origin = origin(at);
        Self(match at.checked_duration_since(origin) {
            Some(after) => nanoseconds(after),
            None => -nanoseconds(origin.saturating_duration_since(at)),
        })
    }
}

/// As the instant that it is.
impl Portable for Moment {
    fn put(&self, to: &mut Writer) {
        Instant::put(&self.instant(to.now()), to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Instant::take(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_instant_that_it_was_made_of() {
        let now = crate::link::now();
        let second = Duration::from_secs(1);
        for at in [now, now + second, now - second, now + Duration::from_nanos(1)] {
            assert_eq!(Moment::from(at).instant(now), at);
        }
        assert_eq!(Moment::from(now).elapsed(now + second), second);
        assert_eq!(Moment::from(now + second).elapsed(now), Duration::ZERO);
        assert!(size_of::<Moment>() == 8);
    }
}
