//! A certificate authority for tests: signs what it is asked to, also what no honest one would.
//!
//! [`FakeCa::issue`] hands out certificates directly; [`FakeCaServer`] does so over gRPC, on loopback, together
//! with the join service.
use std::time::{Duration, SystemTime};

use identity::{SpiffeId, TlsOptions, WorkloadCertificate};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::PrivateKeyDer;

mod server;

pub use server::{Answer, Asked, FakeCaServer};
pub(crate) use server::{Stream as SecureStream, tls as server_tls};

/// A root and its key, and the roots it hands out besides.
#[derive(Debug)]
pub struct FakeCa {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediates: Vec<String>,
    bundle: String,
}

/// What a leaf says; start from [`Leaf::of`] and break what the test is about.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// URI names in their order.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Extended key usages; none when empty.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Marks the leaf as a certificate authority.
    pub is_ca: bool,
}

impl Leaf {
    /// An honest leaf for `id`, valid from two minutes ago for `ttl` from now.
    pub fn of(id: &SpiffeId, ttl: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            uris: vec![id.to_string()],
            dns: Vec::new(),
            not_before: now - Duration::from_secs(120),
            not_after: now + ttl,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            is_ca: false,
        }
    }
}

/// A leaf with its chain and key, as the authority's answer plus what the caller keeps.
#[derive(Debug)]
pub struct Issued {
    /// Leaf, intermediates, root bundle last.
    pub chain: Vec<String>,
    /// PKCS#8.
    pub key: PrivateKeyDer<'static>,
}

impl Default for FakeCa {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeCa {
    /// A new root of its own.
    pub fn new() -> Self {
        let root =
            CertifiedIssuer::self_signed(authority("cluster.local"), KeyPair::generate().unwrap()).unwrap();
        let bundle = root.pem();
        Self { root, intermediates: Vec::new(), bundle }
    }

    /// An intermediate under this authority; what it issues carries it in the chain.
    pub fn intermediate(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        let root = CertifiedIssuer::signed_by(authority("intermediate"), key, &*self.root).unwrap();
        let mut intermediates = vec![root.pem()];
        intermediates.extend(self.intermediates.iter().cloned());
        Self { root, intermediates, bundle: self.bundle.clone() }
    }

    /// The same authority, handing out `other`'s roots after its own.
    #[must_use]
    pub fn trusting(mut self, other: &Self) -> Self {
        self.bundle.push_str(&other.bundle);
        self
    }

    /// A list, PEM, that takes back these certificates.
    pub fn revoking(&self, certificates: &[&WorkloadCertificate], now: SystemTime) -> String {
        let revoked = certificates.iter().map(|certificate| {
            let serial: u128 = certificate.leaf().serial().parse().unwrap();
            let octets = serial.to_be_bytes();
            let zeros = octets.iter().take_while(|octet| **octet == 0).count();
            rcgen::RevokedCertParams {
                serial_number: octets[zeros..].to_vec().into(),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.root).unwrap().pem().unwrap()
    }

    /// The root bundle it hands out, PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// A certificate for `id` that ends `ttl` from now.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration) -> WorkloadCertificate {
        self.issue_with(id, ttl, TlsOptions::default())
    }

    /// A certificate for `id` with TLS options.
    pub fn issue_with(&self, id: &SpiffeId, ttl: Duration, options: TlsOptions) -> WorkloadCertificate {
        let issued = self.sign(&Leaf::of(id, ttl));
        WorkloadCertificate::new(&issued.chain, issued.key, options).unwrap()
    }

    /// Signs any leaf, with a new key.
    pub fn sign(&self, leaf: &Leaf) -> Issued {
        let key = KeyPair::generate().unwrap();
        let pem = params(leaf).signed_by(&key, &*self.root).unwrap().pem();
        Issued { chain: self.answer(pem), key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    /// Signs the key of a request for any leaf; what the request itself says is ignored.
    pub fn sign_request(&self, csr: &str, leaf: &Leaf) -> Result<Vec<String>, rcgen::Error> {
        let request = rcgen::CertificateSigningRequestParams::from_pem(csr)?;
        let pem = params(leaf).signed_by(&request.public_key, &*self.root)?.pem();
        Ok(self.answer(pem))
    }

    fn answer(&self, leaf: String) -> Vec<String> {
        let mut chain = vec![leaf];
        chain.extend(self.intermediates.iter().cloned());
        chain.push(self.bundle.clone());
        chain
    }
}

fn authority(organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(leaf: &Leaf) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = leaf.not_before.into();
    params.not_after = leaf.not_after.into();
    let serial = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    params.serial_number = Some(serial.to_be_bytes().to_vec().into());
    params.subject_alt_names =
        leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
    params
        .subject_alt_names
        .extend(leaf.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap())));
    params.extended_key_usages = leaf.usages.clone();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    if leaf.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    }
    params.use_authority_key_identifier_extension = true;
    params
}
