//! Certificates as PEM files, from any authority whose key is at hand.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const HOUR: Duration = Duration::from_secs(3600);

/// An authority, and the folder that it writes to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// A new one; its root is `root.pem`.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.join("root.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned() }
    }

    /// One whose certificate and key are files.
    pub(crate) fn read(certificate: &Path, key: &Path, folder: &Path) -> Self {
        let read = |file: &Path| std::fs::read_to_string(file).unwrap();
        std::fs::write(folder.join("root.pem"), read(certificate)).unwrap();
        let key = KeyPair::from_pem(&read(key)).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&read(certificate), key).unwrap(), folder: folder.to_owned() }
    }

    pub(crate) fn root(&self) -> String {
        self.path("root.pem")
    }

    /// Certificate and key for a SPIFFE id.
    pub(crate) fn issue(&self, name: &str, spiffe: &str) -> [String; 2] {
        self.write(name, Some(spiffe), SystemTime::now() + HOUR)
    }

    /// The same, but over since an hour.
    pub(crate) fn issue_expired(&self, name: &str, spiffe: &str) -> [String; 2] {
        self.write(name, Some(spiffe), SystemTime::now() - HOUR)
    }

    /// A certificate that names a host only.
    pub(crate) fn issue_nameless(&self, name: &str) -> [String; 2] {
        self.write(name, None, SystemTime::now() + HOUR)
    }

    fn write(&self, name: &str, spiffe: Option<&str>, not_after: SystemTime) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - 48 * HOUR).into();
        params.not_after = not_after.into();
        params.subject_alt_names = vec![match spiffe {
            Some(id) => SanType::URI(id.try_into().unwrap()),
            None => SanType::DnsName("host.example".try_into().unwrap()),
        }];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        std::fs::write(self.folder.join(format!("{name}.pem")), certificate).unwrap();
        std::fs::write(self.folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
        [self.path(&format!("{name}.pem")), self.path(&format!("{name}-key.pem"))]
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}
