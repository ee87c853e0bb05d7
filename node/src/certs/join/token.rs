//! A join token as the node reads it: for the hash of the root and the name of the node. Whether it is
//! genuine only the control plane can say.
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{InvalidSpiffeId, SpiffeId};
use wire::token::{Claims, JOIN};

/// A token longer than this is not one.
const LONGEST: u64 = 16 * 1024;

/// Why a join token cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("reading join token {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no join token: {reason}", path.display())]
    Malformed { path: PathBuf, reason: &'static str },
    #[error(transparent)]
    Account(#[from] InvalidSpiffeId),
}

impl TokenError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "join-token-unreadable",
            Self::Malformed { .. } | Self::Account(_) => "join-token-malformed",
        }
    }
}

/// A file whose change of status lies back so little may be written again without looking different.
const SETTLED: Duration = Duration::from_secs(2);

/// Tells a file from what it is after somebody has written to it or put another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileVersion {
    inode: u64,
    changed: (i64, i64),
    length: u64,
}

impl FileVersion {
    /// Of the file as it is now; nothing if it cannot be told.
    pub(super) async fn of(path: &Path) -> Option<Self> {
        let file = tokio::fs::metadata(path).await.ok()?;
        Some(Self { inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()), length: file.len() })
    }

    /// Whoever changes it from `now` on makes another version of it.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed =
            UNIX_EPOCH.checked_add(Duration::from_secs(self.changed.0.try_into().unwrap_or_default()));
        changed.and_then(|changed| now.duration_since(changed).ok()).is_some_and(|age| age > SETTLED)
    }
}

/// A token that has been read; never shown.
pub(crate) struct JoinToken {
    text: String,
    claims: Claims,
    root: [u8; 32],
}

impl JoinToken {
    pub(super) async fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
        if tokio::fs::metadata(path).await.map_err(unreadable)?.len() > LONGEST {
            return Err(TokenError::Malformed { path: path.to_owned(), reason: "too long" });
        }
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        Self::parse(text.trim()).map_err(|reason| TokenError::Malformed { path: path.to_owned(), reason })
    }

    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split('.');
        let (Some(JOIN), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not of the form culvert-join.CLAIMS.SIGNATURE");
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "claims are not base64url")?;
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| "claims are not those of a token")?;
        let root = hex_32(&claims.root).ok_or("the root's hash is not a SHA-256")?;
        Ok(Self { text: text.to_owned(), claims, root })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(super) fn root(&self) -> [u8; 32] {
        self.root
    }

    pub(super) fn names_root(&self, der: &[u8]) -> bool {
        digest(&SHA256, der).as_ref() == self.root
    }

    /// Tells tokens apart without keeping them.
    pub(super) fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.text.as_bytes()))
    }

    /// The name put into the request; the control plane goes by the token, not by it.
    pub(super) fn asks_for(&self) -> Result<SpiffeId, TokenError> {
        let (namespace, account) = self.claims.account.split_once('/').unwrap_or_default();
        Ok(SpiffeId::new("node", namespace, account)?)
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("node", &self.claims.node).finish_non_exhaustive()
    }
}

fn hex_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
