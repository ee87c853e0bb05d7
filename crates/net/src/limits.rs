//! Limits and settings of the machine that decide what the sockets of this crate can do.
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard limit; returns the limit now in force (`None`: unlimited).
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum)
}

/// Is IPv6 usable on the loopback link of the calling thread's namespace?
///
/// `/proc/sys/net` shows the namespace of the thread that reads it. Only a clear "1" in the kernel's setting says no; a setting that cannot be read counts as yes.
pub fn ipv6_on_loopback() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    setting.map_or(true, |value| value.trim() != "1")
}
