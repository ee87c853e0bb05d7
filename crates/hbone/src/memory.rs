//! What the tunnels of a process hold in memory, whichever thread they live on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who holds more than this part of the limit is judged by itself.
const PART: u64 = 512;

/// Octets received for applications, and to be sent to peers, that they do not take, and what is collected of frames
/// and requests; with a limit for all tunnels.
///
/// Beyond it those are refused that hold the most: a tunnel above its share gets no new streams, its windows shrink to
/// their floor, and what it holds of streams that nobody reads is given up in the end, with those streams. Whoever holds
/// less notices nothing.
#[derive(Debug)]
pub struct Memory {
    held: AtomicU64,
    limit: u64,
    /// Tunnels that hold anything.
    holders: AtomicU64,
    /// Tunnels that hold much, and what those hold.
    large: AtomicU64,
    held_by_large: AtomicU64,
}

impl Memory {
    /// Nothing held; `limit` in octets.
    pub fn new(limit: u64) -> Self {
        let [held, holders, large, held_by_large] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { held, limit, holders, large, held_by_large }
    }

    /// Octets held now, as of each tunnel's last turn.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The limit, in octets.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What a tunnel that holds so much has to give up, if anything. While more than the limit is held there is always
    /// one that has to.
    pub(crate) fn excess(&self, held: u64) -> Option<u64> {
        let beyond = self.held().checked_sub(self.limit).filter(|beyond| *beyond > 0)?;
        let above = held.checked_sub(self.share()).filter(|above| *above > 0)?;
        Some(above.min(beyond))
    }

    /// So much more than the limit is held that there is no time to wait.
    pub(crate) fn is_out(&self) -> bool {
        self.held() > self.limit.saturating_add(self.limit / 4)
    }

    /// What a tunnel may hold while memory is short: those that hold much share what those that hold little leave.
    fn share(&self) -> u64 {
        let [large, held_by_large, holders] =
            [&self.large, &self.held_by_large, &self.holders].map(|count| count.load(Ordering::Relaxed));
        let left = self.limit.saturating_sub(self.held().saturating_sub(held_by_large));
        let of_large = left.checked_div(large).unwrap_or(0);
        of_large.max(self.limit / holders.max(1))
    }

    /// One tunnel holds `now` instead of `before`.
    pub(crate) fn shift(&self, before: u64, now: u64) {
        move_by(&self.held, before, now);
        move_by(&self.holders, before.min(1), now.min(1));
        let large = self.limit / PART;
        if before > large || now > large {
            move_by(&self.large, u64::from(before > large), u64::from(now > large));
            let much = |held: u64| if held > large { held } else { 0 };
            move_by(&self.held_by_large, much(before), much(now));
        }
    }
}

fn move_by(total: &AtomicU64, before: u64, now: u64) {
    if now > before {
        total.fetch_add(now - before, Ordering::Relaxed);
    } else if now < before {
        total.fetch_sub(before - now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// Each holds so much, and each has to give up so much.
    #[track_caller]
    fn judged(limit: u64, held: &[u64], given_up: &[Option<u64>]) {
        let memory = Memory::new(limit);
        held.iter().for_each(|held| memory.shift(0, *held));
        let excess: Vec<_> = held.iter().map(|held| memory.excess(*held)).collect();
        assert_eq!(excess, given_up);
        held.iter().for_each(|held| memory.shift(*held, 0));
        let left = [&memory.held, &memory.holders, &memory.large, &memory.held_by_large];
        assert_eq!(left.map(|count| count.load(Ordering::Relaxed)), [0; 4]);
    }

    #[test]
    fn who_holds_most_is_judged_and_nobody_else() {
        judged(512 * MB, &[512 * MB, 0], &[None, None]);
        judged(512 * MB, &[600 * MB, MB, 0], &[Some(89 * MB), None, None]);
        judged(500 * MB, &[400 * MB, 100 * MB, 100 * MB], &[Some(100 * MB), None, None]);
        // However many there are that hold little.
        let mut many = vec![MB / 10; 1000];
        many.extend([300 * MB, 300 * MB]);
        let mut excess = vec![None; 1000];
        excess.extend([Some(100 * MB), Some(100 * MB)]);
        judged(500 * MB, &many, &excess);
    }

    #[test]
    fn somebody_is_judged_also_when_all_hold_little() {
        let mut held = vec![MB / 2; 1000];
        held.push(MB);
        let memory = Memory::new(450 * MB);
        held.iter().for_each(|held| memory.shift(0, *held));
        assert!(memory.excess(MB / 2).is_some() && memory.excess(MB / 10).is_none());
    }
}
