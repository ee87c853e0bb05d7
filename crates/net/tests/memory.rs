//! Memory goes back to the system. A process of its own: other tests would allocate and free meanwhile.
#![allow(clippy::unwrap_used, reason = "a test")]

use culvert_net::memory::{self, Usage, release};

/// Blocks with others between them, so that nothing can be cut off at the end.
#[test]
fn what_was_freed_in_between_goes_back() {
    let mut blocks: Vec<Option<Box<[u8]>>> = (0..4096).map(|_| Some(vec![1; 16 << 10].into())).collect();
    let full = Usage::now().unwrap();
    assert!(full.private >= 64 << 20 && memory::allocated() >= 64 << 20);
    assert!(full.resident >= full.private);
    for (n, block) in blocks.iter_mut().enumerate() {
        if n % 64 != 0 {
            *block = None;
        }
    }
    release();
    let after = Usage::now().unwrap();
    assert!(after.private < full.private - (48 << 20), "{full:?} {after:?}");
    assert!(after.slack(memory::allocated()) < 16 << 20, "{after:?}");
}
