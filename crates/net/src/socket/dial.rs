//! Outgoing TCP connections.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpStream;

use super::{Keepalive, canonical, set_keepalive};
use crate::NetNamespace;

/// How to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialOptions {
    /// `SO_MARK`; a socket that cannot be marked is not used (its packets would be captured again).
    pub mark: Option<u32>,
    /// Keepalive, best effort.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`, from the keepalive.
    pub user_timeout: bool,
    /// A foreign address to speak from (transparent bind). Ignored when it is the target's own address.
    pub source: Option<IpAddr>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self { mark: None, keepalive: Some(Keepalive::default()), user_timeout: false, source: None }
    }
}

/// Why a connection speaks from the kernel's choice of address although another was asked for; worth a warning.
#[derive(Debug, thiserror::Error)]
pub enum SourceFallback {
    /// The options were refused.
    #[error("failed to set freebind: {0}")]
    Options(#[source] io::Error),
    /// The bind was refused.
    #[error("failed to bind local addr: {0}")]
    Bind(#[source] io::Error),
}

/// An established connection.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub stream: TcpStream,
    /// Set if the wanted source could not be used.
    pub fallback: Option<SourceFallback>,
}

/// Connects to `target` with a socket of `namespace` (`None`: the thread's own). The caller sets the time limit.
pub async fn dial(
    target: SocketAddr,
    namespace: Option<&NetNamespace>,
    options: &DialOptions,
) -> io::Result<Dialed> {
    let make = |domain| match namespace {
        Some(namespace) => namespace.run(|| prepare(domain, options)).map_err(io::Error::other)?,
        None => prepare(domain, options),
    };
    dial_with(target, options.source, make).await
}

/// Connects with a socket from `make`.
pub(super) async fn dial_with(
    target: SocketAddr,
    source: Option<IpAddr>,
    make: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<Dialed> {
    let target = canonical(target);
    let source = source.map(|ip| ip.to_canonical()).filter(|ip| *ip != target.ip());
    let socket = make(Domain::for_address(target))?;
    let (socket, fallback) = match source.map(|source| bind_foreign(&socket, source, target)) {
        None | Some(Ok(())) => (socket, None),
        // Options may be half set: a new socket is unbound for certain.
        Some(Err(fallback)) => (make(Domain::for_address(target))?, Some(fallback)),
    };
    let stream = establish(socket, target).await?;
    Ok(Dialed { stream, fallback })
}

/// Connects. To a target on the same machine the handshake is over before the call returns, although the call says that
/// it is under way; asked once more, it tells how it ended, and nobody waits for the event loop.
async fn establish(socket: Socket, target: SocketAddr) -> io::Result<TcpStream> {
    let target = SockAddr::from(target);
    let under_way = match socket.connect(&target) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => match socket.connect(&target) {
            Err(error) if error.raw_os_error() == Some(libc::EALREADY) => true,
            result => result.map(|()| false)?,
        },
        result => result.map(|()| false)?,
    };
    let stream = TcpStream::from_std(socket.into())?;
    if under_way {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

pub(super) fn prepare(domain: Domain, options: &DialOptions) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = options.keepalive {
        let _ = set_keepalive(&socket, keepalive, options.user_timeout);
    }
    Ok(socket)
}

fn bind_foreign(socket: &Socket, source: IpAddr, target: SocketAddr) -> Result<(), SourceFallback> {
    if source.is_ipv4() != target.is_ipv4() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the target is of the other address family");
        return Err(SourceFallback::Bind(error));
    }
    // A transparent socket binds to any address: it needs no freebind besides.
    let options = match source {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    options.map_err(SourceFallback::Options)?;
    // Best effort: without it one source could have no more connections than there are ports.
    let _ = choose_port_when_connecting(socket);
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0))).map_err(SourceFallback::Bind)
}

/// Has a bind to port 0 fix the address only; the port is chosen with the connection, when it needs to differ only from
/// those of other connections to the same target (`IP_BIND_ADDRESS_NO_PORT`, both address families).
fn choose_port_when_connecting(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, and the kernel reads `size` octets of `on`, which lives longer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
