//! Certificates of the proxies that are not culvert: one root, one leaf with an ECDSA P-256 key for both ends.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The name in the leaf.
pub(crate) const NAME: &str = "bench.local";

/// Files in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    pub(crate) root: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// Chain and key in one, as haproxy wants them.
    pub(crate) both: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`, which only its owner reads.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "bench root");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, NAME);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = leaf.signed_by(&key, &root)?;
        let files = Self {
            root: folder.join("root.pem"),
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
            both: folder.join("both.pem"),
        };
        std::fs::write(&files.root, root.pem())?;
        std::fs::write(&files.chain, chain.pem())?;
        std::fs::write(&files.key, key.serialize_pem())?;
        std::fs::write(&files.both, format!("{}{}", chain.pem(), key.serialize_pem()))?;
        Ok(files)
    }
}
