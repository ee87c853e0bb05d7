//! ClientHellos and records by hand, for what no TLS library would send (RFC 8446).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use runtime::clock::monotonic;

use crate::case::Failure;
use crate::lab::Lab;

/// Suites by their numbers.
pub(crate) mod suite {
    pub(crate) const AES_128: u16 = 0x1301;
    pub(crate) const AES_256: u16 = 0x1302;
    pub(crate) const CHACHA: u16 = 0x1303;
    /// TLS 1.2: ECDHE-ECDSA-AES128-GCM-SHA256.
    pub(crate) const ECDHE_12: u16 = 0xc02b;
    /// RSA-AES128-CBC-SHA.
    pub(crate) const RSA_CBC: u16 = 0x002f;
}

/// Groups by their numbers.
pub(crate) mod group {
    pub(crate) const P256: u16 = 0x17;
    pub(crate) const P521: u16 = 0x19;
    pub(crate) const X25519: u16 = 0x1d;
    pub(crate) const X448: u16 = 0x1e;
    pub(crate) const FFDHE2048: u16 = 0x100;
}

/// Record types.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Pieces of a ClientHello.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    /// `legacy_version`.
    pub(crate) version: u16,
    /// supported_versions; the extension is left out when empty.
    pub(crate) versions: Vec<u16>,
    pub(crate) suites: Vec<u16>,
    pub(crate) groups: Vec<u16>,
    /// Groups and their shares; the extension stays when empty.
    pub(crate) shares: Vec<(u16, Vec<u8>)>,
    pub(crate) alpn: Vec<&'static [u8]>,
    pub(crate) compression: Vec<u8>,
}

impl Default for Hello {
    /// What an HBONE client sends, with a share whose secret nobody knows: the handshake can only begin.
    fn default() -> Self {
        Self {
            version: 0x0303,
            versions: vec![0x0304],
            suites: vec![suite::AES_256, suite::AES_128],
            groups: vec![group::X25519],
            // 9 is the base point: a valid share.
            shares: vec![(group::X25519, std::iter::once(9).chain([0; 31]).collect())],
            alpn: vec![b"h2"],
            compression: vec![0],
        }
    }
}

impl Hello {
    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x5a; 32]);
        body.push(32);
        body.extend([0xa5; 32]);
        put(&mut body, 2, &numbers(&self.suites));
        put(&mut body, 1, &self.compression);
        let mut extensions = Vec::new();
        if !self.versions.is_empty() {
            let mut list = Vec::new();
            put(&mut list, 1, &numbers(&self.versions));
            extension(&mut extensions, 43, &list);
        }
        let mut list = Vec::new();
        put(&mut list, 2, &numbers(&self.groups));
        extension(&mut extensions, 10, &list);
        let mut list = Vec::new();
        put(&mut list, 2, &numbers(&[0x0503, 0x0403, 0x0807, 0x0806, 0x0805, 0x0804]));
        extension(&mut extensions, 13, &list);
        if !self.versions.is_empty() {
            let mut shares = Vec::new();
            for (group, share) in &self.shares {
                shares.extend(group.to_be_bytes());
                put(&mut shares, 2, share);
            }
            let mut list = Vec::new();
            put(&mut list, 2, &shares);
            extension(&mut extensions, 51, &list);
        }
        if !self.alpn.is_empty() {
            let mut names = Vec::new();
            for name in &self.alpn {
                put(&mut names, 1, name);
            }
            let mut list = Vec::new();
            put(&mut list, 2, &names);
            extension(&mut extensions, 16, &list);
        }
        put(&mut body, 2, &extensions);
        let mut message = vec![1];
        put(&mut message, 3, &body);
        message
    }

    /// One record with the message.
    pub(crate) fn record(&self) -> Vec<u8> {
        record(HANDSHAKE, &self.message())
    }
}

/// A first record: of version 3.1, as RFC 8446 section 5.1 allows it for a ClientHello.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    record_of([3, 1], kind, payload)
}

/// A record as it looks after the first one.
pub(crate) fn later_record(kind: u8, payload: &[u8]) -> Vec<u8> {
    record_of([3, 3], kind, payload)
}

fn record_of(version: [u8; 2], kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(version);
    put(&mut out, 2, payload);
    out
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn extension(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend(kind.to_be_bytes());
    put(out, 2, body);
}

/// A vector with its length in `width` octets.
fn put(out: &mut Vec<u8>, width: usize, body: &[u8]) {
    let length = body.len().to_be_bytes();
    out.extend(length.get(length.len() - width..).unwrap_or_default());
    out.extend(body);
}

/// What the target said to bytes of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// ServerHello: version, suite and group of the share.
    ServerHello {
        suite: u16,
        group: u16,
    },
    /// HelloRetryRequest for a group.
    Retry {
        group: u16,
    },
    /// A TLS 1.2 ServerHello, or something that is none of these.
    Other(String),
    /// A fatal alert.
    Alert(u8),
    /// The connection ended without an alert.
    Closed,
    Silence,
}

impl Reaction {
    /// No handshake.
    pub(crate) fn refusal(&self) -> bool {
        matches!(self, Self::Alert(_) | Self::Closed)
    }
}

impl std::fmt::Display for Reaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ServerHello { suite, group } => {
                write!(f, "ServerHello with suite {suite:#06x}, group {group:#x}")
            }
            Self::Retry { group } => write!(f, "HelloRetryRequest for group {group:#x}"),
            Self::Other(text) => f.write_str(text),
            Self::Alert(number) => write!(f, "alert {}", alert_name(*number)),
            Self::Closed => f.write_str("closed without an alert"),
            Self::Silence => f.write_str("silence"),
        }
    }
}

/// Alerts that cases speak of (RFC 8446 section 6).
fn alert_name(number: u8) -> String {
    match number {
        0 => "close_notify".to_owned(),
        10 => "unexpected_message".to_owned(),
        20 => "bad_record_mac".to_owned(),
        22 => "record_overflow".to_owned(),
        40 => "handshake_failure".to_owned(),
        47 => "illegal_parameter".to_owned(),
        50 => "decode_error".to_owned(),
        70 => "protocol_version".to_owned(),
        80 => "internal_error".to_owned(),
        109 => "missing_extension".to_owned(),
        120 => "no_application_protocol".to_owned(),
        _ => number.to_string(),
    }
}

/// Writes bytes on a fresh TCP connection, each piece in a write of its own, and reads the reaction.
pub(crate) fn exchange(lab: &Lab, pieces: &[&[u8]]) -> Result<Reaction, Failure> {
    let mut socket = lab.tcp()?;
    for piece in pieces {
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    read(&mut socket)
}

fn read(socket: &mut TcpStream) -> Result<Reaction, Failure> {
    let until = monotonic() + Duration::from_secs(5);
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(reaction) = first_record(&got) {
            return Ok(reaction);
        }
        let left = until.saturating_duration_since(monotonic());
        if left.is_zero() {
            return Ok(Reaction::Silence);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(Reaction::Closed),
            Ok(count) => got.extend(buffer.iter().take(count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Reaction::Silence);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(Reaction::Closed),
        }
    }
}

/// The reaction, once the first record is whole.
fn first_record(bytes: &[u8]) -> Option<Reaction> {
    let (header, rest) = bytes.split_at_checked(5)?;
    let [kind, _, _, high, low] = *header else { return None };
    let payload = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
    match kind {
        ALERT => Some(Reaction::Alert(payload.get(1).copied().unwrap_or_default())),
        HANDSHAKE => Some(
            server_hello(payload)
                .unwrap_or_else(|| Reaction::Other("an unknown handshake message".to_owned())),
        ),
        _ => Some(Reaction::Other(format!("a record of type {kind}"))),
    }
}

/// The random of a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 8] = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11];

fn server_hello(message: &[u8]) -> Option<Reaction> {
    if *message.first()? != 2 {
        return None;
    }
    let retry = message.get(6..14)? == RETRY;
    let session = usize::from(*message.get(38)?);
    let mut rest = message.get(39 + session..)?;
    let suite = number(rest, 0)?;
    rest = rest.get(5..)?;
    let (mut version, mut group) = (0x0303, 0);
    while let (Some(kind), Some(length)) = (number(rest, 0), number(rest, 2)) {
        let body = rest.get(4..4 + usize::from(length))?;
        match kind {
            43 => version = number(body, 0)?,
            51 => group = number(body, 0)?,
            _ => {}
        }
        rest = rest.get(4 + usize::from(length)..)?;
    }
    Some(match (version, retry) {
        (0x0304, true) => Reaction::Retry { group },
        (0x0304, false) => Reaction::ServerHello { suite, group },
        _ => Reaction::Other(format!("ServerHello of version {version:#06x}")),
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Identity;

    /// The hello is one that a TLS library takes.
    #[test]
    fn a_library_answers_our_hello() {
        let identity = Identity::self_signed("spiffe://cluster.local/ns/a/sa/b").unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        let answer = |hello: Hello| {
            let mut server = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
            server.read_tls(&mut hello.record().as_slice()).unwrap();
            let _ = server.process_new_packets();
            let mut out = Vec::new();
            server.write_tls(&mut out).unwrap();
            first_record(&out).unwrap()
        };
        let right = Hello { suites: vec![suite::AES_128], alpn: Vec::new(), ..Hello::default() };
        assert_eq!(answer(right), Reaction::ServerHello { suite: suite::AES_128, group: group::X25519 });
        let retry = Hello { shares: Vec::new(), ..Hello::default() };
        assert_eq!(answer(retry), Reaction::Retry { group: group::X25519 });
        assert_eq!(answer(Hello { versions: Vec::new(), ..Hello::default() }), Reaction::Alert(70));
    }
}
