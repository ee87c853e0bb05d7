//! Scripted peers against the core: frames in, frames and actions out, time as the test says.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a test that fails says so"
)]

mod bad_server;
mod budgets;
mod client;
mod h2spec;
mod interleaving;
mod recorded;
mod server;
mod windows;

use std::time::{Duration, Instant};

use super::frame::{self, HEADER, Head, flag, kind};
use super::{Action, Core, hpack};
use crate::{ErrorCode, Settings};

/// A core with a clock of the test's own.
pub(super) struct Script {
    pub(super) core: Core,
    pub(super) now: Instant,
    /// Mirrors the encoder of the core.
    decoder: hpack::Decoder,
    skip_preface: bool,
    /// The last stream of the last GOAWAY: it never goes up (RFC 9113 section 6.8).
    last_stream: u32,
}

/// What a core did, as text: frames sent, then actions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Did {
    pub(super) frames: Vec<String>,
    pub(super) actions: Vec<String>,
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

impl Script {
    pub(super) fn server(settings: Settings) -> Self {
        let now = epoch();
        let core = Core::server(settings, now);
        Self { core, now, decoder: hpack::Decoder::new(4096), skip_preface: false, last_stream: u32::MAX }
    }

    pub(super) fn client(settings: Settings) -> Self {
        let now = epoch();
        let core = Core::client(settings, now);
        Self { core, now, decoder: hpack::Decoder::new(4096), skip_preface: true, last_stream: u32::MAX }
    }

    /// A server after the preface, with its first frames out of the way.
    pub(super) fn ready() -> Self {
        Self::ready_with(Settings::default())
    }

    pub(super) fn ready_with(settings: Settings) -> Self {
        let mut script = Self::server(settings);
        script.send(
            &[&frame::PREFACE[..], &settings_frame(&[]), &raw(kind::SETTINGS, flag::ACK, 0, &[])].concat(),
        );
        script
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Did {
        let mut actions = Vec::new();
        self.core.receive(self.now, bytes, &mut actions);
        let actions = actions.iter().map(render_action).collect();
        Did { frames: self.frames(), actions }
    }

    pub(super) fn wait(&mut self, time: Duration) -> Did {
        let until = self.now + time;
        let mut did = Did::default();
        while let Some(due) = self.core.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut actions = Vec::new();
            self.core.tick(self.now, &mut actions);
            did.actions.extend(actions.iter().map(render_action));
            did.frames.extend(self.frames());
        }
        self.now = until;
        did
    }

    pub(super) fn frames(&mut self) -> Vec<String> {
        let out = std::mem::take(self.core.output());
        let mut rest = &out[..];
        if std::mem::take(&mut self.skip_preface) {
            rest = rest.strip_prefix(&frame::PREFACE[..]).unwrap();
        }
        let mut frames = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
            let head = Head::parse(head);
            let (payload, after) = after.split_at(head.length);
            rest = after;
            frames.push(self.render(head, payload));
        }
        assert!(rest.is_empty());
        frames
    }

    fn render(&mut self, head: Head, payload: &[u8]) -> String {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let end = if head.kind <= kind::HEADERS && head.has(flag::END_STREAM) { " END_STREAM" } else { "" };
        let stream = head.stream;
        match head.kind {
            kind::DATA => format!("DATA {stream} {}{end}", payload.len()),
            kind::HEADERS => {
                let list = self.decoder.decode(payload, usize::MAX).unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields: Vec<_> =
                    list.fields.iter().map(|f| format!("{}={}", text(&f.name), text(&f.value))).collect();
                format!("HEADERS {stream} {}{end}", fields.join(" "))
            }
            kind::RST_STREAM => format!("RST_STREAM {stream} {}", ErrorCode(number(payload))),
            kind::SETTINGS if head.has(flag::ACK) => "SETTINGS ack".into(),
            kind::SETTINGS => {
                let pairs: Vec<_> = payload
                    .chunks(6)
                    .map(|c| format!("{}={}", u16::from_be_bytes([c[0], c[1]]), number(&c[2..])))
                    .collect();
                format!("SETTINGS {}", pairs.join(" "))
            }
            kind::PING if head.has(flag::ACK) => format!("PING ack {}", String::from_utf8_lossy(payload)),
            kind::PING => format!("PING {}", String::from_utf8_lossy(payload)),
            kind::GOAWAY => {
                assert_eq!(payload.len(), 8, "no debug data");
                let last = number(&payload[..4]);
                assert!(last <= self.last_stream, "{last} after {}", self.last_stream);
                self.last_stream = last;
                format!("GOAWAY {} {}", number(&payload[..4]), ErrorCode(number(&payload[4..])))
            }
            kind::WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} {}", number(payload)),
            other => format!("frame {other}"),
        }
    }

    /// The server accepts a stream.
    pub(super) fn accept(&mut self, stream: u32) -> Vec<String> {
        self.core.answer(stream, 200, &[], false);
        self.frames()
    }

    /// Opens a tunnel on a ready server.
    pub(super) fn tunnel(&mut self, stream: u32) {
        self.send(&connect(stream));
        self.accept(stream);
    }

    /// The owner of a stream sends payload as far as windows allow; returns how much.
    pub(super) fn write(&mut self, stream: u32, length: usize) -> usize {
        let super::Capacity::Octets(room) = self.core.capacity(stream) else { return 0 };
        let length = length.min(room).min(super::DATA_PAYLOAD);
        if length > 0 {
            let head = self.core.data(stream, length, false);
            let out = self.core.output();
            out.extend_from_slice(&head);
            out.resize(out.len() + length, b'x');
        }
        length
    }
}

fn render_action(action: &Action<'_>) -> String {
    match action {
        Action::Data { stream, bytes } => format!("data {stream} {}", bytes.len()),
        Action::End { stream } => format!("end {stream}"),
        Action::Request { stream, head } => {
            format!("request {stream} {} {}", head.method, head.authority.as_deref().unwrap_or("-"))
        }
        Action::Answer { stream, head } => format!("answer {stream} {}", head.status),
        Action::Broken { stream, why } => format!("broken {stream} {why:?}"),
        Action::Window { stream } => format!("window {stream}"),
        Action::GoingAway => "going away".into(),
        Action::Ended(end) => format!("ended {}", end.code()),
    }
}

pub(super) fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::head(payload.len(), kind, flags, stream)[..], payload].concat()
}

pub(super) fn settings_frame(values: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::settings(&mut out, values);
    out
}

pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        hpack::encode(name, value.as_bytes(), &mut out);
    }
    out
}

pub(super) fn headers(stream: u32, fields: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    let end = if end_stream { flag::END_STREAM } else { 0 };
    raw(kind::HEADERS, flag::END_HEADERS | end, stream, &block(fields))
}

pub(super) const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")];

pub(super) fn connect(stream: u32) -> Vec<u8> {
    headers(stream, &CONNECT, false)
}

pub(super) fn data(stream: u32, payload: &[u8], end_stream: bool) -> Vec<u8> {
    raw(kind::DATA, if end_stream { flag::END_STREAM } else { 0 }, stream, payload)
}

pub(super) fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    raw(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub(super) fn window(stream: u32, increment: u32) -> Vec<u8> {
    raw(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(super) fn goaway(last: u32, code: ErrorCode) -> Vec<u8> {
    raw(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.0.to_be_bytes()].concat())
}
