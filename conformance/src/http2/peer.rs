//! A client that speaks HTTP/2 frame by frame over TLS, with the manners a case gives it.
//!
//! Blocking for its caller, non-blocking on the socket: while it writes it also reads, so that no flood of ours can
//! deadlock with the answers to it. Every call is bounded by the case's deadline.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use runtime::clock::monotonic;
use rustls::ClientConnection;

use super::frame::{Frame, PREFACE, code, flag, kind, setting};
use super::hpack;
use super::seen::{End, Seen};
use crate::case::{Failure, Got, deviates};

/// What a peer does by itself.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    /// Acknowledge SETTINGS.
    pub(crate) ack_settings: bool,
    /// Answer PINGs.
    pub(crate) answer_pings: bool,
    /// Give back what DATA took from the windows.
    pub(crate) credit: bool,
    /// Our first SETTINGS.
    pub(crate) settings: Vec<(u16, u32)>,
    /// Read what the target sends.
    pub(crate) read: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            ack_settings: true,
            answer_pings: true,
            credit: true,
            settings: vec![(setting::ENABLE_PUSH, 0)],
            read: true,
        }
    }
}

/// How long an answer may take, unless a case says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The longest a write may make no progress.
const STALL: Duration = Duration::from_secs(5);

/// One connection to the target.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: TcpStream,
    tls: ClientConnection,
    inbox: Vec<u8>,
    manners: Manners,
    deadline: Instant,
    next: u32,
    sent: BTreeMap<u32, u64>,
    sent_total: u64,
    /// Unacknowledged own answers, collected while reading.
    replies: Vec<u8>,
    /// Bytes of a case are half sent: nothing may come between them.
    sending: bool,
    pub(crate) seen: Seen,
}

impl Peer {
    /// Takes over a connected, non-blocking socket. Nothing has been sent, not even the ClientHello.
    pub(crate) fn new(
        socket: TcpStream,
        mut tls: ClientConnection,
        manners: Manners,
        deadline: Instant,
    ) -> Self {
        tls.set_buffer_limit(None);
        Self {
            socket,
            tls,
            inbox: Vec::new(),
            manners,
            deadline,
            next: 1,
            sent: BTreeMap::new(),
            sent_total: 0,
            replies: Vec::new(),
            sending: false,
            seen: Seen::default(),
        }
    }

    /// TLS until our side of the handshake is complete. Whether the target accepts our certificate shows later.
    pub(crate) fn shake_hands(&mut self) {
        let until = self.until(PATIENCE);
        while self.tls.is_handshaking() && self.seen.end.is_none() && self.turn(until) {}
    }

    /// The preface and our SETTINGS.
    pub(crate) fn greet(&mut self) {
        let mut bytes = PREFACE.to_vec();
        Frame::settings(&self.manners.settings).encode_to(&mut bytes);
        self.send_bytes(&bytes);
    }

    pub(crate) fn tls(&mut self) -> &mut ClientConnection {
        &mut self.tls
    }

    pub(crate) fn manners(&mut self) -> &mut Manners {
        &mut self.manners
    }

    pub(crate) fn local(&self) -> std::io::Result<std::net::SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn next_stream(&mut self) -> u32 {
        let id = self.next;
        self.next += 2;
        id
    }

    fn until(&self, limit: Duration) -> Instant {
        (monotonic() + limit).min(self.deadline)
    }

    /// Sends bytes as they are. What cannot be sent because the connection has ended is dropped: `seen` tells.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.sending = true;
        for piece in bytes.chunks(256 << 10) {
            if self.seen.end.is_some() || self.tls.writer().write_all(piece).is_err() {
                break;
            }
            self.flush();
        }
        self.sending = false;
        self.reply();
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode());
    }

    pub(crate) fn send_all(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode_to(&mut bytes));
        self.send_bytes(&bytes);
    }

    /// Opens a stream with a header block.
    pub(crate) fn request(&mut self, block: Vec<u8>) -> u32 {
        let stream = self.next_stream();
        self.send(&Frame::headers(stream, block));
        stream
    }

    /// Opens a stream with plain literals.
    pub(crate) fn request_fields(&mut self, fields: &[(&str, &str)]) -> u32 {
        self.request(hpack::block(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))))
    }

    /// An ordinary CONNECT.
    pub(crate) fn connect(&mut self, authority: &str) -> u32 {
        self.request_fields(&[(":method", "CONNECT"), (":authority", authority)])
    }

    /// An ordinary CONNECT that must be answered with 200.
    pub(crate) fn tunnel(&mut self, authority: &str) -> Result<u32, Failure> {
        let stream = self.connect(authority);
        match self.answer(stream) {
            Answer::Status(200) => Ok(stream),
            _ => deviates(format!("the tunnel was not opened: {}", self.seen.state(stream))),
        }
    }

    /// Waits for the first word about a stream.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        self.answer_within(stream, PATIENCE)
    }

    pub(crate) fn answer_within(&mut self, stream: u32, limit: Duration) -> Answer {
        let answered = |seen: &Seen| {
            seen.stream(stream).is_some_and(|stream| stream.status().is_some() || stream.over())
                || seen.error().is_some()
        };
        self.wait(limit, answered);
        let seen = &self.seen;
        if let Some(status) = seen.stream(stream).and_then(|stream| stream.status()) {
            return Answer::Status(status);
        }
        if let Some(code) = seen.stream(stream).and_then(|stream| stream.reset) {
            return Answer::Reset(code);
        }
        match (seen.error(), &seen.end) {
            (Some(code), _) => Answer::Goaway(code),
            (None, Some(_)) => Answer::Ended,
            (None, None) => Answer::Silence,
        }
    }

    /// Sends data within the target's windows, waiting for credit; frames of at most 16 KiB.
    pub(crate) fn send_data(&mut self, stream: u32, mut data: &[u8]) -> Result<(), Failure> {
        while !data.is_empty() {
            if !self.wait(PATIENCE, |seen| seen.settings.is_some()) {
                return deviates(format!("no SETTINGS came: {}", self.seen.condition()));
            }
            let room = self.room(stream).min(16_384).min(data.len() as u64);
            if room == 0 {
                let had = (self.seen.credit, self.seen.stream(stream).map_or(0, |stream| stream.credit));
                let moved = self.wait(PATIENCE, |seen| {
                    (seen.credit, seen.stream(stream).map_or(0, |stream| stream.credit)) != had
                        || seen.stream(stream).is_some_and(|stream| stream.reset.is_some())
                });
                if !moved || self.seen.stream(stream).is_some_and(|stream| stream.reset.is_some()) {
                    let state = self.seen.state(stream);
                    return deviates(format!("no credit for {} more bytes: {state}", data.len()));
                }
                continue;
            }
            let (piece, rest) = data.split_at(usize::try_from(room).unwrap_or_default());
            data = rest;
            self.send(&Frame::data(stream, piece));
            self.account(stream, piece.len());
            if self.seen.end.is_some() {
                return deviates(format!("the connection ended while sending: {}", self.seen.condition()));
            }
        }
        Ok(())
    }

    /// Notes that flow-controlled octets went out by other ways than [`Self::send_data`].
    pub(crate) fn account(&mut self, stream: u32, octets: usize) {
        *self.sent.entry(stream).or_default() += octets as u64;
        self.sent_total += octets as u64;
    }

    /// Octets that may be sent on a stream now.
    pub(crate) fn room(&self, stream: u32) -> u64 {
        let initial = self.seen.setting(setting::INITIAL_WINDOW_SIZE).unwrap_or(65_535);
        let credit = self.seen.stream(stream).map_or(0, |stream| stream.credit);
        let used = self.sent.get(&stream).copied().unwrap_or_default();
        let of_stream = (u64::from(initial) + credit).saturating_sub(used);
        of_stream.min((65_535 + self.seen.credit).saturating_sub(self.sent_total))
    }

    /// Waits until `count` octets have come on a stream.
    pub(crate) fn receive(&mut self, stream: u32, count: usize) -> Result<(), Failure> {
        let come = self.wait(Duration::from_secs(20), |seen| {
            seen.stream(stream).is_some_and(|stream| stream.data.len() >= count || stream.over())
                || !seen.lives()
        });
        let got = self.seen.stream(stream).map_or(0, |stream| stream.data.len());
        if come && got >= count {
            return Ok(());
        }
        deviates(format!("{got} of {count} bytes came: {}", self.seen.state(stream)))
    }

    /// Sends `text` and wants it back, after whatever came before.
    pub(crate) fn echo(&mut self, stream: u32, text: &[u8]) -> Result<(), Failure> {
        let before = self.seen.stream(stream).map_or(0, |stream| stream.data.len());
        self.send_data(stream, text)?;
        self.receive(stream, before + text.len())?;
        let got = self.seen.stream(stream).and_then(|stream| stream.data.get(before..)).unwrap_or_default();
        if got == text {
            return Ok(());
        }
        deviates(format!("{} bytes came back that are not the {} sent", got.len(), text.len()))
    }

    /// The connection must end with an error of one of these codes, or at once.
    pub(crate) fn connection_error(&mut self, codes: &[u32]) -> Got {
        self.wait(PATIENCE, |seen| seen.error().is_some());
        match (self.seen.error(), &self.seen.end) {
            (Some(code), _) if codes.contains(&code) => Ok(self.seen.condition()),
            (None, Some(_)) => Ok(self.seen.condition()),
            _ => deviates(self.seen.condition()),
        }
    }

    /// The stream, or the connection with it, must end with an error of one of these codes.
    pub(crate) fn stream_error(&mut self, stream: u32, codes: &[u32]) -> Got {
        self.wait(PATIENCE, |seen| {
            seen.error().is_some() || seen.stream(stream).is_some_and(|stream| stream.reset.is_some())
        });
        let state = self.seen.state(stream);
        match self.seen.stream(stream).and_then(|stream| stream.reset) {
            Some(code) if codes.contains(&code) => Ok(state),
            Some(_) => deviates(state),
            None => self.connection_error(codes).map(|_| state),
        }
    }

    /// The target must still answer PINGs on this connection.
    pub(crate) fn must_live(&mut self) -> Result<(), Failure> {
        let mark = self.seen.frames.to_be_bytes();
        self.send(&Frame::ping(mark));
        if self.wait(PATIENCE, |seen| seen.pongs.iter().any(|pong| pong == &mark)) {
            return Ok(());
        }
        deviates(format!("the connection does not live: {}", self.seen.condition()))
    }

    /// Reads until `done` or the connection's end or the time is up; says whether it is done.
    pub(crate) fn wait(&mut self, limit: Duration, done: impl Fn(&Seen) -> bool) -> bool {
        let until = self.until(limit);
        loop {
            if done(&self.seen) {
                return true;
            }
            if self.seen.end.is_some() || !self.turn(until) {
                return done(&self.seen);
            }
        }
    }

    /// Reads for a while whatever comes.
    pub(crate) fn linger(&mut self, time: Duration) {
        self.wait(time, |_| false);
    }

    /// Bytes on the socket, past TLS.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // A socket that takes nothing has ended, as the next read tells.
        let _ = self.socket.write_all(bytes);
    }

    /// TCP RST.
    pub(crate) fn abort(self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// TCP FIN without close_notify; we go on reading.
    pub(crate) fn fin(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// TLS close_notify; we go on reading.
    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
        self.flush();
    }

    fn flush(&mut self) {
        let mut until = self.until(STALL);
        while self.tls.wants_write() && self.seen.end.is_none() {
            match self.write() {
                Ok(true) => until = self.until(STALL),
                Ok(false) => {
                    if !self.turn(until) {
                        self.seen.end = Some(End::Broken("the target takes no more bytes".to_owned()));
                    }
                }
                Err(()) => self.drain(),
            }
        }
        self.read();
    }

    /// Writes what the socket takes; whether it took something.
    fn write(&mut self) -> Result<bool, ()> {
        match self.tls.write_tls(&mut self.socket) {
            Ok(count) => Ok(count > 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(_) => Err(()),
        }
    }

    /// The socket takes nothing any more: what it still holds for us tells why.
    fn drain(&mut self) {
        let until = self.until(Duration::from_secs(1));
        while self.seen.end.is_none() && monotonic() < until {
            self.read();
            self.poll(until, rustix::event::PollFlags::IN);
        }
        self.seen.end_with(End::Reset);
    }

    /// One round: write, read, else sleep until the socket is ready. False when the time is up.
    fn turn(&mut self, until: Instant) -> bool {
        if self.seen.end.is_some() || monotonic() >= until {
            return false;
        }
        let wrote = !self.tls.wants_write() || self.write().unwrap_or(true);
        if self.read() {
            return true;
        }
        let mut flags = rustix::event::PollFlags::empty();
        flags.set(rustix::event::PollFlags::IN, self.manners.read);
        flags.set(rustix::event::PollFlags::OUT, self.tls.wants_write() || !wrote);
        self.poll(until, flags);
        true
    }

    fn poll(&self, until: Instant, flags: rustix::event::PollFlags) {
        let left = until.saturating_duration_since(monotonic()).min(Duration::from_millis(200));
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        // An interrupted or failed wait is followed by a read that tells.
        let _ = rustix::event::poll(&mut [rustix::event::PollFd::new(&self.socket, flags)], Some(&timeout));
    }

    /// Reads what is there; whether there was something.
    fn read(&mut self) -> bool {
        if !self.manners.read || self.seen.end.is_some() {
            return false;
        }
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => {
                self.seen.end_with(End::Fin);
                return true;
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            Err(_) => {
                self.seen.end_with(End::Reset);
                return true;
            }
        }
        let processed = self.tls.process_new_packets();
        let mut plain = Vec::new();
        let _ = self.tls.reader().read_to_end(&mut plain);
        self.inbox.extend(plain);
        self.take_frames();
        match processed {
            Ok(state) if state.peer_has_closed() => {
                self.seen.end_with(End::CloseNotify);
            }
            Ok(_) => {}
            Err(rustls::Error::AlertReceived(alert)) => {
                self.seen.end_with(End::Alert(snake(&format!("{alert:?}"))));
            }
            Err(error) => {
                let _ = self.tls.write_tls(&mut self.socket);
                self.seen.end_with(End::Broken(format!("TLS: {error}")));
            }
        }
        true
    }

    fn take_frames(&mut self) {
        while let Some(frame) = Frame::take(&mut self.inbox) {
            if let Err(wrong) = self.seen.take(&frame) {
                self.seen.end_with(End::Broken(format!("the target sent {wrong}")));
                return;
            }
            self.react(&frame);
        }
        if !self.sending {
            self.reply();
        }
    }

    fn reply(&mut self) {
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            let _ = self.tls.writer().write_all(&replies);
            let _ = self.write();
        }
    }

    fn react(&mut self, frame: &Frame) {
        let reply = match frame.kind {
            kind::SETTINGS if !frame.has(flag::ACK) && self.manners.ack_settings => Frame::settings_ack(),
            kind::PING if !frame.has(flag::ACK) && self.manners.answer_pings => {
                Frame::new(kind::PING, flag::ACK, 0, frame.payload.clone())
            }
            kind::DATA if !frame.payload.is_empty() && self.manners.credit => {
                let by = u32::try_from(frame.payload.len()).unwrap_or_default();
                Frame::window_update(0, by).encode_to(&mut self.replies);
                if frame.has(flag::END_STREAM) {
                    return;
                }
                Frame::window_update(frame.stream, by)
            }
            _ => return,
        };
        reply.encode_to(&mut self.replies);
    }
}

/// The first word about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    Reset(u32),
    Goaway(u32),
    Ended,
    Silence,
}

impl Answer {
    /// Said no, in whatever way.
    pub(crate) fn refused(self) -> bool {
        !matches!(self, Self::Status(200..=299) | Self::Silence)
    }

    /// What RFC 9113 section 8.1.1 wants for a malformed request.
    pub(crate) fn malformed(self) -> bool {
        matches!(
            self,
            Self::Status(400)
                | Self::Reset(code::PROTOCOL_ERROR)
                | Self::Goaway(code::PROTOCOL_ERROR)
                | Self::Ended
        )
    }
}

/// `HandshakeFailure` as the RFC writes it.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text.replace("c_a", "ca")
}
