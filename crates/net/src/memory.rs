//! The process's memory as the system sees it, and how what is free goes back to it.
//!
//! The allocator keeps what was freed in the middle of its heaps, thread by thread, for ever: after a burst a process
//! would stay as large as it was. [`release`] hands whole free pages back wherever they lie, [`Cached`] has threads give
//! up the small blocks that keep pages from being free, [`release_end`] a thread the end of its heap, [`unload`] hands back pages of the program's file.
mod cache;
mod program;

use std::io;
use std::time::Duration;

pub use cache::{Cached, release_end};
pub use program::unload;

/// What the process holds, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident, all of it.
    pub resident: u64,
    /// Resident and not backed by a file: heap, stacks, buffers.
    pub private: u64,
}

impl Usage {
    /// What it holds now.
    pub fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/statm")?;
        let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(resident)), Some(Ok(shared))) = (pages.next(), pages.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let page = rustix::param::page_size() as u64;
        Ok(Self { resident: resident * page, private: resident.saturating_sub(shared) * page })
    }

    /// Resident pages of files, the program's own first of all.
    pub fn of_files(&self) -> u64 {
        self.resident.saturating_sub(self.private)
    }

    /// Held but not [`allocated`].
    pub fn slack(&self, allocated: u64) -> u64 {
        self.private.saturating_sub(allocated)
    }
}

/// Processor time of all threads of this process so far.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Free memory at the end of a heap above which the allocator hands it back by itself.
#[cfg(target_env = "gnu")]
const END_OF_HEAP: libc::c_int = 2 << 20;

/// Blocks from this size on have pages of their own, which go back with them.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 4 << 20;

/// Fixes how much the allocator keeps at the end of each heap. Left alone it raises that to 64 MiB as large blocks
/// come and go, and [`release`] does not reach it. To be called once, before threads start.
#[cfg(target_env = "gnu")]
pub fn keep_little() {
    // SAFETY: plain numbers; called before other threads exist, as mallopt(3) asks for.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, END_OF_HEAP);
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}

/// Hands free pages back to the system. Takes each heap's lock while it looks through that heap.
#[cfg(target_env = "gnu")]
pub fn release() {
    // SAFETY: no arguments but a size, and it may be called from any thread at any time (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn release() {}

/// Octets allocated at the moment. Takes each heap's lock while it walks through what is free there. Zero where the
/// allocator cannot tell.
#[cfg(target_env = "gnu")]
pub fn allocated() -> u64 {
    // SAFETY: no arguments; returns a plain structure by value, from any thread at any time (mallinfo2(3)).
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks as u64) + (info.hblkhd as u64)
}

/// Zero: the allocator cannot tell.
#[cfg(not(target_env = "gnu"))]
pub fn allocated() -> u64 {
    0
}
