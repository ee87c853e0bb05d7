//! One live HBONE connection: the protocol core, its records, its socket and its streams, shared by the driver and
//! by the owners of the streams. All of them live on one thread, and nobody holds the state across an await.
//!
//! Whoever has something to send puts frames into the core's output and calls [`Link::kick`]; the driver seals them
//! at the end of the event loop's tick, so that what many streams have to say leaves in one write.

mod burst;
mod hold;
mod send;
mod transfer;
mod unsent;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;

use crate::core::{Action, Core, Role, Stats};
use crate::record::{Records, Secured};
use crate::scratch::Batch;
use crate::socket::Socket;
use crate::stream::{Break, StreamCell};
use crate::{ConnectionEnd, Memory, Metrics, Settings};

use hold::Pause;
pub(crate) use transfer::{Inbox, Owned, StreamPart};
use unsent::Unsent;

/// Plain output of a connection above which a writer waits until it has been sealed.
pub(crate) const MAX_OUTPUT: usize = 256 << 10;

/// Empty buffers up to this size are kept.
const SMALL_BUFFER: usize = 4 << 10;

/// Streams whose table is kept when the last is over.
const FEW: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    /// None once the connection has ended: whoever still holds the link holds no descriptor.
    socket: RefCell<Option<Socket>>,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    metrics: Option<Arc<Metrics>>,
    memory: Option<Arc<Memory>>,
    pub(crate) state: RefCell<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) records: Records,
    /// Sealed records the socket has not been offered: they come before all that is sealed or sent next.
    pub(crate) batch: Option<Batch>,
    /// Sealed records the socket has not taken, and how much of them it has.
    sealed: Vec<u8>,
    sent: usize,
    /// Streams that have ended, but not for the socket.
    unsent: Unsent,
    /// Once the connection has ended: of those that have ended too, those whose last octets may still leave.
    pub(crate) streams: HashMap<u32, Rc<StreamCell>>,
    /// Streams that are over for the core, and whose owners may not know yet.
    leaving: Vec<Weak<StreamCell>>,
    /// Server: requests nobody has asked for yet.
    pub(crate) arrivals: VecDeque<Rc<StreamCell>>,
    /// Who waits for a request, for room to open a stream, for the socket to take what is sealed.
    pub(crate) waiting: Vec<Waker>,
    pub(crate) driver: Option<Waker>,
    pub(crate) ended: Option<ConnectionEnd>,
    /// The socket takes nothing any more, and this will be why: what has been received is still read.
    mute: Option<ConnectionEnd>,
    /// It ended before all of its streams had.
    pub(crate) cut: bool,
    /// Client: closes after this time without streams.
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) idle_since: Option<Instant>,
    pause: Option<Pause>,
    counted: Stats,
    /// What the process's [`Memory`] knows of this tunnel.
    held: u64,
    /// Client: who wants to know of the end.
    pub(crate) on_end: Option<OnEnd>,
}

/// Something to be called when a connection has ended.
pub(crate) struct OnEnd(Box<dyn FnOnce()>);

impl OnEnd {
    pub(crate) fn new(call: impl FnOnce() + 'static) -> Self {
        Self(Box::new(call))
    }
}

impl fmt::Debug for OnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEnd")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.shift(self.state.get_mut().held, 0);
        }
    }
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Link {
    pub(crate) fn new(
        socket: Socket,
        core: Core,
        secured: Secured,
        settings: &Settings,
    ) -> io::Result<Rc<Self>> {
        let state = State::new(core, secured.records);
        Self::with_state(socket, state, secured.chain, settings)
    }

    fn with_state(
        socket: Socket,
        state: State,
        chain: Arc<[CertificateDer<'static>]>,
        settings: &Settings,
    ) -> io::Result<Rc<Self>> {
        let (local, peer) = (socket.tcp().local_addr()?, socket.tcp().peer_addr()?);
        let (metrics, memory) = (settings.metrics.clone(), settings.memory.clone());
        if let Some(metrics) = &metrics {
            metrics.connections_opened.fetch_add(1, Ordering::Relaxed);
        }
        let (socket, state) = (RefCell::new(Some(socket)), RefCell::new(state));
        Ok(Rc::new(Self { local, peer, chain, socket, metrics, memory, state }))
    }

    /// Does something with the socket as long as it is there.
    pub(crate) fn with_socket<T>(&self, act: impl FnOnce(&Socket) -> io::Result<T>) -> io::Result<T> {
        self.socket.borrow().as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), act)
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_socket(|socket| socket.poll_readable(cx))
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_socket(|socket| socket.poll_writable(cx))
    }

    fn poll_socket(&self, poll: impl FnOnce(&Socket) -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        let gone = || Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        self.socket.borrow().as_ref().map_or_else(gone, poll)
    }

    /// Sends FIN.
    pub(crate) fn shutdown_write(&self) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.shutdown_write();
        }
    }

    /// The connection is over: closes its socket, and tells who wants to know.
    pub(crate) fn end(&self) {
        drop(self.socket.take());
        let on_end = self.state.borrow_mut().on_end.take();
        if let Some(OnEnd(call)) = on_end {
            call();
        }
    }

    /// Has the driver send what was put into the output, once everybody had a turn.
    pub(crate) fn kick(&self) {
        self.state.borrow().kick();
    }

    /// Ends a stream its owner no longer wants.
    pub(crate) fn abandon(&self, cell: &StreamCell) {
        let mut state = self.state.borrow_mut();
        state.core.abandon(cell.id);
        state.streams.remove(&cell.id);
        state.after_call();
    }

    /// Cuts everything and closes.
    pub(crate) fn close(&self, end: ConnectionEnd) {
        let mut state = self.state.borrow_mut();
        let mut actions = Vec::new();
        state.core.close(end, &mut actions);
        state.perform(actions);
        state.kick();
    }

    /// Client: no handle is left to open a stream with.
    pub(crate) fn release(&self) {
        let mut state = self.state.borrow_mut();
        let mut actions = Vec::new();
        state.core.release(&mut actions);
        state.perform(actions);
        state.kick();
    }

    /// Adds what happened to the process's totals.
    pub(crate) fn count(&self, state: &mut State) {
        self.note_memory(state);
        let stats = state.core.stats();
        if let Some(metrics) = &self.metrics
            && stats != state.counted
        {
            metrics.add(state.counted, stats);
            state.counted = stats;
        }
        for (limit, times) in state.core.take_exceeded() {
            if let Some(metrics) = &self.metrics {
                metrics.add_exceeded(limit, times);
            }
            tracing::debug!(peer = %self.peer, limit = limit.name(), times, "HBONE peer went beyond a limit");
        }
    }

    /// Has the tunnel give up what it should not hold, if there is no time to wait.
    pub(crate) fn relieve(&self, state: &mut State) {
        let is_out = self.memory.as_ref().is_some_and(|memory| memory.is_out());
        if is_out && state.core.is_pressed() && state.ended.is_none() {
            let mut actions = Vec::new();
            state.core.relieve(now(), &mut actions);
            if !actions.is_empty() {
                state.perform(actions);
                self.note_memory(state);
                state.kick();
            }
        }
    }

    /// Tells the process what this tunnel holds, and the tunnel whether that is too much.
    pub(crate) fn note_memory(&self, state: &mut State) {
        let Some(memory) = &self.memory else { return };
        let records = state.records.carry().len() + state.sealed.len();
        let held = state.core.held() + u64::try_from(records).unwrap_or(u64::MAX);
        if held != state.held {
            memory.shift(state.held, held);
            state.held = held;
        }
        if state.core.press(memory.excess(held).map(|excess| (excess, now()))) {
            state.kick();
        }
    }

    pub(crate) fn count_end(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.count_closed();
        }
    }
}

impl State {
    fn new(core: Core, records: Records) -> Self {
        Self {
            core,
            records,
            sealed: Vec::new(),
            sent: 0,
            unsent: Unsent::default(),
            batch: None,
            streams: HashMap::new(),
            leaving: Vec::new(),
            arrivals: VecDeque::new(),
            waiting: Vec::new(),
            driver: None,
            ended: None,
            mute: None,
            cut: false,
            idle_limit: None,
            idle_since: Some(now()),
            pause: None,
            counted: Stats::default(),
            held: 0,
            on_end: None,
        }
    }

    pub(crate) fn kick(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Puts a batch back for the end of the tick.
    pub(crate) fn keep(&mut self, batch: Option<Batch>) {
        if let Some(batch) = batch.filter(|batch| !batch.is_empty()) {
            self.batch = Some(batch);
            self.kick();
        }
    }

    /// There is something to be sealed and sent. A connection that has ended owes no key update any more.
    pub(crate) fn has_output(&mut self) -> bool {
        self.batch.is_some()
            || !self.core.output().is_empty()
            || (self.ended.is_none() && self.records.owes())
    }

    /// Sealed records wait for the socket, or it takes none any more: nobody adds to them.
    pub(crate) fn is_blocked(&self) -> bool {
        self.sent < self.sealed.len() || self.is_mute()
    }

    /// The socket takes nothing any more.
    pub(crate) fn is_mute(&self) -> bool {
        self.mute.is_some()
    }

    /// What is to be sent reaches nobody any more.
    pub(crate) fn drop_output(&mut self) {
        self.core.output().clear();
        self.batch = None;
        self.sealed = Vec::new();
        self.sent = 0;
        self.unsent.drop_all();
    }

    /// The last octets of a stream have been put into the output.
    pub(crate) fn note_end(&mut self, stream: u32) {
        self.unsent.add(stream);
    }

    /// All that a stream which we have ended had to say is with the socket. Where it is not, whoever waits for payload of
    /// the stream is woken when it is, or when the connection ends.
    pub(crate) fn has_sent(&mut self, stream: u32) -> bool {
        self.core.sent_all(stream) && !self.unsent.awaits(stream)
    }

    /// The socket may have taken something.
    fn note_taken(&mut self) {
        let waiting = self.sealed.len() - self.sent;
        for (stream, is_awaited) in self.unsent.take_sent(waiting) {
            let cell = match &self.ended {
                Some(_) => self.streams.remove(&stream),
                None => self.streams.get(&stream).filter(|_| is_awaited).cloned(),
            };
            if let Some(cell) = cell.filter(|_| is_awaited) {
                cell.wake_reader();
            }
        }
    }

    /// Writing has failed, because the peer has cut the connection. What it said before may still lie in the socket, ends
    /// of streams among it: the connection is lost when all of that is read.
    pub(crate) fn write_failed(&mut self, error: &io::Error) {
        let end = ConnectionEnd::Io(error.to_string(), error.kind());
        if self.ended.is_some() {
            return self.lose_now(end);
        }
        self.mute.get_or_insert(end);
        self.drop_output();
        self.kick();
    }

    /// The output has been sealed: those who waited for room in it go on, unless they wait for the socket now.
    fn note_sealed(&mut self, was_full: bool) {
        self.pause = None;
        if was_full && !self.is_blocked() {
            self.wake_all();
        }
    }

    /// Gives back what a burst has made large and nothing fills now. Called every few seconds.
    pub(crate) fn let_go(&mut self) {
        self.core.let_go();
        self.unsent.let_go();
        if !self.is_blocked() && self.sealed.capacity() > SMALL_BUFFER {
            self.sealed = Vec::new();
            self.sent = 0;
        }
    }

    /// Registers somebody to be woken when room, requests or the socket change.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    /// Somebody who was registered has left; whoever else waits in that task looks again.
    pub(crate) fn unwait(&mut self, gone: &Waker) {
        self.waiting.extract_if(.., |waker| waker.will_wake(gone)).for_each(Waker::wake);
    }

    pub(crate) fn wake_all(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }

    /// To be called after calls into the core that may have ended a stream.
    pub(crate) fn after_call(&mut self) {
        let mut actions = Vec::new();
        self.core.settle_connection(&mut actions);
        self.perform(actions);
        self.note_room();
        self.kick();
    }

    /// Streams may have ended: those who wait for room look again, and the idle clock starts or stops.
    fn note_room(&mut self) {
        if self.core.open_streams() > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now());
            if self.streams.is_empty() && self.streams.capacity() > FEW {
                // A tunnel without streams holds nothing for the many it had.
                self.streams = HashMap::new();
                self.wake_all();
                self.waiting = Vec::new();
            }
        }
        // A server opens nothing.
        if self.core.role() == Role::Client && self.core.has_room() {
            self.wake_all();
        }
    }

    /// Does what the core says. Payload goes straight to the applications' sockets, consecutive pieces for one
    /// stream in one write.
    pub(crate) fn perform(&mut self, actions: Vec<Action<'_>>) {
        if actions.is_empty() {
            return;
        }
        let mut actions = actions.into_iter().peekable();
        let mut pieces = Vec::new();
        while let Some(action) = actions.next() {
            match action {
                Action::Data { stream, bytes } => {
                    pieces.clear();
                    pieces.push(IoSlice::new(bytes));
                    while let Some(Action::Data { bytes, .. }) = actions.next_if(
                        |next| matches!(next, Action::Data { stream: other, .. } if *other == stream),
                    ) {
                        pieces.push(IoSlice::new(bytes));
                    }
                    self.deliver(stream, &pieces);
                }
                Action::End { stream } => self.with(stream, StreamCell::end),
                Action::Request { stream, head } => {
                    let cell = StreamCell::requested(stream, head);
                    self.streams.insert(stream, cell.clone());
                    self.arrivals.push_back(cell);
                    self.wake_all();
                }
                Action::Answer { stream, head } => self.with(stream, |cell| cell.answer(head)),
                Action::Broken { stream, why } => {
                    self.arrivals.retain(|cell| cell.id != stream);
                    if let Some(cell) = self.streams.remove(&stream) {
                        cell.break_off(Break::Stream(why));
                        self.leaving.retain(|cell| cell.strong_count() > 0);
                        self.leaving.push(Rc::downgrade(&cell));
                    }
                }
                Action::Window { stream: 0 } => {
                    self.streams.values().for_each(|cell| cell.wake_writer());
                    // The peer's first SETTINGS are waited for, whether or not they leave room.
                    self.wake_all();
                }
                Action::Window { stream } => self.with(stream, StreamCell::wake_writer),
                Action::GoingAway => self.wake_all(),
                Action::Ended(end) => self.end_with(end, true),
            }
        }
        self.note_room();
    }

    fn with(&self, stream: u32, act: impl FnOnce(&StreamCell)) {
        if let Some(cell) = self.streams.get(&stream) {
            act(cell);
        }
    }

    fn deliver(&mut self, stream: u32, pieces: &[IoSlice<'_>]) {
        let octets = pieces.iter().map(|piece| piece.len()).sum();
        let consumed = match self.streams.get(&stream) {
            Some(cell) => {
                if cell.was_held() {
                    // The peer goes on before it has the answer: it may come to wait for it.
                    self.pause = None;
                }
                cell.deliver(pieces)
            }
            // Its owner is gone; the core forgets it with the next call.
            None => octets,
        };
        if consumed > 0 {
            let now = self.core.last_heard();
            self.core.consumed(stream, consumed, now);
        }
    }

    /// The connection can carry nothing any more, not even a farewell.
    pub(crate) fn lose_now(&mut self, end: ConnectionEnd) {
        let end = self.mute.clone().unwrap_or(end);
        self.drop_output();
        self.lose(end.clone());
        self.break_rest(&end);
    }

    /// The connection carries nothing any more but a farewell.
    pub(crate) fn lose(&mut self, end: ConnectionEnd) {
        self.end_with(end, false);
        self.core.lost();
    }

    /// What waits for the socket will not leave any more: streams that had ended, but for that, are broken.
    pub(crate) fn break_rest(&mut self, end: &ConnectionEnd) {
        for (_, cell) in self.streams.drain() {
            cell.break_off(Break::Connection(end.clone()));
        }
    }

    /// The connection is over: every stream that has not ended by itself is broken. Where that which waits for the socket
    /// `may_leave`, it does so for those that have.
    fn end_with(&mut self, end: ConnectionEnd, may_leave: bool) {
        if self.ended.is_some() {
            return;
        }
        for (stream, cell) in std::mem::take(&mut self.streams) {
            let has_ended = cell.has_ended() && self.core.sent_all(stream);
            match has_ended && !self.unsent.has(stream) {
                true => {}
                false if has_ended && may_leave => _ = self.streams.insert(stream, cell),
                false => {
                    self.cut = true;
                    cell.break_off(Break::Connection(end.clone()));
                }
            }
        }
        self.arrivals.clear();
        self.ended = Some(end);
        self.wake_all();
        self.kick();
    }
}
