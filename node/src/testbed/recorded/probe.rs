//! The prober: speaks HTTP/2 over TLS frame by frame, so that it can also say what no client would.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// On DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const CODES: [&str; 14] = [
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

/// A frame: kind, flags, stream, payload.
pub(super) type Frame = (u8, u8, u32, Vec<u8>);
/// As a client.
pub(super) type Client = StreamOwned<ClientConnection, TcpStream>;
/// As a server.
pub(super) type Server = StreamOwned<ServerConnection, TcpStream>;

pub(super) struct Probe<T = Client> {
    pub(super) tls: T,
    received: Vec<u8>,
    /// The server's INITIAL_WINDOW_SIZE.
    initial_window: usize,
    /// Sums of WINDOW_UPDATE by stream.
    granted: BTreeMap<u32, usize>,
    /// Of the DATA frames that have come.
    pub(super) largest_data: usize,
    /// How the connection ended, once it has.
    pub(super) end: Option<String>,
}

impl Probe {
    /// Connects and exchanges SETTINGS, on the calling thread's network.
    pub(super) fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let tcp = kit::echo::connect(to).unwrap();
        let name = rustls_pki_types::ServerName::from(to.ip());
        let tls = ClientConnection::new(config, name).unwrap();
        let mut probe = Self::over(StreamOwned::new(tls, tcp));
        let _ = probe.tls.write_all(PREFACE);
        probe.frame(SETTINGS, 0, 0, &[]);
        probe
    }

    pub(super) fn local_port(&self) -> u16 {
        self.tls.sock.local_addr().unwrap().port()
    }

    /// Ends the connection in good order.
    pub(super) fn close(mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.flush();
    }
}

impl Probe<Server> {
    /// Accepts TLS and exchanges SETTINGS.
    pub(super) fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, io::Error> {
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
        let mut preface = [0; PREFACE.len()];
        tls.read_exact(&mut preface)?;
        assert_eq!(&preface, PREFACE);
        let mut probe = Self::over(tls);
        probe.frame(SETTINGS, 0, 0, &[]);
        Ok(probe)
    }
}

impl<T: Read + Write> Probe<T> {
    fn over(tls: T) -> Self {
        Self {
            tls,
            received: Vec::new(),
            initial_window: 65535,
            granted: BTreeMap::new(),
            largest_data: 0,
            end: None,
        }
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A connection that has been closed is seen when reading.
        let _ = self.tls.write_all(&frame);
    }

    /// MAX_FRAME_SIZE.
    pub(super) fn announce_frame_size(&mut self, size: u32) {
        self.frame(SETTINGS, 0, 0, &[&[0, 5][..], &size.to_be_bytes()].concat());
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

    /// An answer without further fields.
    pub(super) fn answer(&mut self, stream: u32, status: u16, end: bool) {
        // Name 8 of the static table.
        let block = [&[8, 3], status.to_string().as_bytes()].concat();
        let end = if end { END_STREAM } else { 0 };
        self.frame(HEADERS, END_HEADERS | end, stream, &block);
    }

    pub(super) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes);
    }

    /// Sends up to `most` bytes on a stream while the windows of stream and connection have room, and tells how many.
    pub(super) fn fill(&mut self, stream: u32, most: usize) -> usize {
        const PIECE: usize = 16384;
        let mut sent = 0;
        while sent < most {
            let granted = |probe: &Self, stream| probe.granted.get(&stream).copied().unwrap_or_default();
            while sent + PIECE > self.initial_window + granted(self, stream)
                || sent + PIECE > 65535 + granted(self, 0)
            {
                // What the windows say now is known when a PING has come back.
                let before = self.granted.clone();
                self.settle(stream, &mut Answer::default());
                if self.granted == before && self.initial_window > PIECE {
                    return sent;
                }
            }
            self.frame(DATA, 0, stream, &[0; PIECE]);
            sent += PIECE;
        }
        sent
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
            SETTINGS if flags == 0 => {
                let values = payload.chunks_exact(6).find(|value| value[..2] == [0, 4]);
                if let Some(value) = values {
                    self.initial_window = number(&value[2..]);
                }
                self.frame(SETTINGS, 1, 0, &[]);
            }
            WINDOW_UPDATE => *self.granted.entry(of).or_default() += number(payload),
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
                self.largest_data = self.largest_data.max(payload.len());
                if let Ok(length @ 1..) = u32::try_from(payload.len()) {
                    self.frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes());
                    self.frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
                }
                if flags & END_STREAM != 0 {
                    answer.end_stream = Some(if payload.is_empty() { "empty-data" } else { "data" });
                }
            }
            _ => {}
        }
    }

    /// The next frame; none: the connection has ended, or nothing came for too long.
    pub(super) fn next(&mut self) -> Option<Frame> {
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
            let end = match self.tls.read(&mut buffer) {
                Ok(n @ 1..) => {
                    self.received.extend(&buffer[..n]);
                    continue;
                }
                Ok(0) => "close_notify",
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "fin",
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => "rst",
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => "open",
                Err(error) => &alert(&error),
            };
            self.end = Some(end.to_owned());
            return None;
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes[..4].try_into().unwrap()).try_into().unwrap()
}

/// An alert by its name in RFC 8446, section 6.
pub(super) fn alert(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return error.to_string() };
    let mut name = "alert:".to_owned();
    for letter in format!("{alert:?}").replace("CA", "Ca").chars() {
        if letter.is_uppercase() && !name.ends_with(':') {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// A header block as the node writes it: the static table and plain literals.
pub(super) fn fields(mut block: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some((first, rest)) = block.split_first() {
        block = rest;
        let own = |text: &str| text.to_owned();
        if first & 0x80 != 0 {
            fields.push(match first & 0x7f {
                2 => (own(":method"), own("GET")),
                8 => (own(":status"), own("200")),
                12 => (own(":status"), own("400")),
                13 => (own(":status"), own("404")),
                14 => (own(":status"), own("500")),
                other => panic!("static field {other}"),
            });
        } else if first & 0xe0 == 0 {
            let name = match first & 0xf {
                0 => text(&mut block),
                1 => own(":authority"),
                2 => own(":method"),
                8 => own(":status"),
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
