//! The rules of a reload, without I/O.

use super::Problem;
use super::objects::{MeshConfig, Objects};

/// What a source has at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) objects: Objects,
    pub(crate) mesh: MeshConfig,
    /// What was refused; for each, the last good version (if any) is still in `objects`.
    pub(crate) problems: Vec<Problem>,
    /// Kinds found in the folder that mean nothing here, with their number.
    pub(crate) ignored_kinds: std::collections::BTreeMap<String, usize>,
}

/// A folder's last good state.
#[derive(Debug, Default)]
pub(crate) struct Folder {}
