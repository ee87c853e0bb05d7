//! The admin sockets of this machine's nodes: `D/NODE/admin.sock` and `D/demo-ID/NODE/admin.sock`.
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::fetch::Endpoint;

const SOCKET: &str = "admin.sock";
const DEMO: &str = "demo-";

/// Sockets that somebody listens on, with the names of their nodes, sorted. Only those of one demo if it is given.
pub(super) fn find(base: &Path, demo: Option<&str>) -> Vec<(Endpoint, Option<String>)> {
    let mut found = Vec::new();
    match demo {
        Some(id) => nodes_in(&base.join(format!("{DEMO}{}", id.trim_start_matches(DEMO))), &mut found),
        None => {
            nodes_in(base, &mut found);
            for (folder, name) in folders_in(base) {
                if name.starts_with(DEMO) {
                    nodes_in(&folder, &mut found);
                }
            }
        }
    }
    found.sort();
    found.into_iter().map(|(path, node)| (Endpoint::Unix(path), Some(node))).collect()
}

/// The demos that these nodes belong to.
pub(super) fn demos(found: &[(Endpoint, Option<String>)]) -> Vec<String> {
    let of_demo = found.iter().filter_map(|(endpoint, _)| {
        let Endpoint::Unix(socket) = endpoint else { return None };
        let folder = socket.parent()?.parent()?.file_name()?.to_str()?;
        folder.strip_prefix(DEMO).map(str::to_owned)
    });
    let distinct: BTreeSet<String> = of_demo.collect();
    distinct.into_iter().collect()
}

fn nodes_in(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for (node, name) in folders_in(folder) {
        let socket = node.join(SOCKET);
        // A socket of a dead process refuses.
        if UnixStream::connect(&socket).is_ok() {
            found.push((socket, name));
        }
    }
}

fn folders_in(folder: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.path().is_dir());
    entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())).collect()
}
