//! The mesh from a local file (control-and-operations 2.8): YAML or JSON, read once.

mod schema;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use identity::SpiffeId;
use policy::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccountMatch, StringMatch};

use crate::address::{GatewayAddress, GatewayDestination, NetworkAddress, NetworkCidr, ServiceKey};
use crate::apply::{Delta, ResourceType, Update};
use crate::endpoints::Endpoint;
use crate::from_wire::RejectReason;
use crate::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, LoadBalancerScope, Service, Visibility,
    WeightedWaypoint,
};
use crate::workload::{
    ApplicationProtocol, ApplicationTunnel, Health, Locality, NetworkMode, TunnelProtocol, Workload,
};

use schema::{
    File, LocalAccount, LocalAction, LocalBalancer, LocalEndpoint, LocalFamilies, LocalGateway, LocalHealth,
    LocalHealthPolicy, LocalMatch, LocalMode, LocalNetworkMode, LocalPolicy, LocalPolicyScope, LocalProtocol,
    LocalScope, LocalService, LocalText, LocalTunnelProtocol, LocalVisibility, LocalWeighted, LocalWorkload,
};

/// Why a local file is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum LocalFileError {
    /// It is malformed, or has keys that nobody knows.
    #[error("{0}")]
    Malformed(#[from] Box<serde_saphyr::Error>),
    /// A workload, service or policy in it makes no sense.
    #[error("{name}: {reason}")]
    Refused {
        /// Which.
        name: String,
        /// Why.
        reason: RejectReason,
    },
    /// An address is neither `<network>/<ip>` nor `<namespace>/<hostname>`.
    #[error("{name}: invalid address {text:?}")]
    Address {
        /// Of which workload or service.
        name: String,
        /// What it says.
        text: String,
    },
    /// A service has an endpoint that is no workload of the file.
    #[error("{service}: endpoint {uid} is not a workload of this file")]
    UnknownEndpoint {
        /// The service.
        service: ServiceKey,
        /// The endpoint.
        uid: String,
    },
}

impl LocalFileError {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "source-malformed-yaml",
            Self::Refused { .. } => "source-refused-resource",
            Self::Address { .. } => "source-invalid-address",
            Self::UnknownEndpoint { .. } => "source-unknown-endpoint",
        }
    }
}

/// Reads a local file as one change of an empty mesh.
pub fn parse(text: &str) -> Result<Delta, LocalFileError> {
    let file: File = serde_saphyr::from_str(text).map_err(Box::new)?;
    let mut updates = Vec::new();
    let mut workloads = HashMap::new();
    for local in file.workloads {
        let workload = Arc::new(workload(local)?);
        workloads.insert(workload.uid.clone(), workload.clone());
        updates.push(Update::Workload(workload));
    }
    for local in file.services {
        let (service, endpoints) = service(local)?;
        for (uid, endpoint) in endpoints {
            let named = if endpoint.workload_uid.is_empty() { &uid } else { &endpoint.workload_uid };
            let Some(workload) = workloads.get(named.as_str()) else {
                return Err(LocalFileError::UnknownEndpoint { service: service.key, uid });
            };
            let workload = match endpoint.status {
                status if health(status) == workload.status => workload.clone(),
                status => Arc::new(Workload { status: health(status), ..Workload::clone(workload) }),
            };
            updates.push(Update::Endpoint(
                service.key.clone(),
                Endpoint { workload, ports: Arc::new(endpoint.port) },
            ));
        }
        updates.push(Update::Service(Arc::new(service)));
    }
    updates.extend(file.policies.into_iter().map(|local| Update::Policy(Arc::new(policy(local)))));
    Ok(Delta { kind: ResourceType::Address, updates, removed: Vec::new(), rejected: Vec::new() })
}

fn health(status: LocalHealth) -> Health {
    match status {
        LocalHealth::Healthy => Health::Healthy,
        LocalHealth::Unhealthy => Health::Unhealthy,
    }
}

/// `<network>/<ip>`.
fn address(text: &str) -> Option<NetworkAddress> {
    let (network, ip) = text.split_once('/')?;
    Some(NetworkAddress { network: network.into(), ip: ip.parse().ok()? })
}

/// An address first, else a hostname.
fn gateway(name: &str, from: &LocalGateway) -> Result<GatewayAddress, LocalFileError> {
    let hostname = || from.destination.parse().map(GatewayDestination::Hostname);
    let destination = match address(&from.destination) {
        Some(address) => GatewayDestination::Address(address),
        None => hostname()
            .map_err(|_| LocalFileError::Address { name: name.to_owned(), text: from.destination.clone() })?,
    };
    Ok(GatewayAddress { destination, hbone_mtls_port: from.hbone_mtls_port })
}

fn workload(from: LocalWorkload) -> Result<Workload, LocalFileError> {
    let refused = |reason| LocalFileError::Refused { name: from.uid.clone(), reason };
    let trust_domain = if from.trust_domain.is_empty() { "cluster.local" } else { &from.trust_domain };
    let identity = SpiffeId::new(trust_domain, &from.namespace, &from.service_account);
    let mut services = BTreeMap::new();
    for (key, ports) in &from.services {
        let key = key.parse().map_err(|error| refused(RejectReason::ServiceKey(error)))?;
        services.insert(key, Arc::new(ports.clone()));
    }
    let to_gateway =
        |from: &Option<LocalGateway>, name: &str| from.as_ref().map(|g| gateway(name, g)).transpose();
    Ok(Workload {
        identity: identity.map_err(|error| refused(RejectReason::Identity(error)))?,
        waypoint: to_gateway(&from.waypoint, &from.uid)?,
        network_gateway: to_gateway(&from.network_gateway, &from.uid)?,
        uid: from.uid.into(),
        name: from.name.into(),
        namespace: from.namespace.into(),
        service_account: from.service_account.into(),
        trust_domain: from.trust_domain.into(),
        network: from.network.into(),
        addresses: from.workload_ips,
        hostname: from.hostname.into(),
        protocol: match from.protocol {
            LocalProtocol::Tcp => TunnelProtocol::None,
            LocalProtocol::Hbone => TunnelProtocol::Hbone,
        },
        network_mode: match from.network_mode {
            LocalNetworkMode::Standard => NetworkMode::Standard,
            LocalNetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        node: from.node.into(),
        canonical_name: from.canonical_name.into(),
        canonical_revision: from.canonical_revision.into(),
        workload_type: from.workload_type.into(),
        workload_name: from.workload_name.into(),
        native_tunnel: from.native_tunnel,
        authorization_policies: from.authorization_policies.into_iter().map(Into::into).collect(),
        status: health(from.status),
        cluster_id: from.cluster_id.into(),
        locality: from.locality.map_or_else(Locality::default, |at| Locality {
            region: at.region.into(),
            zone: at.zone.into(),
            subzone: at.subzone.into(),
        }),
        capacity: from.capacity,
        services,
        application_tunnel: from.application_tunnel.map(|tunnel| ApplicationTunnel {
            protocol: match tunnel.protocol {
                LocalTunnelProtocol::None => ApplicationProtocol::None,
                LocalTunnelProtocol::Proxy => ApplicationProtocol::Proxy,
            },
            port: tunnel.port,
        }),
    })
}

fn service(from: LocalService) -> Result<(Service, BTreeMap<String, LocalEndpoint>), LocalFileError> {
    let key = ServiceKey { namespace: from.namespace.into(), hostname: from.hostname.into() };
    let name = key.to_string();
    let vip = |text: String| {
        address(&text).ok_or_else(|| LocalFileError::Address { name: name.clone(), text: text.clone() })
    };
    let weighted = |from: LocalWeighted| {
        Ok(WeightedWaypoint { destination: gateway(&name, &from.destination)?, weight: from.weight })
    };
    let service = Service {
        name: from.name.into(),
        vips: from.vips.into_iter().map(vip).collect::<Result<_, _>>()?,
        cidr_vips: from
            .cidr_vips
            .into_iter()
            .map(|vip| NetworkCidr { network: vip.network.into(), cidr: vip.cidr.trunc() })
            .collect(),
        ports: from.ports,
        identities: from.subject_alt_names.iter().filter_map(|san| san.parse().ok()).collect(),
        subject_alt_names: from.subject_alt_names.into_iter().map(Into::into).collect(),
        waypoint: from.waypoint.map(|waypoint| gateway(&name, &waypoint)).transpose()?,
        weighted_waypoints: from
            .weighted_waypoints
            .into_iter()
            .map(weighted)
            .collect::<Result<_, LocalFileError>>()?,
        load_balancer: from.load_balancer.map(balancer),
        ip_families: from.ip_families.map(|families| match families {
            LocalFamilies::Dual => IpFamilies::Dual,
            LocalFamilies::Ipv4 => IpFamilies::Ipv4,
            LocalFamilies::Ipv6 => IpFamilies::Ipv6,
        }),
        canonical: from.canonical,
        visibility: match from.visibility {
            LocalVisibility::Public => Visibility::Public,
            LocalVisibility::Namespace => Visibility::Namespace,
        },
        key,
    };
    Ok((service, from.endpoints))
}

fn balancer(from: LocalBalancer) -> LoadBalancer {
    let scope = |scope| match scope {
        LocalScope::Region => LoadBalancerScope::Region,
        LocalScope::Zone => LoadBalancerScope::Zone,
        LocalScope::Subzone => LoadBalancerScope::Subzone,
        LocalScope::Node => LoadBalancerScope::Node,
        LocalScope::Cluster => LoadBalancerScope::Cluster,
        LocalScope::Network => LoadBalancerScope::Network,
    };
    LoadBalancer {
        routing_preferences: from.routing_preferences.into_iter().map(scope).collect(),
        mode: match from.mode {
            LocalMode::Standard => LoadBalancerMode::Standard,
            LocalMode::Strict => LoadBalancerMode::Strict,
            LocalMode::Failover => LoadBalancerMode::Failover,
            LocalMode::Passthrough => LoadBalancerMode::Passthrough,
        },
        health_policy: match from.health_policy {
            LocalHealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            LocalHealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    }
}

fn policy(from: LocalPolicy) -> Policy {
    let clause = |matches: Vec<LocalMatch>| Clause { matches: matches.into_iter().map(one_match).collect() };
    let rule = |clauses: Vec<Vec<LocalMatch>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    Policy {
        key: format!("{}/{}", from.namespace, from.name).into(),
        namespace: from.namespace.into(),
        name: from.name.into(),
        scope: match from.scope {
            LocalPolicyScope::Global => Scope::Global,
            LocalPolicyScope::Namespace => Scope::Namespace,
            LocalPolicyScope::WorkloadSelector => Scope::WorkloadSelector,
        },
        action: match from.action {
            LocalAction::Allow => Action::Allow,
            LocalAction::Deny => Action::Deny,
        },
        dry_run: from.dry_run,
        rules: from.rules.into_iter().map(rule).collect(),
    }
}

fn one_match(from: LocalMatch) -> Match {
    let text = |text| match text {
        LocalText::Exact(text) => StringMatch::Exact(text.into()),
        LocalText::Prefix(text) => StringMatch::Prefix(text.into()),
        LocalText::Suffix(text) => StringMatch::Suffix(text.into()),
        LocalText::Presence([]) => StringMatch::Presence,
    };
    let texts = |from: Vec<LocalText>| from.into_iter().map(text).collect();
    let accounts = |from: Vec<LocalAccount>| {
        let account = |from: LocalAccount| ServiceAccountMatch {
            namespace: from.namespace.into(),
            service_account: from.service_account.into(),
        };
        from.into_iter().map(account).collect()
    };
    Match {
        namespaces: texts(from.namespaces),
        not_namespaces: texts(from.not_namespaces),
        principals: texts(from.principals),
        not_principals: texts(from.not_principals),
        service_accounts: accounts(from.service_accounts),
        not_service_accounts: accounts(from.not_service_accounts),
        source_ips: from.source_ips,
        not_source_ips: from.not_source_ips,
        destination_ips: from.destination_ips,
        not_destination_ips: from.not_destination_ips,
        destination_ports: from.destination_ports,
        not_destination_ports: from.not_destination_ports,
    }
}

#[cfg(test)]
mod tests;
