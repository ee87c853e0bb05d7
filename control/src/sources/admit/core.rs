//! Kubernetes' own kinds: checks of the API server, and the defaults it fills in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::Reason;
use super::super::objects::{
    Container, EndpointSlice, Endpoints, IntOrString, Pod, PodStatus, Service, ServicePort, ServiceSpec,
};
use super::metadata::{is_dns_label, is_dns_subdomain};
use super::{invalid, require};

const MAX_ENDPOINT_ADDRESSES: usize = 100;

pub(super) fn is_port(port: i64) -> bool {
    (1..=65535).contains(&port)
}

fn one_of(value: &str, allowed: &[&str], field: impl FnOnce() -> String) -> Result<(), Reason> {
    if value.is_empty() || allowed.contains(&value) {
        return Ok(());
    }
    Err(invalid(field(), format!("{value:?} is none of {}", allowed.join(", "))))
}

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

/// An IANA service name: at most 15 lower-case letters, digits and single hyphens, with a letter.
fn is_port_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let characters = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    let hyphens = !name.starts_with('-') && !name.ends_with('-') && !name.contains("--");
    (1..=15).contains(&bytes.len()) && characters && hyphens && bytes.iter().any(u8::is_ascii_lowercase)
}

pub(super) fn pod(mut pod: Pod) -> Result<Pod, Reason> {
    let spec = &mut pod.spec;
    require(!spec.containers.is_empty(), || "spec.containers".to_owned(), "at least one is required")?;
    let mut names = BTreeSet::new();
    for (list, containers) in [("containers", &spec.containers), ("initContainers", &spec.init_containers)] {
        for (i, container) in containers.iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            check_container(container, &path)?;
            let fresh = names.insert(container.name.as_str());
            require(fresh, || format!("{path}.name"), "is used twice")?;
        }
    }
    if !spec.node_name.is_empty() {
        require(is_dns_subdomain(&spec.node_name), || "spec.nodeName".to_owned(), "is no DNS name")?;
    }
    if spec.service_account_name.is_empty() {
        "default".clone_into(&mut spec.service_account_name);
    }
    require(
        is_dns_subdomain(&spec.service_account_name),
        || "spec.serviceAccountName".to_owned(),
        "is no DNS name",
    )?;
    check_pod_addresses(&pod.status)?;
    Ok(pod)
}

/// A pod whose address is misread would leave the mesh without a word.
fn check_pod_addresses(status: &PodStatus) -> Result<(), Reason> {
    let is_address = |ip: &str| ip.is_empty() || ip.parse::<IpAddr>().is_ok();
    require(is_address(&status.pod_ip), || "status.podIP".to_owned(), "is no IP address")?;
    for (i, pod_ip) in status.pod_ips.iter().enumerate() {
        require(is_address(&pod_ip.ip), || format!("status.podIPs[{i}].ip"), "is no IP address")?;
    }
    Ok(())
}

fn check_container(container: &Container, path: &str) -> Result<(), Reason> {
    require(is_dns_label(&container.name), || format!("{path}.name"), "a DNS label is required")?;
    let mut names = BTreeSet::new();
    for (i, port) in container.ports.iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        require(is_port(port.container_port), || format!("{path}.containerPort"), "must be 1 to 65535")?;
        one_of(&port.protocol, PROTOCOLS, || format!("{path}.protocol"))?;
        if !port.name.is_empty() {
            require(is_port_name(&port.name), || format!("{path}.name"), "is no port name")?;
            require(names.insert(&port.name), || format!("{path}.name"), "is used twice")?;
        }
    }
    Ok(())
}

pub(super) fn service(mut service: Service) -> Result<Service, Reason> {
    let spec = &mut service.spec;
    one_of(&spec.kind, &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"], || {
        "spec.type".to_owned()
    })?;
    one_of(&spec.internal_traffic_policy, &["Cluster", "Local"], || "spec.internalTrafficPolicy".to_owned())?;
    one_of(&spec.ip_family_policy, &["SingleStack", "PreferDualStack", "RequireDualStack"], || {
        "spec.ipFamilyPolicy".to_owned()
    })?;
    one_of(&spec.traffic_distribution, &["PreferClose", "PreferSameZone", "PreferSameNode"], || {
        "spec.trafficDistribution".to_owned()
    })?;
    check_service_ports(spec)?;
    if spec.kind == "ExternalName" {
        require(!spec.external_name.is_empty(), || "spec.externalName".to_owned(), "is required")?;
        return Ok(service);
    }
    check_cluster_ips(spec)?;
    default_families(spec);
    Ok(service)
}

fn check_service_ports(spec: &mut ServiceSpec) -> Result<(), Reason> {
    let portless = spec.kind == "ExternalName" || is_headless(spec);
    require(portless || !spec.ports.is_empty(), || "spec.ports".to_owned(), "at least one is required")?;
    let several = spec.ports.len() > 1;
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (i, port) in spec.ports.iter_mut().enumerate() {
        let path = format!("spec.ports[{i}]");
        require(is_port(port.port), || format!("{path}.port"), "must be 1 to 65535")?;
        one_of(&port.protocol, PROTOCOLS, || format!("{path}.protocol"))?;
        if port.protocol.is_empty() {
            "TCP".clone_into(&mut port.protocol);
        }
        require(
            !several || !port.name.is_empty(),
            || format!("{path}.name"),
            "is required with several ports",
        )?;
        if !port.name.is_empty() {
            require(is_dns_label(&port.name), || format!("{path}.name"), "is no DNS label")?;
            require(names.insert(port.name.clone()), || format!("{path}.name"), "is used twice")?;
        }
        let number = (port.port, port.protocol.clone());
        require(numbers.insert(number), || path.clone(), "port and protocol are used twice")?;
        check_target_port(port, &path)?;
    }
    Ok(())
}

fn check_target_port(port: &mut ServicePort, path: &str) -> Result<(), Reason> {
    let field = || format!("{path}.targetPort");
    match &port.target_port {
        // Zero and the empty name are written by some tools for "not set".
        None | Some(IntOrString::Int(0)) => port.target_port = Some(IntOrString::Int(port.port)),
        Some(IntOrString::String(name)) if name.is_empty() => {
            port.target_port = Some(IntOrString::Int(port.port))
        }
        Some(IntOrString::Int(number)) => require(is_port(*number), field, "must be 1 to 65535")?,
        Some(IntOrString::String(name)) => require(is_port_name(name), field, "is no port name")?,
    }
    Ok(())
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip == "None" || spec.cluster_ips.first().is_some_and(|ip| ip == "None")
}

fn check_cluster_ips(spec: &ServiceSpec) -> Result<(), Reason> {
    let is_address = |ip: &str| matches!(ip, "" | "None") || ip.parse::<IpAddr>().is_ok();
    let message = "is neither an IP address nor None";
    require(is_address(&spec.cluster_ip), || "spec.clusterIP".to_owned(), message)?;
    require(spec.cluster_ips.len() <= 2, || "spec.clusterIPs".to_owned(), "at most two")?;
    for (i, ip) in spec.cluster_ips.iter().enumerate() {
        require(is_address(ip), || format!("spec.clusterIPs[{i}]"), message)?;
    }
    if let Some(first) = spec.cluster_ips.first().filter(|_| !spec.cluster_ip.is_empty()) {
        require(*first == spec.cluster_ip, || "spec.clusterIPs[0]".to_owned(), "must be clusterIP")?;
    }
    require(spec.ip_families.len() <= 2, || "spec.ipFamilies".to_owned(), "at most two")?;
    for (i, family) in spec.ip_families.iter().enumerate() {
        one_of(family, &["IPv4", "IPv6"], || format!("spec.ipFamilies[{i}]"))?;
    }
    let twice = matches!(spec.ip_families.as_slice(), [first, second] if first == second);
    require(!twice, || "spec.ipFamilies[1]".to_owned(), "is used twice")
}

/// The families of the addresses, or for a headless service of a cluster with both, IPv4 first.
fn default_families(spec: &mut ServiceSpec) {
    if !spec.ip_families.is_empty() {
        return;
    }
    let single = spec.cluster_ips.is_empty().then_some(&spec.cluster_ip);
    let addresses = spec.cluster_ips.iter().chain(single).filter_map(|ip| ip.parse::<IpAddr>().ok());
    let mut families: Vec<String> =
        addresses.map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()).collect();
    if families.is_empty() {
        families.push("IPv4".to_owned());
        if matches!(spec.ip_family_policy.as_str(), "PreferDualStack" | "RequireDualStack") {
            families.push("IPv6".to_owned());
        }
    }
    spec.ip_families = families;
}

pub(super) fn endpoint_slice(slice: EndpointSlice) -> Result<EndpointSlice, Reason> {
    require(!slice.address_type.is_empty(), || "addressType".to_owned(), "is required")?;
    one_of(&slice.address_type, &["IPv4", "IPv6", "FQDN"], || "addressType".to_owned())?;
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        let field = || format!("endpoints[{i}].addresses");
        require(
            (1..=MAX_ENDPOINT_ADDRESSES).contains(&endpoint.addresses.len()),
            field,
            "1 to 100 are required",
        )?;
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let fits = match slice.address_type.as_str() {
                "IPv4" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
                "IPv6" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            require(fits, || format!("endpoints[{i}].addresses[{j}]"), "does not fit the address type")?;
        }
    }
    for (i, port) in slice.ports.iter().enumerate() {
        one_of(&port.protocol, PROTOCOLS, || format!("ports[{i}].protocol"))?;
        require(port.port.is_none_or(is_port), || format!("ports[{i}].port"), "must be 1 to 65535")?;
    }
    Ok(slice)
}

pub(super) fn endpoints(endpoints: Endpoints) -> Result<Endpoints, Reason> {
    for (i, subset) in endpoints.subsets.iter().enumerate() {
        let path = format!("subsets[{i}]");
        for address in subset.addresses.iter().chain(&subset.not_ready_addresses) {
            let is_ip = address.ip.parse::<IpAddr>().is_ok();
            require(is_ip, || format!("{path}.addresses"), "an entry is no IP address")?;
        }
        for (j, port) in subset.ports.iter().enumerate() {
            one_of(&port.protocol, PROTOCOLS, || format!("{path}.ports[{j}].protocol"))?;
            let is_port = port.port.is_some_and(is_port);
            require(is_port, || format!("{path}.ports[{j}].port"), "must be 1 to 65535")?;
        }
    }
    Ok(endpoints)
}
