//! The mesh in the shapes of the admin dump (`wire::dump`).

use std::collections::BTreeMap;

use policy::{Action, Match, Policy, Scope, StringMatch};
use wire::dump;

use crate::address::GatewayAddress;
use crate::endpoints::Endpoint;
use crate::mesh::Mesh;
use crate::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, LoadBalancerScope, Service, Visibility,
};
use crate::workload::{ApplicationProtocol, Health, Locality, NetworkMode, PortMap, Workload};

impl Mesh {
    /// All workloads, by uid.
    pub fn dump_workloads(&self) -> Vec<dump::Workload> {
        let mut all: Vec<_> = self.workloads().collect();
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        all.into_iter().map(|workload| self::workload(workload)).collect()
    }

    /// All services with the endpoints that count, by hostname, then in the order they came.
    pub fn dump_services(&self) -> Vec<dump::Service> {
        let mut hostnames: Vec<_> = self.by_hostname.iter().collect();
        hostnames.sort_by(|a, b| a.0.cmp(b.0));
        let services = hostnames.into_iter().flat_map(|(_, services)| services);
        services.map(|service| self.dump_service(service)).collect()
    }

    /// Endpoints of services that are not known.
    pub fn dump_staged_services(&self) -> BTreeMap<String, BTreeMap<String, dump::Endpoint>> {
        let unknown = self.endpoints.iter().filter(|(key, _)| self.service(key).is_none());
        unknown.map(|(key, all)| (key.to_string(), all.iter().map(endpoint).collect())).collect()
    }

    /// All policies, by key.
    pub fn dump_policies(&self) -> Vec<dump::Policy> {
        let mut all: Vec<_> = self.policies().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.into_iter().map(|policy| self::policy(policy)).collect()
    }

    fn dump_service(&self, service: &Service) -> dump::Service {
        let counting = self.endpoints(&service.key).iter().filter(|endpoint| endpoint.is_usable_by(service));
        dump::Service {
            name: service.name.to_string(),
            namespace: service.key.namespace.to_string(),
            hostname: service.key.hostname.to_string(),
            vips: texts(&service.vips),
            cidr_vips: service
                .cidr_vips
                .iter()
                .map(|vip| dump::CidrVip { cidr: vip.cidr.to_string(), network: vip.network.to_string() })
                .collect(),
            ports: service.ports.clone(),
            load_balancer: service.load_balancer.as_ref().map(load_balancer),
            waypoint: service.waypoint.as_ref().map(gateway),
            weighted_waypoints: service
                .weighted_waypoints
                .iter()
                .map(|w| dump::WeightedWaypoint { destination: gateway(&w.destination), weight: w.weight })
                .collect(),
            endpoints: counting.map(endpoint).collect(),
            subject_alt_names: texts(&service.subject_alt_names),
            ip_families: service.ip_families.map(|families| {
                match families {
                    IpFamilies::Ipv4 => "IPv4",
                    IpFamilies::Ipv6 => "IPv6",
                    IpFamilies::Dual => "Dual",
                }
                .to_owned()
            }),
            canonical: service.canonical,
            visibility: match service.visibility {
                Visibility::Public => "Public",
                Visibility::Namespace => "Namespace",
            }
            .to_owned(),
        }
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn gateway(address: &GatewayAddress) -> dump::GatewayAddress {
    dump::GatewayAddress {
        destination: address.destination.to_string(),
        hbone_mtls_port: address.hbone_mtls_port,
    }
}

fn health(status: Health) -> String {
    match status {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
    .to_owned()
}

fn endpoint(endpoint: &Endpoint) -> (String, dump::Endpoint) {
    let uid = endpoint.workload.uid.to_string();
    let dumped = dump::Endpoint {
        workload_uid: uid.clone(),
        port: PortMap::clone(&endpoint.ports),
        status: health(endpoint.workload.status),
        ..dump::Endpoint::default()
    };
    (uid, dumped)
}

fn load_balancer(balancer: &LoadBalancer) -> dump::LoadBalancer {
    let scope = |scope: &LoadBalancerScope| format!("{scope:?}");
    dump::LoadBalancer {
        routing_preferences: balancer.routing_preferences.iter().map(scope).collect(),
        mode: match balancer.mode {
            LoadBalancerMode::Standard => "Standard",
            LoadBalancerMode::Strict => "Strict",
            LoadBalancerMode::Failover => "Failover",
            LoadBalancerMode::Passthrough => "Passthrough",
        }
        .to_owned(),
        health_policy: match balancer.health_policy {
            HealthPolicy::OnlyHealthy => "OnlyHealthy",
            HealthPolicy::AllowAll => "AllowAll",
        }
        .to_owned(),
    }
}

fn workload(workload: &Workload) -> dump::Workload {
    let locality = |locality: &Locality| dump::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    };
    dump::Workload {
        workload_ips: texts(&workload.addresses),
        waypoint: workload.waypoint.as_ref().map(gateway),
        network_gateway: workload.network_gateway.as_ref().map(gateway),
        protocol: workload.protocol.to_string(),
        network_mode: match workload.network_mode {
            NetworkMode::Standard => "Standard",
            NetworkMode::HostNetwork => "HostNetwork",
        }
        .to_owned(),
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        trust_domain: workload.trust_domain.to_string(),
        service_account: workload.service_account.to_string(),
        network: workload.network.to_string(),
        workload_name: workload.workload_name.to_string(),
        workload_type: workload.workload_type.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        hostname: workload.hostname.to_string(),
        node: workload.node.to_string(),
        native_tunnel: workload.native_tunnel,
        application_tunnel: workload.application_tunnel.as_ref().map(|tunnel| dump::ApplicationTunnel {
            port: tunnel.port,
            protocol: match tunnel.protocol {
                ApplicationProtocol::None => "NONE",
                ApplicationProtocol::Proxy => "PROXY",
            }
            .to_owned(),
        }),
        authorization_policies: texts(&workload.authorization_policies),
        status: health(workload.status),
        cluster_id: workload.cluster_id.to_string(),
        locality: (workload.locality != Locality::default()).then(|| locality(&workload.locality)),
        services: workload.services.keys().map(ToString::to_string).collect(),
        capacity: workload.capacity,
    }
}

fn policy(policy: &Policy) -> dump::Policy {
    let clause = |clause: &policy::Clause| clause.matches.iter().map(one_match).collect();
    dump::Policy {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        scope: match policy.scope {
            Scope::Global => "Global",
            Scope::Namespace => "Namespace",
            Scope::WorkloadSelector => "WorkloadSelector",
        }
        .to_owned(),
        action: match policy.action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
        }
        .to_owned(),
        rules: policy.rules.iter().map(|rule| rule.clauses.iter().map(clause).collect()).collect(),
        dry_run: policy.dry_run,
    }
}

fn one_match(m: &Match) -> dump::Match {
    let strings = |all: &[StringMatch]| all.iter().map(string).collect();
    let accounts = |all: &[policy::ServiceAccountMatch]| {
        all.iter()
            .map(|account| dump::ServiceAccountMatch {
                namespace: account.namespace.to_string(),
                service_account: account.service_account.to_string(),
            })
            .collect()
    };
    dump::Match {
        namespaces: strings(&m.namespaces),
        not_namespaces: strings(&m.not_namespaces),
        service_accounts: accounts(&m.service_accounts),
        not_service_accounts: accounts(&m.not_service_accounts),
        principals: strings(&m.principals),
        not_principals: strings(&m.not_principals),
        source_ips: texts(&m.source_ips),
        not_source_ips: texts(&m.not_source_ips),
        destination_ips: texts(&m.destination_ips),
        not_destination_ips: texts(&m.not_destination_ips),
        destination_ports: m.destination_ports.clone(),
        not_destination_ports: m.not_destination_ports.clone(),
    }
}

fn string(text: &StringMatch) -> dump::StringMatch {
    match text {
        StringMatch::Exact(text) => dump::StringMatch::Exact(text.to_string()),
        StringMatch::Prefix(text) => dump::StringMatch::Prefix(text.to_string()),
        StringMatch::Suffix(text) => dump::StringMatch::Suffix(text.to_string()),
        StringMatch::Presence => dump::StringMatch::Presence([]),
    }
}
