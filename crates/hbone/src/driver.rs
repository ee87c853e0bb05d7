//! The task of one connection: receives, lets time pass, sends what everybody put into the output, and closes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::ConnectionEnd;
use crate::core::{Action, Role};
use crate::link::{Link, State, now};
use crate::scratch::Scratch;

/// Output that waits behind a blocked socket before we stop to read what would ask for more of it.
const MAX_BACKLOG: usize = 64 << 10;

/// How long a peer may take to close after we have.
const LINGER: Duration = Duration::from_secs(1);

/// The same, from the end of the last stream on, where all have ended in order: what was said last may need that long on
/// a slow path, and a socket that is closed before answers a window update of the peer's with a reset. The same where
/// records still wait for the socket: a stream that was cut takes nothing away from one that has ended.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Receives in a row before the other tasks of the thread get a turn.
const TURNS: usize = 4;

#[derive(Debug)]
enum Stage {
    Running,
    /// What is in the output has to leave, behind it the farewell; then the peer may close.
    Closing {
        until: Instant,
        farewell: Farewell,
    },
    Done,
}

/// How far our goodbye has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Due,
    Sealed,
    Said,
}

/// See the module.
#[derive(Debug)]
struct Driver {
    link: Rc<Link>,
    stage: Stage,
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// Starts the driver of a connection on this thread. It ends with the connection: when the peer closes, when the
/// handles of the connection are gone, or when the thread's `LocalSet` is dropped.
pub(crate) fn start(link: Rc<Link>) {
    {
        let mut state = link.state.borrow_mut();
        Scratch::lend(|scratch| {
            let carried = state.records.carry().len();
            scratch.wire.split(carried).0.copy_from_slice(state.records.carry());
            take(&link, &mut state, scratch, carried);
        });
        link.flush(&mut state);
    }
    let driver = Driver { link, stage: Stage::Running, sleep: None };
    #[expect(
        clippy::disallowed_methods,
        reason = "the connection's handles are the parent: the task ends with them"
    )]
    tokio::task::spawn_local(driver);
}

/// Opens the records at the front of the thread's receive buffer and does what follows.
fn take(link: &Link, state: &mut State, scratch: &mut Scratch, length: usize) {
    let Scratch { wire, plain, sealed, .. } = scratch;
    let wire = wire.received(length);
    sealed.clear();
    let at = now();
    let mut actions = Vec::new();
    let State { core, records, .. } = &mut *state;
    let opened = records.open(wire, plain, sealed, &mut |content| core.receive(at, content, &mut actions));
    if !sealed.is_empty() {
        link.send(state, sealed);
    }
    state.perform(actions);
    match opened {
        Ok(true) => state.close_after_peer(),
        Ok(false) => {}
        // The alert is on its way, and nothing may follow it (RFC 8446 section 6.2).
        Err(error) => {
            state.lose(ConnectionEnd::Tls(error.to_string()));
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let link = self.link.clone();
        {
            let driver = &mut link.state.borrow_mut().driver;
            match driver {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *driver = Some(cx.waker().clone()),
            }
        }
        let mut turns = 0;
        loop {
            self.poll_send(cx);
            match self.stage {
                Stage::Done => return Poll::Ready(()),
                Stage::Running if link.state.borrow().ended.is_some() => {
                    self.begin_closing();
                    continue;
                }
                _ => {}
            }
            if self.poll_time(cx) {
                continue;
            }
            if turns == TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            turns += 1;
            if self.is_backed_up() {
                return Poll::Pending;
            }
            match ready!(link.poll_readable(cx)) {
                Ok(()) => self.receive(),
                Err(error) => self.lose(ConnectionEnd::Io(error.to_string(), error.kind())),
            }
        }
    }
}

impl Driver {
    /// Sends what is sealed, then what is in the output.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        let link = self.link.clone();
        let mut state = link.state.borrow_mut();
        loop {
            if state.is_mute() {
                state.drop_output();
                break;
            }
            if state.is_blocked() {
                match link.poll_writable(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => state.write_failed(&error),
                    Poll::Ready(Ok(())) => {
                        link.drain_sealed(&mut state);
                    }
                }
            } else if !state.has_output() || state.is_held() {
                break;
            } else {
                link.flush(&mut state);
            }
        }
        link.count(&mut state);
        link.relieve(&mut state);
        if let Stage::Closing { farewell, .. } = &mut self.stage {
            if *farewell == Farewell::Due && !state.is_blocked() {
                *farewell = Farewell::Sealed;
                if !matches!(state.ended, Some(ConnectionEnd::Tls(_))) {
                    let mut goodbye = Vec::new();
                    state.records.close_notify(&mut goodbye);
                    link.send(&mut state, &goodbye);
                }
            }
            if *farewell == Farewell::Sealed && !state.is_blocked() {
                *farewell = Farewell::Said;
                link.shutdown_write();
            }
        }
    }

    fn is_backed_up(&self) -> bool {
        let mut state = self.link.state.borrow_mut();
        state.is_blocked() && state.core.output().len() > MAX_BACKLOG
    }

    /// `true` when something was due.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let due = {
            let state = self.link.state.borrow();
            match self.stage {
                Stage::Closing { until, .. } => Some(until),
                _ => earliest(earliest(state.core.deadline(), idle_deadline(&state)), state.held_until()),
            }
        };
        let Some(due) = due else { return false };
        match &mut self.sleep {
            // An earlier alarm will look again: most deadlines move on before they come.
            Some((at, _)) if *at <= due => {}
            Some((at, sleep)) => {
                *at = due;
                sleep.as_mut().reset(due.into());
            }
            None => self.sleep = Some((due, Box::pin(tokio::time::sleep_until(due.into())))),
        }
        let Some((_, sleep)) = &mut self.sleep else { return false };
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.sleep = None;
        self.tick();
        true
    }

    fn tick(&mut self) {
        let now = now();
        if let Stage::Closing { until, .. } = self.stage {
            if until <= now {
                self.finish();
            }
            return;
        }
        let mut state = self.link.state.borrow_mut();
        let mut actions = Vec::new();
        if !state.release_held(now) {
            state.let_go();
        }
        self.link.note_memory(&mut state);
        state.core.tick(now, &mut actions);
        if matches!(actions.last(), Some(Action::Ended(ConnectionEnd::PingTimeout))) {
            let peer = self.link.peer;
            match state.core.role() {
                Role::Client => {
                    tracing::warn!(dst.addr = %peer, "HBONE ping timeout/error, peer may have shutdown")
                }
                Role::Server => {
                    tracing::debug!(src.addr = %peer, "HBONE ping timeout/error, peer may have shutdown")
                }
            }
        }
        if idle_deadline(&state).is_some_and(|due| due <= now) {
            state.core.close(ConnectionEnd::Closed, &mut actions);
        }
        state.perform(actions);
    }

    /// Reads once and does what follows.
    fn receive(&mut self) {
        if let Stage::Closing { .. } = self.stage {
            return self.discard();
        }
        let link = self.link.clone();
        Scratch::lend(|scratch| {
            let mut state = link.state.borrow_mut();
            let carried = state.records.carry().len();
            let (front, space) = scratch.wire.split(carried);
            let read = match link.with_socket(|socket| socket.read(space)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return state.lose_now(ConnectionEnd::Io(error.to_string(), error.kind())),
                Ok(0) => return state.lose_now(ConnectionEnd::Vanished),
                Ok(read) => read,
            };
            front.copy_from_slice(state.records.carry());
            take(&link, &mut state, scratch, carried + read);
        });
    }

    /// Reads and drops what a peer sends that has been told goodbye.
    fn discard(&mut self) {
        let read =
            Scratch::lend(|scratch| self.link.with_socket(|socket| socket.read(scratch.wire.split(0).1)));
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(n) if n > 0 => {}
            _ => self.finish(),
        }
    }

    fn lose(&mut self, end: ConnectionEnd) {
        self.link.state.borrow_mut().lose_now(end);
    }

    /// The connection has ended: say so as far as there is somebody to hear it.
    fn begin_closing(&mut self) {
        let link = self.link.clone();
        let mut state = link.state.borrow_mut();
        if state.ended == Some(ConnectionEnd::Moved) {
            drop(state);
            // The connection goes on elsewhere, by another descriptor.
            return self.finish();
        }
        if state.is_mute() || matches!(state.ended, Some(ConnectionEnd::Vanished | ConnectionEnd::Io(..))) {
            drop(state);
            return self.finish();
        }
        self.sleep = None;
        let heard = matches!(
            state.ended,
            Some(ConnectionEnd::Closed | ConnectionEnd::GoAway { .. } | ConnectionEnd::Protocol { .. })
        );
        let soon = now() + LINGER;
        let until = match state.idle_since.filter(|_| !state.cut) {
            _ if !heard => soon,
            Some(at) => soon.max(at + LAST_WORDS),
            None if state.is_blocked() || state.has_output() => soon.max(now() + LAST_WORDS),
            None => soon,
        };
        self.stage = Stage::Closing { until, farewell: Farewell::Due };
    }

    fn finish(&mut self) {
        let mut state = self.link.state.borrow_mut();
        state.driver = None;
        let end = state.ended.clone().unwrap_or(ConnectionEnd::Closed);
        state.break_rest(&end);
        state.wake_all();
        self.link.count(&mut state);
        drop(state);
        self.link.end();
        self.link.count_end();
        self.stage = Stage::Done;
    }
}

impl State {
    /// The peer has sent close_notify.
    fn close_after_peer(&mut self) {
        if self.ended.is_none() {
            self.lose(ConnectionEnd::PeerClosed);
        }
    }
}

fn idle_deadline(state: &State) -> Option<Instant> {
    Some(state.idle_since? + state.idle_limit?)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
