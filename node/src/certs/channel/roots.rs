//! Which roots the control plane's certificate must chain to.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certs::join::NodeIdentity;

/// Where the roots come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootSource {
    /// A file, read anew for each connection.
    File(PathBuf),
    /// PEM text.
    Static(String),
    /// The operating system's.
    System,
    /// What came with the node's own certificate.
    Joined,
    /// Only the SHA-256 of the root is known: from a join token.
    Pinned([u8; 32]),
}

/// The roots cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    #[error("reading roots {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("no usable root certificate in {place}")]
    None { place: String },
    #[error("this node has not joined yet")]
    NotJoined,
}

impl RootsError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "control-roots-unreadable",
            Self::None { .. } => "control-roots-empty",
            Self::NotJoined => "control-not-joined",
        }
    }
}

/// What a server's certificate is judged by.
#[derive(Debug)]
pub(super) enum Trust {
    Roots(Arc<RootCertStore>),
    Pinned([u8; 32]),
}

impl RootSource {
    /// The rules of `XDS_ROOT_CA` and `CA_ROOT_CA`: `SYSTEM`, PEM text, or a path. A path that does not
    /// exist stays a path: an error, never an empty set of roots.
    pub(crate) fn from_setting(setting: &str) -> Self {
        if setting == "SYSTEM" {
            Self::System
        } else if setting.contains("-----BEGIN") && !Path::new(setting).exists() {
            Self::Static(setting.to_owned())
        } else {
            Self::File(setting.into())
        }
    }

    pub(super) async fn load(&self, node: Option<&NodeIdentity>) -> Result<Trust, RootsError> {
        let roots = match self {
            Self::File(path) => parse(&read(path).await?, || path.display().to_string())?,
            Self::Static(pem) => parse(pem.as_bytes(), || "the configured text".to_owned())?,
            Self::System => system()?,
            Self::Joined => {
                return node.and_then(NodeIdentity::roots).map(Trust::Roots).ok_or(RootsError::NotJoined);
            }
            Self::Pinned(hash) => return Ok(Trust::Pinned(*hash)),
        };
        Ok(Trust::Roots(Arc::new(roots)))
    }

    /// Changes when the file's content does; constant for other sources.
    pub(super) async fn fingerprint(&self) -> Result<u64, RootsError> {
        let Self::File(path) = self else { return Ok(0) };
        let mut hasher = DefaultHasher::new();
        let content = read(path).await?;
        parse(&content, || path.display().to_string())?;
        content.hash(&mut hasher);
        Ok(hasher.finish())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, RootsError> {
    tokio::fs::read(path).await.map_err(|source| RootsError::Unreadable { path: path.to_owned(), source })
}

fn parse(pem: &[u8], place: impl FnOnce() -> String) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        if let Err(error) =
            root.map_err(|error| error.to_string()).and_then(|der| roots.add(der).map_err(|e| e.to_string()))
        {
            tracing::warn!(%error, "skipping a root certificate of the control plane");
        }
    }
    if roots.is_empty() {
        return Err(RootsError::None { place: place() });
    }
    Ok(roots)
}

fn system() -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(RootsError::None { place: "the system's store".to_owned() });
    }
    Ok(roots)
}
