//! Services from the wire.

use wire::workload as pb;
use wire::workload::load_balancing as lb;

use super::{RejectReason, cidr, gateway, ip, number, ports};
use crate::address::{NetworkAddress, NetworkCidr, ServiceKey};
use crate::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, LoadBalancerScope, Service, Visibility,
    WeightedWaypoint,
};

pub(super) fn service(from: pb::Service) -> Result<Service, RejectReason> {
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for address in from.addresses {
        let ip = ip(&address.address)?;
        let network = address.network.into();
        let full = if ip.is_ipv4() { 32 } else { 128 };
        match address.length.filter(|length| *length != full) {
            None => vips.push(NetworkAddress { network, ip }),
            Some(length) => {
                let cidr = cidr(&address.address, length)?.trunc();
                cidr_vips.push(NetworkCidr { network, cidr });
            }
        }
    }
    let ip_families = match number(from.ip_families)? {
        pb::IpFamilies::Automatic => None,
        pb::IpFamilies::Ipv4Only => Some(IpFamilies::Ipv4),
        pb::IpFamilies::Ipv6Only => Some(IpFamilies::Ipv6),
        pb::IpFamilies::Dual => Some(IpFamilies::Dual),
    };
    let visibility = match pb::service::Visibility::try_from(from.visibility) {
        Ok(pb::service::Visibility::Namespace) => Visibility::Namespace,
        Ok(pb::service::Visibility::Public) | Err(_) => Visibility::Public,
    };
    Ok(Service {
        key: ServiceKey { namespace: from.namespace.into(), hostname: from.hostname.into() },
        name: from.name.into(),
        vips,
        cidr_vips,
        ports: ports(&from.ports)?,
        identities: from.subject_alt_names.iter().filter_map(|san| san.parse().ok()).collect(),
        subject_alt_names: from.subject_alt_names.into_iter().map(Into::into).collect(),
        waypoint: from.waypoint.map(gateway).transpose()?,
        weighted_waypoints: from
            .weighted_waypoints
            .into_iter()
            .map(|weighted| {
                let destination = weighted.destination.ok_or(RejectReason::NoGatewayDestination)?;
                Ok(WeightedWaypoint { destination: gateway(destination)?, weight: weighted.weight })
            })
            .collect::<Result<_, RejectReason>>()?,
        load_balancer: from.load_balancing.map(load_balancer).transpose()?,
        ip_families,
        canonical: from.canonical,
        visibility,
    })
}

fn load_balancer(from: pb::LoadBalancing) -> Result<LoadBalancer, RejectReason> {
    let scope = |value: &i32| match number(*value)? {
        lb::Scope::UnspecifiedScope => Err(RejectReason::UnspecifiedScope),
        lb::Scope::Region => Ok(LoadBalancerScope::Region),
        lb::Scope::Zone => Ok(LoadBalancerScope::Zone),
        lb::Scope::Subzone => Ok(LoadBalancerScope::Subzone),
        lb::Scope::Node => Ok(LoadBalancerScope::Node),
        lb::Scope::Cluster => Ok(LoadBalancerScope::Cluster),
        lb::Scope::Network => Ok(LoadBalancerScope::Network),
    };
    let mode = match number(from.mode)? {
        lb::Mode::UnspecifiedMode => LoadBalancerMode::Standard,
        lb::Mode::Strict => LoadBalancerMode::Strict,
        lb::Mode::Failover => LoadBalancerMode::Failover,
        lb::Mode::Passthrough => LoadBalancerMode::Passthrough,
    };
    let health_policy = match number(from.health_policy)? {
        lb::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
        lb::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
    };
    let routing_preferences = from.routing_preference.iter().map(scope).collect::<Result<_, _>>()?;
    Ok(LoadBalancer { routing_preferences, mode, health_policy })
}
