//! A folder of manifests as source: reading and watching.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{LoadError, Snapshot};

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
}

impl FileSource {
    /// Reads everything for the first time; any problem stops the start, with all problems listed.
    pub(crate) fn open(config: FileSourceConfig, now: Timestamp) -> Result<(Self, Snapshot), LoadError> {
        let _ = now;
        Ok((Self { config }, Snapshot::default()))
    }

    /// Reads again. What is bad keeps its last good version and is listed in the snapshot.
    /// `None` when nothing differs from the snapshot before.
    pub(crate) fn reload(&mut self, now: Timestamp) -> Option<Snapshot> {
        let _ = now;
        None
    }

    /// Starts watching the folder.
    pub(crate) fn watch(&self) -> Result<Watch, LoadError> {
        Ok(Watch {})
    }
}

/// Announces that files may have changed.
#[derive(Debug)]
pub(crate) struct Watch {}

impl Watch {
    /// Waits until something changed and has been quiet for a moment. Cancel safe.
    /// Never ends for a folder that cannot be watched: then it wakes at intervals.
    pub(crate) async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}
