//! Sockets of the load tool: one thread, one epoll set, no runtime that would be measured along.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// What a socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    Both,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Both => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// A socket is ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The set of sockets that are waited for.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: vec![nothing; 512] })
    }

    pub(crate) fn add(&self, socket: &impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        let data = EventData::new_u64(u64::try_from(token).unwrap_or(u64::MAX));
        Ok(epoll::add(&self.epoll, socket, data, interest.flags())?)
    }

    pub(crate) fn change(&self, socket: &impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        let data = EventData::new_u64(u64::try_from(token).unwrap_or(u64::MAX));
        Ok(epoll::modify(&self.epoll, socket, data, interest.flags())?)
    }

    /// Waits up to `limit` (for ever without); puts what is ready into `ready`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.and_then(|limit| rustix::event::Timespec::try_from(limit).ok());
        ready.clear();
        let n = match epoll::wait(&self.epoll, self.events.as_mut_slice(), limit.as_ref()) {
            Err(Errno::INTR) => 0,
            other => other?,
        };
        let broken = EventFlags::ERR | EventFlags::HUP;
        ready.extend(self.events.iter().take(n).map(|event| {
            let flags = event.flags;
            Ready {
                token: usize::try_from(event.data.u64()).unwrap_or(usize::MAX),
                readable: flags.intersects(EventFlags::IN | broken),
                writable: flags.intersects(EventFlags::OUT | broken),
            }
        }));
        Ok(())
    }
}

/// Starts connecting; the socket becomes writable when it stands or has failed.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// How a read or write that does not block came out.
pub(crate) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Prepares this network namespace for many short connections: wide port range, early reuse of closed ones.
/// The ports of proxies stay out of the range. Where the kernel refuses, the defaults have to do.
pub(crate) fn widen_port_range() {
    for (setting, value) in [
        ("ip_local_port_range", "16384 65535"),
        ("tcp_tw_reuse", "1"),
        ("tcp_max_syn_backlog", "16384"),
        ("../core/somaxconn", "16384"),
    ] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value);
    }
}
