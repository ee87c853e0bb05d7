//! What the shell keeps of one stream: bytes nobody has taken yet, the application's socket once there is one, and
//! how the stream ended.

use std::cell::RefCell;
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
    state: RefCell<StreamState>,
}

#[derive(Debug, Default)]
struct StreamState {
    /// Server: the request that waits for its answer.
    request: Option<Rc<RequestHead>>,
    answer: Option<Box<AnswerHead>>,
    /// Client: nobody has taken the answer yet.
    asked: bool,
    /// Client: octets sent ahead of the answer that no relay has counted.
    early: u64,
    /// Server: the answer waits for what the application says first.
    held: bool,
    inbox: VecDeque<Vec<u8>>,
    /// Octets of the first entry that are gone.
    taken: usize,
    /// The peer has ended its direction.
    ended: bool,
    broken: Option<Box<Break>>,
    /// Where payload goes directly.
    app: Option<(Rc<Socket>, Arc<Counters>)>,
    /// Writing to the application failed: what comes for it is dropped.
    app_error: Option<io::Error>,
    app_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamCell {
    /// Client: a request is under way.
    pub(crate) fn asked(id: u32) -> Rc<Self> {
        Rc::new(Self { id, state: RefCell::new(StreamState { asked: true, ..StreamState::default() }) })
    }

    /// Server: a request has come.
    pub(crate) fn requested(id: u32, head: RequestHead) -> Rc<Self> {
        Rc::new(Self {
            id,
            state: RefCell::new(StreamState { request: Some(Rc::new(head)), ..StreamState::default() }),
        })
    }

    /// A stream of another engine.
    pub(crate) fn revive(part: StreamPart) -> Rc<Self> {
        let StreamPart { id, request, answer, asked, early, inbox: Inbox(inbox), ended, broken } = part;
        let inbox = if inbox.is_empty() { VecDeque::new() } else { VecDeque::from([inbox]) };
        let broken = broken.map(|fault| Box::new(Break::Stream(fault)));
        let (request, answer) = (request.map(Rc::new), answer.map(Box::new));
        let state =
            StreamState { request, answer, asked, early, inbox, ended, broken, ..StreamState::default() };
        Rc::new(Self { id, state: RefCell::new(state) })
    }

    /// Gives away what the owner has not taken. To the owner the stream is broken by the move.
    pub(crate) fn move_away(&self) -> StreamPart {
        let mut state = self.state.borrow_mut();
        let moved = Box::new(Break::Connection(ConnectionEnd::Moved));
        let broken = match state.broken.replace(moved).map(|why| *why) {
            Some(Break::Stream(fault)) => Some(fault),
            Some(Break::Connection(_)) | None => None,
        };
        let mut inbox = std::mem::take(&mut state.inbox).into_iter().flatten().collect::<Vec<u8>>();
        inbox.drain(..std::mem::take(&mut state.taken).min(inbox.len()));
        state.app = None;
        wake(&mut state.reader);
        wake(&mut state.writer);
        StreamPart {
            id: self.id,
            request: state.request.take().map(Rc::unwrap_or_clone),
            answer: state.answer.take().map(|head| *head),
            asked: std::mem::take(&mut state.asked),
            early: std::mem::take(&mut state.early),
            inbox: Inbox(inbox),
            ended: std::mem::take(&mut state.ended),
            broken,
        }
    }

    /// Server: the request, until it is answered.
    pub(crate) fn request(&self) -> Option<Rc<RequestHead>> {
        self.state.borrow().request.clone()
    }

    pub(crate) fn answered(&self) {
        self.state.borrow_mut().request = None;
    }

    /// Server: the peer has sent something ahead of the answer, and can send more before it has the answer. Asked once,
    /// when the answer is due.
    pub(crate) fn may_be_held(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let spoken: usize = state.inbox.iter().map(Vec::len).sum();
        state.held = state.ended || (1..DATA_PAYLOAD / 2).contains(&spoken);
        state.held
    }

    /// More has come from a peer whose answer may be held.
    pub(crate) fn was_held(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().held)
    }

    /// Payload from the peer; returns how much of it is consumed.
    pub(crate) fn deliver(&self, pieces: &[IoSlice<'_>]) -> usize {
        let mut state = self.state.borrow_mut();
        let total = pieces.iter().map(|piece| piece.len()).sum();
        if state.app_gone {
            return total;
        }
        let mut written = 0;
        if let (Some((app, counters)), true) = (&state.app, state.inbox.is_empty()) {
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
                    state.app_gone = true;
                    state.app_error = Some(error);
                    wake(&mut state.reader);
                    return total;
                }
            }
        }
        if written < total {
            // Small pieces share a buffer, so that what is kept is not many times what was sent.
            let mut rest = match state.inbox.pop_back() {
                Some(last) if last.len() + total - written <= MAX_BUFFER => last,
                last => {
                    state.inbox.extend(last);
                    Vec::with_capacity(total - written)
                }
            };
            let mut skip = written;
            for piece in pieces {
                rest.extend_from_slice(piece.get(skip..).unwrap_or_default());
                skip = skip.saturating_sub(piece.len());
            }
            state.inbox.push_back(rest);
            wake(&mut state.reader);
        }
        written
    }

    /// From here on payload goes to the application's socket.
    pub(crate) fn attach(&self, app: Rc<Socket>, counters: Arc<Counters>) {
        self.state.borrow_mut().app = Some((app, counters));
    }

    pub(crate) fn detach(&self) {
        let mut state = self.state.borrow_mut();
        state.app = None;
        state.app_gone = true;
    }

    /// The application takes nothing any more: what waits for it is nobody's. Returns how much that is; it counts as
    /// consumed, as does all that comes from now on.
    pub(crate) fn discard(&self) -> usize {
        self.detach();
        let mut state = self.state.borrow_mut();
        let waiting: usize = std::mem::take(&mut state.inbox).iter().map(Vec::len).sum();
        waiting - std::mem::take(&mut state.taken)
    }

    /// Offers the application what it did not take before; returns how much it took.
    pub(crate) fn offer(&self) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = state.app_error.take() {
            return Err(error);
        }
        let mut total = 0;
        while let (Some(front), Some((app, counters))) = (state.inbox.front(), &state.app) {
            let rest = front.get(state.taken..).unwrap_or_default();
            let written = app.write(rest)?;
            counters.add_to_app(written);
            total += written;
            if written < rest.len() {
                state.taken += written;
                break;
            }
            state.inbox.pop_front();
            state.taken = 0;
        }
        if state.inbox.is_empty() {
            state.inbox = VecDeque::new();
        }
        Ok(total)
    }

    /// Takes payload for an owner that reads; returns how much.
    pub(crate) fn take(&self, buffer: &mut tokio::io::ReadBuf<'_>) -> usize {
        let mut state = self.state.borrow_mut();
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            let Some(front) = state.inbox.front() else { break };
            let rest = front.get(state.taken..).unwrap_or_default();
            let n = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..n).unwrap_or_default());
            if n == rest.len() {
                state.inbox.pop_front();
                state.taken = 0;
            } else {
                state.taken += n;
            }
        }
        buffer.filled().len() - before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.borrow().inbox.is_empty()
    }

    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.ended = true;
        wake(&mut state.reader);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.borrow().ended
    }

    pub(crate) fn answer(&self, head: AnswerHead) {
        let mut state = self.state.borrow_mut();
        state.answer = Some(Box::new(head));
        wake(&mut state.reader);
    }

    pub(crate) fn take_answer(&self) -> Option<AnswerHead> {
        let mut state = self.state.borrow_mut();
        let answer = state.answer.take();
        state.asked &= answer.is_none();
        answer.map(|head| *head)
    }

    /// Client: octets have been sent ahead of the answer.
    pub(crate) fn add_early(&self, octets: usize) {
        self.state.borrow_mut().early += u64::try_from(octets).unwrap_or(u64::MAX);
    }

    /// Client: octets sent ahead of the answer, for the one that counts them.
    pub(crate) fn take_early(&self) -> u64 {
        std::mem::take(&mut self.state.borrow_mut().early)
    }

    pub(crate) fn break_off(&self, why: Break) {
        let mut state = self.state.borrow_mut();
        if let Break::Stream(StreamFault::Unread) = why {
            // It is broken for what it holds.
            (state.inbox, state.taken, state.ended) = (VecDeque::new(), 0, false);
        }
        state.broken.get_or_insert_with(|| Box::new(why));
        wake(&mut state.reader);
        wake(&mut state.writer);
    }

    pub(crate) fn broken(&self) -> Option<Break> {
        self.state.borrow().broken.as_deref().cloned()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.borrow().broken.is_some()
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
        assert!(size_of::<StreamCell>() <= 160, "{} octets", size_of::<StreamCell>());
    }
}
