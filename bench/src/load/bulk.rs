//! Bulk: blocks one way, as fast as they go. What counts is what the receiver has checked.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use super::{Failures, LoadArgs, Outcome, Window};
use crate::payload::{Checker, Sender, body};
use crate::sockets::{Interest, Poller, connect, unless_blocked};

/// A system that gives some streams nothing for so long is measured as it is; in the end every byte must still arrive.
const UNFAIR: Duration = Duration::from_secs(3);

/// Which way the blocks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

struct Stream {
    socket: TcpStream,
    interest: Interest,
    connected: bool,
    /// Bytes that have left (upload).
    sent: u64,
    /// Bytes checked by the receiver, at the far end (upload, as it reports) or here.
    received: u64,
    part: Part,
}

enum Part {
    Sending { sender: Sender, complete: bool, report: Vec<u8> },
    Receiving { checker: Checker, told_to_stop: bool },
}

/// Runs `args.connections` streams through the window.
pub(super) fn run(args: &LoadArgs, mut window: Window, direction: Direction) -> anyhow::Result<Outcome> {
    let mut poller = Poller::new()?;
    let body = body();
    let mut streams = Vec::with_capacity(args.connections);
    for token in 0..args.connections {
        let socket = connect(args.to)?;
        poller.add(&socket, token, Interest::Write)?;
        streams.push(Some(Stream::new(socket, direction, &body)));
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut ready = Vec::new();
    let mut failures = Failures::default();
    let (mut before, mut at_end, mut finished) = (0, None, 0);
    let begun = runtime::clock::monotonic();
    loop {
        let total = finished + streams.iter().flatten().map(|stream| stream.received).sum::<u64>();
        let patient = runtime::clock::monotonic() - begun < UNFAIR;
        let all_started = streams.iter().flatten().all(|stream| stream.received > 0 || !patient);
        if window.advance(runtime::clock::monotonic(), all_started)? {
            before = total;
        }
        if window.is_over() && at_end.is_none() {
            at_end = Some(total);
            for (token, stream) in streams.iter_mut().enumerate() {
                if let Some(stream) = stream {
                    stream.stop(&poller, token)?;
                }
            }
        }
        if streams.iter().all(Option::is_none) {
            break;
        }
        poller.wait(&mut ready, Some(Duration::from_millis(20)))?;
        for event in &ready {
            let Some(slot) = streams.get_mut(event.token) else { continue };
            let Some(mut stream) = slot.take() else { continue };
            match stream.advance(event.readable, event.writable, &mut buffer) {
                Ok(true) => finished += stream.received,
                Ok(false) => {
                    stream.wait_again(&poller, event.token)?;
                    *slot = Some(stream);
                }
                // A stream that fails makes the whole run void: the others would only have more room.
                Err(error) => failures.add(error)?,
            }
        }
    }
    Ok(Outcome {
        amount: at_end.unwrap_or(finished) - before,
        amount_in_all: finished,
        errors: failures.n,
        first_error: failures.first,
        ..window.outcome()
    })
}

impl Stream {
    fn new(socket: TcpStream, direction: Direction, body: &Rc<[u8]>) -> Self {
        let part = match direction {
            Direction::Up => {
                Part::Sending { sender: Sender::new(Rc::clone(body)), complete: false, report: Vec::new() }
            }
            Direction::Down => {
                Part::Receiving { checker: Checker::new(Rc::clone(body)), told_to_stop: false }
            }
        };
        Self { socket, interest: Interest::Write, connected: false, sent: 0, received: 0, part }
    }

    /// True when the stream has ended as it should.
    fn advance(&mut self, readable: bool, writable: bool, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            self.connected = true;
            let mode = if matches!(self.part, Part::Sending { .. }) { b"U" } else { b"D" };
            self.socket.write_all(mode)?;
            return Ok(false);
        }
        if writable
            && let Part::Sending { sender, complete, .. } = &mut self.part
            && !*complete
            && let Some(progress) = unless_blocked(sender.write(&mut self.socket, 4))?
        {
            self.sent += u64::try_from(progress.written).unwrap_or_default();
            if progress.complete {
                *complete = true;
                self.socket.shutdown(Shutdown::Write)?;
            }
        }
        if !readable {
            return Ok(false);
        }
        let Some(n) = unless_blocked(self.socket.read(buffer))? else { return Ok(false) };
        let bytes = buffer.get(..n).unwrap_or_default();
        match &mut self.part {
            Part::Sending { complete, report, .. } => {
                if n == 0 {
                    let right = *complete && self.received == self.sent;
                    return if right { Ok(true) } else { Err(self.lost()) };
                }
                report.extend_from_slice(bytes);
                while let Some(first) = report.first_chunk::<8>() {
                    self.received = u64::from_le_bytes(*first);
                    report.drain(..8);
                }
            }
            Part::Receiving { checker, told_to_stop } => {
                if n == 0 {
                    let right = *told_to_stop && checker.complete;
                    return if right { Ok(true) } else { Err(self.lost()) };
                }
                if !checker.take(bytes) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong bytes"));
                }
                self.received += u64::try_from(n).unwrap_or_default();
            }
        }
        Ok(false)
    }

    fn lost(&self) -> io::Error {
        let (sent, received) = (self.sent, self.received);
        io::Error::other(format!("the stream ended early: {sent} bytes sent, {received} received"))
    }

    /// Lets the stream end by itself.
    fn stop(&mut self, poller: &Poller, token: usize) -> io::Result<()> {
        match &mut self.part {
            Part::Sending { sender, .. } => sender.finish(),
            Part::Receiving { told_to_stop, .. } => {
                *told_to_stop = true;
                self.socket.shutdown(Shutdown::Write)?;
            }
        }
        self.wait_again(poller, token)
    }

    fn wait_again(&mut self, poller: &Poller, token: usize) -> io::Result<()> {
        let interest = match &self.part {
            _ if !self.connected => Interest::Write,
            Part::Sending { complete: false, .. } => Interest::Both,
            Part::Sending { .. } | Part::Receiving { .. } => Interest::Read,
        };
        if interest != self.interest {
            poller.change(&self.socket, token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
