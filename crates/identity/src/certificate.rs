//! What the certificate authority answered, parsed once: leaf, intermediates, roots, key, identity.
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{TlsOptions, crypto_provider};
use crate::{SpiffeId, half_life};

mod x509;

pub use x509::Certificate;
pub(crate) use x509::uri_names;

/// The certificate of a workload with its key, its chain and the roots it trusts.
///
/// The TLS server configuration is built once and kept; see [`WorkloadCertificate::server_config`]
/// and [`WorkloadCertificate::client_config`].
pub struct WorkloadCertificate {
    pub(crate) identity: SpiffeId,
    chain: Vec<Certificate>,
    roots: Vec<Certificate>,
    skipped_roots: Vec<SkippedRoot>,
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) root_store: Arc<RootCertStore>,
    pub(crate) options: TlsOptions,
    pub(crate) server: OnceLock<Arc<rustls::ServerConfig>>,
}

/// A root of the bundle that could not be used; the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRoot {
    /// Its place in the bundle, from 0.
    pub index: usize,
    /// Why it was skipped.
    pub reason: String,
}

/// The authority's answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No element at all.
    #[error("chain is empty")]
    Empty,
    /// Only a leaf: nothing to verify peers with.
    #[error("invalid root certificate: no root certificate present")]
    NoRoot,
    /// No root of the bundle can be read.
    #[error("invalid root certificate: none of {count} can be used")]
    NoUsableRoot {
        /// How many were in the bundle.
        count: usize,
    },
    /// An element of the chain holds no readable certificate.
    #[error("invalid certificate at place {index} of the chain: {reason}")]
    Unreadable {
        /// Its place; 0 is the leaf.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The leaf's first URI name is not a workload's identity.
    #[error("certificate names no workload: {found:?}")]
    NoIdentity {
        /// The URI names found.
        found: Vec<String>,
    },
    /// The key cannot be used, or belongs to another certificate.
    #[error("private key does not fit the certificate: {reason}")]
    Key {
        /// What the library said.
        reason: String,
    },
}

impl ChainError {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "ca-chain-empty",
            Self::NoRoot | Self::NoUsableRoot { .. } => "ca-chain-without-root",
            Self::Unreadable { .. } => "ca-chain-unreadable",
            Self::NoIdentity { .. } => "ca-chain-without-identity",
            Self::Key { .. } => "ca-chain-key-mismatch",
        }
    }
}

impl WorkloadCertificate {
    /// Reads the chain as the authority sends it: leaf first, one intermediate per element, all roots
    /// in the last element.
    pub fn new(
        chain: &[impl AsRef<[u8]>],
        key: PrivateKeyDer<'static>,
        options: TlsOptions,
    ) -> Result<Self, ChainError> {
        let (bundle, issued) = match chain {
            [] => return Err(ChainError::Empty),
            [_] => return Err(ChainError::NoRoot),
            [issued @ .., bundle] => (bundle, issued),
        };
        let chain = issued
            .iter()
            .enumerate()
            .map(|(index, pem)| {
                first_certificate(pem.as_ref()).map_err(|reason| ChainError::Unreadable { index, reason })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = chain.first().ok_or(ChainError::NoRoot)?;
        let found = uri_names(leaf.der());
        let Some(Ok(identity)) = found.first().map(|name| name.parse()) else {
            return Err(ChainError::NoIdentity { found });
        };
        let (roots, skipped_roots, root_store) = read_roots(bundle.as_ref())?;
        let ders = chain.iter().map(|certificate| certificate.der().clone()).collect();
        let key = CertifiedKey::from_der(ders, key, &crypto_provider(&options))
            .map_err(|error| ChainError::Key { reason: error.to_string() })?;
        Ok(Self {
            identity,
            chain,
            roots,
            skipped_roots,
            key: Arc::new(key),
            root_store: Arc::new(root_store),
            options,
            server: OnceLock::new(),
        })
    }

    /// The same certificate with other TLS options.
    #[must_use]
    pub fn with_options(&self, options: TlsOptions) -> Self {
        Self {
            identity: self.identity.clone(),
            chain: self.chain.clone(),
            roots: self.roots.clone(),
            skipped_roots: self.skipped_roots.clone(),
            key: self.key.clone(),
            root_store: self.root_store.clone(),
            options,
            server: OnceLock::new(),
        }
    }

    /// Whom it stands for: the leaf's first URI name.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// Leaf, then intermediates: what is presented to peers. Never empty.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The leaf.
    pub fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    /// All usable roots of the bundle.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// Roots that were left out, for a warning.
    pub fn skipped_roots(&self) -> &[SkippedRoot] {
        &self.skipped_roots
    }

    /// Chain and key in the form the TLS library presents.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The usable roots in the form the TLS library verifies with.
    pub fn root_store(&self) -> &Arc<RootCertStore> {
        &self.root_store
    }

    /// Start of validity.
    pub fn not_before(&self) -> SystemTime {
        self.leaf().not_before()
    }

    /// End of validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf().not_after()
    }

    /// Whether the certificate has ended.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.not_after() <= now
    }

    /// When to ask for the next one: the middle of its validity, counted from its issue and not from
    /// now; never before `now`.
    pub fn refresh_at(&self, now: SystemTime) -> SystemTime {
        half_life(self.not_before(), self.not_after()).map_or(now, |at| at.max(now))
    }
}

impl std::fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.leaf().serial())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

fn first_certificate(pem: &[u8]) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    Certificate::from_der(der)
}

/// Every root that can be read; an unreadable one is left out and reported.
fn read_roots(bundle: &[u8]) -> Result<(Vec<Certificate>, Vec<SkippedRoot>, RootCertStore), ChainError> {
    let (mut roots, mut skipped, mut store) = (Vec::new(), Vec::new(), RootCertStore::empty());
    for (index, der) in CertificateDer::pem_slice_iter(bundle).enumerate() {
        let root = der
            .map_err(|error| error.to_string())
            .and_then(Certificate::from_der)
            .and_then(|root| store.add(root.der().clone()).map(|()| root).map_err(|error| error.to_string()));
        match root {
            Ok(root) => roots.push(root),
            Err(reason) => skipped.push(SkippedRoot { index, reason }),
        }
    }
    match (roots.is_empty(), skipped.len()) {
        (true, 0) => Err(ChainError::NoRoot),
        (true, count) => Err(ChainError::NoUsableRoot { count }),
        (false, _) => Ok((roots, skipped, store)),
    }
}

#[cfg(test)]
mod tests;
