//! Records in the recordings' JSON: names of the schema, default values left out, IP bytes as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};
use wire::security::{Authorization, Match, StringMatch, string_match::MatchType};
use wire::workload::{
    Address, GatewayAddress, NetworkAddress, Port, PortList, Service, Workload, address,
    gateway_address::Destination,
};

/// Leaves out what has its default value.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let is_default = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    };
    let kept = fields.into_iter().filter(|(_, value)| !is_default(value));
    Value::Object(kept.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// An enumeration by name; the first value is the default.
macro_rules! named {
    ($type:ty, $value:expr) => {{
        let value = <$type>::try_from($value).expect("a known value");
        if i32::from(value) == 0 { Value::Null } else { Value::from(value.as_str_name()) }
    }};
}

fn ip(bytes: &[u8]) -> Value {
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).expect("four bytes"))),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes"))),
    };
    Value::from(ip.to_string())
}

fn list<T>(items: &[T], convert: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(convert).collect())
}

pub(super) fn address(record: &Address) -> Value {
    match record.r#type.as_ref().expect("a record") {
        address::Type::Workload(workload) => json!({ "workload": self::workload(workload) }),
        address::Type::Service(service) => json!({ "service": self::service(service) }),
    }
}

fn workload(w: &Workload) -> Value {
    let services: Map<String, Value> =
        w.services.iter().map(|(key, ports)| (key.clone(), port_list(ports))).collect();
    object([
        ("name", w.name.clone().into()),
        ("namespace", w.namespace.clone().into()),
        ("addresses", list(&w.addresses, |bytes| ip(bytes))),
        ("network", w.network.clone().into()),
        ("tunnel_protocol", named!(wire::workload::TunnelProtocol, w.tunnel_protocol)),
        ("trust_domain", w.trust_domain.clone().into()),
        ("service_account", w.service_account.clone().into()),
        ("waypoint", w.waypoint.as_ref().map_or(Value::Null, gateway)),
        ("node", w.node.clone().into()),
        ("canonical_name", w.canonical_name.clone().into()),
        ("canonical_revision", w.canonical_revision.clone().into()),
        ("workload_type", named!(wire::workload::WorkloadType, w.workload_type)),
        ("workload_name", w.workload_name.clone().into()),
        ("native_tunnel", w.native_tunnel.into()),
        ("authorization_policies", w.authorization_policies.clone().into()),
        ("status", named!(wire::workload::WorkloadStatus, w.status)),
        ("cluster_id", w.cluster_id.clone().into()),
        ("network_gateway", w.network_gateway.as_ref().map_or(Value::Null, gateway)),
        ("uid", w.uid.clone().into()),
        ("hostname", w.hostname.clone().into()),
        ("services", if services.is_empty() { Value::Null } else { Value::Object(services) }),
        (
            "application_tunnel",
            w.application_tunnel.map_or(Value::Null, |tunnel| {
                let protocol = named!(wire::workload::application_tunnel::Protocol, tunnel.protocol);
                object([("protocol", protocol), ("port", tunnel.port.into())])
            }),
        ),
        (
            "locality",
            w.locality.as_ref().map_or(Value::Null, |locality| {
                object([
                    ("region", locality.region.clone().into()),
                    ("zone", locality.zone.clone().into()),
                    ("subzone", locality.subzone.clone().into()),
                ])
            }),
        ),
        ("network_mode", named!(wire::workload::NetworkMode, w.network_mode)),
        ("capacity", w.capacity.map_or(Value::Null, Value::from)),
    ])
}

fn service(s: &Service) -> Value {
    object([
        ("name", s.name.clone().into()),
        ("namespace", s.namespace.clone().into()),
        ("hostname", s.hostname.clone().into()),
        ("addresses", list(&s.addresses, network_address)),
        ("ports", list(&s.ports, port)),
        ("subject_alt_names", s.subject_alt_names.clone().into()),
        ("waypoint", s.waypoint.as_ref().map_or(Value::Null, gateway)),
        (
            "load_balancing",
            s.load_balancing.as_ref().map_or(Value::Null, |balancing| {
                use wire::workload::load_balancing::{HealthPolicy, Mode, Scope};
                let scope =
                    |scope: &i32| Value::from(Scope::try_from(*scope).expect("a scope").as_str_name());
                object([
                    ("routing_preference", list(&balancing.routing_preference, scope)),
                    ("mode", named!(Mode, balancing.mode)),
                    ("health_policy", named!(HealthPolicy, balancing.health_policy)),
                ])
            }),
        ),
        ("ip_families", named!(wire::workload::IpFamilies, s.ip_families)),
        ("canonical", s.canonical.into()),
        ("ingress_use_waypoint", s.ingress_use_waypoint.into()),
        (
            "weighted_waypoints",
            list(&s.weighted_waypoints, |weighted| {
                let destination = weighted.destination.as_ref().map_or(Value::Null, gateway);
                object([("destination", destination), ("weight", weighted.weight.into())])
            }),
        ),
        ("visibility", named!(wire::workload::service::Visibility, s.visibility)),
    ])
}

fn port_list(ports: &PortList) -> Value {
    object([("ports", list(&ports.ports, port))])
}

fn port(port: &Port) -> Value {
    object([
        ("service_port", port.service_port.into()),
        ("target_port", port.target_port.into()),
        ("app_protocol", named!(wire::workload::AppProtocol, port.app_protocol)),
    ])
}

fn network_address(address: &NetworkAddress) -> Value {
    object([
        ("network", address.network.clone().into()),
        ("address", ip(&address.address)),
        ("length", address.length.map_or(Value::Null, Value::from)),
    ])
}

fn gateway(gateway: &GatewayAddress) -> Value {
    let (name, destination) = match gateway.destination.as_ref().expect("a destination") {
        Destination::Address(address) => ("address", network_address(address)),
        Destination::Hostname(host) => (
            "hostname",
            object([
                ("namespace", host.namespace.clone().into()),
                ("hostname", host.hostname.clone().into()),
            ]),
        ),
    };
    object([(name, destination), ("hbone_mtls_port", gateway.hbone_mtls_port.into())])
}

pub(super) fn authorization(a: &Authorization) -> Value {
    let groups = list(&a.rules, |rule| {
        let clauses = list(&rule.clauses, |clause| object([("matches", list(&clause.matches, one_match))]));
        object([("rules", clauses)])
    });
    object([
        ("name", a.name.clone().into()),
        ("namespace", a.namespace.clone().into()),
        ("scope", named!(wire::security::Scope, a.scope)),
        ("action", named!(wire::security::Action, a.action)),
        ("groups", groups),
        ("dry_run", a.dry_run.into()),
    ])
}

fn one_match(m: &Match) -> Value {
    let strings = |matches: &[StringMatch]| list(matches, string);
    let ranges = |ranges: &[wire::security::Address]| {
        list(ranges, |range| object([("address", ip(&range.address)), ("length", range.length.into())]))
    };
    let accounts = |accounts: &[wire::security::ServiceAccountMatch]| {
        list(accounts, |account| {
            let (namespace, name) = (account.namespace.clone(), account.service_account.clone());
            object([("namespace", namespace.into()), ("serviceAccount", name.into())])
        })
    };
    object([
        ("namespaces", strings(&m.namespaces)),
        ("not_namespaces", strings(&m.not_namespaces)),
        ("principals", strings(&m.principals)),
        ("not_principals", strings(&m.not_principals)),
        ("source_ips", ranges(&m.source_ips)),
        ("not_source_ips", ranges(&m.not_source_ips)),
        ("destination_ips", ranges(&m.destination_ips)),
        ("not_destination_ips", ranges(&m.not_destination_ips)),
        ("destination_ports", m.destination_ports.clone().into()),
        ("not_destination_ports", m.not_destination_ports.clone().into()),
        ("service_accounts", accounts(&m.service_accounts)),
        ("not_service_accounts", accounts(&m.not_service_accounts)),
    ])
}

fn string(text: &StringMatch) -> Value {
    match text.match_type.as_ref().expect("a kind of match") {
        MatchType::Exact(text) => json!({ "exact": text }),
        MatchType::Prefix(text) => json!({ "prefix": text }),
        MatchType::Suffix(text) => json!({ "suffix": text }),
        MatchType::Presence(()) => json!({ "presence": {} }),
    }
}
