//! Who calls: a node with its certificate, or one with a bearer token. Nobody else is anybody.
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use identity::{InvalidSpiffeId, SpiffeId, TrustDomain};
use runtime::clock::Clock;
use rustls_pki_types::CertificateDer;
use tonic::metadata::MetadataMap;
use wire::token::BEARER;

use super::Config;
use super::leaf;
use super::tokens::{self, TokenError, TokenKey};

/// A service account: `<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    pub namespace: String,
    pub name: String,
}

/// The text is no service account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid service account {text:?}: must be <namespace>/<name>")]
pub(crate) struct InvalidAccount {
    pub text: String,
}

impl Account {
    /// The account of the reference's node proxy.
    pub(crate) fn ztunnel() -> Self {
        Self { namespace: "istio-system".to_owned(), name: "ztunnel".to_owned() }
    }

    /// Its identity in a trust domain.
    pub(crate) fn identity(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, InvalidSpiffeId> {
        SpiffeId::new(trust_domain.as_str(), &self.namespace, &self.name)
    }
}

impl FromStr for Account {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidAccount { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The node it stands for.
    pub node: String,
    /// The service account it stands for.
    pub account: Account,
    /// The account's identity in our trust domain.
    pub identity: SpiffeId,
    /// Until when the proof holds; a long stream should end then.
    pub expires: SystemTime,
    /// What proved it.
    pub proof: Proof,
}

/// What proved a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A certificate bought with a join token.
    NodeCertificate,
    /// A bearer token.
    BearerToken,
}

/// The caller is nobody. The caller itself learns no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthenticateError {
    #[error("neither a node certificate nor a bearer token")]
    NoProof,
    #[error("the client certificate stands for no node")]
    NotANode,
    #[error("the node certificate has ended or not begun")]
    CertificateNotValid,
    #[error("the authorization header is not a bearer token")]
    Header,
    #[error("bearer token: {0}")]
    Token(#[from] TokenError),
    #[error("caller of cluster {0:?}")]
    ForeignCluster(String),
    #[error("the account of the caller: {0}")]
    Account(#[from] InvalidAccount),
    #[error("the identity of the caller: {0}")]
    Identity(#[from] InvalidSpiffeId),
}

impl AuthenticateError {
    /// Stable code of this refusal.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoProof => "auth-no-proof",
            Self::NotANode => "auth-not-a-node",
            Self::CertificateNotValid => "auth-certificate-not-valid",
            Self::Header => "auth-malformed-header",
            Self::Token(error) => error.code(),
            Self::ForeignCluster(_) => "auth-foreign-cluster",
            Self::Account(_) | Self::Identity(_) => "auth-invalid-account",
        }
    }
}

/// Tells who calls.
#[derive(Debug)]
pub(crate) struct Authenticator {
    trust_domain: TrustDomain,
    cluster_id: String,
    key: TokenKey,
    clock: Clock,
}

impl Authenticator {
    pub(super) fn new(config: &Config, key: TokenKey, clock: Clock) -> Self {
        Self { trust_domain: config.trust_domain.clone(), cluster_id: config.cluster_id.clone(), key, clock }
    }

    /// The caller, by its verified client certificate or else by its bearer token. `peer` is the chain
    /// the TLS layer has verified against our roots; empty without one.
    pub(crate) fn authenticate(
        &self,
        metadata: &MetadataMap,
        peer: &[CertificateDer<'_>],
    ) -> Result<Principal, AuthenticateError> {
        self.check_cluster(metadata)?;
        let by_certificate = match peer.first() {
            Some(leaf) => self.by_certificate(leaf),
            None => Err(AuthenticateError::NoProof),
        };
        match (by_certificate, metadata.get("authorization")) {
            (Ok(principal), _) => Ok(principal),
            (Err(_), Some(header)) => self.by_token(header.to_str().map_err(|_| AuthenticateError::Header)?),
            (Err(error), None) => Err(error),
        }
    }

    /// No `clusterid` and an empty one mean the local cluster.
    fn check_cluster(&self, metadata: &MetadataMap) -> Result<(), AuthenticateError> {
        let Some(cluster) = metadata.get("clusterid") else { return Ok(()) };
        match cluster.to_str() {
            Ok(name) if name.is_empty() || name == self.cluster_id => Ok(()),
            name => Err(AuthenticateError::ForeignCluster(name.unwrap_or("not text").to_owned())),
        }
    }

    pub(super) fn by_certificate(&self, leaf: &CertificateDer<'_>) -> Result<Principal, AuthenticateError> {
        let node = leaf::read_node(leaf, &self.trust_domain).ok_or(AuthenticateError::NotANode)?;
        let now = self.clock.wall();
        // The handshake may be long past: connections outlive certificates.
        if now < node.not_before || now >= node.not_after {
            return Err(AuthenticateError::CertificateNotValid);
        }
        let account = Account {
            namespace: node.identity.namespace().into(),
            name: node.identity.service_account().into(),
        };
        Ok(Principal {
            node: node.name,
            account,
            identity: node.identity,
            expires: node.not_after,
            proof: Proof::NodeCertificate,
        })
    }

    fn by_token(&self, header: &str) -> Result<Principal, AuthenticateError> {
        let text = header.strip_prefix("Bearer ").ok_or(AuthenticateError::Header)?;
        let claims = tokens::verify(&self.key, BEARER, text.trim(), self.clock.wall())?;
        let account: Account = claims.account.parse()?;
        let identity = account.identity(&self.trust_domain)?;
        let expires = tokens::expiry(&claims);
        Ok(Principal { node: claims.node, account, identity, expires, proof: Proof::BearerToken })
    }

    pub(super) fn key(&self) -> &TokenKey {
        &self.key
    }
}
