//! The key schedule after the handshake (RFC 8446 sections 7.1 to 7.3): from a traffic secret to key, IV and the next
//! secret.

use std::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType, Prk};
use rustls::CipherSuite;
use zeroize::Zeroizing;

/// A cipher suite of TLS 1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    Aes128GcmSha256,
    Aes256GcmSha384,
    Chacha20Poly1305Sha256,
}

impl Suite {
    pub(crate) fn of(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Self::Aes128GcmSha256),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Self::Aes256GcmSha384),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Self::Chacha20Poly1305Sha256),
            _ => None,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &aead::AES_128_GCM,
            Self::Aes256GcmSha384 => &aead::AES_256_GCM,
            Self::Chacha20Poly1305Sha256 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => hkdf::HKDF_SHA256,
            Self::Aes256GcmSha384 => hkdf::HKDF_SHA384,
        }
    }

    /// Octets of a traffic secret.
    pub(crate) fn secret_length(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => 32,
            Self::Aes256GcmSha384 => 48,
        }
    }

    /// Records that may be sealed under one key (RFC 8446 section 5.5): 2^24.5 for AES-GCM, of which we keep well
    /// short; for ChaCha20 the sequence number ends first.
    pub(crate) fn records_per_key(self) -> u64 {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => 1 << 24,
            Self::Chacha20Poly1305Sha256 => 1 << 62,
        }
    }
}

/// The traffic secret of one direction. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    suite: Suite,
    octets: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.suite)
    }
}

/// Octets of an IV.
pub(crate) const IV: usize = 12;

/// Key and IV of one direction.
pub(crate) struct Keys {
    pub(crate) key: LessSafeKey,
    pub(crate) iv: [u8; IV],
}

impl Secret {
    /// `None` if the length is not that of the suite's hash.
    pub(crate) fn new(suite: Suite, octets: Zeroizing<Vec<u8>>) -> Option<Self> {
        (octets.len() == suite.secret_length()).then_some(Self { suite, octets })
    }

    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Key and IV as octets.
    pub(crate) fn material(&self) -> Option<(Zeroizing<Vec<u8>>, [u8; IV])> {
        let mut key = Zeroizing::new(vec![0; self.suite.aead().key_len()]);
        let mut iv = [0; IV];
        self.expand(b"key", &mut key)?;
        self.expand(b"iv", &mut iv)?;
        Some((key, iv))
    }

    pub(crate) fn keys(&self) -> Option<Keys> {
        let (key, iv) = self.material()?;
        self.keys_of(&key, iv)
    }

    /// The same from what [`Secret::material`] has given.
    pub(crate) fn keys_of(&self, key: &[u8], iv: [u8; IV]) -> Option<Keys> {
        let key = UnboundKey::new(self.suite.aead(), key).ok()?;
        Some(Keys { key: LessSafeKey::new(key), iv })
    }

    /// The secret that follows (section 7.2).
    pub(crate) fn next(&self) -> Option<Self> {
        let mut octets = Zeroizing::new(vec![0; self.suite.secret_length()]);
        self.expand(b"traffic upd", &mut octets)?;
        Some(Self { suite: self.suite, octets })
    }

    /// HKDF-Expand-Label with an empty context. `None`, and `out` is no key, where the library refuses: more than 255
    /// hashes were asked for.
    fn expand(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        const PREFIX: &[u8] = b"tls13 ";
        let length = u16::try_from(out.len()).ok()?.to_be_bytes();
        let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
        let info = [length.as_slice(), &label_length, PREFIX, label, &[0]];
        let secret = Prk::new_less_safe(self.suite.hash(), &self.octets);
        secret.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out)).ok()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests;
