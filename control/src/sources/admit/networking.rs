//! `networking.istio.io`: the rules of its schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::Reason;
use super::super::objects::{EntryEndpoint, Resolution, ServiceEntry, WorkloadEntry};
use super::core::is_port;
use super::metadata::is_dns_subdomain;
use super::{invalid, require};
use crate::translate::is_address_or_range;

const MAX_HOSTS: usize = 256;
const MAX_HOST: usize = 255;
const MAX_ENDPOINTS: usize = 4096;
const LOCATIONS: [&str; 2] = ["MESH_EXTERNAL", "MESH_INTERNAL"];
const UNIX: &str = "unix://";

/// Is the field written, be it empty?
fn has(object: &Value, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

pub(super) fn workload_entry(entry: WorkloadEntry, value: &Value) -> Result<WorkloadEntry, Reason> {
    let spec = value.get("spec").unwrap_or(&Value::Null);
    check_endpoint(&entry.spec, spec, "spec")?;
    Ok(entry)
}

/// The second value is the first address that is none.
pub(super) fn service_entry(
    entry: ServiceEntry,
    value: &Value,
) -> Result<(ServiceEntry, Option<Reason>), Reason> {
    let written = value.get("spec").unwrap_or(&Value::Null);
    let spec = &entry.spec;
    let at = |field: &'static str| move || format!("spec.{field}");
    require((1..=MAX_HOSTS).contains(&spec.hosts.len()), at("hosts"), "1 to 256 are required")?;
    for (i, host) in spec.hosts.iter().enumerate() {
        require(host != "*", || format!("spec.hosts[{i}]"), "a host cannot be every host")?;
        require(
            is_host(host),
            || format!("spec.hosts[{i}]"),
            "must be a host name, which may begin with `*.`",
        )?;
    }
    if let Some(location) = written.get("location").filter(|location| !location.is_null()) {
        let known = location.as_str().is_some_and(|location| LOCATIONS.contains(&location));
        require(known, at("location"), "must be MESH_EXTERNAL or MESH_INTERNAL")?;
    }
    check_ports(&entry)?;
    let both = has(written, "workloadSelector") && has(written, "endpoints");
    require(!both, || "spec".to_owned(), "only one of workloadSelector and endpoints can be set")?;
    let ranges = spec.addresses.iter().any(|address| address.contains('/'));
    let may_range = matches!(spec.resolution, Resolution::None | Resolution::Static);
    require(!ranges || may_range, at("addresses"), "ranges need resolution NONE or STATIC")?;
    let none_with_endpoints = spec.resolution == Resolution::None && has(written, "endpoints");
    require(!none_with_endpoints, at("endpoints"), "cannot be set with resolution NONE")?;
    let round_robin = spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1;
    require(!round_robin, at("endpoints"), "at most one with resolution DNS_ROUND_ROBIN")?;
    require(spec.endpoints.len() <= MAX_ENDPOINTS, at("endpoints"), "at most 4096")?;
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let raw = written.get("endpoints").and_then(|list| list.get(i)).unwrap_or(&Value::Null);
        check_endpoint(endpoint, raw, &format!("spec.endpoints[{i}]"))?;
    }
    if let Some(selector) = &spec.workload_selector {
        let wildcard = selector.labels.iter().any(|(key, value)| key.contains('*') || value.contains('*'));
        require(!wildcard, at("workloadSelector.labels"), "wildcards are not supported")?;
    }
    let bad = spec.addresses.iter().enumerate().find(|(_, address)| !is_address_or_range(address));
    let flaw = bad.map(|(i, address)| {
        invalid(format!("spec.addresses[{i}]"), format!("{address:?} is neither an IP address nor a range"))
    });
    Ok((entry, flaw))
}

/// A name, no URL: whatever else stands in it, nodes refuse every workload that belongs to it.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_HOST && name.split('.').all(is_label)
}

fn check_ports(entry: &ServiceEntry) -> Result<(), Reason> {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (i, port) in entry.spec.ports.iter().enumerate() {
        let at = |field: &'static str| move || format!("spec.ports[{i}].{field}");
        require(!port.name.is_empty(), at("name"), "is required")?;
        require(names.insert(&port.name), at("name"), "is used twice")?;
        require(is_port(port.number), at("number"), "must be 1 to 65535")?;
        require(numbers.insert(port.number), at("number"), "is used twice")?;
        require(port.target_port == 0 || is_port(port.target_port), at("targetPort"), "must be 1 to 65535")?;
    }
    Ok(())
}

fn check_endpoint(endpoint: &EntryEndpoint, written: &Value, path: &str) -> Result<(), Reason> {
    let at = |field: &'static str| move || format!("{path}.{field}");
    require(
        has(written, "address") || has(written, "network"),
        at("address"),
        "is required without a network",
    )?;
    if let Some(socket) = endpoint.address.strip_prefix(UNIX) {
        require(
            socket.starts_with(['/', '@']),
            at("address"),
            "a socket's path must be absolute or abstract",
        )?;
        require(!socket.ends_with('/'), at("address"), "a socket cannot be a folder")?;
        require(endpoint.ports.is_empty(), at("ports"), "a socket has none")?;
    }
    let account = &endpoint.service_account;
    require(
        account.is_empty() || is_dns_subdomain(account),
        at("serviceAccount"),
        "must be the name of a service account, without its namespace",
    )?;
    check_endpoint_ports(&endpoint.ports, path)?;
    require((0..=i64::from(u32::MAX)).contains(&endpoint.weight), at("weight"), "must be 0 to 4294967295")
}

fn check_endpoint_ports(ports: &BTreeMap<String, i64>, path: &str) -> Result<(), Reason> {
    for (name, port) in ports {
        let field = || format!("{path}.ports[{name}]");
        require(is_port(*port), field, "must be 1 to 65535")?;
        let bytes = name.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let is_name = (1..63).contains(&bytes.len())
            && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        require(is_name, field, "is no port name")?;
    }
    Ok(())
}
