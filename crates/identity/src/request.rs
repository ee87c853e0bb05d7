//! Certificate signing requests: a new key, an empty subject, one critical URI name.
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::PrivateKeyDer;

use crate::SpiffeId;

/// A request for a certificate and the key it was made with (ECDSA P-256, new for each request).
pub struct CertificateRequest {
    pem: String,
    key: KeyPair,
}

/// The request could not be made: no randomness, or a name that cannot be in a certificate.
#[derive(Debug, thiserror::Error)]
#[error("failed to create CSR: {source}")]
pub struct RequestError {
    /// What the library said.
    #[source]
    pub source: rcgen::Error,
}

impl RequestError {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        "identity-request-failed"
    }
}

impl From<rcgen::Error> for RequestError {
    fn from(source: rcgen::Error) -> Self {
        Self { source }
    }
}

impl CertificateRequest {
    /// Makes a key and asks for `id`.
    pub fn new(id: &SpiffeId) -> Result<Self, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The library marks the names critical because the subject is empty (RFC 5280, 4.2.1.6).
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { pem, key })
    }

    /// The request, PEM `CERTIFICATE REQUEST`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, PKCS#8.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// The private key, PEM. Whoever asks keeps it secret.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::*;

    // CO-11.3: valid signature, empty subject, one critical extension with the name as URI.
    #[test]
    fn a_request_names_the_identity_and_nothing_else() {
        let id = SpiffeId::new("td", "ns1", "sa1").unwrap();
        let request = CertificateRequest::new(&id).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.pem().as_bytes()).unwrap();
        assert_eq!(pem.label, "CERTIFICATE REQUEST");
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert_eq!(parsed.certification_request_info.subject.iter().count(), 0);
        let raw: Vec<_> = parsed
            .certification_request_info
            .iter_attributes()
            .map(|attribute| attribute.parsed_attribute())
            .collect();
        let [x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(wanted)] = raw[..] else {
            panic!("one extension request, got {raw:?}")
        };
        let [extension] = &wanted.extensions[..] else { panic!("one extension") };
        assert!(extension.critical);
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            panic!("names")
        };
        assert_eq!(names.general_names, [GeneralName::URI("spiffe://td/ns/ns1/sa/sa1")]);
        assert!(rcgen::CertificateSigningRequestParams::from_pem(request.pem()).is_ok(), "signature");
        assert_ne!(request.key_pem(), CertificateRequest::new(&id).unwrap().key_pem());
    }
}
