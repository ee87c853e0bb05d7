//! What an application says while its CONNECT is unanswered (RFC 9110 section 9.3.6), for peers that take it.
//!
//! It saves an exchange between the proxies: the request of an application that speaks first travels with its CONNECT.
//! At most one DATA frame of it goes ahead, so that a peer never keeps more than that for a stream it may refuse. A little
//! is kept here too, to be said again where the peer has not looked at the request.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::Tunnel;
use crate::core::{Capacity, DATA_PAYLOAD};
use crate::link::MAX_OUTPUT;
use crate::scratch::Scratch;
use crate::socket::{read_if_ready, reset_on_close};

/// Octets that are kept until the answer: the head of most requests.
const KEPT: usize = 4 << 10;

/// See the module. It outlives an attempt that has failed. Dropped before the request has succeeded it has the application reset, if anything was taken from it:
/// what it has said is lost.
#[derive(Debug)]
pub(crate) struct Early<'a> {
    app: &'a TcpStream,
    /// Octets that may still go ahead of the answer.
    room: usize,
    /// Octets taken from the application.
    taken: usize,
    /// All of them, as long as they are few.
    kept: Vec<u8>,
    /// They have found their peer.
    settled: bool,
}

impl<'a> Early<'a> {
    pub(crate) fn new(app: &'a TcpStream) -> Self {
        Self { app, room: DATA_PAYLOAD, taken: 0, kept: Vec::new(), settled: false }
    }

    /// Something went ahead of an answer that has not come.
    pub(crate) fn has_said(&self) -> bool {
        self.taken > 0
    }

    /// All of that can be said again.
    pub(crate) fn is_whole(&self) -> bool {
        self.kept.len() == self.taken
    }

    /// How many octets that is.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Says it on another stream, which has room for it.
    pub(crate) fn say_again(&mut self, tunnel: &Tunnel) {
        tunnel.send_early(&self.kept);
        self.room = DATA_PAYLOAD.saturating_sub(self.kept.len());
    }

    fn keep(&mut self, said: &[u8]) {
        if self.is_whole() && self.taken + said.len() <= KEPT {
            self.kept.extend_from_slice(said);
        } else {
            self.kept = Vec::new();
        }
        self.taken += said.len();
    }

    /// Sends what the application has said by now, its end included, and registers for more.
    pub(crate) fn pump(&mut self, tunnel: &Tunnel, cx: &mut Context<'_>) -> io::Result<()> {
        while self.room > 0 {
            // A socket that was just accepted counts as readable until a read has shown that it is not.
            match self.app.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            let Some(wanted) = self.wanted(tunnel, cx) else { return Ok(()) };
            let read: io::Result<usize> = Scratch::lend(|scratch| {
                let buffer = scratch.slots.octets(wanted);
                let n = read_if_ready(self.app, buffer)?;
                let said = buffer.get(..n).unwrap_or_default();
                tunnel.send_early(said);
                self.keep(said);
                Ok(n)
            });
            match read {
                Ok(0) => {
                    tunnel.finish();
                    self.room = 0;
                }
                Ok(n) => self.room -= n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How much may be read now; `None` if somebody will wake the task when something may.
    fn wanted(&self, tunnel: &Tunnel, cx: &Context<'_>) -> Option<usize> {
        let mut state = tunnel.link.state.borrow_mut();
        if state.is_blocked() || state.core.output().len() >= MAX_OUTPUT {
            state.wait(cx);
            return None;
        }
        match state.core.capacity(tunnel.cell.id) {
            Capacity::Octets(octets) if octets > 0 => Some(octets.min(self.room)),
            _ => {
                tunnel.cell.wait_writer(cx);
                None
            }
        }
    }

    /// The request has succeeded.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        if self.has_said() && !self.settled {
            reset_on_close(self.app);
        }
    }
}
