//! The state folder: the root's key, the key of the tokens, which join tokens were used. Nobody but its
//! owner reads it; `root-cert.pem` in it is for others to copy.
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::tokens::TokenKey;

const PUBLISHED_ROOT: &str = "root-cert.pem";
const ISSUING_ROOT: &str = "issuing-root.pem";
const TOKEN_KEY: &str = "token.key";
const USED_TOKENS: &str = "used-tokens";

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is open to others (mode {mode:03o}): chmod 0700 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} holds no root: start `culvert control` with this state folder first", path.display())]
    NoRoot { path: PathBuf },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf },
}

impl StateError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "state-io",
            Self::Open { .. } => "state-open-to-others",
            Self::NoRoot { .. } => "state-no-root",
            Self::Damaged { .. } => "state-damaged",
        }
    }
}

/// An open state folder.
#[derive(Debug, Clone)]
pub(super) struct StateFolder {
    path: PathBuf,
}

impl StateFolder {
    /// Makes the folder with mode 0700 if there is none; refuses one that others can enter.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        Self::existing(path)
    }

    /// A folder that must be there already.
    pub(super) fn existing(path: &Path) -> Result<Self, StateError> {
        let metadata =
            fs::metadata(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Open { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned() })
    }

    fn io<T>(&self, name: &str, result: io::Result<T>) -> Result<T, StateError> {
        result.map_err(|source| StateError::Io { path: self.path.join(name), source })
    }

    /// The content of a file, nothing if it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        match fs::read_to_string(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => self.io(name, result).map(Some),
        }
    }

    /// Writes a file whole or not at all.
    pub(super) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), StateError> {
        let draft = self.path.join(format!(".{name}.{}", hex::encode(rand::random::<[u8; 8]>())));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, self.path.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        self.io(name, write())
    }

    /// Holds off other processes that use the same folder, until dropped.
    pub(super) fn lock(&self) -> Result<File, StateError> {
        let lock = || {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).mode(0o600).open(self.path.join(".lock"))?;
            file.lock()?;
            Ok(file)
        };
        self.io(".lock", lock())
    }

    /// The key of the tokens; made at first use.
    pub(super) fn token_key(&self) -> Result<TokenKey, StateError> {
        let _lock = self.lock()?;
        if let Some(text) = self.read(TOKEN_KEY)? {
            let secret = hex::decode(text.trim()).ok().filter(|secret| secret.len() == 32);
            let secret = secret.ok_or_else(|| StateError::Damaged { path: self.path.join(TOKEN_KEY) })?;
            return Ok(TokenKey::new(&secret));
        }
        let secret = rand::random::<[u8; 32]>();
        self.write(TOKEN_KEY, 0o600, hex::encode(secret).as_bytes())?;
        Ok(TokenKey::new(&secret))
    }

    /// Writes the roots where others find them.
    pub(super) fn publish(&self, bundle: &str, issuing_root: &str) -> Result<(), StateError> {
        self.write(ISSUING_ROOT, 0o644, issuing_root.as_bytes())?;
        self.write(PUBLISHED_ROOT, 0o644, bundle.as_bytes())
    }

    /// SHA-256 of the root that signs, hexadecimal.
    pub(super) fn root_hash(&self) -> Result<String, StateError> {
        let path = self.path.join(ISSUING_ROOT);
        let pem = self.read(ISSUING_ROOT)?.ok_or_else(|| StateError::NoRoot { path: self.path.clone() })?;
        let root =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| StateError::Damaged { path })?;
        Ok(hex::encode(digest(&SHA256, &root)))
    }

    /// Marks a join token as used, for good and on disk; `false` if it was already.
    pub(super) fn mark_used(&self, id: &str, expires: SystemTime) -> Result<bool, StateError> {
        let folder = self.path.join(USED_TOKENS);
        // Genuine ids are hexadecimal; nothing else becomes a file name.
        if id.len() != 32 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(StateError::Damaged { path: folder });
        }
        self.io(USED_TOKENS, DirBuilder::new().recursive(true).mode(0o700).create(&folder))?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(id));
        let mut file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            made => self.io(USED_TOKENS, made)?,
        };
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let written = write!(file, "{expires}").and_then(|()| file.sync_all());
        self.io(USED_TOKENS, written.and_then(|()| File::open(&folder)?.sync_all()))?;
        Ok(true)
    }

    /// Forgets used tokens that have expired: they would be refused anyway.
    pub(super) fn prune_used_tokens(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(self.path.join(USED_TOKENS)) else { return };
        for entry in entries.flatten() {
            let expires = fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse().ok());
            // A mark without a readable time stays: better refuse too long.
            let ended = expires.is_some_and(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at) < now);
            if ended && let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!(%error, "a used join token stays marked");
            }
        }
    }
}
