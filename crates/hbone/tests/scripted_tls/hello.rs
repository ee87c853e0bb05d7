//! ClientHellos, octet by octet (RFC 8446 section 4.1.2).

/// What a ClientHello says. Extensions are kept apart so that a test can leave out, change or add some.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) version: [u8; 2],
    pub(crate) session: Vec<u8>,
    pub(crate) suites: Vec<u16>,
    pub(crate) compression: Vec<u8>,
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
}

pub(crate) const SUPPORTED_GROUPS: u16 = 10;
pub(crate) const SIGNATURES: u16 = 13;
pub(crate) const ALPN: u16 = 16;
pub(crate) const PRE_SHARED_KEY: u16 = 41;
pub(crate) const EARLY_DATA: u16 = 42;
pub(crate) const VERSIONS: u16 = 43;
pub(crate) const PSK_MODES: u16 = 45;
pub(crate) const KEY_SHARE: u16 = 51;

const X25519: u16 = 29;

/// With a length of `octets` octets in front.
pub(crate) fn vector(octets: usize, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_be_bytes();
    [&length[8 - octets..], content].concat()
}

pub(crate) fn shorts(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

pub(crate) fn key_share(group: u16, key: &[u8]) -> Vec<u8> {
    vector(2, &[&group.to_be_bytes()[..], &vector(2, key)].concat())
}

impl Hello {
    /// One that the mesh's server answers.
    pub(crate) fn good() -> Self {
        Self {
            version: [3, 3],
            session: vec![7; 32],
            suites: vec![0x1302, 0x1301],
            compression: vec![0],
            extensions: vec![
                (VERSIONS, vector(1, &[3, 4])),
                (SUPPORTED_GROUPS, vector(2, &shorts(&[X25519, 23]))),
                (SIGNATURES, vector(2, &shorts(&[0x0403, 0x0804]))),
                (KEY_SHARE, key_share(X25519, &[9; 32])),
                (PSK_MODES, vec![1, 1]),
                (ALPN, vector(2, &vector(1, b"h2"))),
            ],
        }
    }

    pub(crate) fn with(mut self, kind: u16, content: Vec<u8>) -> Self {
        match self.extensions.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, known)) => *known = content,
            None => self.extensions.push((kind, content)),
        }
        self
    }

    pub(crate) fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(known, _)| *known != kind);
        self
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), vector(2, content)].concat())
            .collect();
        let body = [
            &self.version[..],
            &[5; 32],
            &vector(1, &self.session),
            &vector(2, &shorts(&self.suites)),
            &vector(1, &self.compression),
            &vector(2, &extensions),
        ]
        .concat();
        [&[1][..], &vector(3, &body)].concat()
    }

    /// In one record.
    pub(crate) fn record(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

/// A record in the clear.
pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &vector(2, content)].concat()
}
