//! What CONNECT asks for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// The target of a CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address.
    Address(SocketAddr),
    /// A hostname, as it was written.
    Hostname {
        /// The hostname.
        hostname: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}

/// The text has no host or no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid authority pseudo header: {text}")]
pub struct InvalidAuthority {
    /// What was to be read.
    pub text: String,
}

impl InvalidAuthority {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        "inbound-invalid-authority"
    }
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    /// `host:port` with a bracketed IPv6 address, an IPv4 address, or anything else as a hostname.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAuthority { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let port: u16 = port.parse().map_err(|_| invalid())?;
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(invalid)?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| invalid())?;
            return Ok(Self::Address(SocketAddr::new(IpAddr::V6(ip), port)));
        }
        if host.is_empty() || host.contains([':', '/', '[', ']']) {
            return Err(invalid());
        }
        Ok(match host.parse::<IpAddr>() {
            Ok(ip) => Self::Address(SocketAddr::new(ip, port)),
            Err(_) => Self::Hostname { hostname: host.into(), port },
        })
    }
}
