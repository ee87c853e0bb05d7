//! Workloads.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use identity::SpiffeId;

use crate::address::{GatewayAddress, ServiceKey};

/// Service port → target port.
pub type PortMap = BTreeMap<u16, u16>;

/// One endpoint of the mesh: a pod, a virtual machine, an external address.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Globally unique id, for example `cluster1//Pod/ns/name`.
    pub uid: Arc<str>,
    /// Name, for example of the pod.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
    /// Trust domain.
    pub trust_domain: Arc<str>,
    /// The identity these make.
    pub identity: SpiffeId,
    /// Network it is on.
    pub network: Arc<str>,
    /// Its addresses, in the order received.
    pub addresses: Vec<IpAddr>,
    /// Resolved on demand where there are no addresses; may be empty.
    pub hostname: Arc<str>,
    /// How it is reached.
    pub protocol: TunnelProtocol,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// The L7 proxy for traffic to it.
    pub waypoint: Option<GatewayAddress>,
    /// How its network is entered from others.
    pub network_gateway: Option<GatewayAddress>,
    /// The node it is on.
    pub node: Arc<str>,
    /// For telemetry: the canonical service.
    pub canonical_name: Arc<str>,
    /// For telemetry: its revision.
    pub canonical_revision: Arc<str>,
    /// For telemetry: kind of the owner, in lower case.
    pub workload_type: Arc<str>,
    /// For telemetry: name of the owner.
    pub workload_name: Arc<str>,
    /// It speaks the tunnel itself.
    pub native_tunnel: bool,
    /// Keys of the selector-scoped policies that apply to it.
    pub authorization_policies: Vec<Arc<str>>,
    /// Its health.
    pub status: Health,
    /// Cluster.
    pub cluster_id: Arc<str>,
    /// Where it is.
    pub locality: Locality,
    /// Weight in endpoint choice; 0 is never chosen.
    pub capacity: u32,
    /// Services it belongs to, with its own port mappings.
    pub services: BTreeMap<ServiceKey, Arc<PortMap>>,
    /// How the last hop reaches its application.
    pub application_tunnel: Option<ApplicationTunnel>,
}

impl Workload {
    /// Whether it is a pod: seen in its uid.
    pub fn is_pod(&self) -> bool {
        self.uid.contains("//Pod/")
    }

    /// Precedence among workloads that share an address.
    pub(crate) fn address_rank(&self) -> u8 {
        match (self.is_pod(), self.protocol) {
            (true, TunnelProtocol::Hbone) => 3,
            (true, TunnelProtocol::None) => 2,
            (false, TunnelProtocol::Hbone) => 1,
            (false, TunnelProtocol::None) => 0,
        }
    }
}

/// What the agent knows a pod by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ({})", self.service_account, self.namespace, self.name)
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// Plain TCP.
    None,
    /// HBONE.
    Hbone,
}

impl fmt::Display for TunnelProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "TCP",
            Self::Hbone => "HBONE",
        })
    }
}

/// Whether a workload's addresses are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// They are.
    Standard,
    /// They are its node's: it is never found by address.
    HostNetwork,
}

/// Health of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready.
    Unhealthy,
}

/// Where a workload is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Subzone.
    pub subzone: Arc<str>,
}

/// How the last hop hands traffic to the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// What is spoken.
    pub protocol: ApplicationProtocol,
    /// The port; none keeps the resolved one.
    pub port: Option<u16>,
}

/// What the last hop speaks to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationProtocol {
    /// The bytes as they are.
    None,
    /// A PROXY v2 header first.
    Proxy,
}
