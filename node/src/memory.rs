//! An idle node is small: what its start has touched once, and what the allocator keeps after a burst, goes back to the
//! system once nobody uses it.

use std::rc::Rc;
use std::sync::Weak;
use std::time::Duration;

use net::memory::{self, Usage};
use tokio::time::Instant;

use crate::threads::{Thread, Threads};

/// Time between two looks. For the heap two have to agree, so that it goes back within a quarter of a minute.
const INTERVAL: Duration = Duration::from_secs(5);

/// The same until the start is over, which the first quiet look tells.
const START: Duration = Duration::from_millis(500);

/// Idle memory that is not worth the work.
const WORTH_IT: u64 = 3 << 20;

/// Pages of the program's file that are not worth it: what an idle node needs from time to time is less.
const WORTH_UNLOADING: u64 = 2 << 20;

/// Who uses less of a processor than this part is at rest.
const AT_REST: u32 = 50;

/// Hands idle memory back, for ever.
pub(crate) async fn give_back(threads: Weak<Threads>) {
    let (mut idle, mut rest) = (Idle::default(), Rest::default());
    loop {
        let since = (Instant::now(), memory::cpu_time());
        tokio::time::sleep(rest.pause()).await;
        // Without /proc there is nothing to decide by.
        let Ok(usage) = Usage::now() else { return };
        let used = memory::cpu_time().saturating_sub(since.1);
        let rests = rest.is_due(used, since.0.elapsed(), usage.of_files());
        if rests && let Some(threads) = threads.upgrade() {
            // What was used of the program, and the threads' buffers, are not wanted soon; if they are, they come back.
            threads.each(|_| |_: &Rc<Thread>| hbone::let_buffers_go()).await;
        }
        if idle.is_due(usage) || rests {
            // Either may take milliseconds, which others have better use for.
            let given = tokio::task::spawn_blocking(move || {
                let unloaded = rests.then(memory::unload);
                memory::release();
                Usage::now().map(|after| (after, unloaded))
            });
            let Ok(Ok((after, unloaded))) = given.await else { return };
            idle.released(after);
            tracing::debug!(before = ?usage, ?after, ?unloaded, "idle memory was handed back");
        }
    }
}

/// Whether the node has come to rest.
#[derive(Debug, Default)]
struct Rest {
    is_started: bool,
    /// What was to be unloaded was, and the node has not been busy since.
    is_unloaded: bool,
}

impl Rest {
    fn pause(&self) -> Duration {
        if self.is_started { INTERVAL } else { START }
    }

    /// Between two looks the node did next to nothing, for the first time since it was busy, and it has more of its file
    /// in memory than it needs for that. Light traffic needs its pages, and does not lose them again and again.
    fn is_due(&mut self, used: Duration, elapsed: Duration, of_files: u64) -> bool {
        if used >= elapsed / AT_REST {
            self.is_unloaded = false;
            return false;
        }
        let due = !self.is_unloaded && of_files > WORTH_UNLOADING;
        if due {
            // The first quiet look may fall between two parts of the start, and is one more than the others.
            self.is_unloaded = self.is_started;
            self.is_started = true;
        }
        due
    }
}

/// What is held and not allocated, from look to look.
#[derive(Debug, Default)]
struct Idle {
    /// At the last look.
    before: u64,
    /// What stayed when memory was last handed back: it lies in pages that are in use, and would stay again.
    kept: u64,
}

impl Idle {
    /// There is much of it, and there was at the last look: nobody has used it in between. What comes and goes with
    /// traffic is left alone.
    fn is_due(&mut self, usage: Usage) -> bool {
        let slack = usage.slack();
        let lasting = slack.min(std::mem::replace(&mut self.before, slack));
        usage.allocated > 0 && lasting > self.kept + WORTH_IT.max(usage.allocated / 10)
    }

    fn released(&mut self, after: Usage) {
        self.before = 0;
        self.kept = after.slack();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn holding(private: u64, allocated: u64) -> Usage {
        Usage { resident: (private + 10) * MIB, private: private * MIB, allocated: allocated * MIB }
    }

    #[test]
    fn idle_memory_is_due_at_the_second_look() {
        let mut idle = Idle::default();
        assert!(!idle.is_due(holding(12, 10)));
        assert!(!idle.is_due(holding(100, 98)), "in use");
        assert!(!idle.is_due(holding(100, 10)), "it may be wanted again at once");
        assert!(idle.is_due(holding(100, 10)));
        idle.released(holding(13, 10));
        assert!(!idle.is_due(holding(13, 10)));
        assert!(!idle.is_due(holding(13, 10)));
        assert!(!idle.is_due(holding(40, 10)), "another burst");
        assert!(!idle.is_due(holding(40, 35)));
        assert!(!idle.is_due(holding(40, 10)));
        assert!(idle.is_due(holding(40, 10)));
    }

    #[test]
    fn the_program_is_unloaded_once_when_the_node_has_come_to_rest() {
        let (busy, light) = (Duration::from_millis(300), Duration::from_millis(50));
        let mut rest = Rest::default();
        assert_eq!(rest.pause(), START);
        assert!(!rest.is_due(busy, START, 14 * MIB), "it starts");
        assert!(rest.is_due(Duration::ZERO, START, 14 * MIB));
        assert_eq!(rest.pause(), INTERVAL);
        assert!(rest.is_due(light, INTERVAL, 14 * MIB), "the last of the start");
        for _ in 0..10 {
            assert!(!rest.is_due(light, INTERVAL, 14 * MIB), "light traffic keeps what it uses");
        }
        assert!(!rest.is_due(busy, INTERVAL, 14 * MIB), "busy");
        assert!(!rest.is_due(light, INTERVAL, MIB), "nothing to gain");
        assert!(rest.is_due(light, INTERVAL, 14 * MIB));
        assert!(!rest.is_due(light, INTERVAL, 14 * MIB));
    }

    /// Free memory between blocks in use cannot go back: it is not tried again and again.
    #[test]
    fn what_stays_is_not_tried_again() {
        let mut idle = Idle::default();
        idle.is_due(holding(60, 40));
        assert!(idle.is_due(holding(60, 40)));
        idle.released(holding(58, 40));
        for _ in 0..10 {
            assert!(!idle.is_due(holding(59, 40)));
        }
    }
}
