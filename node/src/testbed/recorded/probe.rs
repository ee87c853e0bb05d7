//! The prober: speaks HTTP/2 over TLS frame by frame, so that it can also say what no client would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// On DATA and HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const CODES: [&str; 12] = [
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
];

/// What has come back on one stream.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) data: Vec<u8>,
    /// `headers`, `data`, `empty-data`
    pub(super) end_stream: Option<&'static str>,
    pub(super) rst: Option<String>,
    pub(super) goaways: Vec<u32>,
    /// The connection has ended.
    pub(super) closed: bool,
}

impl Answer {
    /// In the words of the recordings.
    pub(super) fn told(&self) -> Value {
        let mut told = json!({});
        if let Some(status) = &self.status {
            told["status"] = json!(status);
            told["headers"] = json!(self.headers);
        }
        if let Some(end) = self.end_stream {
            told["end_stream"] = json!(end);
        }
        if let Some(code) = &self.rst {
            told["rst"] = json!(code);
        }
        told
    }

    pub(super) fn is_over(&self) -> bool {
        self.end_stream.is_some() || self.rst.is_some() || self.closed
    }
}

pub(super) struct Probe {
    tls: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl Probe {
    /// Connects and exchanges SETTINGS, on the calling thread's network.
    pub(super) fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let tcp = kit::echo::connect(to).unwrap();
        let name = rustls_pki_types::ServerName::from(to.ip());
        let tls = ClientConnection::new(config, name).unwrap();
        let mut probe = Self { tls: StreamOwned::new(tls, tcp), received: Vec::new() };
        probe.tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        probe.frame(SETTINGS, 0, 0, &[]);
        probe
    }

    pub(super) fn local_port(&self) -> u16 {
        self.tls.sock.local_addr().unwrap().port()
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A connection that has been closed is seen when reading.
        let _ = self.tls.write_all(&frame);
    }

    /// A request; all fields as plain literals.
    pub(super) fn request(&mut self, stream: u32, fields: &[(String, String)], end: bool) {
        let mut block = Vec::new();
        for text in fields.iter().flat_map(|(name, value)| [name, value]).enumerate() {
            let (i, text) = text;
            if i % 2 == 0 {
                block.push(0);
            }
            match text.len().checked_sub(127) {
                None => block.push(u8::try_from(text.len()).unwrap()),
                Some(more) => {
                    assert!(more < 1 << 14);
                    block.push(127);
                    let more = u16::try_from(more).unwrap();
                    block.extend([(more & 127 | 128).to_le_bytes()[0], (more >> 7).to_le_bytes()[0]]);
                }
            }
            block.extend(text.as_bytes());
        }
        let end = if end { END_STREAM } else { 0 };
        self.frame(HEADERS, END_HEADERS | end, stream, &block);
    }

    pub(super) fn connect_to(&mut self, stream: u32, authority: &str) {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        self.request(stream, &[field(":method", "CONNECT"), field(":authority", authority)], false);
    }

    pub(super) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes);
    }

    pub(super) fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Reads into `answer`, which belongs to `stream`, until it is as wanted or nothing comes any more.
    pub(super) fn read(&mut self, stream: u32, answer: &mut Answer, wanted: impl Fn(&Answer) -> bool) {
        while !wanted(answer) && !answer.closed {
            match self.next() {
                Some((kind, flags, of, payload)) => self.take(stream, answer, kind, flags, of, &payload),
                None => answer.closed = true,
            }
        }
    }

    /// Reads what still comes on its own accord: an answer to a PING tells that it was all.
    pub(super) fn settle(&mut self, stream: u32, answer: &mut Answer) {
        self.frame(PING, 0, 0, b"settling");
        while !answer.closed {
            match self.next() {
                Some((PING, 1, _, _)) => return,
                Some((kind, flags, of, payload)) => self.take(stream, answer, kind, flags, of, &payload),
                None => answer.closed = true,
            }
        }
    }

    fn take(&mut self, stream: u32, answer: &mut Answer, kind: u8, flags: u8, of: u32, payload: &[u8]) {
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            SETTINGS if flags == 0 => self.frame(SETTINGS, 1, 0, &[]),
            PING if flags == 0 => self.frame(PING, 1, 0, payload),
            GOAWAY => answer.goaways.push(code(0)),
            _ if of != stream => {}
            RST_STREAM => answer.rst = Some(CODES[usize::try_from(code(0)).unwrap()].to_owned()),
            HEADERS => {
                for (name, value) in fields(payload) {
                    match name.as_str() {
                        ":status" => answer.status = Some(value),
                        _ => answer.headers.push((name, value)),
                    }
                }
                if flags & END_STREAM != 0 {
                    answer.end_stream = Some("headers");
                }
            }
            DATA => {
                answer.data.extend(payload);
                if flags & END_STREAM != 0 {
                    answer.end_stream = Some(if payload.is_empty() { "empty-data" } else { "data" });
                }
            }
            _ => {}
        }
    }

    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let Some(head) = self.received.get(..9) {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
                if self.received.len() >= 9 + length {
                    let rest = self.received.split_off(9 + length);
                    let payload = std::mem::replace(&mut self.received, rest).split_off(9);
                    return Some((kind, flags, stream, payload));
                }
            }
            let mut buffer = [0; 16384];
            match self.tls.read(&mut buffer) {
                Ok(n @ 1..) => self.received.extend(&buffer[..n]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Ends the connection in good order.
    pub(super) fn close(mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.flush();
    }
}

/// A header block as the node writes it: the static table and plain literals.
fn fields(mut block: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some((first, rest)) = block.split_first() {
        block = rest;
        if first & 0x80 != 0 {
            let status = match first & 0x7f {
                8 => "200",
                12 => "400",
                13 => "404",
                14 => "500",
                other => panic!("static field {other}"),
            };
            fields.push((":status".to_owned(), status.to_owned()));
        } else if first & 0xe0 == 0 {
            let name = match first & 0xf {
                0 => text(&mut block),
                8 => ":status".to_owned(),
                other => panic!("static name {other}"),
            };
            fields.push((name, text(&mut block)));
        }
    }
    fields
}

fn text(block: &mut &[u8]) -> String {
    let (first, mut rest) = block.split_first().unwrap();
    assert_eq!(first & 0x80, 0, "Huffman");
    let mut length = usize::from(*first);
    if length == 127 {
        for i in 0.. {
            length += usize::from(rest[0] & 127) << (7 * i);
            let more = rest[0] & 128 != 0;
            rest = &rest[1..];
            if !more {
                break;
            }
        }
    }
    let (text, rest) = rest.split_at(length);
    *block = rest;
    String::from_utf8(text.to_vec()).unwrap()
}
