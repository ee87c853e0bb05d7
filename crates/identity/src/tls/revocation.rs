//! Certificates that their issuers have taken back (RFC 5280 section 5; data-path 4.9).
//!
//! The whole chain is checked. A certificate whose issuer has no list passes, and a list that is past its date still
//! counts: what it revokes stays revoked.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::crypto_provider;
use crate::WorkloadCertificate;

/// The revocation lists in force, asked at every handshake. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct RevocationLists(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lists: RwLock<Arc<Vec<CertRevocationList<'static>>>>,
    refused_clients: AtomicU64,
    refused_servers: AtomicU64,
}

/// The lists cannot be read; those in force stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("revocation list {index}: {reason}")]
pub struct RevocationError {
    /// Its place in the file, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl RevocationError {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        "config-crl-invalid"
    }
}

/// Which end of a connection is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judged {
    /// The one that has connected.
    Client,
    /// The one that has accepted.
    Server,
}

impl WorkloadCertificate {
    /// Whether the lists in force revoke a certificate of a chain that was good at the handshake with this certificate,
    /// at `then`. An error if a list that concerns the chain cannot be trusted, its signature being wrong for example.
    pub fn has_revoked(
        &self,
        judged: Judged,
        chain: &[CertificateDer<'_>],
        then: SystemTime,
    ) -> Result<bool, Error> {
        let (Some(lists), Some((leaf, intermediates))) = (&self.options.revocations, chain.split_first())
        else {
            return Ok(false);
        };
        let then = UnixTime::since_unix_epoch(then.duration_since(UNIX_EPOCH).unwrap_or_default());
        let algorithms = crypto_provider(&self.options).signature_verification_algorithms.all;
        match lists.look_up(judged, (leaf, intermediates), &self.root_store, then, algorithms) {
            Ok(()) => Ok(false),
            Err(Error::InvalidCertificate(CertificateError::Revoked)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Counts a connection that was ended for what [`WorkloadCertificate::has_revoked`] says.
    pub fn count_revoked(&self, judged: Judged) {
        if let Some(lists) = &self.options.revocations {
            lists.count(judged);
        }
    }
}

impl RevocationLists {
    /// Puts other lists in force: any number in PEM, other blocks are passed over, or one in DER. Nothing at all
    /// revokes nothing. Gives their number.
    pub fn replace(&self, content: &[u8]) -> Result<usize, RevocationError> {
        let is_pem = content.windows(10).any(|window| window == b"-----BEGIN");
        let ders: Vec<_> = if is_pem {
            CertificateRevocationListDer::pem_slice_iter(content)
                .map(|der| der.map_err(|error| error.to_string()))
                .collect()
        } else if content.trim_ascii().is_empty() {
            Vec::new()
        } else {
            vec![Ok(CertificateRevocationListDer::from(content))]
        };
        let parse = |(index, der): (usize, Result<CertificateRevocationListDer<'_>, String>)| {
            let list = der.and_then(|der| {
                OwnedCertRevocationList::from_der(&der).map_err(|error| format!("{error:?}"))
            });
            list.map(CertRevocationList::from).map_err(|reason| RevocationError { index, reason })
        };
        let lists = ders.into_iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        let count = lists.len();
        *self.0.lists.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
        Ok(count)
    }

    /// How many lists are in force.
    pub fn n_lists(&self) -> usize {
        self.0.lists.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Clients refused so far.
    pub fn n_refused_clients(&self) -> u64 {
        self.0.refused_clients.load(Ordering::Relaxed)
    }

    /// Servers refused so far.
    pub fn n_refused_servers(&self) -> u64 {
        self.0.refused_servers.load(Ordering::Relaxed)
    }

    /// Refuses a chain, good in all else, of which a certificate is revoked, and counts that.
    pub(super) fn check(
        &self,
        judged: Judged,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roots: &RootCertStore,
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let found = self.look_up(judged, chain, roots, now, algorithms);
        if found == Err(CertificateError::Revoked.into()) {
            self.count(judged);
        }
        found
    }

    fn count(&self, judged: Judged) {
        let refused = match judged {
            Judged::Client => &self.0.refused_clients,
            Judged::Server => &self.0.refused_servers,
        };
        refused.fetch_add(1, Ordering::Relaxed);
    }

    fn look_up(
        &self,
        judged: Judged,
        (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roots: &RootCertStore,
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let lists = Arc::clone(&self.0.lists.read().unwrap_or_else(PoisonError::into_inner));
        let lists: Vec<_> = lists.iter().collect();
        let Ok(options) = RevocationOptionsBuilder::new(&lists) else {
            // No list at all.
            return Ok(());
        };
        let options = options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build();
        let usage = match judged {
            Judged::Client => KeyUsage::client_auth(),
            Judged::Server => KeyUsage::server_auth(),
        };
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let verified =
            leaf.verify_for_usage(algorithms, &roots.roots, intermediates, now, usage, Some(options), None);
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::CertRevoked) => Err(CertificateError::Revoked.into()),
            // The chain was good without the lists: one of them cannot be trusted.
            Err(error) => Err(Error::General(format!("revocation status cannot be told: {error:?}"))),
        }
    }
}
