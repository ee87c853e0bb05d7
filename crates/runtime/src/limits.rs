//! Limits of the process.
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors to the hard limit; what it was and what it is (`None`: unlimited).
pub fn raise_descriptor_limit() -> io::Result<(Option<u64>, Option<u64>)> {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    setrlimit(Resource::Nofile, wanted)?;
    Ok((before.current, before.maximum))
}

/// The limit of open descriptors now (`None`: unlimited).
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many descriptors are open now.
pub fn n_open_descriptors() -> io::Result<u64> {
    // The folder being read is itself open meanwhile.
    let n_entries = std::fs::read_dir("/proc/self/fd")?.count();
    Ok(u64::try_from(n_entries).unwrap_or(u64::MAX).saturating_sub(1))
}
