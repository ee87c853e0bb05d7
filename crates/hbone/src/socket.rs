//! A TCP socket as the engine uses it: try first, wait for readiness after, and know from a short read that there is
//! nothing more to wait for.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A non-blocking socket registered with the thread's event loop.
#[derive(Debug)]
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        // Small frames must not wait for the peer's acknowledgements. A socket that refuses is about to fail anyway.
        let _ = tcp.set_nodelay(true);
        Self(tcp)
    }

    /// An application's, with the options its owner has given it.
    pub(crate) fn of_application(tcp: TcpStream) -> Self {
        Self(tcp)
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.0
    }

    /// The same connection by another descriptor.
    pub(crate) fn duplicate(&self) -> io::Result<std::net::TcpStream> {
        Ok(self.0.as_fd().try_clone_to_owned()?.into())
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    /// Resolves once the connection has been cut from the other end, also when nothing is read or written any more.
    pub(crate) async fn cut(&self) -> io::Error {
        match self.0.ready(Interest::ERROR).await {
            Ok(_) => {
                self.0.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
            }
            Err(error) => error,
        }
    }

    /// Reads what is there. A short read clears readiness: the next [`Socket::poll_readable`] waits for new data
    /// without a system call that would only find nothing.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len();
        self.read_with(wanted, |mut socket| socket.read(buffer))
    }

    /// The same into several buffers.
    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        self.read_with(wanted, |mut socket| socket.read_vectored(buffers))
    }

    /// Looks at the next octet without taking it: zero if the other end has sent FIN and everything before it was
    /// read.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        let mut octet = [MaybeUninit::uninit()];
        self.0.try_io(Interest::READABLE, || SockRef::from(&self.0).peek(&mut octet))
    }

    fn read_with(
        &self,
        wanted: usize,
        read: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        read_some(&self.0, wanted, read)
    }

    /// Writes what the socket takes now; zero if nothing.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        none_if_blocked(self.0.try_io(Interest::WRITABLE, || (&*SockRef::from(&self.0)).write(bytes)))
    }

    /// The same from several buffers.
    pub(crate) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        none_if_blocked(
            self.0.try_io(Interest::WRITABLE, || (&*SockRef::from(&self.0)).write_vectored(buffers)),
        )
    }

    /// Sends FIN.
    pub(crate) fn shutdown_write(&self) {
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Write);
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_on_close(&self) {
        reset_on_close(&self.0);
    }
}

/// As [`Socket::read`], of a socket that still is its owner's.
pub(crate) fn read_if_ready(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    read_some(tcp, buffer.len(), |mut socket| socket.read(buffer))
}

/// Reads without asking whether the event loop knows of anything: it has not turned since the socket was accepted.
pub(crate) fn read_at_once(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(tcp)).read(buffer)
}

fn read_some(
    tcp: &TcpStream,
    wanted: usize,
    read: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut got = None;
    let outcome = tcp.try_io(Interest::READABLE, || {
        let n = read(&SockRef::from(tcp))?;
        got = Some(n);
        if n > 0 && n < wanted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    got.ok_or_else(|| outcome.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
}

/// Makes the close that follows a reset.
pub(crate) fn reset_on_close(tcp: &TcpStream) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

fn none_if_blocked(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}
