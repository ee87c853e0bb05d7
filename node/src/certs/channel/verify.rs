//! Whether the server at the other end is the control plane: chain, then name.
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::roots::Trust;

#[derive(Debug)]
pub(super) struct ControlVerifier {
    trust: Trust,
    alternative: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ControlVerifier {
    pub(super) fn new(trust: Trust, alternative: Option<&str>, provider: &CryptoProvider) -> Self {
        let alternative = alternative.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Self { trust, alternative, algorithms: provider.signature_verification_algorithms }
    }

    /// The roots to chain to. When only a hash is known, the one certificate among those sent that has it.
    fn roots(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        match &self.trust {
            Trust::Roots(roots) => Ok(roots.clone()),
            Trust::Pinned(hash) => {
                let root = sent.iter().find(|certificate| digest(&SHA256, certificate).as_ref() == hash);
                let root = root.ok_or(CertificateError::UnknownIssuer)?;
                let mut roots = RootCertStore::empty();
                roots.add(root.clone().into_owned())?;
                Ok(Arc::new(roots))
            }
        }
    }
}

impl ServerCertVerifier for ControlVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let roots = self.roots(intermediates)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, self.algorithms.all)?;
        match (verify_server_name(&leaf, server_name), &self.alternative) {
            (Ok(()), _) => Ok(ServerCertVerified::assertion()),
            (Err(_), Some(alternative)) => {
                verify_server_name(&leaf, alternative).map(|()| ServerCertVerified::assertion())
            }
            (Err(error), None) => Err(error),
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
