//! Everything that can go wrong with one connection, and the answers that each failure has: whose
//! fault it is, what the peer is told, what is counted and logged.

use std::io;
use std::rc::Rc;

use hbone::{AcceptError, ConnectError, OpenError, TunnelError};
use policy::Denial;
use state::inbound::InvalidAuthority;
use state::{InboundRefusal, Pod, RouteRefusal};

use crate::certs::CertificateError;
use crate::inbound::IdentityTooLong;
use crate::metrics::Flag;

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    // Before anything is known about both ends: a warning, no counters.
    #[error("failed to fetch information about local workload: {0}")]
    UnknownLocalWorkload(Pod),
    #[error("{0}")]
    Unroutable(RouteRefusal),
    #[error("unsupported feature: the route to {0} leads through another network's gateway")]
    OtherNetwork(std::net::SocketAddr),
    #[error("{0}")]
    Accept(#[from] AcceptError),
    #[error("expected method CONNECT, got {0}")]
    Method(String),
    #[error("{0}")]
    Authority(#[from] InvalidAuthority),
    #[error("{0}")]
    NotAdmitted(InboundRefusal),

    // From here on the connection is counted.
    #[error("identity error: {0}")]
    NoCertificate(#[source] CertificateError),
    #[error("connection closed due to policy rejection: {0}")]
    Denied(Denial),
    #[error("connection closed due to policy change")]
    PolicyChanged,
    #[error("connection closed: peer certificate revoked by CRL")]
    Revoked,
    #[error("connection closed due to connection drain")]
    Drained,
    #[error("{0}")]
    ProxyHeader(#[from] IdentityTooLong),
    #[error("io error: {0}")]
    Dial(#[source] io::Error),
    #[error("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: {0}")]
    HboneDialTimeout(#[source] io::Error),
    #[error("{0}")]
    Connect(#[source] ConnectError),
    #[error("{0}")]
    Open(#[source] OpenError),
    #[error("pool draining")]
    PoolDraining,
    /// Those who waited for a dial in progress share its failure.
    #[error("{0}")]
    Shared(Rc<Self>),
    #[error("connection failed: {0}")]
    Application(#[source] io::Error),
    #[error("send: io error: {0}")]
    Sending(#[source] Broken),
    #[error("receive: io error: {0}")]
    Receiving(#[source] Broken),
}

/// How the transfer of an established connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}")]
    Tunnel(#[from] TunnelError),
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// Who has to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client: it asked for what it may not or cannot have, or went away.
    Source,
    /// The called application or its configuration.
    Destination,
    /// The proxy or waypoint at the other end of the tunnel, or the network to it.
    Peer,
    /// This proxy: it is stopping, or has no certificate.
    Us,
}

/// What the peer of an inbound tunnel is told. A plaintext client's connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// This status answers the CONNECT.
    Status(u16),
    /// The stream is reset, or the connection closed.
    Cut,
}

impl ConnectionError {
    /// Whose fault it is.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Shared(shared) => shared.fault(),
            Self::Unroutable(RouteRefusal::SelfCall)
            | Self::Accept(_)
            | Self::Method(_)
            | Self::Authority(_)
            | Self::NotAdmitted(_)
            | Self::Denied(_)
            | Self::ProxyHeader(_)
            | Self::PolicyChanged => Fault::Source,
            Self::Unroutable(_) | Self::Application(_) => Fault::Destination,
            Self::UnknownLocalWorkload(_)
            | Self::OtherNetwork(_)
            | Self::NoCertificate(_)
            | Self::PoolDraining
            | Self::Drained => Fault::Us,
            Self::Dial(_)
            | Self::HboneDialTimeout(_)
            | Self::Connect(_)
            | Self::Open(_)
            | Self::Revoked
            | Self::Sending(_)
            | Self::Receiving(_) => Fault::Peer,
        }
    }

    /// What the peer of an inbound tunnel is told.
    pub(crate) fn told(&self) -> Told {
        match self {
            Self::Method(_) | Self::Authority(_) => Told::Status(400),
            Self::NotAdmitted(refusal) => Told::Status(refusal.status()),
            Self::Denied(_) => Told::Status(401),
            Self::UnknownLocalWorkload(_) | Self::ProxyHeader(_) | Self::Application(_) => Told::Status(503),
            Self::Shared(shared) => shared.told(),
            _ => Told::Cut,
        }
    }

    /// The label `response_flags`. Of failures that are not counted it is never asked.
    pub(crate) fn flag(&self) -> Flag {
        match self {
            Self::Denied(_) | Self::PolicyChanged => Flag::Deny,
            Self::Revoked => Flag::CertRevoked,
            // We stop: no failure of the connection (recorded in LC-01).
            Self::Drained => Flag::None,
            Self::NoCertificate(_) => Flag::IdentityError,
            Self::HboneDialTimeout(_) => Flag::NetworkPolicy,
            Self::Connect(ConnectError::Http2(_)) => Flag::H2HandshakeFailure,
            Self::Connect(_) => Flag::TlsFailure,
            Self::Open(OpenError::Status(_)) => Flag::Connect,
            Self::Open(_) => Flag::H2HandshakeFailure,
            Self::Shared(shared) => shared.flag(),
            _ => Flag::Connect,
        }
    }

    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnknownLocalWorkload(_) => "source-unknown-local-workload",
            Self::Unroutable(refusal) => refusal.code(),
            Self::OtherNetwork(_) => "route-other-network-unsupported",
            Self::Accept(error) => error.code(),
            Self::Method(_) => "inbound-not-connect",
            Self::Authority(error) => error.code(),
            Self::NotAdmitted(refusal) => refusal.code(),
            Self::ProxyHeader(_) => "inbound-proxy-identity-too-long",
            Self::NoCertificate(error) => error.code(),
            Self::Denied(denial) => denial.code(),
            Self::PolicyChanged => "policy-changed",
            Self::Revoked => "tls-certificate-revoked",
            Self::Drained => "connection-drained",
            Self::Dial(error) if error.kind() == io::ErrorKind::TimedOut => "dial-timeout",
            Self::Dial(_) => "dial-failed",
            Self::HboneDialTimeout(_) => "hbone-dial-timeout",
            Self::Connect(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::PoolDraining => "hbone-pool-draining",
            Self::Shared(shared) => shared.code(),
            Self::Application(error) if error.kind() == io::ErrorKind::TimedOut => "app-timeout",
            Self::Application(_) => "app-unreachable",
            Self::Sending(broken) | Self::Receiving(broken) => match broken {
                Broken::Tunnel(error) => error.code(),
                Broken::Socket(_) => "relay-connection-failed",
            },
        }
    }
}

#[cfg(test)]
mod tests;
