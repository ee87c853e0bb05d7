//! TCP and UDP sockets as the data path needs them.
//!
//! Everything here makes sockets in the calling thread's namespace; wrap it in
//! [`NetNamespace::run`](crate::NetNamespace::run), or pass the namespace where a function takes one.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

mod delivery;
mod dial;
mod dialer;
mod listen;
mod original;
#[cfg(test)]
mod tests;

pub use delivery::delivered;
pub use dial::{DialOptions, Dialed, SourceFallback, dial};
pub use dialer::Dialer;
pub use listen::{ListenError, ListenOptions, Listener, Transparent, UdpOptions, bind_udp, listen};
pub use original::{FoundBy, OriginalDestination, original_destination};

/// TCP keepalive, with the reference's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub time: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub retries: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { time: Duration::from_secs(180), interval: Duration::from_secs(180), retries: 9 }
    }
}

impl Keepalive {
    /// The `TCP_USER_TIMEOUT` that goes with these probes: time + retries × interval.
    pub fn user_timeout(&self) -> Duration {
        self.time + self.interval * self.retries
    }
}

/// Turns IPv4-mapped IPv6 addresses into IPv4; others stay.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes the close of this socket a reset (RST) instead of an orderly end (FIN).
pub fn rst_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Sets keepalive and, if asked, the user timeout. Listeners pass both on to what they accept.
pub fn set_keepalive(socket: &impl AsFd, keepalive: Keepalive, user_timeout: bool) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let probes = TcpKeepalive::new()
        .with_time(keepalive.time)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.retries);
    socket.set_tcp_keepalive(&probes)?;
    if user_timeout {
        socket.set_tcp_user_timeout(Some(keepalive.user_timeout()))?;
    }
    Ok(())
}

/// Can this process mark packets in the calling thread's namespace? The start-up self test of a node proxy.
pub fn can_mark(mark: u32) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_mark(mark)
}

fn wildcard(ip: IpAddr) -> bool {
    ip.is_unspecified()
}
