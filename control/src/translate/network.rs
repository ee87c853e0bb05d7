//! Gateways to other networks (control-plane 3.11).

use std::collections::BTreeMap;
use std::net::IpAddr;

use wire::workload::{
    GatewayAddress, NamespacedHostname, NetworkAddress, Workload, gateway_address::Destination,
};

use super::address_bytes;
use super::world::{NETWORK, World};
use crate::sources::objects::Gateway;

const REMOTE_CLASS: &str = "istio-remote";
const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";

pub(super) struct NetworkGateways {
    /// The one gateway used for each network.
    by_network: BTreeMap<String, GatewayAddress>,
    pub(super) workloads: Vec<Workload>,
}

impl NetworkGateways {
    pub(super) fn index(world: &World<'_>) -> Self {
        let mut gateways = Self { by_network: BTreeMap::new(), workloads: Vec::new() };
        for gateway in world.objects.gateways.values().filter(|gateway| world.in_scope(&gateway.metadata)) {
            let network = gateway.metadata.label(NETWORK).unwrap_or("");
            if gateway.spec.gateway_class_name == REMOTE_CLASS && !network.is_empty() {
                gateways.add(world, gateway, network);
            }
        }
        gateways
    }

    /// A gateway of this class is the addresses it declares: nobody fills in its status.
    fn add(&mut self, world: &World<'_>, gateway: &Gateway, network: &str) {
        let listener = gateway.spec.listeners.iter().find(|listener| listener.protocol == "HBONE");
        let port = listener.and_then(|listener| u32::try_from(listener.port).ok()).unwrap_or(0);
        let namespace = &gateway.metadata.namespace;
        for address in &gateway.spec.addresses {
            let ip = address.value.parse::<IpAddr>().ok();
            let destination = match (address.kind.as_str(), ip) {
                ("" | "IPAddress", Some(ip)) => Destination::Address(NetworkAddress {
                    network: network.to_owned(),
                    address: address_bytes(ip),
                    length: None,
                }),
                ("Hostname", _) if !address.value.is_empty() => Destination::Hostname(NamespacedHostname {
                    namespace: namespace.clone(),
                    hostname: address.value.clone(),
                }),
                _ => continue,
            };
            let uid = format!("NetworkGateway/{network}/{}/{port}", address.value);
            let (addresses, hostname) = match &destination {
                Destination::Address(address) => (vec![address.address.clone()], String::new()),
                Destination::Hostname(hostname) => (Vec::new(), hostname.hostname.clone()),
            };
            self.workloads.push(Workload {
                name: uid.clone(),
                namespace: namespace.clone(),
                uid,
                addresses,
                hostname,
                network: network.to_owned(),
                service_account: service_account(gateway),
                trust_domain: world.trust_domain_field(),
                ..Workload::default()
            });
            if port != 0 {
                self.by_network
                    .entry(network.to_owned())
                    .or_insert(GatewayAddress { destination: Some(destination), hbone_mtls_port: port });
            }
        }
    }

    /// How to reach a network. Gateways are in order of namespace and name: the first wins.
    pub(super) fn towards(&self, network: &str) -> Option<GatewayAddress> {
        self.by_network.get(network).cloned()
    }
}

fn service_account(gateway: &Gateway) -> String {
    gateway
        .metadata
        .annotation(SERVICE_ACCOUNT)
        .map_or_else(|| format!("{}-{REMOTE_CLASS}", gateway.metadata.name), str::to_owned)
}
