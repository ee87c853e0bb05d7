//! Frames (RFC 9113 sections 4 and 6), also those that no honest peer would send.

use std::fmt;

/// The client's first 24 octets (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags.
pub(crate) mod flag {
    /// Of SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 8441.
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Error codes (RFC 9113 section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const CONNECT_ERROR: u32 = 10;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// An error code by its name.
pub(crate) fn code_name(code: u32) -> String {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    known.map_or_else(|| format!("error code {code}"), |name| (*name).to_owned())
}

/// A frame. Nothing about it is checked: wrong ones are what half of the cases are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// With the reserved bit, if it is set.
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub(crate) fn data(stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, 0, stream, payload)
    }

    /// DATA with END_STREAM.
    pub(crate) fn last_data(stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, flag::END_STREAM, stream, payload)
    }

    /// DATA with padding.
    pub(crate) fn padded_data(stream: u32, payload: &[u8], padding: u8) -> Self {
        let mut whole = vec![padding];
        whole.extend(payload);
        whole.resize(whole.len() + usize::from(padding), 0);
        Self::new(kind::DATA, flag::PADDED, stream, whole)
    }

    /// A whole header block in one frame.
    pub(crate) fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// HEADERS with END_STREAM.
    pub(crate) fn last_headers(stream: u32, block: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, block)
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub(crate) fn settings(values: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = values
            .iter()
            .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        Self::new(kind::SETTINGS, 0, 0, payload)
    }

    pub(crate) fn settings_ack() -> Self {
        Self::new(kind::SETTINGS, flag::ACK, 0, [])
    }

    pub(crate) fn ping(payload: [u8; 8]) -> Self {
        Self::new(kind::PING, 0, 0, payload)
    }

    pub(crate) fn goaway(last: u32, code: u32, debug: &[u8]) -> Self {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(code.to_be_bytes());
        payload.extend(debug);
        Self::new(kind::GOAWAY, 0, 0, payload)
    }

    pub(crate) fn window_update(stream: u32, by: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes())
    }

    /// Depends on stream 0, weight 16.
    pub(crate) fn priority(stream: u32) -> Self {
        Self::new(kind::PRIORITY, 0, stream, [0, 0, 0, 0, 15])
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        out.extend(length.iter().skip(1));
        out.extend([self.kind, self.flags]);
        out.extend(self.stream.to_be_bytes());
        out.extend(&self.payload);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.payload.len());
        self.encode_to(&mut out);
        out
    }

    /// Takes the first complete frame off `bytes`.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let header: [u8; 9] = bytes.get(..9)?.try_into().ok()?;
        let [a, b, c, kind, flags, d, e, f, g] = header;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        let payload = bytes.get(9..9 + length)?.to_vec();
        bytes.drain(..9 + length);
        Some(Self { kind, flags, stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff, payload })
    }

    /// The payload without padding and priority, whose flags may be set on DATA and HEADERS.
    pub(crate) fn content(&self) -> Option<&[u8]> {
        let mut content = self.payload.as_slice();
        if self.has(flag::PADDED) {
            let (padding, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..)?;
        }
        Some(content)
    }

    /// The four octets at `at`, as a number.
    pub(crate) fn number(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.get(usize::from(self.kind)) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "frame of type {:#x}", self.kind)?,
        }
        write!(f, " on stream {}", self.stream)?;
        match self.kind {
            kind::RST_STREAM => write!(f, " {}", code_name(self.number(0).unwrap_or_default())),
            kind::GOAWAY => write!(f, " {}", code_name(self.number(4).unwrap_or_default())),
            _ => write!(f, ", flags {:#x}, {} bytes", self.flags, self.payload.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_and_half_a_frame_waits() {
        let sent = Frame::padded_data(5, b"abc", 7);
        let mut bytes = sent.encode();
        let end = bytes.split_off(10);
        assert_eq!(Frame::take(&mut bytes), None);
        bytes.extend(end);
        let got = Frame::take(&mut bytes).unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.content().unwrap(), b"abc");
        assert!(bytes.is_empty());
    }

    #[test]
    fn padding_longer_than_the_payload_has_no_content() {
        assert_eq!(Frame::new(kind::DATA, flag::PADDED, 1, [9, 0, 0]).content(), None);
    }
}
