//! One stream as its owner sees it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::core::frame::HEADER;
use crate::core::{Capacity, DATA_PAYLOAD};
use crate::link::{Link, MAX_OUTPUT, now};
use crate::stream::{Break, StreamCell};
use crate::{ErrorCode, TunnelError};

/// An established tunnel. Dropping it before both directions have ended resets the stream with CANCEL
/// (NO_ERROR from a server that has said all it had to say).
#[derive(Debug)]
pub struct Tunnel {
    pub(crate) link: Rc<Link>,
    pub(crate) cell: Rc<StreamCell>,
}

impl Tunnel {
    /// Cuts the tunnel with RST_STREAM CANCEL.
    pub fn abort(self) {
        self.reset(ErrorCode::CANCEL);
    }

    pub(crate) fn reset(&self, code: ErrorCode) {
        let mut state = self.link.state.borrow_mut();
        state.core.reset(self.cell.id, code);
        state.after_call();
    }

    /// The stream's number on its connection, which it keeps when the connection moves.
    pub fn id(&self) -> u32 {
        self.cell.id
    }

    /// The certificates of the peer of the connection below, leaf first.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        self.link.chain.clone()
    }

    /// Our address of the TCP connection below.
    pub fn local_addr(&self) -> SocketAddr {
        self.link.local
    }

    /// The peer's address of the TCP connection below.
    pub fn peer_addr(&self) -> SocketAddr {
        self.link.peer
    }

    pub(crate) fn broken(&self) -> Option<Break> {
        self.cell.broken()
    }

    /// Sends the only DATA frame, or one of the few, that go ahead of the answer. At the end of the tick, with the request.
    pub(crate) fn send_early(&self, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let mut state = self.link.state.borrow_mut();
        let head = state.core.data(self.cell.id, payload.len(), false);
        let out = state.core.output();
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        state.kick();
        self.cell.add_early(payload.len());
    }

    /// Ends our direction, unless the socket takes nothing any more.
    pub(crate) fn finish(&self) {
        let mut state = self.link.state.borrow_mut();
        if state.is_mute() {
            // It would look as if the peer had been told.
            return;
        }
        if state.core.finish(self.cell.id) {
            state.note_end(self.cell.id);
        }
        state.after_call();
    }

    /// Tells the core that payload has found its owner.
    pub(crate) fn consumed(&self, octets: usize) {
        if octets > 0 {
            let mut state = self.link.state.borrow_mut();
            state.core.consumed(self.cell.id, octets, now());
            state.after_call();
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.cell.detach();
        self.link.abandon(&self.cell);
    }
}

fn as_io(why: Break) -> io::Error {
    let error = TunnelError::from(why);
    let kind = match &error {
        TunnelError::ConnectionEnded(_) => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.cell.take(buffer);
        if taken > 0 {
            self.consumed(taken);
            return Poll::Ready(Ok(()));
        }
        if self.cell.has_ended() || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = self.broken() {
            return Poll::Ready(Err(as_io(why)));
        }
        self.cell.wait_reader(cx);
        Poll::Pending
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(why) = self.broken() {
            return Poll::Ready(Err(as_io(why)));
        }
        let mut state = self.link.state.borrow_mut();
        if state.is_blocked() || state.core.output().len() >= MAX_OUTPUT {
            state.wait(cx);
            state.kick();
            self.cell.wait_writer(cx);
            return Poll::Pending;
        }
        let id = self.cell.id;
        let room = match state.core.capacity(id) {
            Capacity::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Capacity::Octets(0) if !buffer.is_empty() => {
                self.cell.wait_writer(cx);
                return Poll::Pending;
            }
            Capacity::Octets(room) => room.min(MAX_OUTPUT),
        };
        let accepted = buffer.get(..room.min(buffer.len())).unwrap_or_default();
        state.core.output().reserve(accepted.len() + HEADER);
        for payload in accepted.chunks(DATA_PAYLOAD) {
            let head = state.core.data(id, payload.len(), false);
            let out = state.core.output();
            out.extend_from_slice(&head);
            out.extend_from_slice(payload);
        }
        state.kick();
        Poll::Ready(Ok(accepted.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver sends at the end of the tick.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        let state = self.link.state.borrow();
        match state.is_mute() && !state.core.sent_all(self.cell.id) {
            true => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}
