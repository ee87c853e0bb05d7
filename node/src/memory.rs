//! An idle node is small: what its start has touched once, and what the allocator keeps after a burst, goes back to the
//! system once nobody uses it.

use std::rc::Rc;
use std::sync::Weak;
use std::time::Duration;

use net::memory::{self, Cached, Usage};
use tokio::time::Instant;

use crate::threads::{Thread, Threads};

/// Time between two looks while the node is busy, and between two at the heap: two of these have to agree, so that it goes
/// back within a quarter of a minute.
const INTERVAL: Duration = Duration::from_secs(5);

/// Time between two looks otherwise.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);

/// Idle memory that is not worth the work.
const WORTH_IT: u64 = 3 << 20;

/// Pages of the program's file that are not worth it, beyond those that stayed the last time.
const WORTH_UNLOADING: u64 = 3 << 18;

/// Pages of the program's file that the unloading itself, and looks at the memory, bring back at most.
const AT_ONCE: u64 = 1 << 20;

/// Who uses less of a processor than this part is not busy.
const LIGHT: u32 = 50;

/// Who uses less than the part is at rest, and may lose its pages if it has not lost them for the time: what is needed now
/// and then, to look at a file or to give a sign of life, is not missed. Signs of life of a hundred tunnels, or traffic that
/// is so light that it passes for rest, bring them back, and may have them for longer.
const AT_REST: [(u32, Duration); 2] = [(2000, Duration::from_secs(3)), (500, Duration::from_secs(60))];

/// Hands idle memory back, for ever.
pub(crate) async fn give_back(threads: Weak<Threads>) {
    let (mut idle, mut rest) = (Idle::default(), Rest::default());
    let mut heap_looked_at = Instant::now();
    loop {
        let since = (Instant::now(), memory::cpu_time());
        tokio::time::sleep(rest.pause()).await;
        // Without this look itself.
        let (used, elapsed) = (memory::cpu_time().saturating_sub(since.1), since.0.elapsed());
        // Without /proc there is nothing to decide by; it may be there the next time.
        let Ok(usage) = Usage::now() else { continue };
        let rests = rest.is_due(used, elapsed, usage.of_files());
        if rests && let Some(threads) = threads.upgrade() {
            let_go(&threads).await;
        }
        let mut has_slack = false;
        // With thousands of connections this look takes a millisecond.
        if heap_looked_at.elapsed() >= INTERVAL {
            heap_looked_at = Instant::now();
            has_slack = idle.is_due(usage, memory::allocated());
        }
        if has_slack || rests {
            // Either may take milliseconds, which others have better use for.
            let given = tokio::task::spawn_blocking(move || {
                let unloaded = rests.then(memory::unload);
                memory::release_end();
                memory::release();
                let allocated = has_slack.then(memory::allocated);
                Usage::now().map(|after| (after, allocated, unloaded))
            });
            let Ok(Ok((after, allocated, unloaded))) = given.await else { continue };
            if let Some(allocated) = allocated {
                idle.released(after, allocated);
            }
            if rests {
                rest.unloaded(after.of_files());
            }
            tracing::debug!(before = ?usage, ?after, ?allocated, ?unloaded, "idle memory was handed back");
        }
    }
}

/// Has the traffic threads, and this one, let go what they keep for the next message: it is not wanted soon, and if it is,
/// it comes back.
async fn let_go(threads: &Threads) {
    let buffers_and_blocks = |_: &Rc<Thread>| {
        hbone::let_buffers_go();
        Cached::take()
    };
    let mut cached = threads.each(|_| buffers_and_blocks).await;
    cached.push(Cached::take());
    // If it could not be done, the blocks were freed here.
    let _ = tokio::task::spawn_blocking(|| Cached::free(cached)).await;
    threads.each(|_| |_: &Rc<Thread>| memory::release_end()).await;
}

/// Whether the node has come to rest.
#[derive(Debug)]
struct Rest {
    is_busy: bool,
    /// Since the program was unloaded.
    since: Duration,
    /// Octets of files that stayed, or came back at once; nothing once the node has been in use again.
    kept: u64,
    /// What comes back at once has not been seen yet.
    is_new: bool,
}

impl Default for Rest {
    fn default() -> Self {
        Self { is_busy: false, since: Duration::MAX, kept: 0, is_new: false }
    }
}

impl Rest {
    fn pause(&self) -> Duration {
        if self.is_busy { INTERVAL } else { QUIET_INTERVAL }
    }

    /// Between two looks the node did next to nothing, and it has more of its file in memory than it needs for that.
    fn is_due(&mut self, used: Duration, elapsed: Duration, of_files: u64) -> bool {
        self.since = self.since.saturating_add(elapsed);
        self.is_busy = used >= elapsed / LIGHT;
        let Some((_, least)) = AT_REST.into_iter().find(|(part, _)| used < elapsed / *part) else {
            (self.kept, self.is_new) = (0, false);
            return false;
        };
        if std::mem::take(&mut self.is_new) {
            self.kept = of_files.clamp(self.kept, self.kept.saturating_add(AT_ONCE));
        }
        self.since >= least && of_files > self.kept.saturating_add(WORTH_UNLOADING)
    }

    fn unloaded(&mut self, of_files: u64) {
        self.since = Duration::ZERO;
        (self.kept, self.is_new) = (of_files, true);
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
    fn is_due(&mut self, usage: Usage, allocated: u64) -> bool {
        let slack = usage.slack(allocated);
        let lasting = slack.min(std::mem::replace(&mut self.before, slack));
        allocated > 0 && lasting > self.kept + WORTH_IT.max(allocated / 10)
    }

    fn released(&mut self, after: Usage, allocated: u64) {
        self.before = 0;
        self.kept = after.slack(allocated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn is_due(idle: &mut Idle, private: u64, allocated: u64) -> bool {
        idle.is_due(usage(private), allocated * MIB)
    }

    fn usage(private: u64) -> Usage {
        Usage { resident: (private + 10) * MIB, private: private * MIB }
    }

    #[test]
    fn idle_memory_is_due_at_the_second_look() {
        let mut idle = Idle::default();
        assert!(!is_due(&mut idle, 12, 10));
        assert!(!is_due(&mut idle, 100, 98), "in use");
        assert!(!is_due(&mut idle, 100, 10), "it may be wanted again at once");
        assert!(is_due(&mut idle, 100, 10));
        idle.released(usage(13), 10 * MIB);
        assert!(!is_due(&mut idle, 13, 10));
        assert!(!is_due(&mut idle, 13, 10));
        assert!(!is_due(&mut idle, 40, 10), "another burst");
        assert!(!is_due(&mut idle, 40, 35));
        assert!(!is_due(&mut idle, 40, 10));
        assert!(is_due(&mut idle, 40, 10));
    }

    #[test]
    fn the_program_is_unloaded_whenever_the_node_has_come_to_rest() {
        let (busy, light) = (Duration::from_millis(300), Duration::from_millis(5));
        let (next_to_nothing, look) = (Duration::from_micros(400), QUIET_INTERVAL);
        let mut rest = Rest::default();
        assert!(!rest.is_due(busy, look, 14 * MIB), "it starts");
        assert_eq!(rest.pause(), INTERVAL);
        assert!(!rest.is_due(light, look, 14 * MIB), "light traffic keeps what it uses");
        assert_eq!(rest.pause(), QUIET_INTERVAL);
        assert!(rest.is_due(next_to_nothing, look, 14 * MIB));
        rest.unloaded(4 * MIB);
        for _ in 0..2 {
            assert!(!rest.is_due(next_to_nothing, look, 14 * MIB), "not again and again");
        }
        assert!(rest.is_due(Duration::ZERO, look, 14 * MIB), "what was used since is not wanted either");
        rest.unloaded(4 * MIB);
        for _ in 0..10 {
            assert!(!rest.is_due(Duration::ZERO, look, 4 * MIB + MIB / 2), "nothing to gain");
        }
        for _ in 0..10 {
            assert!(!rest.is_due(light, look, 14 * MIB));
        }
        let signs_of_life = Duration::from_millis(1);
        assert!(!rest.is_due(signs_of_life, look, 14 * MIB), "not so soon");
        assert!(rest.is_due(Duration::ZERO, look, 14 * MIB));
        rest.unloaded(4 * MIB);
        for _ in 0..59 {
            assert!(!rest.is_due(signs_of_life, look, 14 * MIB));
        }
        assert!(rest.is_due(signs_of_life, look, 14 * MIB), "once a minute");
    }

    /// What the unloading brings back is no reason for the next.
    #[test]
    fn what_comes_back_at_once_is_left_alone() {
        let mut rest = Rest::default();
        assert!(rest.is_due(Duration::ZERO, QUIET_INTERVAL, 14 * MIB));
        rest.unloaded(3 * MIB);
        for _ in 0..10 {
            assert!(!rest.is_due(Duration::ZERO, QUIET_INTERVAL, 3 * MIB + 9 * MIB / 10));
        }
        assert!(rest.is_due(Duration::ZERO, QUIET_INTERVAL, 5 * MIB));
        rest.unloaded(3 * MIB);
        for _ in 0..2 {
            assert!(!rest.is_due(Duration::ZERO, QUIET_INTERVAL, 8 * MIB), "a sign of life, but not so soon");
        }
        assert!(rest.is_due(Duration::ZERO, QUIET_INTERVAL, 8 * MIB));
    }

    /// Where unloading brings nothing it is not tried for ever.
    #[test]
    fn what_is_not_given_up_is_left_alone() {
        let mut rest = Rest::default();
        assert!(rest.is_due(Duration::ZERO, QUIET_INTERVAL, 14 * MIB));
        rest.unloaded(13 * MIB + MIB / 2);
        for _ in 0..10 {
            assert!(!rest.is_due(Duration::ZERO, QUIET_INTERVAL, 14 * MIB));
        }
        assert!(!rest.is_due(Duration::from_millis(5), QUIET_INTERVAL, 14 * MIB), "in use: that may be why");
        assert!(rest.is_due(Duration::ZERO, QUIET_INTERVAL, 14 * MIB));
    }

    /// Free memory between blocks in use cannot go back: it is not tried again and again.
    #[test]
    fn what_stays_is_not_tried_again() {
        let mut idle = Idle::default();
        is_due(&mut idle, 60, 40);
        assert!(is_due(&mut idle, 60, 40));
        idle.released(usage(58), 40 * MIB);
        for _ in 0..10 {
            assert!(!is_due(&mut idle, 59, 40));
        }
    }
}
