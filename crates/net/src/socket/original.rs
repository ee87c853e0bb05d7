//! Where a redirected connection was going.
use std::io;
use std::net::SocketAddr;

use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::canonical;

/// How the destination was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// The kernel's record of the connection, redirected or not.
    ConnectionTracking,
    /// No record, but the socket is transparent: its local address is the destination (TPROXY).
    Transparent,
    /// No record and not transparent: the local address is a guess, worth a warning
    /// (`failed to read SO_ORIGINAL_DST`).
    LocalAddress,
}

/// The destination an accepted connection was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginalDestination {
    /// The address, never IPv4-mapped.
    pub address: SocketAddr,
    /// How it was learnt.
    pub found_by: FoundBy,
}

/// Asks the kernel for an accepted connection's first destination, IPv4 first, then IPv6, then the local address.
pub fn original_destination(stream: &TcpStream) -> io::Result<OriginalDestination> {
    let found = match sockopt::ip_original_dst(stream) {
        Ok(address) => Some(SocketAddr::V4(address)),
        Err(_) => sockopt::ipv6_original_dst(stream).ok().map(SocketAddr::V6),
    };
    if let Some(address) = found {
        return Ok(OriginalDestination {
            address: canonical(address),
            found_by: FoundBy::ConnectionTracking,
        });
    }
    let transparent = SockRef::from(stream).ip_transparent_v4().unwrap_or(false);
    let found_by = if transparent { FoundBy::Transparent } else { FoundBy::LocalAddress };
    Ok(OriginalDestination { address: canonical(stream.local_addr()?), found_by })
}
