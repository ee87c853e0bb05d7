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
    own || is_of_process_1(namespace)
}

/// Process 1 of another user or with more rights than ours does not let its namespace be opened, but everybody may
/// look at its table of interfaces, and each namespace has one of its own.
fn is_of_process_1(namespace: &NetNamespace) -> bool {
    let of_namespace = namespace.run(|| interfaces_of("thread-self")).ok().flatten();
    of_namespace.is_some() && of_namespace == interfaces_of("1")
}

/// Device and inode of the table of interfaces that a process sees.
fn interfaces_of(process: &str) -> Option<(u64, u64)> {
    let table = fs::metadata(format!("/proc/{process}/net/dev")).ok()?;
    Some((table.dev(), table.ino()))
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
    use std::io::Write as _;

    use super::*;

    // The agent of a demo has a namespace of its own, and process 1 may be out of reach, as in many containers.
    #[test]
    fn the_machines_namespace_is_known_from_within_another() {
        let outside = NetNamespace::current().unwrap();
        let expected = interfaces_of("thread-self") == interfaces_of("1");
        assert_eq!(is_of_process_1(&outside), expected);
        let Ok(inside) = NetNamespace::create() else {
            // Not by a macro: the harness would keep what a test that passes prints.
            let _ = io::stderr().write_all(b"SKIPPED in part: this user may not make network namespaces\n");
            return;
        };
        let told = std::thread::spawn(move || {
            inside.enter().unwrap();
            (is_of_process_1(&inside), is_hosts(&inside), is_hosts(&outside))
        });
        assert_eq!(told.join().unwrap(), (false, true, expected));
    }
}
