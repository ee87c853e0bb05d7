//! Small blocks that a thread keeps after it has freed them.
//!
//! The GNU C library keeps up to seven of each size per thread for the next time, and takes them for allocated all the
//! while: some hundreds of blocks that lie wherever a burst has left them, each of which keeps a page. They have no other
//! way out than the end of their thread.

/// Octets of the smallest block, as they are asked for. Each size is [`STEP`] larger than the one before.
const SMALLEST: usize = 24;
const STEP: usize = 16;
const SIZES: usize = 64;

/// How many of a size are kept.
const OF_A_SIZE: usize = 7;

/// What a thread had kept, as allocated blocks: its cache is empty. To be freed in [`Cached::free`].
#[derive(Debug)]
pub struct Cached(#[expect(dead_code, reason = "to be freed")] Vec<Vec<u8>>);

/// Hands back what is resident of the free end of the calling thread's heap, which [`release`](super::release) does not
/// reach.
#[cfg(target_env = "gnu")]
pub fn release_end() {
    let mut block = Vec::<u8>::with_capacity(super::END_OF_HEAP as usize);
    let unused = block.spare_capacity_mut();
    let page = rustix::param::page_size();
    let skipped = unused.as_ptr().align_offset(page);
    let Some(pages) = unused.get_mut(skipped..) else { return };
    // SAFETY: these pages belong to one block, which is ours and holds nothing; it reads as zeros afterwards.
    unsafe {
        libc::madvise(pages.as_mut_ptr().cast(), pages.len() / page * page, libc::MADV_DONTNEED);
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn release_end() {}

impl Cached {
    /// Takes what the calling thread has kept. Some hundred allocations.
    pub fn take() -> Self {
        let mut blocks = Vec::with_capacity(SIZES * OF_A_SIZE);
        for size in (SMALLEST..).step_by(STEP).take(SIZES) {
            blocks.extend((0..OF_A_SIZE).map(|_| Vec::with_capacity(size)));
        }
        Self(blocks)
    }

    /// Frees it on a thread that ends with that and keeps nothing. Waits for it.
    pub fn free(kept: Vec<Self>) {
        // Without another thread they go into this one's cache, and those that it has no room for go back.
        if let Ok(thread) = std::thread::Builder::new().name("freeing".to_owned()).spawn(move || {
            drop(kept);
            release_end();
        }) {
            // It frees, and nothing of that panics.
            let _ = thread.join();
        }
    }
}
