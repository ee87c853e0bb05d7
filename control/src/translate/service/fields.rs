//! Single fields of a service record.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::workload::load_balancing::{HealthPolicy, Mode, Scope};
use wire::workload::{IpFamilies, LoadBalancing, NetworkAddress};

use super::super::address_bytes;
use super::super::labels::matches_selector;
use super::super::world::World;
use crate::sources::objects::{Metadata, Resolution, Service, ServiceEntry, ServiceSpec, Visibility};

const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
const AUTO_ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

/// `clusterIPs`, or `clusterIP` where the list is empty; headless services have none.
fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let single = spec.cluster_ips.is_empty().then_some(&spec.cluster_ip);
    spec.cluster_ips.iter().chain(single).map(String::as_str).filter(|ip| !ip.is_empty() && *ip != "None")
}

pub(super) fn cluster_ips_parse(spec: &ServiceSpec) -> bool {
    cluster_ips(spec).all(|ip| ip.parse::<IpAddr>().is_ok())
}

pub(super) fn cluster_addresses(world: &World<'_>, spec: &ServiceSpec) -> Vec<NetworkAddress> {
    cluster_ips(spec).filter_map(|ip| ip.parse().ok()).map(|ip| network_address(world, ip, None)).collect()
}

fn network_address(world: &World<'_>, ip: IpAddr, length: Option<u8>) -> NetworkAddress {
    NetworkAddress {
        network: world.network.to_owned(),
        address: address_bytes(ip),
        length: length.map(u32::from),
    }
}

/// An address, or a range cut to its base; a range of one address is that address.
pub(super) fn parse_address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    let net = text.parse::<IpNet>().ok()?.trunc();
    Some((net.network(), (net.prefix_len() != net.max_prefix_len()).then(|| net.prefix_len())))
}

/// Is this an address or a range that a service entry may list?
pub(crate) fn is_address_or_range(text: &str) -> bool {
    parse_address(text).is_some()
}

/// The addresses written in the entry, else those allocated for this host.
pub(super) fn entry_addresses(world: &World<'_>, entry: &ServiceEntry, host: &str) -> Vec<NetworkAddress> {
    let written = entry.spec.addresses.iter().filter_map(|text| parse_address(text));
    if !entry.spec.addresses.is_empty() {
        return written.map(|(ip, length)| network_address(world, ip, length)).collect();
    }
    if !world.switches.allocate_addresses || !wants_allocation(entry, host) {
        return Vec::new();
    }
    let allocated = entry.status.addresses.iter().filter(|address| address.host == host);
    allocated
        .filter_map(|address| address.value.parse().ok())
        .map(|ip| network_address(world, ip, None))
        .collect()
}

/// Is an address to be allocated for this host? (control-plane 3.7.5)
pub(crate) fn wants_allocation(entry: &ServiceEntry, host: &str) -> bool {
    let spec = &entry.spec;
    spec.addresses.is_empty()
        && spec.resolution != Resolution::None
        && entry.metadata.label(AUTO_ALLOCATE) != Some("false")
        && (!host.starts_with('*') || spec.resolution == Resolution::DynamicDns)
}

pub(super) fn ip_families(families: &[String]) -> IpFamilies {
    match families {
        [] => IpFamilies::Automatic,
        [family] if family == "IPv6" => IpFamilies::Ipv6Only,
        [_] => IpFamilies::Ipv4Only,
        _ => IpFamilies::Dual,
    }
}

/// Local traffic only, or a preference for what is near (control-plane 3.7.2).
pub(super) fn load_balancing(world: &World<'_>, service: &Service) -> Option<LoadBalancing> {
    let spec = &service.spec;
    let mut balancing = if spec.internal_traffic_policy == "Local" {
        Some(preference(Mode::Strict, &[Scope::Node]))
    } else {
        distribution(&spec.traffic_distribution).or_else(|| annotated_distribution(world, &service.metadata))
    };
    if spec.publish_not_ready_addresses {
        balancing.get_or_insert_default().health_policy = HealthPolicy::AllowAll.into();
    }
    balancing
}

pub(super) fn entry_load_balancing(world: &World<'_>, entry: &ServiceEntry) -> Option<LoadBalancing> {
    if entry.spec.resolution == Resolution::None {
        let mut balancing = preference(Mode::Passthrough, &[]);
        balancing.health_policy = HealthPolicy::AllowAll.into();
        return Some(balancing);
    }
    annotated_distribution(world, &entry.metadata)
}

/// The object's annotation decides alone; without one, its namespace's.
fn annotated_distribution(world: &World<'_>, meta: &Metadata) -> Option<LoadBalancing> {
    let own = meta.annotation(TRAFFIC_DISTRIBUTION).filter(|value| !value.is_empty());
    distribution(own.or_else(|| world.namespace_annotation(&meta.namespace, TRAFFIC_DISTRIBUTION))?)
}

fn distribution(value: &str) -> Option<LoadBalancing> {
    match value.to_ascii_lowercase().as_str() {
        "prefersamezone" | "preferclose" => {
            Some(preference(Mode::Failover, &[Scope::Network, Scope::Region, Scope::Zone]))
        }
        "prefersamenode" => Some(preference(
            Mode::Failover,
            &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node],
        )),
        _ => None,
    }
}

fn preference(mode: Mode, scopes: &[Scope]) -> LoadBalancing {
    LoadBalancing {
        routing_preference: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        mode: mode.into(),
        ..LoadBalancing::default()
    }
}

/// The object's label, else its namespace's; what is no truth value is false.
pub(super) fn ingress_uses_waypoint(world: &World<'_>, meta: &Metadata) -> bool {
    let label = meta.label(INGRESS_USE_WAYPOINT);
    let label = label.or_else(|| world.namespace_label(&meta.namespace, INGRESS_USE_WAYPOINT));
    label.and_then(parse_bool).unwrap_or(false)
}

/// The spellings of truth that Kubernetes annotations are read with.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Who may see a namespace's service entries (control-plane 3.7.4).
pub(super) fn visibility(world: &World<'_>, namespace: &str) -> Visibility {
    let Some(config) = &world.mesh.service_entry_visibility else { return Visibility::Public };
    let labels = world.namespace_labels(namespace);
    let policy = config.policies.iter().find(|policy| {
        policy.matching_rules.iter().all(|rule| matches_selector(&rule.namespace_selector, &labels))
    });
    policy.map_or(config.default_visibility, |policy| policy.visibility)
}
