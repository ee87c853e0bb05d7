//! The runtime folder: where sockets live.
//!
//! Each instance (a node, a demo) has a folder of its own with a lock file held for life; a folder whose lock nobody
//! holds is stale and can go. Paths are short: a Unix socket's path is limited to 108 bytes.
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::environment::Environment;

/// Longest path of a Unix socket, without its final zero.
pub const SOCKET_PATH_LIMIT: usize = 107;

const LOCK: &str = "lock";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process lives there.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be made or opened.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket in it would have too long a path.
    #[error("{} is too long for a Unix socket ({SOCKET_PATH_LIMIT} bytes): choose a shorter runtime folder", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
}

impl FolderError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "folder-in-use",
            Self::Io { .. } => "folder-unusable",
            Self::TooLong { .. } => "folder-path-too-long",
        }
    }
}

/// The default runtime folder: `/run/culvert` for root, `$XDG_RUNTIME_DIR/culvert` otherwise
/// (without that variable `/tmp/culvert-UID`).
pub fn default_base(environment: &Environment) -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/culvert");
    }
    match environment.get("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(folder).join("culvert"),
        None => PathBuf::from(format!("/tmp/culvert-{}", uid.as_raw())),
    }
}

/// Where this user keeps what must outlive a restart; nothing for a user without a home.
pub fn lasting_base(environment: &Environment) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/culvert"));
    }
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("culvert"))
}

/// A folder owned by this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder (mode 0700) if needed and locks it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let path = path.into();
        make(&path)?;
        let io = |source| FolderError::Io { path: path.clone(), source };
        let lock = File::options().create(true).append(true).open(path.join(LOCK)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(FolderError::InUse { path }),
            Err(fs::TryLockError::Error(source)) => Err(FolderError::Io { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a socket in it.
    pub fn socket(&self, name: &str) -> Result<PathBuf, FolderError> {
        socket_path(&self.path, name)
    }

    /// Removes the folder with all that is in it.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Makes a folder (mode 0700) if needed, without locking it: several programs may keep sockets there.
pub fn make(path: &Path) -> Result<(), FolderError> {
    let io = |source| FolderError::Io { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    check_owner(path).map_err(io)
}

/// `folder/name`, if a socket can have that path.
pub fn socket_path(folder: &Path, name: &str) -> Result<PathBuf, FolderError> {
    let path = folder.join(name);
    if path.as_os_str().len() > SOCKET_PATH_LIMIT { Err(FolderError::TooLong { path }) } else { Ok(path) }
}

/// Whether a folder is locked by a living process.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path.join(LOCK)).is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Removes folders in `base` whose names start with `prefix` and whose owners are gone; the removed ones.
/// A folder without a lock file is left alone: its owner may be about to make one.
pub fn remove_stale(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let stale = ours.map(|entry| entry.path()).filter(|path| path.join(LOCK).exists() && !is_in_use(path));
    stale.filter(|path| fs::remove_dir_all(path).is_ok()).collect()
}

/// A folder somebody else made first (in `/tmp`, say) is not ours to trust.
fn check_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    let uid = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a folder of this user"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let base = std::env::temp_dir().join(format!("culvert-folders-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        base
    }

    #[test]
    fn a_folder_has_one_owner_and_goes_when_the_owner_is_gone() {
        let base = scratch("owner");
        let live = Folder::open(base.join("demo-1")).unwrap();
        assert_eq!(Folder::open(base.join("demo-1")).unwrap_err().code(), "folder-in-use");
        drop(Folder::open(base.join("demo-2")).unwrap());
        fs::create_dir(base.join("demo-3")).unwrap();
        drop(Folder::open(base.join("node")).unwrap());
        assert_eq!(remove_stale(&base, "demo-"), [base.join("demo-2")]);
        assert!(is_in_use(live.path()) && base.join("demo-3").exists() && base.join("node").exists());
        live.remove().unwrap();
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused() {
        let folder = PathBuf::from("/run").join("x".repeat(100));
        assert_eq!(socket_path(&folder, "admin.sock").unwrap_err().code(), "folder-path-too-long");
        assert!(socket_path(Path::new("/run/culvert"), "admin.sock").is_ok());
    }

    #[test]
    fn base_follows_the_user() {
        let base = default_base(&Environment::from_iter([("XDG_RUNTIME_DIR", "/run/user/7")]));
        let expected =
            if rustix::process::geteuid().is_root() { "/run/culvert" } else { "/run/user/7/culvert" };
        assert_eq!(base, Path::new(expected));
    }
}
