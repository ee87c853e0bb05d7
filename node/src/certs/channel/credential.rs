//! The bearer token of a node (control-and-operations 4.9).
use std::io;
use std::path::{Path, PathBuf};

/// Where the projected token of the reference's DaemonSet lies.
const PROJECTED_TOKEN: &str = "./var/run/secrets/tokens/istio-token";

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// No token is sent.
    None,
    /// Read anew for each request.
    File(PathBuf),
    /// Given as text; never refreshed.
    Literal(String),
}

/// The token cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("reading token {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("token file {} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("token cannot be sent in a header")]
    Unusable,
}

impl CredentialError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "control-token-unreadable",
            Self::Empty { .. } => "control-token-empty",
            Self::Unusable => "control-token-unusable",
        }
    }
}

impl Credential {
    /// The rules of `AUTH_TOKEN`: an existing path is a file, other text the token itself; unset, the
    /// projected token if there is one.
    pub(crate) fn from_setting(setting: Option<&str>) -> Self {
        match setting {
            Some("") => Self::None,
            Some(text) if Path::new(text).exists() => Self::File(text.into()),
            Some(text) => Self::Literal(text.to_owned()),
            None if Path::new(PROJECTED_TOKEN).exists() => Self::File(PROJECTED_TOKEN.into()),
            None => Self::None,
        }
    }

    pub(super) async fn read(&self) -> Result<Option<String>, CredentialError> {
        match self {
            Self::None => Ok(None),
            Self::Literal(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let unreadable = |source| CredentialError::Unreadable { path: path.clone(), source };
                let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(CredentialError::Empty { path: path.clone() });
                }
                Ok(Some(token.to_owned()))
            }
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
        }
    }
}
