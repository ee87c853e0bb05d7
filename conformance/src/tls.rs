//! Ordinary TLS towards the target, with what a case wants to be different.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{Identity, spiffe_ids};

/// What a ClientHello offers and who is behind it.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) identity: Option<Identity>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) suites: Vec<rustls::SupportedCipherSuite>,
    pub(crate) groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
    /// Sent as SNI.
    pub(crate) name: Option<&'static str>,
}

impl Offer {
    /// What an HBONE client offers.
    pub(crate) fn of(identity: Option<&Identity>) -> Self {
        let provider = aws_lc_rs::default_provider();
        Self {
            identity: identity.cloned(),
            alpn: vec![b"h2".to_vec()],
            versions: vec![&rustls::version::TLS13],
            suites: provider.cipher_suites,
            groups: provider.kx_groups,
            name: None,
        }
    }

    /// A client that has sent nothing yet.
    pub(crate) fn client(&self, trust: &Trust) -> Result<ClientConnection, rustls::Error> {
        let provider = CryptoProvider {
            cipher_suites: self.suites.clone(),
            kx_groups: self.groups.clone(),
            ..aws_lc_rs::default_provider()
        };
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { trust: trust.clone(), algorithms }));
        let mut config = match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = self.name.is_some();
        config.resumption = rustls::client::Resumption::disabled();
        let name = match self.name {
            Some(name) => ServerName::try_from(name).map_err(|_| rustls::Error::General(name.to_owned()))?,
            None => ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()),
        };
        ClientConnection::new(Arc::new(config), name)
    }
}

/// What we want of the target's certificate; nothing unless it was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    pub(crate) roots: Option<Arc<RootCertStore>>,
    pub(crate) server_id: Option<String>,
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.trust.roots {
            let parsed = ParsedCertificate::try_from(leaf)?;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if let Some(wanted) = &self.trust.server_id
            && !spiffe_ids(leaf).contains(wanted)
        {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
