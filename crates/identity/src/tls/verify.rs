//! Peer verification: chain first, then the identity in it.
//!
//! Both sides look at the same names: the URI names of the leaf that are workload identities, in
//! their order. The server side authorises the first of them and therefore checks the trust domain
//! of that one, not of any other.
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::revocation::{Judged, RevocationLists};
use crate::certificate::uri_names;
use crate::{SpiffeId, TrustDomain};

/// The peer's chain is good and its identity is not the wanted one.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Outbound: none of the expected identities.
    #[error(
        "identity verification error: peer did not present the expected SAN ({}), got {}",
        list(expected),
        list(got)
    )]
    UnexpectedIdentity {
        /// Whom we dialled.
        expected: Vec<SpiffeId>,
        /// Whom we met.
        got: Vec<SpiffeId>,
    },
    /// Inbound: an identity of another trust domain, or none.
    #[error(
        "identity verification error: peer did not present the expected trustdomain ({expected}), got {}",
        list(got)
    )]
    UnexpectedTrustDomain {
        /// Our own.
        expected: TrustDomain,
        /// Whom we met; the first is the one that counts.
        got: Vec<SpiffeId>,
    },
}

impl PeerError {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnexpectedIdentity { .. } => "tls-unexpected-identity",
            Self::UnexpectedTrustDomain { .. } => "tls-unexpected-trust-domain",
        }
    }

    /// This refusal inside a TLS library's error, if it is the cause.
    pub fn from_tls(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// The TLS library puts the `Debug` text of a refusal into its own errors, which end up in access
/// logs: the outbound text is the contract's (data-path 4.2), the inbound one as recorded.
impl fmt::Debug for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedIdentity { .. } => fmt::Display::fmt(self, f),
            Self::UnexpectedTrustDomain { expected, got } => {
                let got: Vec<_> = got.iter().map(Parts).collect();
                f.debug_tuple("SanTrustDomainError").field(expected).field(&got).finish()
            }
        }
    }
}

struct Parts<'a>(&'a SpiffeId);

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spiffe")
            .field("trust_domain", self.0.trust_domain())
            .field("namespace", &self.0.namespace())
            .field("service_account", &self.0.service_account())
            .finish()
    }
}

fn list(identities: &[SpiffeId]) -> String {
    identities.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(",")
}

/// The identities a certificate names, in their order. URI names that are no identity are left out.
pub fn peer_identities(leaf: &CertificateDer<'_>) -> Vec<SpiffeId> {
    uri_names(leaf).iter().filter_map(|name| name.parse().ok()).collect()
}

/// Whom a verified peer stands for: the first identity its leaf names.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    peer_identities(chain.first()?).into_iter().next()
}

fn refusal(error: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Inbound: chain to our roots with client-auth usage, identity in our trust domain.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust_domain: TrustDomain,
    revocations: Option<RevocationLists>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: TrustDomain,
        revocations: Option<RevocationLists>,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .expect("a workload certificate has at least one root");
        let algorithms = provider.signature_verification_algorithms;
        Self { chain, roots, trust_domain, revocations, algorithms }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if let Some(revocations) = &self.revocations {
            let chain = (end_entity, intermediates);
            revocations.check(Judged::Client, chain, &self.roots, now, self.algorithms.all)?;
        }
        let got = peer_identities(end_entity);
        match got.first() {
            Some(first) if *first.trust_domain() == self.trust_domain => Ok(verified),
            _ => Err(refusal(PeerError::UnexpectedTrustDomain { expected: self.trust_domain.clone(), got })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Outbound: chain to our roots with server-auth usage, one of the expected identities.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    expected: Vec<SpiffeId>,
    revocations: Option<RevocationLists>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        expected: Vec<SpiffeId>,
        revocations: Option<RevocationLists>,
        provider: &CryptoProvider,
    ) -> Self {
        Self { roots, expected, revocations, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if let Some(revocations) = &self.revocations {
            let chain = (end_entity, intermediates);
            revocations.check(Judged::Server, chain, &self.roots, now, self.algorithms.all)?;
        }
        let got = peer_identities(end_entity);
        if got.iter().any(|identity| self.expected.contains(identity)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refusal(PeerError::UnexpectedIdentity { expected: self.expected.clone(), got }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
