//! Names and addresses of things in the mesh.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// An IP address on a network; `""` is the default network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkAddress {
    /// The network.
    pub network: Arc<str>,
    /// The address.
    pub ip: IpAddr,
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// A range of addresses on a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkCidr {
    /// The network.
    pub network: Arc<str>,
    /// The range.
    pub cidr: IpNet,
}

impl fmt::Display for NetworkCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.cidr)
    }
}

/// A hostname in a namespace: the name of a service, or of a workload that is found by its hostname.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The hostname.
    pub hostname: Arc<str>,
}

impl ServiceKey {
    /// The key of these two.
    pub fn new(namespace: &str, hostname: &str) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// The text is not `<namespace>/<hostname>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse namespaced hostname: {text}")]
pub struct InvalidServiceKey {
    /// What was to be read.
    pub text: String,
}

impl FromStr for ServiceKey {
    type Err = InvalidServiceKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, hostname)) if !hostname.contains('/') => Ok(Self::new(namespace, hostname)),
            _ => Err(InvalidServiceKey { text: text.to_owned() }),
        }
    }
}

/// Where a waypoint or network gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// What to look up.
    pub destination: GatewayDestination,
    /// Its port for HBONE.
    pub hbone_mtls_port: u16,
}

/// How a waypoint or network gateway is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayDestination {
    /// By address.
    Address(NetworkAddress),
    /// By the hostname of a service or workload.
    Hostname(ServiceKey),
}

impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(key) => key.fmt(f),
        }
    }
}

/// What has to be asked for on demand before a decision can be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MissingKey {
    /// Whatever has this address.
    Address(NetworkAddress),
    /// The service or workload of this hostname.
    Hostname(ServiceKey),
}

impl fmt::Display for MissingKey {
    /// The resource name to subscribe to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(key) => key.fmt(f),
        }
    }
}
