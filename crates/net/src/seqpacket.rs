//! `SOCK_SEQPACKET` Unix sockets whose packets may carry one descriptor.
use std::fs::Permissions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[cfg(test)]
mod tests;

/// Room to notice a second descriptor instead of having the kernel drop it silently.
const DESCRIPTORS_LOOKED_FOR: usize = 4;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

/// A connected socket.
#[derive(Debug)]
pub struct Stream {
    socket: AsyncFd<OwnedFd>,
}

/// One received packet; its bytes are in the caller's buffer.
#[derive(Debug)]
pub struct Packet {
    /// How many bytes.
    pub length: usize,
    /// The descriptor that came along, close-on-exec.
    pub descriptor: Option<OwnedFd>,
}

/// No packet could be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer has gone.
    #[error("the peer closed the connection")]
    Closed,
    /// The packet was longer than the buffer.
    #[error("the message is longer than {0} bytes")]
    Truncated(usize),
    /// More than one descriptor; all were closed.
    #[error("the message carries more than one descriptor")]
    TooManyDescriptors,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Listener {
    /// Listens at a path that must not exist; only this user may connect.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = make()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Before it listens, so nobody slips in between.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 16)?;
        Ok(Self { socket: watch(socket, Interest::READABLE)? })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = self
            .socket
            .async_io(Interest::READABLE, |socket| Ok(rustix::net::accept_with(socket, flags)?))
            .await?;
        Stream::register(accepted)
    }
}

impl Stream {
    /// Connects to a path.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let socket = make()?;
        // Connecting a Unix socket completes or fails at once.
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::register(socket)
    }

    fn register(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Sends one packet, with a descriptor if given.
    pub async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, |socket| send_now(socket.as_fd(), bytes, descriptor))
            .await?;
        // A packet is sent whole or not at all.
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Receives one packet into `buffer`. Cancel-safe: a packet is taken only when this returns.
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<Packet, ReceiveError> {
        let received =
            self.socket.async_io(Interest::READABLE, |socket| match receive_now(socket.as_fd(), buffer) {
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                decided => Ok(decided),
            });
        received.await?
    }

    /// Process id and user of the peer.
    pub fn peer(&self) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.socket)?;
        Ok(Peer { process: credentials.pid.as_raw_nonzero().get(), user: credentials.uid.as_raw() })
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub process: i32,
    /// User id.
    pub user: u32,
}

fn make() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, ReceiveError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_LOOKED_FOR))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let capacity = buffer.len();
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(io::Error::from)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(ReceiveError::Truncated(capacity));
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > 1 {
        return Err(ReceiveError::TooManyDescriptors);
    }
    if received.bytes == 0 {
        return Err(ReceiveError::Closed);
    }
    Ok(Packet { length: received.bytes, descriptor: descriptors.pop() })
}
