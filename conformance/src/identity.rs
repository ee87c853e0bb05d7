//! Identities from PEM files, and one that nobody can trust, made on the spot.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with what we were given.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Cannot be read as PEM.
    #[error("{file}: {reason}")]
    Pem {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        reason: rustls_pki_types::pem::Error,
    },
    /// Holds no certificate.
    #[error("{file} holds no certificate")]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A certificate of our own could not be made.
    #[error("making an untrusted identity: {0}")]
    Made(#[from] rcgen::Error),
}

/// A chain and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads what a flag with two files names; nothing if the flag was not given.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Option<Self>, IdentityError> {
        let [chain, key] = files else { return Ok(None) };
        let pem = |reason| IdentityError::Pem { file: key.clone(), reason };
        Ok(Some(Self { chain: certificates(chain)?, key: PrivateKeyDer::from_pem_file(key).map_err(pem)? }))
    }

    /// Claims `spiffe` under its own signature.
    pub(crate) fn self_signed(spiffe: &str) -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(spiffe.try_into()?)];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }

    /// The first SPIFFE id of the leaf.
    pub(crate) fn spiffe(&self) -> Option<String> {
        self.chain.first().and_then(|leaf| spiffe_ids(leaf).into_iter().next())
    }
}

/// All certificates of a file.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem = |reason| IdentityError::Pem { file: file.to_owned(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(pem)?.collect();
    let all = all.map_err(pem)?;
    if all.is_empty() { Err(IdentityError::Empty { file: file.to_owned() }) } else { Ok(all) }
}

/// URI names of a certificate that are SPIFFE ids.
pub(crate) fn spiffe_ids(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    uris.filter(|uri| uri.starts_with("spiffe://")).map(str::to_owned).collect()
}
