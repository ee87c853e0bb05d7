//! What is enrolled, as it is kept on disk: an agent that starts again goes on where the last one stopped.
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use net::NamespaceId;
use net::capture::Capture;
use serde::{Deserialize, Serialize};

/// One enrolled namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The pod's uid, the key of everything.
    pub uid: String,
    pub pod: PodName,
    pub service_account: String,
    /// Where the namespace was found.
    pub netns: PathBuf,
    /// Which namespace that was.
    pub device: u64,
    pub inode: u64,
    #[serde(flatten)]
    pub options: Options,
}

/// `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PodName {
    pub namespace: String,
    pub name: String,
}

/// How the namespace is captured; see [`Capture`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Options {
    pub dns_capture: bool,
    pub ingress: bool,
    pub virtual_interfaces: Vec<String>,
    pub track_answers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dns_capture: true, ingress: false, virtual_interfaces: Vec::new(), track_answers: false }
    }
}

impl Options {
    pub(crate) fn capture(&self) -> Capture {
        Capture {
            dns: self.dns_capture,
            ingress: self.ingress,
            track_answers: self.track_answers,
            virtual_interfaces: self.virtual_interfaces.clone(),
            ..Capture::default()
        }
    }
}

impl Record {
    pub(crate) fn namespace_id(&self) -> NamespaceId {
        NamespaceId { device: self.device, inode: self.inode }
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<PodName> for String {
    fn from(pod: PodName) -> Self {
        pod.to_string()
    }
}

/// A pod must be named with its namespace.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not NAMESPACE/NAME")]
pub(crate) struct InvalidPodName(String);

impl std::str::FromStr for PodName {
    type Err = InvalidPodName;

    fn from_str(text: &str) -> Result<Self, InvalidPodName> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidPodName(text.to_owned())),
        }
    }
}

impl TryFrom<String> for PodName {
    type Error = InvalidPodName;

    fn try_from(text: String) -> Result<Self, InvalidPodName> {
        text.parse()
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    boot: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// Namespaces do not survive a boot, and their inode numbers start again.
    boot: String,
    enrolled: Vec<Record>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is damaged ({source}): remove it and enroll again", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl StoreError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "agent-state-unreadable",
            Self::Damaged { .. } => "agent-state-damaged",
            Self::Write { .. } => "agent-state-unwritable",
        }
    }
}

impl Store {
    /// The file in an agent's folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { path: folder.join("enrolled.json"), boot: boot.trim().to_owned() }
    }

    /// What was enrolled when the last agent stopped, since this boot.
    pub(crate) fn load(&self) -> Result<Vec<Record>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Read { path: self.path.clone(), source }),
        };
        let content: Content = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Damaged { path: self.path.clone(), source })?;
        Ok(if content.boot == self.boot { content.enrolled } else { Vec::new() })
    }

    /// Replaces the file as a whole: after a crash there is the old content or the new.
    pub(crate) fn save(&self, enrolled: Vec<Record>) -> Result<(), StoreError> {
        let failed = |source| StoreError::Write { path: self.path.clone(), source };
        let content = Content { boot: self.boot.clone(), enrolled };
        let bytes = serde_json::to_vec_pretty(&content).map_err(|error| failed(error.into()))?;
        let next = self.path.with_extension("next");
        let write = || {
            let mut file: File =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&next, &self.path)
        };
        write().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str) -> Record {
        Record {
            uid: uid.to_owned(),
            pod: "default/web".parse().unwrap(),
            service_account: "web".to_owned(),
            netns: "/run/netns/web".into(),
            device: 4,
            inode: 4_026_532_000,
            options: Options { ingress: true, ..Options::default() },
        }
    }

    #[test]
    fn what_is_saved_is_loaded_until_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.load().unwrap(), []);
        store.save(vec![record("a"), record("b")]).unwrap();
        assert_eq!(Store::new(folder.path()).load().unwrap(), [record("a"), record("b")]);
        let next_boot = Store { boot: "another".to_owned(), path: store.path.clone() };
        assert_eq!(next_boot.load().unwrap(), []);
    }

    #[test]
    fn a_damaged_file_is_reported_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        fs::write(&store.path, "{").unwrap();
        assert_eq!(store.load().unwrap_err().code(), "agent-state-damaged");
        assert_eq!(fs::read_to_string(&store.path).unwrap(), "{");
    }

    #[test]
    fn a_pod_name_has_two_parts() {
        assert_eq!("a/b".parse::<PodName>().unwrap().to_string(), "a/b");
        for wrong in ["", "a", "a/", "/b", "a/b/c"] {
            assert!(wrong.parse::<PodName>().is_err(), "{wrong}");
        }
    }
}
