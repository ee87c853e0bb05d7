//! What a target has said on a connection so far, frame by frame put together.

use std::collections::BTreeMap;
use std::fmt;

use super::frame::{Frame, code_name, flag, kind};
use super::hpack::{Decoder, Field};

/// How a connection ended, from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// TLS close_notify.
    CloseNotify,
    /// TCP FIN without close_notify.
    Fin,
    /// TCP RST.
    Reset,
    /// A fatal TLS alert, by its name.
    Alert(String),
    /// We could not make sense of it, or could not write.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseNotify => f.write_str("close_notify"),
            Self::Fin => f.write_str("TCP FIN"),
            Self::Reset => f.write_str("TCP RST"),
            Self::Alert(name) => write!(f, "alert {name}"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Header blocks in their order: the answer, then trailers.
    pub(crate) heads: Vec<Vec<Field>>,
    pub(crate) data: Vec<u8>,
    /// Octets that count against windows, so with padding.
    pub(crate) flow: u64,
    /// DATA came before any HEADERS.
    pub(crate) early: bool,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
    /// Sum of its WINDOW_UPDATEs.
    pub(crate) credit: u64,
}

impl Stream {
    pub(crate) fn status(&self) -> Option<u16> {
        let value = self.field(":status")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// A field of the answer that is not an interim one.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let answer = self
            .heads
            .iter()
            .find(|head| !head.iter().any(|(name, value)| name == b":status" && value.starts_with(b"1")))?;
        answer.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// Nothing more will come.
    pub(crate) fn over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// Everything a target has said.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) streams: BTreeMap<u32, Stream>,
    /// Values of its SETTINGS, once there were some.
    pub(crate) settings: Option<BTreeMap<u16, u32>>,
    pub(crate) settings_acks: u32,
    /// Payloads of the answers to our PINGs.
    pub(crate) pongs: Vec<Vec<u8>>,
    /// PINGs of its own.
    pub(crate) pings: u32,
    /// Sum of the connection's WINDOW_UPDATEs.
    pub(crate) credit: u64,
    /// DATA on all streams, with padding.
    pub(crate) flow: u64,
    /// Last stream and code of each GOAWAY.
    pub(crate) goaways: Vec<(u32, u32)>,
    pub(crate) end: Option<End>,
    /// Type of the first frame.
    pub(crate) first: Option<u8>,
    pub(crate) largest_data: usize,
    pub(crate) frames: u64,
    /// A field block that is not complete yet, with its HEADERS frame's flags and stream.
    block: Option<(u32, bool, Vec<u8>)>,
    decoder: Decoder,
}

impl Seen {
    pub(crate) fn stream(&self, id: u32) -> Option<&Stream> {
        self.streams.get(&id)
    }

    pub(crate) fn setting(&self, name: u16) -> Option<u32> {
        self.settings.as_ref()?.get(&name).copied()
    }

    /// The code of a GOAWAY that reports an error.
    pub(crate) fn error(&self) -> Option<u32> {
        self.goaways.iter().map(|(_, code)| *code).find(|code| *code != 0)
    }

    /// The connection has ended; the first end that was seen counts.
    pub(crate) fn end_with(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
    }

    /// Neither ended nor ending with an error.
    pub(crate) fn lives(&self) -> bool {
        self.end.is_none() && self.error().is_none()
    }

    /// How the connection is, in words.
    pub(crate) fn condition(&self) -> String {
        let mut words = Vec::new();
        words.extend(
            self.goaways.iter().map(|(last, code)| format!("GOAWAY({}, last {last})", code_name(*code))),
        );
        words.extend(self.end.iter().map(ToString::to_string));
        if words.is_empty() { "connection open".to_owned() } else { words.join(", then ") }
    }

    /// How a stream is, in words.
    pub(crate) fn state(&self, id: u32) -> String {
        let mut words = Vec::new();
        if let Some(stream) = self.stream(id) {
            words.extend(stream.status().map(|status| status.to_string()));
            if !stream.data.is_empty() {
                words.push(format!("{} bytes", stream.data.len()));
            }
            if stream.ended {
                words.push("END_STREAM".to_owned());
            }
            words.extend(stream.reset.map(|code| format!("RST_STREAM({})", code_name(code))));
        }
        if words.is_empty() {
            words.push("no answer".to_owned());
        }
        if self.end.is_some() || !self.goaways.is_empty() {
            words.push(self.condition());
        }
        words.join(", ")
    }

    /// Takes a frame in. Says what is wrong with it, if we cannot go on.
    pub(crate) fn take(&mut self, frame: &Frame) -> Result<(), String> {
        self.first.get_or_insert(frame.kind);
        self.frames += 1;
        match frame.kind {
            kind::DATA => {
                let content = frame.content().ok_or("DATA with more padding than payload")?;
                self.flow += frame.payload.len() as u64;
                self.largest_data = self.largest_data.max(frame.payload.len());
                let stream = self.streams.entry(frame.stream).or_default();
                stream.early |= stream.heads.is_empty();
                stream.flow += frame.payload.len() as u64;
                stream.data.extend(content);
                stream.ended |= frame.has(flag::END_STREAM);
            }
            kind::HEADERS => {
                let content = frame.content().ok_or("HEADERS with more padding than payload")?;
                self.block = Some((frame.stream, frame.has(flag::END_STREAM), content.to_vec()));
                return self.finish_block(frame);
            }
            kind::CONTINUATION => {
                let (_, _, block) = self.block.as_mut().ok_or("CONTINUATION without HEADERS")?;
                block.extend(&frame.payload);
                return self.finish_block(frame);
            }
            kind::RST_STREAM => {
                let stream = self.streams.entry(frame.stream).or_default();
                stream.reset = stream.reset.or_else(|| frame.number(0));
            }
            kind::SETTINGS if frame.has(flag::ACK) => self.settings_acks += 1,
            kind::SETTINGS => {
                let known = self.settings.get_or_insert_default();
                for entry in frame.payload.chunks_exact(6) {
                    let [a, b, c, d, e, f] = *entry else { continue };
                    known.insert(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                }
            }
            kind::PING if frame.has(flag::ACK) => self.pongs.push(frame.payload.clone()),
            kind::PING => self.pings += 1,
            kind::GOAWAY => {
                let last = frame.number(0).ok_or("a GOAWAY that is too short")? & 0x7fff_ffff;
                self.goaways.push((last, frame.number(4).ok_or("a GOAWAY that is too short")?));
            }
            kind::WINDOW_UPDATE => {
                let by = u64::from(frame.number(0).unwrap_or_default() & 0x7fff_ffff);
                if frame.stream == 0 {
                    self.credit += by;
                } else {
                    self.streams.entry(frame.stream).or_default().credit += by;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish_block(&mut self, frame: &Frame) -> Result<(), String> {
        if !frame.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some((stream, ended, block)) = self.block.take() else { return Ok(()) };
        let fields = self.decoder.decode(&block).ok_or("a field block that does not decode")?;
        let stream = self.streams.entry(stream).or_default();
        stream.heads.push(fields);
        stream.ended |= ended;
        Ok(())
    }
}
