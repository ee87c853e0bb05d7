//! Tokens that stand for a node: made by `culvert control token`, checked here.
//!
//! A token carries its claims and an HMAC over kind and claims, with a key that never leaves the state
//! folder. The kind is part of what is signed: a join token is no bearer token.
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::token::{AUDIENCE, BEARER, Claims, JOIN};

use super::authenticate::Account;
use super::state::{StateError, StateFolder};

/// A token longer than this is not read.
const LONGEST: usize = 4096;

/// The key tokens are signed with. `Debug` shows nothing of it.
pub(crate) struct TokenKey(hmac::Key);

impl TokenKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// Which token to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Works once; exchanged for a node certificate.
    Join,
    /// Sent with each request until it expires.
    Bearer,
}

impl TokenKind {
    /// How long it lasts unless said otherwise.
    pub(crate) fn default_ttl(self) -> Duration {
        match self {
            Self::Join => Duration::from_secs(24 * 3600),
            Self::Bearer => Duration::from_secs(30 * 24 * 3600),
        }
    }

    /// How long it may last: a token cannot be taken back before it ends.
    pub(crate) fn longest_ttl(self) -> Duration {
        match self {
            Self::Join => Duration::from_secs(30 * 24 * 3600),
            Self::Bearer => Duration::from_secs(366 * 24 * 3600),
        }
    }
}

/// No token can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueTokenError {
    #[error("invalid node name {0:?}")]
    Node(String),
    #[error("a token cannot last {} s, at most {} s", ttl.as_secs(), longest.as_secs())]
    Ttl { ttl: Duration, longest: Duration },
    #[error(transparent)]
    State(#[from] StateError),
}

impl IssueTokenError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Node(_) => "token-invalid-node",
            Self::Ttl { .. } => "token-invalid-ttl",
            Self::State(error) => error.code(),
        }
    }
}

/// The token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("not a token of this control plane")]
    Malformed,
    #[error("wrong signature")]
    Signature,
    #[error("wrong audience {0:?}")]
    Audience(String),
    #[error("expired")]
    Expired,
    #[error("used before")]
    Used,
}

impl TokenError {
    /// Stable code of this refusal.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "auth-token-malformed",
            Self::Signature => "auth-token-signature",
            Self::Audience(_) => "auth-token-audience",
            Self::Expired => "auth-token-expired",
            Self::Used => "auth-token-used",
        }
    }
}

/// Makes a token for `node` from the state folder of a control plane that has been started with it.
pub(crate) fn issue(
    state: &Path,
    kind: TokenKind,
    node: &str,
    account: &Account,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, IssueTokenError> {
    if !is_node_name(node) {
        return Err(IssueTokenError::Node(node.to_owned()));
    }
    let longest = kind.longest_ttl();
    let expires = now.checked_add(ttl).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let expires = expires.filter(|_| !ttl.is_zero() && ttl <= longest);
    let expires = expires.ok_or(IssueTokenError::Ttl { ttl, longest })?.as_secs();
    let state = StateFolder::existing(state)?;
    let claims = Claims {
        id: hex::encode(rand::random::<[u8; 16]>()),
        audience: AUDIENCE.to_owned(),
        node: node.to_owned(),
        account: account.to_string(),
        expires,
        root: state.root_hash()?,
    };
    let kind = match kind {
        TokenKind::Join => JOIN,
        TokenKind::Bearer => BEARER,
    };
    Ok(sign(&state.token_key()?, kind, &claims))
}

pub(super) fn sign(key: &TokenKey, kind: &str, claims: &Claims) -> String {
    let json = serde_json::to_vec(claims).unwrap_or_default();
    let signed = format!("{kind}.{}", URL_SAFE_NO_PAD.encode(json));
    let mac = hmac::sign(&key.0, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

/// The claims of a genuine, timely token of `kind`. Whether a join token was used is asked elsewhere.
pub(super) fn verify(key: &TokenKey, kind: &str, text: &str, now: SystemTime) -> Result<Claims, TokenError> {
    if text.len() > LONGEST {
        return Err(TokenError::Malformed);
    }
    let (signed, mac) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| TokenError::Malformed)?;
    hmac::verify(&key.0, signed.as_bytes(), &mac).map_err(|_| TokenError::Signature)?;
    let (found, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    if found != kind {
        return Err(TokenError::Malformed);
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
    if claims.audience != AUDIENCE {
        return Err(TokenError::Audience(claims.audience));
    }
    if expiry(&claims) <= now {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

pub(super) fn expiry(claims: &Claims) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.expires)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A name that Kubernetes would give a node.
fn is_node_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (1..=253).contains(&name.len()) && name.chars().all(allowed)
}
