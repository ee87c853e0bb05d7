//! An authority for this crate's tests.
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType, SignatureAlgorithm,
};
use rustls_pki_types::{PrivateKeyDer, UnixTime};

use crate::{ChainError, TlsOptions, WorkloadCertificate};

pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// The present moment of all tests.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A clock that stands at [`now`].
#[derive(Debug)]
pub(crate) struct StandingClock;

impl rustls::time_provider::TimeProvider for StandingClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(now().duration_since(SystemTime::UNIX_EPOCH).unwrap()))
    }
}

pub(crate) fn options() -> TlsOptions {
    TlsOptions { time: Some(std::sync::Arc::new(StandingClock)), ..TlsOptions::default() }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn root() -> Ca {
    // Names differ: two roots of one name are told apart by signatures alone, with another alert.
    static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name = format!("root {}", MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    CertifiedIssuer::self_signed(ca_params(&name), KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn below(above: &Ca, name: &str) -> Ca {
    CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), above).unwrap()
}

/// A leaf and its key; start from [`leaf`].
pub(crate) struct Leaf {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
}

/// An honest leaf with these URI names.
pub(crate) fn leaf(uris: &[&str]) -> Leaf {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.not_before = (now() - Duration::from_secs(100)).into();
    params.not_after = (now() + Duration::from_secs(900)).into();
    params.serial_number =
        Some(vec![0x62, 0x58, 0xcc, 0x8e, 0xef, 0xd8, 0xad, 1, 2, 3, 4, 5, 6, 7, 8, 9].into());
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Leaf { params, key: KeyPair::generate().unwrap() }
}

impl Leaf {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    pub(crate) fn with_key(self, algorithm: &'static SignatureAlgorithm) -> Self {
        Self { key: KeyPair::generate_for(algorithm).unwrap(), ..self }
    }

    pub(crate) fn pem(&self, by: &Ca) -> String {
        self.params.signed_by(&self.key, by).unwrap().pem()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// As the authority answers: leaf and bundle.
    pub(crate) fn issued(&self, by: &Ca, bundle: &str) -> Result<WorkloadCertificate, ChainError> {
        WorkloadCertificate::new(&[self.pem(by), bundle.to_owned()], self.key(), options())
    }
}
