//! Opening the namespace to enroll, and finding an enrolled one again after a restart.
use std::fs;
use std::io;
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
    let missed = match NetNamespace::open(path) {
        Ok(namespace) if namespace.id() == id => return Found::Open(namespace),
        // Another one stands at its path now.
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if let Some(namespace) = by_process(id) {
        return Found::Open(namespace);
    }
    match missed {
        Some(NamespaceError::Open { source, path }) if !says_absent(&source) => {
            Found::Unknown(NamespaceError::Open { source, path })
        }
        _ => Found::Gone,
    }
}

/// Is this the machine's own namespace, or the agent's? Capturing it would cut off everything on the machine.
pub(crate) fn is_hosts(namespace: &NetNamespace) -> bool {
    let own = NetNamespace::current().is_ok_and(|own| own.id() == namespace.id());
    own || NetNamespace::open("/proc/1/ns/net").is_ok_and(|host| host.id() == namespace.id())
}

fn says_absent(error: &io::Error) -> bool {
    // A process that has ended answers ESRCH.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3)
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
