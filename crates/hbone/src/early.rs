//! What an application says while its CONNECT is unanswered (RFC 9110 section 9.3.6), for peers that take it.
//!
//! It saves an exchange between the proxies: the request of an application that speaks first travels with its CONNECT.
//! At most one DATA frame of it goes ahead, so that a peer never keeps more than that for a stream it may refuse.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::Tunnel;
use crate::core::{Capacity, DATA_PAYLOAD};
use crate::link::MAX_OUTPUT;
use crate::scratch::Scratch;
use crate::socket::{read_at_once, read_if_ready, reset_on_close};

/// See the module. Dropped before the request has succeeded it has the application reset, if anything was taken from it:
/// what it has said is lost.
#[derive(Debug)]
pub(crate) struct Early<'a> {
    app: &'a TcpStream,
    /// Octets that may still go ahead of the answer.
    room: usize,
    /// The event loop has not been asked yet.
    first: bool,
    /// Octets were taken that nobody may ever get.
    at_stake: bool,
}

impl<'a> Early<'a> {
    pub(crate) fn new(app: &'a TcpStream) -> Self {
        Self { app, room: DATA_PAYLOAD, first: true, at_stake: false }
    }

    /// Sends what the application has said by now, its end included, and registers for more.
    pub(crate) fn pump(&mut self, tunnel: &Tunnel, cx: &mut Context<'_>) -> io::Result<()> {
        while self.room > 0 {
            let at_once = std::mem::take(&mut self.first);
            if !at_once {
                match self.app.poll_read_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return Ok(()),
                }
            }
            let Some(wanted) = self.wanted(tunnel, cx) else { return Ok(()) };
            let read: io::Result<usize> = Scratch::lend(|scratch| {
                let buffer = scratch.slots.get_mut(..wanted).unwrap_or_default();
                let read = if at_once { read_at_once } else { read_if_ready };
                let n = read(self.app, buffer)?;
                tunnel.send_early(buffer.get(..n).unwrap_or_default());
                Ok(n)
            });
            match read {
                Ok(0) => {
                    tunnel.finish();
                    self.room = 0;
                }
                Ok(n) => {
                    self.at_stake = true;
                    self.room -= n;
                }
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
    pub(crate) fn settle(mut self) {
        self.at_stake = false;
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        if self.at_stake {
            reset_on_close(self.app);
        }
    }
}
