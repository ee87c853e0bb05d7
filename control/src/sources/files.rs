//! A folder of manifests as source: reading and watching.

#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::allocation::Allocation;
use super::folder::File;
use super::{Folder, LoadError, Problem, Reason, Snapshot};
pub(crate) use watch::Watch;

/// Room for `kubectl get pods -A -o yaml` of a large cluster.
pub(super) const MAX_FILE_BYTES: usize = 128 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;
const ALLOCATED: &str = "allocated-addresses.json";

/// Where the file source reads and what it may remember.
#[derive(Debug, Clone)]
pub(crate) struct FileSourceConfig {
    /// `--config DIR`: read with its subfolders; `.yaml`, `.yml` and `.json`.
    pub(crate) folder: PathBuf,
    /// `--meshConfig FILE`; without it the ConfigMap `istio-system/istio`, key `mesh`, of the folder.
    pub(crate) mesh_config: Option<PathBuf>,
    /// `--state DIR`: keeps allocated addresses. Nothing is kept without it.
    pub(crate) state: Option<PathBuf>,
    /// `PILOT_ENABLE_IP_AUTOALLOCATE`.
    pub(crate) allocate_addresses: bool,
}

/// A folder, its last good state, and how to notice changes.
#[derive(Debug)]
pub(crate) struct FileSource {
    config: FileSourceConfig,
    folder: Folder,
    allocation: Allocation,
    current: Snapshot,
}

impl FileSource {
    /// Reads everything for the first time; any problem stops the start, with all problems listed.
    pub(crate) fn open(config: FileSourceConfig, now: Timestamp) -> Result<(Self, Snapshot), LoadError> {
        let allocation = config.state.as_deref().map(read_allocation).unwrap_or_default();
        let mut source = Self { config, folder: Folder::default(), allocation, current: Snapshot::default() };
        let snapshot = source.read(now);
        if !snapshot.problems.is_empty() {
            return Err(LoadError { problems: snapshot.problems });
        }
        source.current = snapshot.clone();
        Ok((source, snapshot))
    }

    /// Reads again. What is bad keeps its last good version and is listed in the snapshot.
    /// `None` when nothing differs from the snapshot before.
    pub(crate) fn reload(&mut self, now: Timestamp) -> Option<Snapshot> {
        let snapshot = self.read(now);
        if snapshot == self.current {
            return None;
        }
        self.current = snapshot.clone();
        Some(snapshot)
    }

    /// Starts watching the folder.
    pub(crate) fn watch(&self) -> Watch {
        Watch::start(&self.config)
    }

    fn read(&mut self, now: Timestamp) -> Snapshot {
        let mesh_file = self.config.mesh_config.as_deref();
        let files = match read_folder(&self.config.folder, mesh_file) {
            Ok(files) => files,
            // The folder itself is gone or unreadable: keep everything.
            Err(reason) => {
                let mut snapshot = self.current.clone();
                let file = self.config.folder.clone();
                snapshot.problems = vec![Problem { file, line: None, object: None, reason }];
                return snapshot;
            }
        };
        let mesh_file = mesh_file.map(|path| File { path: path.to_owned(), content: read_file(path) });
        let mut snapshot = self.folder.apply(files, mesh_file, now);
        if self.config.allocate_addresses && self.allocation.fill_in(&mut snapshot.objects) {
            self.keep_allocation();
        }
        snapshot
    }

    fn keep_allocation(&self) {
        let Some(state) = &self.config.state else { return };
        let path = state.join(ALLOCATED);
        let written =
            serde_json::to_vec_pretty(&self.allocation).map_err(std::io::Error::other).and_then(|bytes| {
                // The source is read before anybody else makes the folder; nobody but its owner enters it.
                DirBuilder::new().recursive(true).mode(0o700).create(state)?;
                let temporary = path.with_extension("json.new");
                fs::write(&temporary, bytes)?;
                fs::rename(&temporary, &path)
            });
        if let Err(error) = written {
            tracing::warn!(file = %path.display(), %error, "allocated addresses could not be kept");
        }
    }
}

fn read_allocation(state: &Path) -> Allocation {
    let path = state.join(ALLOCATED);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "allocated addresses are unreadable and start afresh");
            Allocation::default()
        }),
        Err(_) => Allocation::default(),
    }
}

/// All manifests below a folder, sorted by path. Names that start with a dot are not looked at:
/// editors' temporary files, and the versions behind a mounted ConfigMap.
fn read_folder(folder: &Path, except: Option<&Path>) -> Result<Vec<File>, Reason> {
    let mut paths = BTreeSet::new();
    let mut visited = BTreeSet::new();
    collect(folder, 0, &mut visited, &mut paths)?;
    if paths.len() > MAX_FILES {
        return Err(Reason::TooLarge { what: "the number of files", limit: MAX_FILES });
    }
    let except = except.and_then(|path| fs::canonicalize(path).ok());
    let is_manifest = |path: &&PathBuf| except.is_none() || fs::canonicalize(path).ok() != except;
    let files = paths.iter().filter(is_manifest).map(|path| File {
        path: path.strip_prefix(folder).unwrap_or(path).to_owned(),
        content: read_file(path),
    });
    Ok(files.collect())
}

fn collect(
    folder: &Path,
    depth: usize,
    visited: &mut BTreeSet<PathBuf>,
    paths: &mut BTreeSet<PathBuf>,
) -> Result<(), Reason> {
    let unreadable = |error: std::io::Error| Reason::Unreadable(error.to_string());
    // A link back up is not followed twice.
    if depth > MAX_DEPTH || !visited.insert(fs::canonicalize(folder).map_err(unreadable)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, visited, paths)?;
        } else if is_manifest(&path) {
            paths.insert(path);
        }
    }
    Ok(())
}

/// By extension; `kustomization.yaml` steers another tool and is no object.
fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    matches!(extension, "yaml" | "yml" | "json") && !stem.eq_ignore_ascii_case("kustomization")
}

fn read_file(path: &Path) -> Result<Vec<u8>, Reason> {
    let unreadable = |error: std::io::Error| Reason::Unreadable(error.to_string());
    let file = fs::File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Reason::Unreadable("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Reason::TooLarge { what: "its size in bytes", limit: MAX_FILE_BYTES });
    }
    Ok(bytes)
}
