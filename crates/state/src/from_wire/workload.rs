//! Workloads from the wire.

use std::sync::Arc;

use identity::SpiffeId;
use wire::workload as pb;

use super::{RejectReason, gateway, ip, number, or_default, port, ports};
use crate::workload::{
    ApplicationProtocol, ApplicationTunnel, Health, Locality, NetworkMode, TunnelProtocol, Workload,
};

pub(super) fn workload(from: pb::Workload) -> Result<Workload, RejectReason> {
    let protocol = match number(from.tunnel_protocol)? {
        pb::TunnelProtocol::None => TunnelProtocol::None,
        pb::TunnelProtocol::Hbone => TunnelProtocol::Hbone,
        pb::TunnelProtocol::LegacyIstioMtls => return Err(RejectReason::LegacyMtls),
    };
    let network_mode = match number(from.network_mode)? {
        pb::NetworkMode::Standard => NetworkMode::Standard,
        pb::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    };
    let status = match number(from.status)? {
        pb::WorkloadStatus::Healthy => Health::Healthy,
        pb::WorkloadStatus::Unhealthy => Health::Unhealthy,
    };
    let mut services = std::collections::BTreeMap::new();
    for (key, list) in from.services {
        services.insert(key.parse()?, Arc::new(ports(&list.ports)?));
    }
    let workload_type = match pb::WorkloadType::try_from(from.workload_type) {
        Ok(pb::WorkloadType::Deployment) | Err(_) => "deployment",
        Ok(pb::WorkloadType::Cronjob) => "cronjob",
        Ok(pb::WorkloadType::Pod) => "pod",
        Ok(pb::WorkloadType::Job) => "job",
    };
    let trust_domain = or_default(from.trust_domain, "cluster.local");
    let namespace: Arc<str> = from.namespace.into();
    let service_account = or_default(from.service_account, "default");
    Ok(Workload {
        uid: from.uid.into(),
        name: from.name.into(),
        identity: SpiffeId::new(&trust_domain, &namespace, &service_account)?,
        namespace,
        service_account,
        trust_domain,
        network: from.network.into(),
        addresses: from.addresses.iter().map(|bytes| ip(bytes)).collect::<Result<_, _>>()?,
        hostname: from.hostname.into(),
        protocol,
        network_mode,
        waypoint: from.waypoint.map(gateway).transpose()?,
        network_gateway: from.network_gateway.map(gateway).transpose()?,
        node: from.node.into(),
        canonical_name: from.canonical_name.into(),
        canonical_revision: from.canonical_revision.into(),
        workload_type: workload_type.into(),
        workload_name: from.workload_name.into(),
        native_tunnel: from.native_tunnel,
        authorization_policies: from.authorization_policies.into_iter().map(Arc::from).collect(),
        status,
        cluster_id: or_default(from.cluster_id, "Kubernetes"),
        locality: from.locality.map(locality).unwrap_or_default(),
        capacity: from.capacity.unwrap_or(1),
        services,
        application_tunnel: from.application_tunnel.map(application_tunnel).transpose()?,
    })
}

fn locality(from: pb::Locality) -> Locality {
    Locality { region: from.region.into(), zone: from.zone.into(), subzone: from.subzone.into() }
}

fn application_tunnel(from: pb::ApplicationTunnel) -> Result<ApplicationTunnel, RejectReason> {
    let protocol = match number(from.protocol)? {
        pb::application_tunnel::Protocol::None => ApplicationProtocol::None,
        pb::application_tunnel::Protocol::Proxy => ApplicationProtocol::Proxy,
    };
    let port = Some(port(from.port)?).filter(|port| *port > 0);
    Ok(ApplicationTunnel { protocol, port })
}
