//! Addresses as they are kept by the thousand.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The address of a socket in 23 octets instead of 32, at any place: without the flow of IPv6, which nobody is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    ip: IpAddr,
    port: [u8; 2],
    scope: [u8; 4],
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        Self { ip: address.ip(), port: address.port().to_ne_bytes(), scope: scope.to_ne_bytes() }
    }
}

impl From<Address> for SocketAddr {
    fn from(Address { ip, port, scope }: Address) -> Self {
        let (port, scope) = (u16::from_ne_bytes(port), u32::from_ne_bytes(scope));
        match ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_was() {
        for text in ["10.0.0.1:80", "[fd00::1]:15008", "[fe80::1%3]:1", "[::ffff:10.0.0.1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).to_string(), text);
        }
        assert_eq!((size_of::<Address>(), align_of::<Address>()), (23, 1));
    }
}
