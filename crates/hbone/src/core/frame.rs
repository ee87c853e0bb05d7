//! HTTP/2 frames (RFC 9113 sections 4 and 6): the header of a frame, its constants, and how we write each kind.

use crate::ErrorCode;

/// Octets of a frame header.
pub(crate) const HEADER: usize = 9;

/// What a client says first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest value of a window, of a stream id and of `last-stream-id`.
pub(crate) const MAX_31: u32 = 0x7fff_ffff;

/// Largest frame every peer accepts.
pub(crate) const DEFAULT_MAX_FRAME: usize = 16_384;

/// Window of a stream and of the connection before anybody says otherwise.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

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

pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

pub(crate) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// Ours, out of the range for experiments (RFC 7540 section 11.3): the server takes DATA ahead of its answer.
    pub(crate) const EARLY_DATA: u16 = 0xf0ea;
}

/// The nine octets in front of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_31,
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame header of ours. Our payloads are far below 2^24 octets.
#[expect(clippy::cast_possible_truncation, reason = "takes the three low octets of a length below 2^24")]
pub(crate) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER] {
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags, s0, s1, s2, s3]
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&head(payload.len(), kind, flags, stream));
    out.extend_from_slice(payload);
}

pub(crate) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    out.extend_from_slice(&head(values.len() * 6, kind::SETTINGS, 0, 0));
    for (id, value) in values {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    put(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

pub(crate) fn ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    put(out, kind::PING, if ack { flag::ACK } else { 0 }, 0, &payload);
}

pub(crate) fn goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode) {
    let mut payload = [0; 8];
    let (stream, error) = payload.split_at_mut(4);
    stream.copy_from_slice(&last.to_be_bytes());
    error.copy_from_slice(&code.0.to_be_bytes());
    put(out, kind::GOAWAY, 0, 0, &payload);
}

pub(crate) fn rst_stream(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put(out, kind::RST_STREAM, 0, stream, &code.0.to_be_bytes());
}

/// A header block, cut to frames that every peer accepts.
pub(crate) fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool) {
    let end = if end_stream { flag::END_STREAM } else { 0 };
    let (first, mut rest) = block.split_at(block.len().min(DEFAULT_MAX_FRAME));
    let done = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
    put(out, kind::HEADERS, end | done(rest), stream, first);
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(DEFAULT_MAX_FRAME));
        rest = after;
        put(out, kind::CONTINUATION, done(rest), stream, next);
    }
}
