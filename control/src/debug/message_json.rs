//! Messages in protobuf's JSON form: lower camel case, defaults left out, enumerations by name.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wire::security::{self, Authorization, Match, StringMatch, string_match};
use wire::workload::{
    ApplicationTunnel, GatewayAddress, LoadBalancing, NetworkAddress, Port, PortList, Service, Workload,
    application_tunnel, gateway_address, load_balancing,
};

/// How IP addresses look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    /// Base64 of the bytes, as the JSON form of the message has it.
    Bytes,
    /// As people write them.
    Text,
}

impl Ip {
    fn show(self, bytes: &[u8]) -> Value {
        let ip = match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        };
        match (self, ip) {
            (Self::Text, Some(ip)) => json!(ip.to_string()),
            _ => json!(STANDARD.encode(bytes)),
        }
    }
}

/// An object that leaves out what has its default value.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_default = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::String(value) => value.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            Value::Object(_) => false,
        };
        if !is_default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// A named value of an enumeration; the first is the default, unknown numbers stay numbers.
    fn name(self, field: &str, number: i32, name: Option<&str>) -> Self {
        match (number, name) {
            (0, _) => self,
            (_, Some(name)) => self.put(field, name),
            (number, None) => self.put(field, number),
        }
    }

    fn map(self, name: &str, map: Map<String, Value>) -> Self {
        if map.is_empty() { self } else { self.put(name, map) }
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

pub(super) fn workload(workload: &Workload, ip: Ip) -> Value {
    use wire::workload::{NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType};
    let addresses: Vec<Value> = workload.addresses.iter().map(|bytes| ip.show(bytes)).collect();
    let services = workload.services.iter().map(|(name, ports)| (name.clone(), port_list(ports))).collect();
    let locality = workload.locality.as_ref().map(|locality| {
        let object = Object::default().put("region", locality.region.as_str());
        object.put("zone", locality.zone.as_str()).put("subzone", locality.subzone.as_str()).done()
    });
    Object::default()
        .put("uid", workload.uid.as_str())
        .put("name", workload.name.as_str())
        .put("namespace", workload.namespace.as_str())
        .put("addresses", addresses)
        .put("hostname", workload.hostname.as_str())
        .put("network", workload.network.as_str())
        .name(
            "tunnelProtocol",
            workload.tunnel_protocol,
            TunnelProtocol::try_from(workload.tunnel_protocol).ok().map(|value| value.as_str_name()),
        )
        .put("trustDomain", workload.trust_domain.as_str())
        .put("serviceAccount", workload.service_account.as_str())
        .put("waypoint", gateway(workload.waypoint.as_ref(), ip))
        .put("networkGateway", gateway(workload.network_gateway.as_ref(), ip))
        .put("node", workload.node.as_str())
        .put("canonicalName", workload.canonical_name.as_str())
        .put("canonicalRevision", workload.canonical_revision.as_str())
        .name(
            "workloadType",
            workload.workload_type,
            WorkloadType::try_from(workload.workload_type).ok().map(|value| value.as_str_name()),
        )
        .put("workloadName", workload.workload_name.as_str())
        .put("nativeTunnel", workload.native_tunnel)
        .put("applicationTunnel", workload.application_tunnel.as_ref().map(application_tunnel))
        .map("services", services)
        .put("authorizationPolicies", workload.authorization_policies.clone())
        .name(
            "status",
            workload.status,
            WorkloadStatus::try_from(workload.status).ok().map(|value| value.as_str_name()),
        )
        .put("clusterId", workload.cluster_id.as_str())
        .put("locality", locality)
        .name(
            "networkMode",
            workload.network_mode,
            NetworkMode::try_from(workload.network_mode).ok().map(|value| value.as_str_name()),
        )
        .put("capacity", workload.capacity)
        .done()
}

pub(super) fn service(service: &Service, ip: Ip) -> Value {
    use wire::workload::IpFamilies;
    use wire::workload::service::Visibility;
    let addresses: Vec<Value> =
        service.addresses.iter().map(|address| network_address(address, ip)).collect();
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    let weighted: Vec<Value> = service
        .weighted_waypoints
        .iter()
        .map(|entry| {
            let object = Object::default().put("destination", gateway(entry.destination.as_ref(), ip));
            object.put("weight", entry.weight).done()
        })
        .collect();
    Object::default()
        .put("name", service.name.as_str())
        .put("namespace", service.namespace.as_str())
        .put("hostname", service.hostname.as_str())
        .put("addresses", addresses)
        .put("ports", ports)
        .put("subjectAltNames", service.subject_alt_names.clone())
        .put("waypoint", gateway(service.waypoint.as_ref(), ip))
        .put("loadBalancing", service.load_balancing.as_ref().map(load_balancing))
        .name(
            "ipFamilies",
            service.ip_families,
            IpFamilies::try_from(service.ip_families).ok().map(|value| value.as_str_name()),
        )
        .put("canonical", service.canonical)
        .put("ingressUseWaypoint", service.ingress_use_waypoint)
        .put("weightedWaypoints", weighted)
        .name(
            "visibility",
            service.visibility,
            Visibility::try_from(service.visibility).ok().map(|value| value.as_str_name()),
        )
        .done()
}

pub(super) fn authorization(policy: &Authorization, ip: Ip) -> Value {
    let groups: Vec<Value> = policy
        .rules
        .iter()
        .map(|rule| {
            let clauses: Vec<Value> = rule
                .clauses
                .iter()
                .map(|clause| {
                    let matches: Vec<Value> =
                        clause.matches.iter().map(|entry| one_match(entry, ip)).collect();
                    Object::default().put("matches", matches).done()
                })
                .collect();
            Object::default().put("rules", clauses).done()
        })
        .collect();
    Object::default()
        .put("name", policy.name.as_str())
        .put("namespace", policy.namespace.as_str())
        .name(
            "scope",
            policy.scope,
            security::Scope::try_from(policy.scope).ok().map(|value| value.as_str_name()),
        )
        .name(
            "action",
            policy.action,
            security::Action::try_from(policy.action).ok().map(|value| value.as_str_name()),
        )
        .put("groups", groups)
        .put("dryRun", policy.dry_run)
        .done()
}

fn one_match(entry: &Match, ip: Ip) -> Value {
    let strings = |list: &[StringMatch]| list.iter().map(string_match).collect::<Vec<_>>();
    let ranges = |list: &[security::Address]| {
        let range = |range: &security::Address| {
            Object::default().put("address", ip.show(&range.address)).put("length", range.length).done()
        };
        list.iter().map(range).collect::<Vec<_>>()
    };
    let accounts = |list: &[security::ServiceAccountMatch]| {
        let account = |account: &security::ServiceAccountMatch| {
            let object = Object::default().put("namespace", account.namespace.as_str());
            object.put("serviceAccount", account.service_account.as_str()).done()
        };
        list.iter().map(account).collect::<Vec<_>>()
    };
    Object::default()
        .put("namespaces", strings(&entry.namespaces))
        .put("notNamespaces", strings(&entry.not_namespaces))
        .put("serviceAccounts", accounts(&entry.service_accounts))
        .put("notServiceAccounts", accounts(&entry.not_service_accounts))
        .put("principals", strings(&entry.principals))
        .put("notPrincipals", strings(&entry.not_principals))
        .put("sourceIps", ranges(&entry.source_ips))
        .put("notSourceIps", ranges(&entry.not_source_ips))
        .put("destinationIps", ranges(&entry.destination_ips))
        .put("notDestinationIps", ranges(&entry.not_destination_ips))
        .put("destinationPorts", entry.destination_ports.clone())
        .put("notDestinationPorts", entry.not_destination_ports.clone())
        .done()
}

fn string_match(entry: &StringMatch) -> Value {
    match &entry.match_type {
        Some(string_match::MatchType::Exact(text)) => json!({"exact": text}),
        Some(string_match::MatchType::Prefix(text)) => json!({"prefix": text}),
        Some(string_match::MatchType::Suffix(text)) => json!({"suffix": text}),
        Some(string_match::MatchType::Presence(_)) => json!({"presence": {}}),
        None => json!({}),
    }
}

fn gateway(gateway: Option<&GatewayAddress>, ip: Ip) -> Option<Value> {
    let gateway = gateway?;
    let object = match &gateway.destination {
        Some(gateway_address::Destination::Hostname(name)) => {
            let fields = Object::default().put("namespace", name.namespace.as_str());
            Object::default().put("hostname", fields.put("hostname", name.hostname.as_str()).done())
        }
        Some(gateway_address::Destination::Address(address)) => {
            Object::default().put("address", network_address(address, ip))
        }
        None => Object::default(),
    };
    Some(object.put("hboneMtlsPort", gateway.hbone_mtls_port).done())
}

fn network_address(address: &NetworkAddress, ip: Ip) -> Value {
    let object =
        Object::default().put("network", address.network.as_str()).put("address", ip.show(&address.address));
    let mut value = object.done();
    // Present even when it is 0.
    if let (Some(length), Value::Object(fields)) = (address.length, &mut value) {
        fields.insert("length".to_owned(), json!(length));
    }
    value
}

fn port_list(ports: &PortList) -> Value {
    Object::default().put("ports", ports.ports.iter().map(port).collect::<Vec<_>>()).done()
}

fn port(port: &Port) -> Value {
    let name = wire::workload::AppProtocol::try_from(port.app_protocol).ok().map(|value| value.as_str_name());
    Object::default()
        .put("servicePort", port.service_port)
        .put("targetPort", port.target_port)
        .name("appProtocol", port.app_protocol, name)
        .done()
}

fn application_tunnel(tunnel: &ApplicationTunnel) -> Value {
    let name = application_tunnel::Protocol::try_from(tunnel.protocol).ok().map(|value| value.as_str_name());
    Object::default().name("protocol", tunnel.protocol, name).put("port", tunnel.port).done()
}

fn load_balancing(balancing: &LoadBalancing) -> Value {
    let preferences: Vec<Value> = balancing
        .routing_preference
        .iter()
        .map(|scope| match load_balancing::Scope::try_from(*scope) {
            Ok(scope) => json!(scope.as_str_name()),
            Err(_) => json!(scope),
        })
        .collect();
    let mode = load_balancing::Mode::try_from(balancing.mode).ok().map(|value| value.as_str_name());
    let health = load_balancing::HealthPolicy::try_from(balancing.health_policy).ok();
    Object::default()
        .put("routingPreference", preferences)
        .name("mode", balancing.mode, mode)
        .name("healthPolicy", balancing.health_policy, health.map(|value| value.as_str_name()))
        .done()
}
