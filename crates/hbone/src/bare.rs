//! A tunnel's protocol core without socket, TLS and clock, for fuzzers and instruction counts.
//!
//! No program uses it, and no promise is made about it. It is public, and hidden from the documentation, because
//! this tree has no feature flags for tests: what is measured and fuzzed is the code that ships, and what nobody
//! calls the linker drops.

use std::time::Instant;

use crate::core::hpack::Decoder;
use crate::core::{Action, Capacity, Core, DATA_PAYLOAD, StreamFault, fields};
use crate::live::codec::{Portable as _, Reader, Writer};
use crate::{ConnectionEnd, ErrorCode, Settings};

/// One side of a connection.
#[derive(Debug, Clone)]
pub struct Bare(Core);

/// What a side has to do or know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// Payload; [`Bare::consumed`] gives its octets back.
    Data(u32, &'i [u8]),
    /// The peer has ended its direction.
    End(u32),
    /// Server: a request, with its authority.
    Request(u32, Option<String>),
    /// Client: the status of the answer.
    Answer(u32, u16),
    /// The peer reset the stream, or goes away without having looked at it.
    Reset(u32, ErrorCode),
    /// We reset the stream because the peer broke this rule.
    Fault(u32, &'static str),
    /// More may be sent on this stream, or on all for stream 0.
    Window(u32),
    /// No further streams.
    GoingAway,
    /// The connection is over.
    Ended(ConnectionEnd),
}

impl<'i> From<Action<'i>> for Event<'i> {
    fn from(action: Action<'i>) -> Self {
        match action {
            Action::Data { stream, bytes } => Self::Data(stream, bytes),
            Action::End { stream } => Self::End(stream),
            Action::Request { stream, head } => Self::Request(stream, head.authority),
            Action::Answer { stream, head } => Self::Answer(stream, head.status),
            Action::Broken { stream, why: StreamFault::Reset(code) | StreamFault::NotProcessed(code) } => {
                Self::Reset(stream, code)
            }
            Action::Broken { stream, why: StreamFault::Fault { what, .. } } => Self::Fault(stream, what),
            Action::Broken { stream, why: StreamFault::Unread } => Self::Fault(stream, "nobody reads it"),
            Action::Window { stream } => Self::Window(stream),
            Action::GoingAway => Self::GoingAway,
            Action::Ended(end) => Self::Ended(end),
        }
    }
}

impl Bare {
    /// A client; its first frames are in the output.
    pub fn client(settings: Settings, now: Instant) -> Self {
        Self(Core::client(settings, now))
    }

    /// A server; its first frames are in the output.
    pub fn server(settings: Settings, now: Instant) -> Self {
        Self(Core::server(settings, now))
    }

    /// Takes received bytes.
    pub fn receive<'i>(&mut self, now: Instant, bytes: &'i [u8], mut each: impl FnMut(&mut Self, Event<'i>)) {
        let mut actions = Vec::new();
        self.0.receive(now, bytes, &mut actions);
        actions.into_iter().for_each(|action| each(self, action.into()));
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, mut each: impl FnMut(Event<'_>)) {
        let mut actions = Vec::new();
        self.0.tick(now, &mut actions);
        actions.into_iter().for_each(|action| each(action.into()));
    }

    /// When [`Bare::tick`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    /// Frames to be sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.0.output()
    }

    /// Client: sends a request.
    pub fn open(&mut self, authority: &str, headers: &[(String, String)], now: Instant) -> Option<u32> {
        self.0.open(authority, headers, now)
    }

    /// Server: answers a request; with `end_stream` nothing follows.
    pub fn answer(&mut self, stream: u32, status: u16, end_stream: bool) {
        self.0.answer(stream, status, &[], end_stream);
    }

    /// What may be sent now; `None` when the stream is over or was ended by us.
    pub fn capacity(&self, stream: u32) -> Option<usize> {
        match self.0.capacity(stream) {
            Capacity::Octets(octets) => Some(octets),
            Capacity::Closed => None,
        }
    }

    /// Sends of `bytes` what fits into windows and one frame; returns how much.
    pub fn write(&mut self, stream: u32, bytes: &[u8]) -> usize {
        let room = self.capacity(stream).unwrap_or(0).min(DATA_PAYLOAD).min(bytes.len());
        if room > 0 {
            let head = self.0.data(stream, room, false);
            self.0.output().extend_from_slice(&head);
            self.0.output().extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
        room
    }

    /// Ends our direction.
    pub fn finish(&mut self, stream: u32) {
        self.0.finish(stream);
    }

    /// Ends the stream at once.
    pub fn abandon(&mut self, stream: u32) {
        self.0.abandon(stream);
    }

    /// The owner has consumed payload.
    pub fn consumed(&mut self, stream: u32, octets: usize, now: Instant) {
        self.0.consumed(stream, octets, now);
    }

    /// Server: graceful drain.
    pub fn drain(&mut self, now: Instant) {
        self.0.drain(now);
    }

    /// Ends the connection if nothing is left on it.
    pub fn settle(&mut self, mut each: impl FnMut(Event<'_>)) {
        let mut actions = Vec::new();
        self.0.settle_connection(&mut actions);
        actions.into_iter().for_each(|action| each(action.into()));
    }

    /// This side as part of a live tunnel.
    pub fn export(&self, now: Instant) -> Vec<u8> {
        let mut to = Writer::new(now);
        self.0.put(&mut to);
        to.into_bytes().to_vec()
    }

    /// Goes on as what such a part says, if it can be one.
    pub fn import(bytes: &[u8], now: Instant, settings: &Settings) -> Option<Self> {
        let mut from = Reader::new(bytes, now, settings);
        let core = Core::take(&mut from).ok()?;
        from.is_empty().then_some(Self(core))
    }

    /// Streams that are not over.
    pub fn open_streams(&self) -> u32 {
        self.0.open_streams()
    }

    /// What we may send on the connection, and what of its receive window is not with the peer's unread payload:
    /// still to be used, or used and consumed. The latter is the whole window when everything is consumed.
    pub fn connection_windows(&self) -> (i64, i64) {
        self.0.connection_windows()
    }
}

/// Decodes header blocks one after the other with one decoder and judges each list as request, answer and trailers.
/// Returns how many blocks decoded, and how many of those lists were each.
pub fn header_blocks<'b>(blocks: impl IntoIterator<Item = &'b [u8]>, limit: usize) -> [usize; 4] {
    let mut decoder = Decoder::new(crate::core::hpack::DEFAULT_TABLE);
    let mut counts = [0; 4];
    for block in blocks {
        let Ok(list) = decoder.decode(block, limit) else { break };
        let judged = [
            true,
            fields::request(list.fields.clone()).is_ok(),
            fields::answer(list.fields.clone()).is_ok(),
            fields::trailers(list.fields).is_ok(),
        ];
        counts.iter_mut().zip(judged).for_each(|(count, good)| *count += usize::from(good));
    }
    counts
}

/// Decodes one header block with a fresh decoder; `None` if it does not decode or is above `limit`.
pub fn field_list(block: &[u8], limit: usize) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let list = Decoder::new(crate::core::hpack::DEFAULT_TABLE).decode(block, limit).ok()?;
    let fields = list.fields.into_iter().map(|field| (field.name, field.value));
    (!list.oversized).then(|| fields.collect())
}
