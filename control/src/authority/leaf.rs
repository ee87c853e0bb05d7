//! What the certificates say (control-plane 5.3): workloads, nodes, this server.
//!
//! The extensions are encoded here, so that their order and criticality are the reference's.
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use identity::{SpiffeId, TrustDomain};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::material::Material;

/// Clocks differ: certificates begin a little earlier.
const BACKDATED: Duration = Duration::from_secs(120);
/// The longest common name (X.520).
const LONGEST_COMMON_NAME: usize = 64;

/// The part of a signing request that counts: the key, and whether it has a common name.
#[derive(Debug)]
pub(super) struct Csr {
    key: SubjectPublicKeyInfo,
    has_common_name: bool,
}

/// The request is refused; texts are the reference's where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CsrError {
    #[error("certificate signing request is not properly encoded")]
    Encoding,
    #[error("failed to parse X.509 certificate signing request")]
    Unparsable,
    #[error("certificate signing request has an invalid signature")]
    Signature,
    #[error("certificate signing request has a key of unsupported kind")]
    Key,
}

impl Csr {
    pub(super) fn parse(pem: &str) -> Result<Self, CsrError> {
        let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
        let Some(Ok((SectionKind::Csr, der))) = sections.next() else { return Err(CsrError::Encoding) };
        let der = CertificateSigningRequestDer::from(der);
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Unparsable)?;
        if !rest.is_empty() {
            return Err(CsrError::Unparsable);
        }
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        let info = &csr.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::Key)?;
        Ok(Self { key, has_common_name: info.subject.iter_common_name().next().is_some() })
    }
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Uri(String),
    Dns(String),
    Ip(IpAddr),
}

/// A certificate to be signed.
#[derive(Debug)]
pub(super) struct Leaf<K> {
    key: K,
    common_name: Option<String>,
    names: Vec<Name>,
    usages: &'static [u8],
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("the signing certificate has expired")]
    SignerExpired,
    #[error("{0}")]
    Library(#[from] rcgen::Error),
}

impl SignError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::SignerExpired => "ca-signer-expired",
            Self::Library(_) => "ca-signing-failed",
        }
    }
}

impl Leaf<SubjectPublicKeyInfo> {
    /// For a workload: its identity and nothing that the request says besides the key.
    pub(super) fn workload(id: &SpiffeId, csr: Csr, now: SystemTime, ttl: Duration) -> Self {
        let common_name =
            (csr.has_common_name && id.as_str().len() <= LONGEST_COMMON_NAME).then(|| id.to_string());
        let names = vec![Name::Uri(id.to_string())];
        Self::new(csr.key, names, SERVER_AND_CLIENT_AUTH, now, ttl).with_common_name(common_name)
    }

    /// For a node: its account's identity, and the node as a second name. It serves nobody.
    pub(super) fn node(id: &SpiffeId, node: &str, csr: Csr, now: SystemTime, ttl: Duration) -> Self {
        let names =
            vec![Name::Uri(id.to_string()), Name::Uri(format!("{}{node}", node_prefix(id.trust_domain())))];
        Self::new(csr.key, names, CLIENT_AUTH, now, ttl)
    }
}

impl<K: PublicKeyData> Leaf<K> {
    /// For the control plane's own port: DNS names and addresses.
    pub(super) fn server(names: &[String], key: K, now: SystemTime, ttl: Duration) -> Self {
        let names = names.iter().map(|name| name.parse().map_or_else(|_| Name::Dns(name.clone()), Name::Ip));
        Self::new(key, names.collect(), SERVER_AND_CLIENT_AUTH, now, ttl)
    }

    fn new(key: K, names: Vec<Name>, usages: &'static [u8], now: SystemTime, ttl: Duration) -> Self {
        let not_after = now.checked_add(ttl).unwrap_or(now);
        Self { key, common_name: None, names, usages, not_before: now - BACKDATED, not_after }
    }

    fn with_common_name(self, common_name: Option<String>) -> Self {
        Self { common_name, ..self }
    }

    /// The whole answer: leaf, intermediates one by one, root bundle.
    pub(super) fn sign(&self, material: &Material) -> Result<Vec<String>, SignError> {
        let leaf = self.sign_leaf(material)?.pem();
        let mut chain = vec![leaf];
        chain.extend(material.intermediates().iter().cloned());
        chain.push(material.bundle().to_owned());
        Ok(chain)
    }

    pub(super) fn sign_leaf(&self, material: &Material) -> Result<rcgen::Certificate, SignError> {
        let not_after = self.not_after.min(material.signer_expiry());
        if not_after <= self.not_before + BACKDATED {
            return Err(SignError::SignerExpired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.not_before = self.not_before.into();
        params.not_after = not_after.into();
        params.serial_number = Some(rand::random::<[u8; 16]>().to_vec().into());
        params.custom_extensions = vec![
            extension(KEY_USAGE, true, DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT.to_vec()),
            extension(EXTENDED_KEY_USAGE, false, self.usages.to_vec()),
            extension(BASIC_CONSTRAINTS, true, NO_CA.to_vec()),
            extension(AUTHORITY_KEY_ID, false, tlv(SEQUENCE, &tlv(0x80, material.key_id()))),
            extension(SUBJECT_ALT_NAME, true, general_names(&self.names)),
        ];
        Ok(params.signed_by(&self.key, material.issuer())?)
    }
}

/// A node as its certificate names it.
pub(super) struct NodeNames {
    pub identity: SpiffeId,
    pub name: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Reads a certificate made by [`Leaf::node`]: exactly its two names, in our trust domain.
pub(super) fn read_node(der: &CertificateDer<'_>, trust_domain: &TrustDomain) -> Option<NodeNames> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let [GeneralName::URI(identity), GeneralName::URI(node)] = names.value.general_names[..] else {
        return None;
    };
    let identity: SpiffeId = identity.parse().ok()?;
    let name = node.strip_prefix(&node_prefix(trust_domain))?;
    if identity.trust_domain() != trust_domain || name.is_empty() {
        return None;
    }
    let validity = parsed.validity();
    let time = |time: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
    };
    Some(NodeNames {
        identity,
        name: name.to_owned(),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
    })
}

/// No workload's identity begins like this: its second part is not `ns`.
fn node_prefix(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/culvert/node/")
}

pub(super) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(super) const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub(super) const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const SEQUENCE: u8 = 0x30;

const DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT: &[u8] = &[0x03, 0x02, 0x05, 0xa0];
pub(super) const KEY_CERT_SIGN: &[u8] = &[0x03, 0x02, 0x02, 0x04];
const NO_CA: &[u8] = &[SEQUENCE, 0x00];
pub(super) const CA: &[u8] = &[SEQUENCE, 0x03, 0x01, 0x01, 0xff];
const SERVER_AND_CLIENT_AUTH: &[u8] = &[
    SEQUENCE, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01,
    0x05, 0x05, 0x07, 0x03, 0x02,
];
const CLIENT_AUTH: &[u8] = &[SEQUENCE, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

pub(super) fn extension(oid: &[u64], critical: bool, content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    extension
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

fn general_names(names: &[Name]) -> Vec<u8> {
    let mut content = Vec::new();
    for name in names {
        content.extend(match name {
            Name::Uri(uri) => tlv(0x86, uri.as_bytes()),
            Name::Dns(dns) => tlv(0x82, dns.as_bytes()),
            Name::Ip(IpAddr::V4(ip)) => tlv(0x87, &ip.octets()),
            Name::Ip(IpAddr::V6(ip)) => tlv(0x87, &ip.octets()),
        });
    }
    tlv(SEQUENCE, &content)
}

/// One DER element: tag, length, content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[content.len().leading_zeros() as usize / 8..];
    match significant {
        [] => element.push(0),
        [short] if *short < 0x80 => element.push(*short),
        long => {
            element.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            element.extend_from_slice(long);
        }
    }
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_encoded_in_the_shortest_form() {
        assert_eq!(tlv(4, &[]), [4, 0]);
        assert_eq!(tlv(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }
}
