//! One direction of record protection (RFC 8446 section 5.2): content to record and back, in place.

use std::fmt;

use aws_lc_rs::aead::{Aad, Nonce};

use super::schedule::{IV, Keys, Secret};

/// Octets of a record before its content.
pub(crate) const HEADER: usize = 5;

/// Octets of a record behind its content: content type and tag.
pub(crate) const TRAILER: usize = 1 + TAG;

/// Largest content of a record.
pub(crate) const CONTENT: usize = 16_384;

/// A record of the largest content.
pub(crate) const RECORD: usize = HEADER + CONTENT + TRAILER;

const TAG: usize = 16;

/// Largest payload of a protected record.
pub(crate) const MAX_PAYLOAD: usize = CONTENT + 256;

/// Content types.
pub(crate) mod kind {
    pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
    pub(crate) const APPLICATION: u8 = 23;
}

/// Why a record could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoContent {
    /// It is not protected.
    Unprotected(u8),
    /// It, or its content, is longer than allowed.
    TooLong,
    /// The tag does not fit.
    BadTag,
    /// Nothing but padding.
    NoType,
}

/// Octets of the record at the front of `wire` with its header, as soon as the header is there.
pub(crate) fn record_length(wire: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = wire.first_chunk::<HEADER>()?;
    Some(HEADER + usize::from(u16::from_be_bytes([*high, *low])))
}

/// Secret, keys and sequence number.
pub(crate) struct Direction {
    secret: Secret,
    keys: Keys,
    sequence: u64,
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direction").field("secret", &self.secret).field("sequence", &self.sequence).finish()
    }
}

impl Direction {
    pub(crate) fn new(secret: Secret, sequence: u64) -> Option<Self> {
        Some(Self { keys: secret.keys()?, secret, sequence })
    }

    /// The same where the keys have been derived.
    pub(crate) fn with_keys(secret: Secret, keys: Keys, sequence: u64) -> Self {
        Self { secret, keys, sequence }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Number of the next record.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Goes on with the next secret. `None` if the library refuses to derive it; then the connection has to end.
    pub(crate) fn update(&mut self) -> Option<()> {
        let next = self.secret.next()?;
        self.keys = next.keys()?;
        self.secret = next;
        self.sequence = 0;
        Some(())
    }

    fn nonce(&mut self) -> Option<Nonce> {
        let mut nonce: [u8; IV] = self.keys.iv;
        let (_, low) = nonce.split_last_chunk_mut::<8>()?;
        *low = (u64::from_be_bytes(*low) ^ self.sequence).to_be_bytes();
        self.sequence = self.sequence.checked_add(1)?;
        Some(Nonce::assume_unique_for_key(nonce))
    }

    /// Seals `content` octets that lie behind [`HEADER`] octets of room in `record`, which has [`TRAILER`] octets of
    /// room behind them; returns the length of the record.
    pub(crate) fn seal(&mut self, record: &mut [u8], content: usize, kind: u8) -> Option<usize> {
        let length = HEADER + content + TRAILER;
        let header = header(content)?;
        let (front, rest) = record.get_mut(..length)?.split_first_chunk_mut::<HEADER>()?;
        let (content, trailer) = rest.split_at_mut(content);
        *front = header;
        let nonce = self.nonce()?;
        self.keys.key.seal_in_place_scatter(nonce, Aad::from(header), content, &[kind], trailer).ok()?;
        Some(length)
    }

    /// Seals `content` into a record of its own behind `out`.
    pub(crate) fn seal_into(&mut self, content: &[u8], kind: u8, out: &mut Vec<u8>) -> Option<()> {
        let header = header(content.len())?;
        let start = out.len() + HEADER;
        out.extend_from_slice(&header);
        out.resize(start + content.len() + TRAILER, 0);
        let (sealed, trailer) = out.get_mut(start..)?.split_at_mut(content.len());
        let nonce = self.nonce()?;
        let aad = Aad::from(header);
        self.keys.key.seal_out_of_place_scatter(nonce, aad, content, sealed, &[kind], trailer).ok()
    }

    /// Opens one whole record in place: its content type and content.
    pub(crate) fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(u8, &'r mut [u8]), NoContent> {
        let (header, payload) = record.split_first_chunk_mut::<HEADER>().ok_or(NoContent::BadTag)?;
        let header = *header;
        let [outer, ..] = header;
        if outer != kind::APPLICATION {
            return Err(NoContent::Unprotected(outer));
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(NoContent::TooLong);
        }
        let nonce = self.nonce().ok_or(NoContent::BadTag)?;
        let opened = self.keys.key.open_in_place(nonce, Aad::from(header), payload);
        let opened = opened.map_err(|_| NoContent::BadTag)?;
        if opened.len() > CONTENT + 1 {
            return Err(NoContent::TooLong);
        }
        let end = opened.iter().rposition(|octet| *octet != 0).ok_or(NoContent::NoType)?;
        let (content, rest) = opened.split_at_mut(end);
        Ok((rest.first().copied().unwrap_or(0), content))
    }
}

fn header(content: usize) -> Option<[u8; HEADER]> {
    if content > CONTENT {
        return None;
    }
    let [high, low] = u16::try_from(content + TRAILER).ok()?.to_be_bytes();
    Some([kind::APPLICATION, 3, 3, high, low])
}
