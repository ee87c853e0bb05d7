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
    let mut idle = Idle::default();
    let mut pause = START;
    loop {
        let since = (Instant::now(), memory::cpu_time());
        tokio::time::sleep(pause).await;
        // Without /proc there is nothing to decide by.
        let Ok(usage) = Usage::now() else { return };
        let used = memory::cpu_time().saturating_sub(since.1);
        let rests = is_due(used, since.0.elapsed(), usage.of_files());
        if rests {
            pause = INTERVAL;
            // What was used of the program, and the threads' buffers, are not wanted soon; if they are, they come back.
            if let Some(threads) = threads.upgrade() {
                threads.each(|_| |_: &Rc<Thread>| hbone::let_buffers_go()).await;
            }
            let unloaded = memory::unload();
            let Ok(after) = Usage::now() else { return };
            tracing::debug!(before = usage.of_files(), after = after.of_files(), ?unloaded, "at rest");
        }
        if idle.is_due(usage) || rests {
            memory::release();
            let Ok(after) = Usage::now() else { return };
            idle.released(after);
            tracing::debug!(before = usage.private, after = after.private, "idle memory was handed back");
        }
    }
}

/// Between two looks the node did next to nothing, and it has more of its file in memory than it needs for that.
fn is_due(used: Duration, elapsed: Duration, of_files: u64) -> bool {
    used < elapsed / AT_REST && of_files > WORTH_UNLOADING
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
    fn the_program_is_unloaded_when_the_node_has_come_to_rest() {
        let look = Duration::from_secs(5);
        assert!(!is_due(Duration::from_millis(300), look, 14 * MIB), "busy");
        assert!(is_due(Duration::from_millis(10), look, 14 * MIB));
        assert!(!is_due(Duration::from_millis(10), look, MIB), "nothing to gain");
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
