//! What a thread keeps of what it frees. A process of its own: other tests would allocate and free meanwhile.

use culvert_net::memory::{self, Cached};

/// Blocks of one size among many that are freed: those that the thread keeps for the next time hold their pages.
#[test]
#[cfg(target_env = "gnu")]
fn blocks_that_a_thread_keeps_go_back() {
    // A thread leaves its stack to the next one.
    Cached::free(Vec::new());
    drop((0..512).map(|_| Vec::with_capacity(1000)).collect::<Vec<Vec<u8>>>());
    let before = memory::allocated();
    Cached::free(vec![Cached::take()]);
    let after = memory::allocated();
    assert!(after + 7 * 1000 <= before, "{before} {after}");
}
