//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use identity::SpiffeId;

use crate::address::{GatewayAddress, NetworkAddress, NetworkCidr, ServiceKey};
use crate::workload::PortMap;

/// A group of endpoints under one hostname. Its endpoints are [`crate::Mesh::endpoints`].
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and hostname: its name in the mesh.
    pub key: ServiceKey,
    /// Short name.
    pub name: Arc<str>,
    /// Virtual addresses.
    pub vips: Vec<NetworkAddress>,
    /// Virtual address ranges.
    pub cidr_vips: Vec<NetworkCidr>,
    /// Declared ports; a target of 0 is a named port that each endpoint maps itself.
    pub ports: PortMap,
    /// Further identities its endpoints may have, as received.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Those of them that are SPIFFE identities.
    pub identities: Vec<SpiffeId>,
    /// The L7 proxy for traffic to it.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints to choose from by weight; `waypoint` is the fallback.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How its endpoints are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Address families its endpoints are called by.
    pub ip_families: Option<IpFamilies>,
    /// Wins where several services share a name or address and none is in the client's namespace.
    pub canonical: bool,
    /// Who may find it.
    pub visibility: Visibility,
}

impl Service {
    /// Whether a client in `namespace` may find it; nothing is hidden when no namespace is given.
    pub fn is_visible_to(&self, namespace: Option<&str>) -> bool {
        match (self.visibility, namespace) {
            (Visibility::Public, _) | (_, None) => true,
            (Visibility::Namespace, Some(namespace)) => namespace == &*self.key.namespace,
        }
    }

    /// Whether connections keep their original destination.
    pub fn is_passthrough(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.mode == LoadBalancerMode::Passthrough)
    }

    /// Whether unhealthy endpoints count too.
    pub fn allows_unhealthy(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.health_policy == HealthPolicy::AllowAll)
    }

    /// Whether its endpoints may be called by this address.
    pub fn allows_family(&self, ip: IpAddr) -> bool {
        match self.ip_families {
            None | Some(IpFamilies::Dual) => true,
            Some(IpFamilies::Ipv4) => ip.is_ipv4(),
            Some(IpFamilies::Ipv6) => ip.is_ipv6(),
        }
    }
}

/// A waypoint and how often it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// Where it is.
    pub destination: GatewayAddress,
    /// Its weight; 0 is never taken.
    pub weight: u32,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// What endpoints are compared by, most important first.
    pub routing_preferences: Vec<LoadBalancerScope>,
    /// What the comparison does.
    pub mode: LoadBalancerMode,
    /// Which endpoints count.
    pub health_policy: HealthPolicy,
}

/// What an endpoint may share with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerScope {
    /// The region.
    Region,
    /// The zone.
    Zone,
    /// The subzone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// What preferences do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerMode {
    /// Nothing: all endpoints.
    Standard,
    /// Only endpoints that match all.
    Strict,
    /// Only the best-matching endpoints.
    Failover,
    /// No choice: the original destination is kept.
    Passthrough,
}

/// Which endpoints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPolicy {
    /// Healthy ones.
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// A restriction of address families; none of these is "automatic".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilies {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    Dual,
}

/// Who may find a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Clients of its namespace.
    Namespace,
}
