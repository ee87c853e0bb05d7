//! The HTTP/2 protocol of a tunnel without sockets and clock: bytes, calls and `now` go in, [`Action`]s and frames
//! to be sent come out.
//!
//! Everything a [`Core`] knows is plain data, so that a live tunnel can be looked at, copied and moved. It never
//! waits and never buffers payload: received DATA is handed on as it lies in the caller's buffer, and the caller
//! says when it was consumed; DATA to be sent is framed by the caller, who asks for windows and frame headers.
//!
//! Start reading at [`Core::receive`] (in `core/receive.rs`).

pub(crate) mod budget;
mod ending;
pub(crate) mod fields;
pub(crate) mod frame;
mod headers;
pub(crate) mod hpack;
mod moment;
mod portable;
mod reader;
mod receive;
mod relief;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::{ConnectionEnd, ErrorCode, Limit, Settings};
use budget::Bucket;
use fields::{AnswerHead, RequestHead};
use frame::{DEFAULT_WINDOW, HEADER, MAX_31, flag, kind, setting};
use stream::Stream;

/// Payload of a DATA frame that fills one TLS record of default size with its header.
pub(crate) const DATA_PAYLOAD: usize = 16_384 - HEADER;

/// An empty output up to this size is kept.
const SMALL_BUFFER: usize = 512;

/// How many streams that are over are remembered, to tell late frames from frames that were never right.
const REMEMBERED: usize = 256;

const LIVENESS: [u8; 8] = *b"culvert?";
const DRAIN: [u8; 8] = *b"culvert.";
const RTT: [u8; 8] = *b"culvert!";

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the owner of a core has to do or know, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<'i> {
    /// Payload for a stream. Its owner calls [`Core::consumed`] when it is gone.
    Data { stream: u32, bytes: &'i [u8] },
    /// The peer has ended its direction.
    End { stream: u32 },
    /// Server: a request wants [`Core::answer`].
    Request { stream: u32, head: RequestHead },
    /// Client: the final answer. `true` if nothing follows it.
    Answer { stream: u32, head: AnswerHead },
    /// The stream is over before its time. It no longer exists in the core.
    Broken { stream: u32, why: StreamFault },
    /// More may be sent on this stream, or on all for stream 0.
    Window { stream: u32 },
    /// No further streams on this connection.
    GoingAway,
    /// Send what is in the output, then close.
    Ended(ConnectionEnd),
}

/// Why a stream is over before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamFault {
    /// The peer reset it.
    Reset(ErrorCode),
    /// The peer broke a rule and we reset it.
    Fault { code: ErrorCode, what: &'static str },
    /// Client: the peer is going away and has not looked at it.
    NotProcessed(ErrorCode),
    /// We reset it because nobody here reads it, and memory is short.
    Unread,
}

/// What may be sent on a stream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// That many octets of payload; zero means wait for [`Action::Window`].
    Octets(usize),
    /// The stream is over or was ended by us.
    Closed,
}

/// Events a process counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) streams: u64,
    pub(crate) resets_received: u64,
    pub(crate) resets_sent: u64,
    pub(crate) refused: u64,
}

#[derive(Debug, Clone)]
enum Drain {
    None,
    /// GOAWAY with the largest id is out, and a PING that shows when the peer has seen it.
    Probing {
        until: Instant,
    },
    /// The last stream is fixed.
    Final,
}

/// What the peer's SETTINGS say.
#[derive(Debug, Clone)]
struct Peer {
    /// SETTINGS have arrived.
    known: bool,
    initial_window: u32,
    max_streams: Option<u32>,
    max_header_list: Option<u32>,
    /// It said that it takes DATA ahead of its answer.
    takes_early: bool,
    goaway: Option<ErrorCode>,
    /// No stream was granted more than this over the initial window.
    most_granted: i64,
}

/// How a stream that is no longer kept came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// By us: frames that were under way are ignored.
    ResetByUs,
    /// By our refusal, which payload sent ahead of it may have crossed.
    Refused,
    /// The peer reset it, and has nothing more to say on it: a fault of that stream.
    ResetByPeer,
    /// Both sides ended it: further frames are a fault.
    Ended,
}

/// A header block that is not complete.
#[derive(Debug, Clone)]
struct OpenBlock {
    stream: u32,
    end_stream: bool,
    block: Vec<u8>,
    continuations: u32,
}

#[derive(Debug, Clone)]
struct Buckets {
    resets: Bucket,
    settings: Bucket,
    pings: Bucket,
    stale_frames: Bucket,
    idle_frames: Bucket,
    small_windows: Bucket,
}

/// The protocol state of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    role: Role,
    settings: Settings,
    reader: reader::Reader,
    decoder: hpack::Decoder,
    /// The peer lowered its table size: the next block has to say that we use none.
    owe_table_size: bool,
    open_block: Option<OpenBlock>,
    out: Vec<u8>,
    /// In boxes: nodes of a tree that grows at its end stay half empty.
    streams: BTreeMap<u32, Box<Stream>>,
    over: VecDeque<(u32, Over)>,
    /// The highest id that was over and is no longer remembered: up to here nobody knows what has been.
    forgotten: u32,
    open_streams: u32,
    /// Client: the next id to use. Server: unused.
    next_stream: u32,
    /// Server: the highest id the peer used. Client: unused.
    highest_seen: u32,
    /// Server: the highest id we passed on.
    highest_accepted: u32,
    peer: Peer,
    send_window: i64,
    recv_window: i64,
    /// Received, but not yet given back to the connection's window.
    uncredited: u32,
    /// Handed to owners and not yet consumed, all streams.
    buffered: u64,
    /// Octets of requests that wait for their answers, all streams.
    requests: u64,
    path: window::Path,
    /// The window our last SETTINGS give to a stream, and those the peer has not acknowledged.
    announced: u32,
    unacknowledged: VecDeque<(u32, Instant)>,
    /// The largest window that the peer may take a stream to begin with.
    enforced: u32,
    /// The process is short of memory, and this tunnel holds more than its share.
    pressed: Option<Box<relief::Pressed>>,
    /// Budgets exceeded and not yet counted.
    exceeded: Vec<(Limit, u64)>,
    drain: Drain,
    /// New streams are refused because of a flood.
    shedding: bool,
    /// Nobody will open streams any more: close when the last is over.
    released: bool,
    ended: bool,
    preface_until: Instant,
    last_heard: Instant,
    ping_sent: Option<Instant>,
    buckets: Buckets,
    stats: Stats,
}

impl Core {
    /// A client; its preface, SETTINGS and window are in the output.
    pub(crate) fn client(settings: Settings, now: Instant) -> Self {
        let mut core = Self::new(Role::Client, settings, now);
        core.out.extend_from_slice(frame::PREFACE);
        frame::settings(
            &mut core.out,
            &[
                (setting::ENABLE_PUSH, 0),
                (setting::INITIAL_WINDOW_SIZE, core.settings.stream_window),
                (setting::MAX_FRAME_SIZE, core.settings.max_frame_size),
                (setting::MAX_HEADER_LIST_SIZE, core.settings.client_header_list),
            ],
        );
        core.widen_connection();
        core
    }

    /// A server; its SETTINGS are in the output.
    pub(crate) fn server(settings: Settings, now: Instant) -> Self {
        let mut core = Self::new(Role::Server, settings, now);
        let values = [
            (setting::MAX_CONCURRENT_STREAMS, core.settings.server_streams),
            (setting::INITIAL_WINDOW_SIZE, core.settings.stream_window),
            (setting::MAX_FRAME_SIZE, core.settings.max_frame_size),
            (setting::MAX_HEADER_LIST_SIZE, core.settings.server_header_list),
            (setting::EARLY_DATA, 1),
        ];
        let said = if core.settings.early_data { &values[..] } else { &values[..4] };
        frame::settings(&mut core.out, said);
        core
    }

    fn new(role: Role, settings: Settings, now: Instant) -> Self {
        let max_frame = usize::try_from(settings.max_frame_size).unwrap_or(frame::DEFAULT_MAX_FRAME);
        let budgets = &settings.budgets;
        Self {
            role,
            reader: reader::Reader::new(role == Role::Server, max_frame),
            decoder: hpack::Decoder::new(hpack::DEFAULT_TABLE),
            owe_table_size: false,
            open_block: None,
            out: Vec::new(),
            streams: BTreeMap::new(),
            over: VecDeque::new(),
            forgotten: 0,
            open_streams: 0,
            next_stream: 1,
            highest_seen: 0,
            highest_accepted: 0,
            peer: Peer {
                known: false,
                initial_window: DEFAULT_WINDOW,
                max_streams: None,
                max_header_list: None,
                takes_early: false,
                goaway: None,
                most_granted: 0,
            },
            send_window: i64::from(DEFAULT_WINDOW),
            recv_window: i64::from(DEFAULT_WINDOW),
            uncredited: 0,
            buffered: 0,
            requests: 0,
            path: window::Path::default(),
            announced: settings.stream_window,
            unacknowledged: VecDeque::from([(settings.stream_window, now)]),
            enforced: settings.stream_window.max(DEFAULT_WINDOW),
            pressed: None,
            exceeded: Vec::new(),
            drain: Drain::None,
            shedding: false,
            released: false,
            ended: false,
            preface_until: now + settings.handshake_timeout,
            last_heard: now,
            ping_sent: None,
            buckets: Buckets {
                resets: Bucket::new(budgets.resets, now),
                settings: Bucket::new(budgets.settings, now),
                pings: Bucket::new(budgets.pings, now),
                stale_frames: Bucket::new(budgets.stale_frames, now),
                idle_frames: Bucket::new(budgets.idle_frames, now),
                small_windows: Bucket::new(budgets.small_windows, now),
            },
            stats: Stats::default(),
            settings,
        }
    }

    /// Frames to be sealed and sent, in order. The caller takes them out; it may add DATA frames of its own.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    /// Streams that are not over.
    pub(crate) fn open_streams(&self) -> u32 {
        self.open_streams
    }

    /// Gives back what a burst has made large and nothing fills now.
    pub(crate) fn let_go(&mut self) {
        if self.out.is_empty() && self.out.capacity() > SMALL_BUFFER {
            self.out = Vec::new();
        }
        self.over.shrink_to_fit();
    }

    /// When the peer last sent anything.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The peer's SETTINGS have arrived.
    pub(crate) fn peer_known(&self) -> bool {
        self.peer.known
    }

    /// Client: payload may be sent ahead of the answer, because this peer says so.
    pub(crate) fn may_send_early(&self) -> bool {
        self.settings.early_data && self.peer.takes_early
    }

    /// What may still be sent on the connection, and what of its receive window is free or consumed: all of it once
    /// the owners of the streams have taken everything.
    pub(crate) fn connection_windows(&self) -> (i64, i64) {
        (self.send_window, self.recv_window + i64::from(self.uncredited))
    }

    /// Client: no stream may be opened any more.
    pub(crate) fn is_going_away(&self) -> bool {
        self.ended
            || self.peer.goaway.is_some()
            || self.released
            || self.shedding
            || self.next_stream > MAX_31
    }

    /// Client: a stream may be opened now.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_going_away() && self.open_streams < self.stream_limit() && !self.is_full()
    }

    /// Client: how many streams may be open at a time, as far as is known.
    pub(crate) fn stream_limit(&self) -> u32 {
        self.settings.client_streams.min(self.peer.max_streams.unwrap_or(u32::MAX))
    }

    /// Client: sends a request. `None` when there is no room or the peer would refuse its size.
    pub(crate) fn open(
        &mut self,
        authority: &str,
        headers: &[(String, String)],
        now: Instant,
    ) -> Option<u32> {
        if !self.has_room() {
            return None;
        }
        let mut block = self.start_block();
        hpack::encode(":method", b"CONNECT", &mut block);
        hpack::encode(":authority", authority.as_bytes(), &mut block);
        for (name, value) in headers {
            hpack::encode(name, value.as_bytes(), &mut block);
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.insert(stream, now);
        frame::headers(&mut self.out, stream, &block, false);
        Some(stream)
    }

    /// Whether a request is within what the peer's SETTINGS allow.
    pub(crate) fn fits(&self, authority: &str, headers: &[(String, String)]) -> bool {
        let fields = headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        let size = fields + ":method".len() + "CONNECT".len() + ":authority".len() + authority.len() + 64;
        self.peer.max_header_list.is_none_or(|limit| u32::try_from(size).is_ok_and(|size| size <= limit))
    }

    /// Server: answers a request. With `end_stream` nothing follows, and a client that has not ended its side is
    /// told to stop.
    pub(crate) fn answer(&mut self, stream: u32, status: u16, headers: &[(&str, &str)], end_stream: bool) {
        if !self.streams.contains_key(&stream) || self.ended {
            return;
        }
        let mut block = self.start_block();
        hpack::encode(":status", status.to_string().as_bytes(), &mut block);
        for (name, value) in headers {
            hpack::encode(name, value.as_bytes(), &mut block);
        }
        frame::headers(&mut self.out, stream, &block, end_stream);
        let Some(state) = self.streams.get_mut(&stream) else { return };
        state.answered = true;
        self.requests -= u64::from(std::mem::take(&mut state.request));
        if !end_stream {
            return;
        }
        if state.recv_open {
            self.reset(stream, ErrorCode::NO_ERROR);
            if let Some((_, how)) = self.over.back_mut() {
                *how = Over::Refused;
            }
        } else {
            self.end_sending(stream);
        }
    }

    /// What may be sent on a stream now.
    pub(crate) fn capacity(&self, stream: u32) -> Capacity {
        match self.streams.get(&stream) {
            Some(state) if state.send_open && !self.ended => {
                let own = state.granted + i64::from(self.peer.initial_window);
                Capacity::Octets(usize::try_from(own.min(self.send_window)).unwrap_or(0))
            }
            _ => Capacity::Closed,
        }
    }

    /// Client: what may be sent on a stream that is opened now.
    pub(crate) fn first_capacity(&self) -> usize {
        usize::try_from(self.send_window.min(i64::from(self.peer.initial_window))).unwrap_or(0)
    }

    /// Nothing more will be sent on this stream by choice.
    pub(crate) fn sent_all(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_none_or(|state| !state.send_open)
    }

    /// The connection below is lost: nothing is sent any more.
    pub(crate) fn lost(&mut self) {
        self.ended = true;
        self.out.clear();
    }

    /// Takes `length` octets off the windows and returns the header of the DATA frame that carries them.
    /// The caller stays within [`Core::capacity`] and [`DATA_PAYLOAD`], and puts the frame behind the output.
    pub(crate) fn data(&mut self, stream: u32, length: usize, end_stream: bool) -> [u8; HEADER] {
        let octets = i64::try_from(length).unwrap_or(0);
        self.send_window -= octets;
        if let Some(state) = self.streams.get_mut(&stream) {
            state.granted -= octets;
        }
        if end_stream {
            self.end_sending(stream);
        }
        frame::head(length, kind::DATA, if end_stream { flag::END_STREAM } else { 0 }, stream)
    }

    /// Ends our direction with an empty DATA frame; `false` if it was over.
    pub(crate) fn finish(&mut self, stream: u32) -> bool {
        let is_open = self.capacity(stream) != Capacity::Closed;
        if is_open {
            let head = self.data(stream, 0, true);
            self.out.extend_from_slice(&head);
        }
        is_open
    }

    fn end_sending(&mut self, stream: u32) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.send_open = false;
        }
        self.settle(stream);
    }

    /// Ends a stream at once. A stream that is over already is left alone.
    pub(crate) fn reset(&mut self, stream: u32, code: ErrorCode) {
        if !self.ended && self.streams.get(&stream).is_some_and(|state| state.is_open()) {
            frame::rst_stream(&mut self.out, stream, code);
            self.stats.resets_sent += 1;
        }
        self.forget(stream, Over::ResetByUs);
    }

    /// Ends a stream that its owner has dropped: CANCEL, or NO_ERROR from a server that has said everything.
    pub(crate) fn abandon(&mut self, stream: u32) {
        let said_all =
            self.role == Role::Server && self.streams.get(&stream).is_some_and(|state| !state.send_open);
        self.reset(stream, if said_all { ErrorCode::NO_ERROR } else { ErrorCode::CANCEL });
    }

    fn insert(&mut self, stream: u32, now: Instant) {
        let state = Stream::new(self.announced, self.enforced, &self.settings.budgets, now);
        self.streams.insert(stream, Box::new(state));
        self.open_streams += 1;
        self.stats.streams += 1;
        if self.peer.known {
            self.lower_announcement(now);
        }
    }

    /// Lets a stream go that both sides have ended and whose payload is consumed.
    fn settle(&mut self, stream: u32) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if state.is_open() {
            return;
        }
        if !state.left_the_count {
            state.left_the_count = true;
            self.open_streams -= 1;
        }
        if state.unconsumed == 0 {
            self.forget(stream, Over::Ended);
        }
    }

    fn forget(&mut self, stream: u32, how: Over) {
        let Some(state) = self.streams.remove(&stream) else { return };
        if !state.left_the_count {
            self.open_streams -= 1;
        }
        self.buffered -= state.unconsumed;
        self.requests -= u64::from(state.request);
        self.credit_connection(0);
        self.remember(stream, how);
    }

    fn remember(&mut self, stream: u32, how: Over) {
        if self.over.len() == REMEMBERED
            && let Some((oldest, _)) = self.over.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.over.push_back((stream, how));
    }

    /// The peer went beyond a budget.
    fn note_excess(&mut self, limit: Limit) {
        match self.exceeded.iter_mut().find(|(known, _)| *known == limit) {
            Some((_, times)) => *times += 1,
            None => self.exceeded.push((limit, 1)),
        }
    }

    /// Budgets that were exceeded since the last call, and how often.
    pub(crate) fn take_exceeded(&mut self) -> Vec<(Limit, u64)> {
        std::mem::take(&mut self.exceeded)
    }

    fn how_over(&self, stream: u32) -> Option<Over> {
        self.over.iter().rev().find(|(id, _)| *id == stream).map(|(_, how)| *how)
    }

    fn start_block(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(256);
        if std::mem::take(&mut self.owe_table_size) {
            hpack::encode_empty_table(&mut block);
        }
        block
    }
}
