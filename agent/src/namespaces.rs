//! Opening the namespace to enroll, and finding an enrolled one again after a restart.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use net::{NamespaceError, NamespaceId, NetNamespace};

/// What became of a recorded namespace.
#[derive(Debug)]
pub(crate) enum Found {
    /// Here it is.
    Open(NetNamespace),
    /// It is gone: its record is stale.
    Gone,
    /// It cannot be told.
    Unknown(NamespaceError),
}

/// Finds the namespace of a record: at its path, else by any process that lives in it.
pub(crate) fn find(path: &Path, id: NamespaceId) -> Found {
    // Looking needs no right to open, so it tells "another" and "gone" from "not for us".
    let cannot_look = match fs::metadata(path) {
        Ok(found) if (found.dev(), found.ino()) == (id.device, id.inode) => {
            return NetNamespace::open(path).map_or_else(Found::Unknown, Found::Open);
        }
        Ok(_) => None,
        Err(error) if says_absent(&error) => None,
        Err(source) => Some(NamespaceError::Open { path: path.to_owned(), source }),
    };
    match (by_process(id), cannot_look) {
        (Some(namespace), _) => Found::Open(namespace),
        (None, Some(error)) => Found::Unknown(error),
        (None, None) => Found::Gone,
    }
}

/// Is this the machine's own namespace, or the agent's? Capturing it would cut off everything on the machine.
pub(crate) fn is_hosts(namespace: &NetNamespace) -> bool {
    let own = NetNamespace::current().is_ok_and(|own| own.id() == namespace.id());
    own || machines().is_some_and(|machines| machines.id() == namespace.id())
}

/// The namespace of process 1; where that may not be looked at, of the eldest ancestor of ours that may.
fn machines() -> Option<NetNamespace> {
    let of = |pid: u32| NetNamespace::open(Path::new(&format!("/proc/{pid}/ns/net"))).ok();
    let ancestors = std::iter::successors(Some(std::process::id()), |pid| parent(*pid));
    of(1).or_else(|| ancestors.filter_map(of).last())
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok().filter(|parent| *parent != 0)
}

fn says_absent(error: &io::Error) -> bool {
    /// The answer of a process that has ended.
    const ESRCH: i32 = 3;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(ESRCH)
}

fn by_process(id: NamespaceId) -> Option<NetNamespace> {
    let processes = fs::read_dir("/proc").ok()?;
    let numbered = processes
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    numbered
        .map(|entry| entry.path().join("ns/net"))
        .find_map(|path: PathBuf| NetNamespace::open(path).ok().filter(|namespace| namespace.id() == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Also where process 1 is out of reach, as in many containers.
    #[test]
    fn the_machines_namespace_is_always_known() {
        assert!(machines().is_some());
        assert!(parent(std::process::id()).is_some());
        assert_eq!(parent(u32::MAX), None);
    }
}
