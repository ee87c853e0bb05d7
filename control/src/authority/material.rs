//! What certificates are signed with (control-plane 5.4, 5.5): files from `ROOT_CA_DIR`, or a root of our
//! own in the state folder.
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use identity::TrustDomain;
use rcgen::string::PrintableString;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Config;
use super::leaf::{self, Leaf, SignError};
use super::state::{StateError, StateFolder};

mod plugged;

pub(super) use plugged::PluggedFiles;

/// Ten years, as the reference.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 86_400);
/// A root is renewed in the last fifth of its life.
const RENEW_IN_LAST: u32 = 5;

const ROOT_CERT: &str = "ca-cert.pem";
const ROOT_KEY: &str = "ca-key.pem";

/// The signing material cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: incomplete signing material: {} missing", folder.display(), missing.join(", "))]
    Partial { folder: PathBuf, missing: Vec<&'static str> },
    #[error("{place}: no readable certificate")]
    Certificate { place: String },
    #[error("{place}: no usable private key")]
    Key { place: String },
    #[error("{place}: the signing certificate is not a certificate authority")]
    NotACa { place: String },
    #[error("{place}: the private key is not that of the signing certificate")]
    KeyMismatch { place: String },
    #[error("{place}: the chain does not lead to the root: {reason}")]
    Chain { place: String, reason: String },
    #[error("the new roots neither contain the old ones nor are contained in them")]
    ForeignRoots,
    #[error("signing: {0}")]
    Sign(String),
}

impl MaterialError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::State(error) => error.code(),
            Self::Io { .. } => "ca-material-io",
            Self::Partial { .. } => "ca-material-partial",
            Self::Certificate { .. } => "ca-material-certificate",
            Self::Key { .. } => "ca-material-key",
            Self::NotACa { .. } => "ca-material-not-a-ca",
            Self::KeyMismatch { .. } => "ca-material-key-mismatch",
            Self::Chain { .. } => "ca-material-chain",
            Self::ForeignRoots => "ca-material-foreign-roots",
            Self::Sign(_) => "ca-signing-failed",
        }
    }
}

/// A signer, what leads from it to the roots, and the roots.
pub(super) struct Material {
    issuer: Issuer<'static, KeyPair>,
    key_id: Vec<u8>,
    signer_expiry: SystemTime,
    intermediates: Vec<String>,
    bundle: String,
    roots: Vec<CertificateDer<'static>>,
    issuing_root: usize,
    /// Nothing for files of others: those are theirs to renew.
    renew_at: Option<SystemTime>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("signer_expiry", &self.signer_expiry).finish_non_exhaustive()
    }
}

impl Material {
    /// The files of `ROOT_CA_DIR` if there are any, else the kept root, else a new one.
    pub(super) fn load(config: &Config, state: &StateFolder, now: SystemTime) -> Result<Self, MaterialError> {
        match PluggedFiles::read(&config.root_ca_dir)? {
            PluggedFiles::Complete { signer, key, chain, roots } => {
                Self::assemble(&config.root_ca_dir.display().to_string(), &signer, &key, &chain, &roots, now)
            }
            PluggedFiles::ExtraRoots(extra) => Self::self_made(config, state, &extra, now),
            PluggedFiles::None => Self::self_made(config, state, "", now),
        }
    }

    fn self_made(
        config: &Config,
        state: &StateFolder,
        extra_roots: &str,
        now: SystemTime,
    ) -> Result<Self, MaterialError> {
        let _lock = state.lock()?;
        let (cert, key) = match (state.read(ROOT_CERT)?, state.read(ROOT_KEY)?) {
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                return Err(MaterialError::Partial { folder: config.state.clone(), missing: vec![ROOT_KEY] });
            }
            (None, kept) => Self::make_root(&config.trust_domain, state, kept, now)?,
        };
        let place = config.state.display().to_string();
        let (begins, ends) = validity(&first(&cert, &place)?).ok_or_else(|| unreadable(&place))?;
        let life = ends.duration_since(begins).unwrap_or_default();
        let renew_at = ends.checked_sub(life / RENEW_IN_LAST).unwrap_or(now);
        let cert = if renew_at <= now {
            tracing::info!("renewing the root with the same key");
            Self::make_root(&config.trust_domain, state, Some(key.clone()), now)?.0
        } else {
            cert
        };
        let renew_at = validity(&first(&cert, &place)?)
            .map(|(begins, ends)| ends - ends.duration_since(begins).unwrap_or_default() / RENEW_IN_LAST);
        let bundle = format!("{cert}{extra_roots}");
        let made = Self::assemble(&place, &cert, &key, "", &bundle, now)?;
        Ok(Self { renew_at, ..made })
    }

    /// Makes a root, with the kept key if there is one, and writes both down: the key first, so that a
    /// certificate without its key never appears.
    fn make_root(
        trust_domain: &TrustDomain,
        state: &StateFolder,
        kept_key: Option<String>,
        now: SystemTime,
    ) -> Result<(String, String), MaterialError> {
        let failed = |error: rcgen::Error| MaterialError::Sign(error.to_string());
        let key_pem = match kept_key {
            Some(pem) => pem,
            None => {
                let pem = KeyPair::generate_for(&PKCS_RSA_SHA256).map_err(failed)?.serialize_pem();
                state.write(ROOT_KEY, 0o600, pem.as_bytes())?;
                pem
            }
        };
        let key = read_key(&key_pem, ROOT_KEY)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let organization = PrintableString::try_from(trust_domain.as_str())
            .map_or_else(|_| DnValue::Utf8String(trust_domain.to_string()), DnValue::PrintableString);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.not_before = now.into();
        params.not_after = (now + ROOT_TTL).into();
        params.serial_number = Some(rand::random::<[u8; 16]>().to_vec().into());
        params.custom_extensions = vec![
            leaf::extension(leaf::KEY_USAGE, true, leaf::KEY_CERT_SIGN.to_vec()),
            leaf::extension(leaf::BASIC_CONSTRAINTS, true, leaf::CA.to_vec()),
            leaf::extension(leaf::SUBJECT_KEY_ID, false, leaf::octets(&key_id(key.der_bytes()))),
        ];
        let cert = params.self_signed(&key).map_err(failed)?.pem();
        state.write(ROOT_CERT, 0o644, cert.as_bytes())?;
        Ok((cert, key_pem))
    }

    /// Puts the parts together and proves that they fit: a leaf signed by the signer must verify.
    fn assemble(
        place: &str,
        signer: &str,
        key: &str,
        chain: &str,
        roots: &str,
        now: SystemTime,
    ) -> Result<Self, MaterialError> {
        let signer = first(signer, place)?;
        let key = read_key(key, place)?;
        let signer_expiry = {
            let (_, parsed) = X509Certificate::from_der(&signer).map_err(|_| unreadable(place))?;
            if !parsed.is_ca() {
                return Err(MaterialError::NotACa { place: place.to_owned() });
            }
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(MaterialError::KeyMismatch { place: place.to_owned() });
            }
            validity(&signer).ok_or_else(|| unreadable(place))?.1
        };
        let roots = all(roots);
        let mut between: Vec<_> = all(chain).into_iter().filter(|link| !roots.contains(link)).collect();
        if !roots.contains(&signer) && !between.contains(&signer) {
            between.insert(0, signer.clone());
        }
        let key_id = subject_key_id(&signer).unwrap_or_else(|| key_id(key.der_bytes()));
        let issuer = Issuer::from_ca_cert_der(&signer, key).map_err(|_| unreadable(place))?;
        let mut material = Self {
            issuer,
            key_id,
            signer_expiry,
            intermediates: between.iter().map(|link| pem(link)).collect(),
            bundle: roots.iter().map(|root| pem(root)).collect(),
            roots,
            issuing_root: 0,
            renew_at: None,
        };
        material.issuing_root = material
            .prove(&between, now)
            .map_err(|error| match error {
                SignError::SignerExpired => {
                    MaterialError::Chain { place: place.to_owned(), reason: error.to_string() }
                }
                SignError::Library(error) => {
                    MaterialError::Chain { place: place.to_owned(), reason: error.to_string() }
                }
            })?
            .ok_or_else(|| MaterialError::Chain {
                place: place.to_owned(),
                reason: "no root verifies it".to_owned(),
            })?;
        Ok(material)
    }

    /// Signs a leaf for nobody and finds the root that verifies it.
    fn prove(
        &self,
        between: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Option<usize>, SignError> {
        let key = KeyPair::generate()?;
        let leaf = Leaf::server(&["nobody.invalid".to_owned()], key, now, Duration::from_secs(60))
            .sign_leaf(self)?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verifies = |root: &CertificateDer<'static>| {
            let mut store = RootCertStore::empty();
            store.add(root.clone()).is_ok()
                && WebPkiClientVerifier::builder_with_provider(Arc::new(store), super::server::provider())
                    .build()
                    .is_ok_and(|verifier| {
                        verifier
                            .verify_client_cert(leaf.der(), between, UnixTime::since_unix_epoch(since))
                            .is_ok()
                    })
        };
        Ok(self.roots.iter().position(verifies))
    }

    /// Whether this material may be replaced while nodes trust its roots: one set must contain the other.
    pub(super) fn may_become(&self, new: &Self) -> Result<(), MaterialError> {
        let contains = |all: &Self, some: &Self| some.roots.iter().all(|root| all.roots.contains(root));
        let same_key = self.issuer.key().der_bytes() == new.issuer.key().der_bytes();
        if same_key || contains(self, new) || contains(new, self) {
            return Ok(());
        }
        Err(MaterialError::ForeignRoots)
    }

    pub(super) fn is_due_for_renewal(&self, now: SystemTime) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    pub(super) fn signer_expiry(&self) -> SystemTime {
        self.signer_expiry
    }

    pub(super) fn root_expiry(&self) -> SystemTime {
        self.roots.get(self.issuing_root).and_then(validity).map_or(self.signer_expiry, |(_, ends)| ends)
    }

    /// Each PEM with a final newline.
    pub(super) fn intermediates(&self) -> &[String] {
        &self.intermediates
    }

    /// All roots, PEM.
    pub(super) fn bundle(&self) -> &str {
        &self.bundle
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The root the signer chains to, PEM.
    pub(super) fn issuing_root(&self) -> String {
        self.roots.get(self.issuing_root).map(|root| pem(root)).unwrap_or_default()
    }
}

fn unreadable(place: &str) -> MaterialError {
    MaterialError::Certificate { place: place.to_owned() }
}

fn first(pem: &str, place: &str) -> Result<CertificateDer<'static>, MaterialError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable(place))
}

fn all(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect()
}

fn read_key(pem: &str, place: &str) -> Result<KeyPair, MaterialError> {
    let unusable = || MaterialError::Key { place: place.to_owned() };
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    KeyPair::try_from(&der).map_err(|_| unusable())
}

fn validity(der: &CertificateDer<'static>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let time =
        |seconds: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    Some((time(parsed.validity().not_before.timestamp())?, time(parsed.validity().not_after.timestamp())?))
}

/// SHA-1 of the public key, the common way to name a key (RFC 5280, 4.2.1.2); no secret depends on it.
fn key_id(public_key: &[u8]) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, public_key).as_ref().to_vec()
}

fn subject_key_id(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn pem(der: &CertificateDer<'_>) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
