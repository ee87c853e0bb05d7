//! Our core on one side, the `h2` crate on the other, bytes in memory between them. Whatever either side does with
//! its streams, both see the same bytes in the same order and the same ends, and no window octet is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use hbone::Settings;
use hbone::bare::{Bare, Event};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::input::{Input, now};

/// Operations played of one input.
const STEPS: usize = 150;

/// The octet at a position of a stream's direction.
fn octet(stream: u32, ours: bool, position: usize) -> u8 {
    (stream as usize * 31 + usize::from(ours) * 7 + position * 13 + position / 251) as u8
}

fn payload(stream: u32, ours: bool, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|position| octet(stream, ours, position)).collect()
}

/// What one end of a stream has done and seen.
#[derive(Default)]
struct End {
    sent: usize,
    received: usize,
    /// Received and not given back.
    held: usize,
    finished: bool,
    peer_ended: bool,
    broken: bool,
}

impl End {
    fn take(&mut self, stream: u32, from_us: bool, bytes: &[u8]) {
        assert!(!self.peer_ended, "payload after the end of {stream}");
        assert!(bytes == payload(stream, from_us, self.received, bytes.len()), "other bytes on {stream}");
        self.received += bytes.len();
        self.held += bytes.len();
    }
}

struct Ours {
    core: Bare,
    ends: BTreeMap<u32, End>,
    client: bool,
    ended: bool,
}

impl Ours {
    fn nth(&mut self, nth: usize) -> Option<(u32, &mut End)> {
        let count = self.ends.len().max(1);
        self.ends.iter_mut().nth(nth % count).map(|(stream, end)| (*stream, end))
    }

    fn open(&mut self) {
        if let Some(stream) = self.core.open("10.0.0.1:80", &[], now()) {
            self.ends.insert(stream, End::default());
        }
    }

    fn write(&mut self, nth: usize, length: usize) {
        let Some((stream, end)) = self.nth(nth) else { return };
        let (mut sent, until) = (end.sent, end.sent + length);
        while sent < until {
            match self.core.write(stream, &payload(stream, true, sent, until - sent)) {
                0 => break,
                n => sent += n,
            }
        }
        self.ends.get_mut(&stream).expect("it is there").sent = sent;
    }

    fn consume(&mut self, nth: usize, length: usize) {
        let Some((stream, end)) = self.nth(nth) else { return };
        let length = length.min(end.held);
        end.held -= length;
        self.core.consumed(stream, length, now());
    }

    fn finish(&mut self, nth: usize) {
        let Some((stream, end)) = self.nth(nth) else { return };
        end.finished = true;
        self.core.finish(stream);
    }

    fn abandon(&mut self, nth: usize) {
        let Some((stream, end)) = self.nth(nth) else { return };
        end.broken = true;
        self.core.abandon(stream);
    }

    fn accept(&mut self, bytes: &[u8]) {
        let Self { core, ends, ended, .. } = self;
        core.receive(now(), bytes, |core, event| match event {
            Event::Request(stream, authority) => {
                assert_eq!(authority.as_deref(), Some("10.0.0.1:80"));
                ends.insert(stream, End::default());
                core.answer(stream, 200, false);
            }
            Event::Data(stream, bytes) => ends.get_mut(&stream).expect("known").take(stream, false, bytes),
            Event::End(stream) => ends.get_mut(&stream).expect("known").peer_ended = true,
            Event::Reset(stream, _) => ends.get_mut(&stream).expect("known").broken = true,
            Event::Answer(_, status) => assert_eq!(status, 200),
            Event::Fault(stream, what) => panic!("stream {stream}: h2 breaks a rule: {what}"),
            Event::Ended(end) => {
                assert_ne!(end.code(), "hbone-protocol-error", "{end}");
                *ended = true;
            }
            Event::Window(_) | Event::GoingAway => {}
        });
    }
}

/// One of `h2`'s streams.
struct Their {
    stream: u32,
    send: SendStream<Bytes>,
    /// Client: comes with the answer.
    receive: Option<RecvStream>,
    end: End,
}

type Streams = Rc<RefCell<Vec<Their>>>;

impl Their {
    fn act(&mut self, step: u8, length: usize) {
        match step {
            9..=11 => self.write(length),
            12 | 13 => drop(self.read()),
            14 => self.release(length),
            15 => self.finish(),
            _ if length % 4 == 0 => self.reset(),
            _ => {}
        }
    }

    fn write(&mut self, length: usize) {
        self.send.reserve_capacity(length);
        let length = length.min(self.send.capacity());
        let bytes = payload(self.stream, false, self.end.sent, length);
        if !self.end.finished && length > 0 && self.send.send_data(bytes.into(), false).is_ok() {
            self.end.sent += length;
        }
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.end.finished, true) {
            self.send.reserve_capacity(0);
            self.end.broken |= self.send.send_data(Bytes::new(), true).is_err();
        }
    }

    fn reset(&mut self) {
        self.end.broken = true;
        self.send.send_reset(Reason::CANCEL);
    }

    /// `false` when there is nothing to read.
    fn read(&mut self) -> bool {
        let Some(receive) = &mut self.receive else { return false };
        if self.end.peer_ended || self.end.broken {
            return false;
        }
        match receive.poll_data(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.end.take(self.stream, true, &bytes);
                return true;
            }
            Poll::Ready(Some(Err(_))) => self.end.broken = true,
            Poll::Ready(None) => self.end.peer_ended = true,
            Poll::Pending => {}
        }
        false
    }

    fn release(&mut self, length: usize) {
        let length = length.min(self.end.held);
        self.end.held -= length;
        if let Some(receive) = &mut self.receive {
            let released = receive.flow_control().release_capacity(length);
            assert!(released.is_ok() || self.end.broken, "h2 does not know what it received: {released:?}");
        }
    }
}

/// Plays the operations of one input.
pub fn play(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, duet(Input(data)));
}

async fn duet(mut input: Input<'_>) {
    let choice = input.byte();
    let settings = match choice & 3 {
        0 => Settings::default(),
        1 => Settings { stream_window: 20_000, connection_window: 66_000, ..Settings::default() },
        _ => Settings { stream_window: 100_000, connection_window: 150_000, ..Settings::default() },
    };
    let whole = i64::from(settings.connection_window);
    let (their_window, their_connection) =
        [(65_535, 65_535), (1_000, 65_535), (1 << 20, 200_000)][usize::from(choice >> 2 & 3) % 3];
    let client = choice & 0x10 == 0;
    let core = if client { Bare::client(settings, now()) } else { Bare::server(settings, now()) };
    let mut ours = Ours { core, ends: BTreeMap::new(), client, ended: false };
    let streams = Streams::default();
    let (near, far) = tokio::io::duplex(4 << 20);
    let mut theirs = if client {
        H2::server(far, streams.clone(), their_window, their_connection)
    } else {
        H2::client(far, streams.clone(), their_window, their_connection).await
    };
    let mut wire = Wire { near, out: Vec::new() };

    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        let (step, nth, length) = (input.byte(), usize::from(input.byte()), input.short());
        match step % 20 {
            0 | 1 if client => ours.open(),
            0 | 1 => theirs.open(&streams),
            2..=4 => ours.write(nth, length),
            5 | 6 => ours.consume(nth, length),
            7 => ours.finish(nth),
            8 if length % 4 == 0 => ours.abandon(nth),
            9..=16 => {
                let mut streams = streams.borrow_mut();
                let count = streams.len().max(1);
                if let Some(their) = streams.get_mut(nth % count) {
                    their.act(step % 20, length);
                }
            }
            17 => wire.give(&mut ours, length),
            18 => wire.fetch(&mut ours, length),
            _ => {
                wire.give(&mut ours, usize::MAX);
                breathe().await;
                wire.fetch(&mut ours, usize::MAX);
            }
        }
        breathe().await;
    }
    finish(ours, &streams, &mut wire, theirs, whole, their_connection).await;
}

/// Everybody finishes and takes everything: then nothing is missing and the windows are whole.
async fn finish(
    mut ours: Ours,
    streams: &Streams,
    wire: &mut Wire,
    theirs: H2,
    whole: i64,
    their_connection: u32,
) {
    for round in 0..60 {
        for nth in 0..ours.ends.len() {
            ours.consume(nth, usize::MAX);
            if round == 2 {
                ours.finish(nth);
            }
        }
        for their in streams.borrow_mut().iter_mut() {
            while their.read() {}
            their.release(usize::MAX);
            if round == 2 {
                their.finish();
            }
            if their.end.broken {
                // With its last handle goes what it still holds of the connection's window.
                their.receive = None;
            }
        }
        wire.give(&mut ours, usize::MAX);
        breathe().await;
        wire.fetch(&mut ours, usize::MAX);
    }
    assert!(!ours.ended, "nobody ended the connection");
    if let Some(error) = theirs.error.borrow().as_ref() {
        panic!("h2 ended the connection: {error}");
    }
    for Their { stream, end: their, .. } in streams.borrow().iter() {
        let our = ours.ends.get(stream).unwrap_or_else(|| panic!("we do not know stream {stream}"));
        if our.broken || their.broken {
            continue;
        }
        assert_eq!((our.sent, their.sent), (their.received, our.received), "stream {stream}");
        assert!(our.peer_ended && their.peer_ended, "stream {stream} has not ended");
    }
    let open = ours.ends.values().filter(|end| !end.broken).count();
    assert!(ours.client || open <= streams.borrow().len(), "streams out of nothing");
    assert_eq!(ours.core.open_streams(), 0);
    let (send, held) = ours.core.connection_windows();
    assert_eq!(held, whole, "credit of ours was lost or made up");
    // h2 keeps back less than half of its window.
    let range = i64::from(their_connection) / 2..=i64::from(their_connection);
    assert!(range.contains(&send), "we think that we may send {send} of {their_connection}");
}

/// The other side's tasks get their turns.
async fn breathe() {
    for _ in 0..6 {
        tokio::task::yield_now().await;
    }
}

/// Bytes between the two.
struct Wire {
    near: DuplexStream,
    out: Vec<u8>,
}

impl Wire {
    /// Hands up to `length` octets of ours over.
    fn give(&mut self, ours: &mut Ours, length: usize) {
        self.out.append(ours.core.output());
        let length = length.min(self.out.len());
        let cx = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(taken)) = Pin::new(&mut self.near).poll_write(cx, &self.out[..length]) {
            self.out.drain(..taken);
        }
    }

    /// Takes up to `length` octets of theirs.
    fn fetch(&mut self, ours: &mut Ours, mut length: usize) {
        let mut space = vec![0; 64 << 10];
        while length > 0 && !ours.ended {
            let room = length.min(space.len());
            let mut buffer = ReadBuf::new(&mut space[..room]);
            let cx = &mut Context::from_waker(Waker::noop());
            match Pin::new(&mut self.near).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    length -= buffer.filled().len();
                    ours.accept(buffer.filled());
                }
                _ => return,
            }
        }
    }
}

/// The `h2` crate's connection.
struct H2 {
    requests: Option<h2::client::SendRequest<Bytes>>,
    error: Rc<RefCell<Option<h2::Error>>>,
}

impl H2 {
    fn server(io: DuplexStream, streams: Streams, window: u32, connection: u32) -> Self {
        let error = Rc::new(RefCell::new(None));
        let (failed, mut builder) = (error.clone(), h2::server::Builder::new());
        builder
            .initial_window_size(window)
            .initial_connection_window_size(connection)
            .max_concurrent_streams(20)
            .max_pending_accept_reset_streams(10_000)
            .max_concurrent_reset_streams(10_000)
            .max_local_error_reset_streams(None);
        tokio::task::spawn_local(async move {
            let mut serving = match builder.handshake(io).await {
                Ok(serving) => serving,
                Err(error) => return drop(failed.replace(Some(error))),
            };
            while let Some(request) = serving.accept().await {
                let (request, mut answer) = match request {
                    Ok(request) => request,
                    Err(error) => return drop(failed.replace(Some(error))),
                };
                assert_eq!(request.method(), "CONNECT");
                let stream = answer.stream_id().as_u32();
                let Ok(send) = answer.send_response(http::Response::new(()), false) else { continue };
                let receive = Some(request.into_body());
                streams.borrow_mut().push(Their { stream, send, receive, end: End::default() });
            }
        });
        Self { requests: None, error }
    }

    async fn client(io: DuplexStream, _: Streams, window: u32, connection: u32) -> Self {
        let error = Rc::new(RefCell::new(None));
        let failed = error.clone();
        let (requests, running) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(connection)
            .max_concurrent_reset_streams(10_000)
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await
            .expect("the first frames are sent");
        tokio::task::spawn_local(async move {
            if let Err(error) = running.await {
                failed.replace(Some(error));
            }
        });
        Self { requests: Some(requests), error }
    }

    /// Client: sends a request.
    fn open(&mut self, streams: &Streams) {
        let Some(requests) = &mut self.requests else { return };
        if streams.borrow().len() >= 40
            || !requests.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
        {
            return;
        }
        let request = http::Request::builder().method("CONNECT").uri("10.0.0.1:80").body(());
        let Ok((answer, send)) = requests.send_request(request.expect("a request"), false) else { return };
        let stream = send.stream_id().as_u32();
        streams.borrow_mut().push(Their { stream, send, receive: None, end: End::default() });
        let streams = streams.clone();
        tokio::task::spawn_local(async move {
            let answer = answer.await;
            let mut streams = streams.borrow_mut();
            let their = streams.iter_mut().find(|their| their.stream == stream).expect("it is there");
            match answer {
                Ok(answer) => their.receive = Some(answer.into_body()),
                Err(_) => their.end.broken = true,
            }
        });
    }
}
