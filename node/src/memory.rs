//! After a burst the node is as small as before: what the allocator keeps is handed back once it has been idle.

use std::time::Duration;

use net::memory::{self, Usage};

/// Time between two looks. Two have to agree, so that memory goes back within half a minute.
const INTERVAL: Duration = Duration::from_secs(10);

/// Idle memory that is not worth the work.
const WORTH_IT: u64 = 3 << 20;

/// Hands idle memory back, for ever.
pub(crate) async fn give_back() {
    let mut idle = Idle::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        // Without /proc there is nothing to decide by.
        let Ok(usage) = Usage::now() else { return };
        if !idle.is_due(usage) {
            continue;
        }
        memory::release();
        let Ok(after) = Usage::now() else { return };
        idle.released(after);
        tracing::debug!(before = usage.private, after = after.private, "idle memory was handed back");
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
