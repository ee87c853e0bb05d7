//! Listening and datagram sockets.
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Keepalive, set_keepalive, wildcard};

/// What a listener does about `IP_TRANSPARENT`, which later lets dialled sockets carry the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transparent {
    /// The listener cannot be made without it.
    Mandatory,
    /// Tried; [`Listener::transparent`] says what came of it.
    BestEffort,
    /// Not tried.
    #[default]
    Never,
}

/// How to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SO_MARK` of the listener and of all it accepts.
    pub mark: Option<u32>,
    /// `SO_REUSEPORT`: several threads and processes listen side by side. Without it, `SO_REUSEADDR`.
    pub reuse_port: bool,
    /// See [`Transparent`].
    pub transparent: Transparent,
    /// Connections the kernel completes before they are accepted.
    pub backlog: u32,
    /// Keepalive of accepted sockets.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` of accepted sockets, from their keepalive.
    pub user_timeout: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            mark: None,
            reuse_port: false,
            transparent: Transparent::Never,
            backlog: 1024,
            keepalive: Some(Keepalive::default()),
            user_timeout: false,
        }
    }
}

/// A listening socket, non-blocking, not yet registered with a runtime.
#[derive(Debug)]
pub struct Listener {
    /// The socket; its options are inherited by what it accepts.
    pub socket: std::net::TcpListener,
    /// `IP_TRANSPARENT` is set.
    pub transparent: bool,
}

impl Listener {
    /// Registers with the calling thread's tokio runtime.
    pub fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket)
    }
}

/// A listener could not be made; says at which step.
#[derive(Debug, thiserror::Error)]
#[error("{step} {address}: {source}")]
pub struct ListenError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// The step that failed.
    pub step: &'static str,
    /// Why.
    pub source: io::Error,
}

impl ListenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "socket-address-in-use",
            io::ErrorKind::PermissionDenied => "socket-not-permitted",
            _ => "socket-cannot-listen",
        }
    }
}

/// Listens at `address`; `[::]` takes IPv4 as well. `TCP_NODELAY` and keepalive are set once, here, and inherited.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> Result<Listener, ListenError> {
    let at = |step| move |source| ListenError { address, step, source };
    let socket = make(address, Type::STREAM, Protocol::TCP).map_err(at("cannot make a socket for"))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).map_err(at("cannot mark the listener"))?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(at("cannot share the port of"))?;
    } else {
        socket.set_reuse_address(true).map_err(at("cannot reuse the address"))?;
    }
    // One kernel flag for both families; the IPv4 option sets it on a dual-stack socket too.
    let transparent = match options.transparent {
        Transparent::Never => false,
        Transparent::BestEffort => socket.set_ip_transparent_v4(true).is_ok(),
        Transparent::Mandatory => {
            socket.set_ip_transparent_v4(true).map_err(at("cannot make transparent the listener"))?;
            true
        }
    };
    socket.set_tcp_nodelay(true).map_err(at("cannot set no-delay on"))?;
    if let Some(keepalive) = options.keepalive {
        // Best effort, as the contract has it: a listener without keepalive is better than none.
        let _ = set_keepalive(&socket, keepalive, options.user_timeout);
    }
    socket.bind(&address.into()).map_err(at("cannot bind"))?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(at("cannot listen on"))?;
    Ok(Listener { socket: socket.into(), transparent })
}

/// How to make a datagram socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpOptions {
    /// `SO_MARK`.
    pub mark: Option<u32>,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
}

/// A non-blocking datagram socket bound to `address`.
pub fn bind_udp(address: SocketAddr, options: &UdpOptions) -> Result<std::net::UdpSocket, ListenError> {
    let at = |step| move |source| ListenError { address, step, source };
    let socket = make(address, Type::DGRAM, Protocol::UDP).map_err(at("cannot make a socket for"))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).map_err(at("cannot mark the socket"))?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(at("cannot share the port of"))?;
    }
    socket.bind(&address.into()).map_err(at("cannot bind"))?;
    Ok(socket.into())
}

fn make(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(!wildcard(address.ip()))?;
    }
    Ok(socket)
}
