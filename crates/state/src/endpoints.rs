//! Endpoints of services, and the choice of one for a connection.

use std::sync::Arc;

use crate::route::dice::Dice;
use crate::service::{LoadBalancer, LoadBalancerMode, LoadBalancerScope, Service};
use crate::workload::{Health, PortMap, Workload};

/// A workload as a member of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its own port mappings for the service.
    pub ports: Arc<PortMap>,
}

impl Endpoint {
    /// Whether it counts for the service at all.
    pub fn is_usable_by(&self, service: &Service) -> bool {
        self.workload.status == Health::Healthy || service.allows_unhealthy()
    }
}

/// What ports an endpoint must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The service must declare the port.
    Standard,
    /// An endpoint with an application tunnel needs no declared port.
    Waypoint,
}

/// How many endpoints were considered, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointTally {
    /// All of the service's.
    pub total: u32,
    /// Left out: unhealthy.
    pub unhealthy: u32,
    /// Left out: no address, hostname or gateway that leads there.
    pub unreachable: u32,
    /// Left out: do not have the port.
    pub without_port: u32,
    /// Left out: others match the routing preferences better, or they do not match all of them.
    pub outranked: u32,
    /// Left out: weight 0.
    pub weightless: u32,
    /// The routing preferences that the remaining ones match.
    pub rank: u32,
    /// Remaining: one of these is drawn by weight.
    pub candidates: u32,
}

/// A chosen endpoint.
pub(crate) struct Choice<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) target_port: u16,
}

/// Chooses an endpoint for a connection of `source` to `port` of `service`. Two passes, nothing allocated.
pub(crate) fn choose<'a>(
    service: &Service,
    endpoints: &'a [Endpoint],
    source: &Workload,
    port: u16,
    resolution: Resolution,
    dice: &mut Dice,
) -> (Option<Choice<'a>>, EndpointTally) {
    let mut tally = EndpointTally::default();
    let mut weights: u64 = 0;
    for endpoint in endpoints {
        tally.total += 1;
        if !endpoint.is_usable_by(service) {
            tally.unhealthy += 1;
        } else if !is_reachable(&endpoint.workload, source) {
            tally.unreachable += 1;
        } else if target_port(service, endpoint, port, resolution).is_none() {
            tally.without_port += 1;
        } else if let Some(rank) = rank(service.load_balancer.as_ref(), source, &endpoint.workload) {
            if rank < tally.rank {
                tally.outranked += 1;
                continue;
            }
            if rank > tally.rank {
                tally.outranked += tally.candidates + tally.weightless;
                (tally.rank, tally.candidates, tally.weightless, weights) = (rank, 0, 0, 0);
            }
            match endpoint.workload.capacity {
                0 => tally.weightless += 1,
                capacity => {
                    tally.candidates += 1;
                    weights += u64::from(capacity);
                }
            }
        } else {
            tally.outranked += 1;
        }
    }
    if weights == 0 {
        return (None, tally);
    }
    let mut drawn = dice.below(weights);
    for endpoint in endpoints {
        if !endpoint.is_usable_by(service) || !is_reachable(&endpoint.workload, source) {
            continue;
        }
        let Some(target_port) = target_port(service, endpoint, port, resolution) else { continue };
        if rank(service.load_balancer.as_ref(), source, &endpoint.workload) != Some(tally.rank) {
            continue;
        }
        match drawn.checked_sub(u64::from(endpoint.workload.capacity)) {
            None => return (Some(Choice { endpoint, target_port }), tally),
            Some(rest) => drawn = rest,
        }
    }
    (None, tally)
}

/// Another network is entered through its gateway, whatever addresses are known there.
fn is_reachable(workload: &Workload, source: &Workload) -> bool {
    if workload.network == source.network {
        !workload.addresses.is_empty() || !workload.hostname.is_empty()
    } else {
        workload.network_gateway.is_some()
    }
}

/// The endpoint's own mapping, else the service's target, else the port itself behind an application tunnel.
fn target_port(service: &Service, endpoint: &Endpoint, port: u16, resolution: Resolution) -> Option<u16> {
    let tunnel = endpoint.workload.application_tunnel.as_ref();
    let declared = service.ports.get(&port).copied();
    match (declared, resolution) {
        (None, Resolution::Standard) => return None,
        (None, Resolution::Waypoint) if tunnel.is_none() => return None,
        _ => {}
    }
    let own = endpoint.ports.get(&port).copied().filter(|port| *port > 0);
    let of_service = || declared.filter(|target| *target > 0);
    let through_tunnel = || tunnel.and_then(|tunnel| tunnel.port).map(|_| port);
    own.or_else(of_service).or_else(through_tunnel)
}

/// How well an endpoint matches; none if it must not be chosen. 0 for all where there is nothing to compare.
fn rank(balancer: Option<&LoadBalancer>, source: &Workload, endpoint: &Workload) -> Option<u32> {
    let Some(balancer) = balancer else { return Some(0) };
    let preferences = &balancer.routing_preferences;
    let matches = |scope: &LoadBalancerScope| match scope {
        LoadBalancerScope::Region => source.locality.region == endpoint.locality.region,
        LoadBalancerScope::Zone => source.locality.zone == endpoint.locality.zone,
        LoadBalancerScope::Subzone => source.locality.subzone == endpoint.locality.subzone,
        LoadBalancerScope::Node => source.node == endpoint.node,
        LoadBalancerScope::Cluster => source.cluster_id == endpoint.cluster_id,
        LoadBalancerScope::Network => source.network == endpoint.network,
    };
    match balancer.mode {
        LoadBalancerMode::Standard => Some(0),
        LoadBalancerMode::Strict => preferences.iter().all(matches).then_some(0),
        LoadBalancerMode::Failover | LoadBalancerMode::Passthrough => {
            // A first preference for the own network never ends the comparison, and outweighs all others together.
            let (boost, rest) = match preferences.split_first() {
                Some((first @ LoadBalancerScope::Network, rest)) => {
                    let boost = if matches(first) { preferences.len() } else { 0 };
                    (boost, rest)
                }
                _ => (0, preferences.as_slice()),
            };
            u32::try_from(boost + rest.iter().take_while(|scope| matches(scope)).count()).ok()
        }
    }
}

#[cfg(test)]
mod tests;
