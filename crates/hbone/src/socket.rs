//! A TCP socket as the engine uses it: try first, wait for readiness after, and know from a short read that there is
//! nothing more to wait for.

use std::cell::Cell;
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
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Nothing was written yet: a new socket has room, also where the event loop has not been asked about it.
    fresh: Cell<bool>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        // Small frames must not wait for the peer's acknowledgements. A socket that refuses is about to fail anyway.
        let _ = tcp.set_nodelay(true);
        Self::of_application(tcp)
    }

    /// An application's, with the options its owner has given it.
    pub(crate) fn of_application(tcp: TcpStream) -> Self {
        Self { tcp, fresh: Cell::new(true) }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The same connection by another descriptor.
    pub(crate) fn duplicate(&self) -> io::Result<std::net::TcpStream> {
        Ok(self.tcp.as_fd().try_clone_to_owned()?.into())
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    /// Resolves once the connection has been cut from the other end, also when nothing is read or written any more.
    pub(crate) async fn cut(&self) -> io::Error {
        match self.tcp.ready(Interest::ERROR).await {
            Ok(_) => {
                self.tcp.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
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
        self.tcp.try_io(Interest::READABLE, || SockRef::from(&self.tcp).peek(&mut octet))
    }

    fn read_with(
        &self,
        wanted: usize,
        read: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        read_some(&self.tcp, wanted, read)
    }

    /// Writes what the socket takes now; zero if nothing.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|mut socket| socket.write(bytes))
    }

    /// The same from several buffers.
    pub(crate) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|mut socket| socket.write_vectored(buffers))
    }

    fn write_with(&self, write: impl FnOnce(&socket2::Socket) -> io::Result<usize>) -> io::Result<usize> {
        let write = || write(&SockRef::from(&self.tcp));
        let written = if self.fresh.take() { write() } else { self.tcp.try_io(Interest::WRITABLE, write) };
        match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            other => other,
        }
    }

    /// Sends FIN.
    pub(crate) fn shutdown_write(&self) {
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_on_close(&self) {
        reset_on_close(&self.tcp);
    }
}

/// As [`Socket::read`], of a socket that still is its owner's.
pub(crate) fn read_if_ready(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    read_some(tcp, buffer.len(), |mut socket| socket.read(buffer))
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Without a turn of the event loop, which has not said anything about either socket.
    #[tokio::test]
    async fn a_new_socket_is_written_and_read_at_once_and_not_in_vain() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        dialled.set_nonblocking(true).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();

        let dialled = Socket::of_application(TcpStream::from_std(dialled).unwrap());
        assert_eq!(dialled.write(b"abc").unwrap(), 3);

        let (mut buffer, mut cx) = ([0; 8], Context::from_waker(Waker::noop()));
        assert!(accepted.poll_read_ready(&mut cx).is_ready(), "somebody who was accepted may have spoken");
        assert_eq!(read_if_ready(&accepted, &mut buffer).unwrap(), 3);
        assert!(accepted.poll_read_ready(&mut cx).is_pending(), "a short read tells that nothing is left");
    }
}
