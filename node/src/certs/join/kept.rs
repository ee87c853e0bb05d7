//! The node certificate on disk, beside the token that bought it.
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use identity::{ChainError, TlsOptions, WorkloadCertificate};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use wire::join::JoinResponse;

/// What is written down. Holds the private key: never shown.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Fingerprint of the token that was redeemed.
    pub token: String,
    /// The node it stands for.
    pub node: String,
    account: String,
    chain: Vec<String>,
    key: String,
}

/// The kept certificate cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
}

impl KeptError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "join-kept-io",
            Self::Malformed { .. } => "join-kept-malformed",
        }
    }
}

impl Kept {
    pub(super) fn new(token: String, answer: JoinResponse, key: String) -> Self {
        Self { token, node: answer.node, account: answer.account, chain: answer.cert_chain, key }
    }

    pub(super) fn certificate(&self) -> Result<WorkloadCertificate, ChainError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = key.map_err(|error| ChainError::Key { reason: error.to_string() })?;
        WorkloadCertificate::new(&self.chain, key, TlsOptions::default())
    }

    pub(super) fn read(token: &Path) -> Result<Option<Self>, KeptError> {
        let path = beside(token, ".node");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| KeptError::Malformed { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeptError::Io { path, source }),
        }
    }

    /// Written whole or not at all, readable by its owner only.
    pub(super) fn write(&self, token: &Path) -> Result<(), KeptError> {
        let (path, draft) = (beside(token, ".node"), beside(token, ".node.new"));
        let text =
            serde_json::to_vec(self).map_err(|source| KeptError::Malformed { path: path.clone(), source })?;
        let write = || {
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|source| KeptError::Io { path: path.clone(), source })
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("node", &self.node)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

fn beside(token: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(token);
    name.push(suffix);
    name.into()
}
