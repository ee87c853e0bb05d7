//! What the shell keeps of one stream: bytes nobody has taken yet, the application's socket once there is one, and
//! how the stream ended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use crate::core::fields::{AnswerHead, RequestHead};
use crate::core::{DATA_PAYLOAD, StreamFault};
use crate::link::{Inbox, StreamPart};
use crate::relay::Counters;
use crate::socket::Socket;
use crate::{ConnectionEnd, TunnelError};

/// Buffers of one vectored write; the kernel takes 1,024.
const MAX_PIECES: usize = 512;

/// Up to this size payload that waits is put into one buffer.
const MAX_BUFFER: usize = 64 << 10;

/// Why a stream was broken off.
#[derive(Debug, Clone)]
pub(crate) enum Break {
    Stream(StreamFault),
    Connection(ConnectionEnd),
}

impl From<Break> for TunnelError {
    fn from(why: Break) -> Self {
        match why {
            Break::Stream(StreamFault::Reset(code)) => Self::PeerReset(code),
            Break::Stream(StreamFault::Fault { code, what }) => Self::PeerFault { code, what },
            Break::Stream(StreamFault::Unread) => Self::SlowReader,
            Break::Stream(StreamFault::NotProcessed(code)) => {
                Self::ConnectionEnded(ConnectionEnd::GoAway { code })
            }
            Break::Connection(end) => Self::ConnectionEnded(end),
        }
    }
}

/// See the module. Shared by the connection and the stream's owner.
#[derive(Debug)]
pub(crate) struct StreamCell {
    pub(crate) id: u32,
    /// Client: nobody has taken the answer yet.
    asked: Cell<bool>,
    /// Server: the answer waits for what the application says first.
    held: Cell<bool>,
    /// The peer has ended its direction.
    ended: Cell<bool>,
    /// What comes for the application is dropped.
    app_gone: Cell<bool>,
    state: RefCell<StreamState>,
}

#[derive(Debug, Default)]
struct StreamState {
    passing: Option<Box<Passing>>,
    /// Where payload goes directly.
    app: Option<(Rc<Socket>, Arc<Counters>)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What there is for a moment only: an idle stream has none of it.
#[derive(Debug, Default)]
struct Passing {
    /// Server: the request that waits for its answer.
    request: Option<Rc<RequestHead>>,
    answer: Option<AnswerHead>,
    /// Client: octets sent ahead of the answer that no relay has counted.
    early: u64,
    inbox: VecDeque<Vec<u8>>,
    /// Octets of the first entry that are gone.
    taken: usize,
    broken: Option<Break>,
    /// Writing to the application failed.
    app_error: Option<io::Error>,
}

impl Passing {
    fn is_over(&self) -> bool {
        let Self { request, answer, early, inbox, taken: _, broken, app_error } = self;
        let heads = request.is_some() || answer.is_some() || *early > 0;
        !heads && inbox.is_empty() && broken.is_none() && app_error.is_none()
    }
}

impl StreamState {
    fn passing(&mut self) -> &mut Passing {
        self.passing.get_or_insert_default()
    }

    /// To be called after something was taken.
    fn tidy(&mut self) {
        if self.passing.as_ref().is_some_and(|passing| passing.is_over()) {
            self.passing = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.passing.as_ref().is_none_or(|passing| passing.inbox.is_empty())
    }
}

impl StreamCell {
    fn new(id: u32, passing: Option<Passing>) -> Self {
        let state = StreamState { passing: passing.map(Box::new), ..StreamState::default() };
        let (asked, held, ended, app_gone) = Default::default();
        Self { id, asked, held, ended, app_gone, state: RefCell::new(state) }
    }

    /// Client: a request is under way.
    pub(crate) fn asked(id: u32) -> Rc<Self> {
        Rc::new(Self { asked: Cell::new(true), ..Self::new(id, None) })
    }

    /// Server: a request has come.
    pub(crate) fn requested(id: u32, head: RequestHead) -> Rc<Self> {
        let passing = Passing { request: Some(Rc::new(head)), ..Passing::default() };
        Rc::new(Self::new(id, Some(passing)))
    }

    /// A stream of another engine.
    pub(crate) fn revive(part: StreamPart) -> Rc<Self> {
        let StreamPart { id, request, answer, asked, early, inbox: Inbox(inbox), ended, broken } = part;
        let inbox = if inbox.is_empty() { VecDeque::new() } else { VecDeque::from([inbox]) };
        let (request, broken) = (request.map(Rc::new), broken.map(Break::Stream));
        let passing = Passing { request, answer, early, inbox, taken: 0, broken, app_error: None };
        let passing = (!passing.is_over()).then_some(passing);
        Rc::new(Self { asked: Cell::new(asked), ended: Cell::new(ended), ..Self::new(id, passing) })
    }

    /// Gives away what the owner has not taken. To the owner the stream is broken by the move.
    pub(crate) fn move_away(&self) -> StreamPart {
        let mut state = self.state.borrow_mut();
        let moved = Passing { broken: Some(Break::Connection(ConnectionEnd::Moved)), ..Passing::default() };
        let passing = state.passing.replace(Box::new(moved)).map(|passing| *passing).unwrap_or_default();
        let Passing { request, answer, early, inbox, taken, broken, app_error } = passing;
        state.passing().app_error = app_error;
        let broken = match broken {
            Some(Break::Stream(fault)) => Some(fault),
            Some(Break::Connection(_)) | None => None,
        };
        let mut inbox = inbox.into_iter().flatten().collect::<Vec<u8>>();
        inbox.drain(..taken.min(inbox.len()));
        state.app = None;
        wake(&mut state.reader);
        wake(&mut state.writer);
        StreamPart {
            id: self.id,
            request: request.map(Rc::unwrap_or_clone),
            answer,
            asked: self.asked.take(),
            early,
            inbox: Inbox(inbox),
            ended: self.ended.take(),
            broken,
        }
    }

    /// Server: the request, until it is answered.
    pub(crate) fn request(&self) -> Option<Rc<RequestHead>> {
        self.state.borrow().passing.as_ref()?.request.clone()
    }

    pub(crate) fn answered(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(passing) = &mut state.passing {
            passing.request = None;
        }
        state.tidy();
    }

    /// Server: the peer has sent something ahead of the answer, and can send more before it has the answer. Asked once,
    /// when the answer is due.
    pub(crate) fn may_be_held(&self) -> bool {
        let state = self.state.borrow();
        let spoken: usize = state.passing.iter().flat_map(|passing| &passing.inbox).map(Vec::len).sum();
        self.held.set(self.ended.get() || (1..DATA_PAYLOAD / 2).contains(&spoken));
        self.held.get()
    }

    /// More has come from a peer whose answer may be held.
    pub(crate) fn was_held(&self) -> bool {
        self.held.take()
    }

    /// Payload from the peer; returns how much of it is consumed.
    pub(crate) fn deliver(&self, pieces: &[IoSlice<'_>]) -> usize {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        if self.app_gone.get() {
            return total;
        }
        let mut state = self.state.borrow_mut();
        let mut written = 0;
        if let (Some((app, counters)), true) = (&state.app, state.is_empty()) {
            let offered = match pieces {
                [one] => app.write(one),
                _ => app.write_vectored(pieces.get(..pieces.len().min(MAX_PIECES)).unwrap_or_default()),
            };
            match offered {
                Ok(n) => {
                    counters.add_to_app(n);
                    written = n;
                }
                Err(error) => {
                    self.app_gone.set(true);
                    state.passing().app_error = Some(error);
                    wake(&mut state.reader);
                    return total;
                }
            }
        }
        if written < total {
            let inbox = &mut state.passing().inbox;
            // Small pieces share a buffer, so that what is kept is not many times what was sent.
            let mut rest = match inbox.pop_back() {
                Some(last) if last.len() + total - written <= MAX_BUFFER => last,
                last => {
                    inbox.extend(last);
                    Vec::with_capacity(total - written)
                }
            };
            let mut skip = written;
            for piece in pieces {
                rest.extend_from_slice(piece.get(skip..).unwrap_or_default());
                skip = skip.saturating_sub(piece.len());
            }
            inbox.push_back(rest);
            wake(&mut state.reader);
        }
        written
    }

    /// From here on payload goes to the application's socket.
    pub(crate) fn attach(&self, app: Rc<Socket>, counters: Arc<Counters>) {
        self.state.borrow_mut().app = Some((app, counters));
    }

    pub(crate) fn detach(&self) {
        self.state.borrow_mut().app = None;
        self.app_gone.set(true);
    }

    /// The application takes nothing any more: what waits for it is nobody's. Returns how much that is; it counts as
    /// consumed, as does all that comes from now on.
    pub(crate) fn discard(&self) -> usize {
        self.detach();
        let mut state = self.state.borrow_mut();
        let Some(passing) = &mut state.passing else { return 0 };
        let waiting: usize = std::mem::take(&mut passing.inbox).iter().map(Vec::len).sum();
        let unwanted = waiting - std::mem::take(&mut passing.taken);
        state.tidy();
        unwanted
    }

    /// Offers the application what it did not take before; returns how much it took.
    pub(crate) fn offer(&self) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let StreamState { passing: Some(passing), app, .. } = &mut *state else { return Ok(0) };
        if let Some(error) = passing.app_error.take() {
            return Err(error);
        }
        let mut total = 0;
        while let (Some(front), Some((app, counters))) = (passing.inbox.front(), &*app) {
            let rest = front.get(passing.taken..).unwrap_or_default();
            let written = app.write(rest)?;
            counters.add_to_app(written);
            total += written;
            if written < rest.len() {
                passing.taken += written;
                break;
            }
            passing.inbox.pop_front();
            passing.taken = 0;
        }
        state.tidy();
        Ok(total)
    }

    /// Takes payload for an owner that reads; returns how much.
    pub(crate) fn take(&self, buffer: &mut tokio::io::ReadBuf<'_>) -> usize {
        let mut state = self.state.borrow_mut();
        let Some(passing) = &mut state.passing else { return 0 };
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            let Some(front) = passing.inbox.front() else { break };
            let rest = front.get(passing.taken..).unwrap_or_default();
            let n = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..n).unwrap_or_default());
            if n == rest.len() {
                passing.inbox.pop_front();
                passing.taken = 0;
            } else {
                passing.taken += n;
            }
        }
        state.tidy();
        buffer.filled().len() - before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.borrow().is_empty()
    }

    pub(crate) fn end(&self) {
        self.ended.set(true);
        wake(&mut self.state.borrow_mut().reader);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    pub(crate) fn answer(&self, head: AnswerHead) {
        let mut state = self.state.borrow_mut();
        state.passing().answer = Some(head);
        wake(&mut state.reader);
    }

    pub(crate) fn take_answer(&self) -> Option<AnswerHead> {
        let mut state = self.state.borrow_mut();
        let answer = state.passing.as_mut()?.answer.take();
        if answer.is_some() {
            self.asked.set(false);
        }
        state.tidy();
        answer
    }

    /// Client: octets have been sent ahead of the answer.
    pub(crate) fn add_early(&self, octets: usize) {
        self.state.borrow_mut().passing().early += u64::try_from(octets).unwrap_or(u64::MAX);
    }

    /// Client: octets sent ahead of the answer, for the one that counts them.
    pub(crate) fn take_early(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let early = state.passing.as_mut().map_or(0, |passing| std::mem::take(&mut passing.early));
        state.tidy();
        early
    }

    pub(crate) fn break_off(&self, why: Break) {
        let mut state = self.state.borrow_mut();
        let passing = state.passing();
        if let Break::Stream(StreamFault::Unread) = why {
            // It is broken for what it holds.
            (passing.inbox, passing.taken) = (VecDeque::new(), 0);
            self.ended.set(false);
        }
        passing.broken.get_or_insert(why);
        wake(&mut state.reader);
        wake(&mut state.writer);
    }

    pub(crate) fn broken(&self) -> Option<Break> {
        self.state.borrow().passing.as_ref()?.broken.clone()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.borrow().passing.as_ref().is_some_and(|passing| passing.broken.is_some())
    }

    /// Registers who waits for payload, its end, the answer or the break.
    pub(crate) fn wait_reader(&self, cx: &Context<'_>) {
        set(&mut self.state.borrow_mut().reader, cx);
    }

    /// Registers who waits for a window or the break.
    pub(crate) fn wait_writer(&self, cx: &Context<'_>) {
        set(&mut self.state.borrow_mut().writer, cx);
    }

    pub(crate) fn wake_reader(&self) {
        wake(&mut self.state.borrow_mut().reader);
    }

    pub(crate) fn wake_writer(&self) {
        wake(&mut self.state.borrow_mut().writer);
    }
}

fn set(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there for a moment only (heads, an end) has a box of its own.
    #[test]
    fn an_idle_stream_is_small() {
        // With the counts of those who share it, one block of 88 octets.
        assert!(size_of::<StreamCell>() <= 72, "{} octets", size_of::<StreamCell>());
    }
}
