//! Workload records: pods here, other sources in the files below (control-plane 3.3 to 3.10).

mod endpoint_slice;
mod entry;

use std::collections::BTreeMap;
use std::net::IpAddr;

use wire::workload::{Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType};

use super::address_bytes;
use super::authorization::Policies;
use super::network::NetworkGateways;
use super::notes::Notes;
use super::owner::{canonical, workload_name};
use super::peer_authentication::PeerAuthentications;
use super::service::{Listed, Services, Source};
use super::waypoint::{Binding, Waypoints};
use super::world::World;
use crate::sources::objects::{Name, Node, Pod};

const REDIRECTION: &str = "ambient.istio.io/redirection";
const TUNNEL: &str = "networking.istio.io/tunnel";

type Labels = BTreeMap<String, String>;

/// Everything a workload record refers to.
pub(super) struct Context<'c, 'a> {
    pub(super) world: &'c World<'a>,
    pub(super) waypoints: &'c Waypoints<'a>,
    pub(super) gateways: &'c NetworkGateways,
    pub(super) services: &'c Services<'a>,
    pub(super) policies: &'c Policies<'a>,
    pub(super) peers: &'c PeerAuthentications<'a>,
}

/// All workload records.
pub(super) fn translate(context: &Context<'_, '_>, notes: &mut Notes) -> Vec<Workload> {
    let objects = context.world.objects;
    let slices = endpoint_slice::Slices::read(context);
    let mut workloads = Vec::with_capacity(objects.pods.len());
    workloads.extend(objects.pods.iter().filter_map(|(name, pod)| context.pod(name, pod, &slices)));
    context.workload_entries(notes, &mut workloads);
    context.service_entries(&mut workloads);
    workloads.extend(slices.workloads);
    workloads
}

impl<'a> Context<'_, 'a> {
    fn pod(&self, name: &Name, pod: &Pod, slices: &endpoint_slice::Slices<'a>) -> Option<Workload> {
        let meta = &pod.metadata;
        if !self.world.in_scope(meta) || matches!(pod.status.phase.as_str(), "Failed" | "Succeeded") {
            return None;
        }
        let addresses = pod_addresses(pod)?;
        let workload_name = workload_name(meta);
        let (canonical_name, canonical_revision) = canonical(&meta.labels, &workload_name);
        let (tunnel_protocol, native_tunnel) = tunnel(&meta.labels, &meta.annotations);
        let listed = self.pod_services(name, pod, slices);
        let mut workload = Workload {
            uid: format!("{}//Pod/{}/{}", self.world.switches.cluster_id, meta.namespace, meta.name),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            addresses: addresses.into_iter().map(address_bytes).collect(),
            network: self.world.network.to_owned(),
            network_gateway: self.gateways.towards(self.world.network),
            tunnel_protocol: tunnel_protocol.into(),
            native_tunnel,
            trust_domain: self.world.trust_domain_field(),
            service_account: pod.spec.service_account_name.clone(),
            node: pod.spec.node_name.clone(),
            canonical_name,
            canonical_revision,
            workload_type: WorkloadType::Pod.into(),
            workload_name,
            status: pod_status(pod).into(),
            cluster_id: self.world.switches.cluster_id.clone(),
            services: listed.iter().map(|listed| (listed.key.clone(), listed.ports.of_pod(pod))).collect(),
            locality: self.world.objects.nodes.get(&pod.spec.node_name).and_then(|node| locality(node)),
            network_mode: network_mode(pod).into(),
            ..Workload::default()
        };
        let binding = self.bind(&mut workload, &meta.labels, &meta.labels);
        let keys = self.policies.attached(&meta.namespace, &meta.labels);
        self.attach_policies(&mut workload, keys, &meta.labels, &binding, &listed);
        Some(workload)
    }

    /// Services that select the pod, and those without selector whose slices point at it.
    fn pod_services(&self, name: &Name, pod: &Pod, slices: &endpoint_slice::Slices<'a>) -> Vec<&Listed<'a>> {
        let switches = self.world.switches;
        let mut listed = self.services.selecting(&name.namespace, &pod.metadata.labels);
        listed.retain(|listed| listed.source == Source::Service || switches.service_entries_select_pods);
        for service in slices.services_of(name, &pod.metadata.uid) {
            listed.extend(self.services.of_service(service));
        }
        listed
    }

    /// Sets the waypoint, or the application tunnel of a waypoint's own instance.
    fn bind(&self, workload: &mut Workload, labels: &Labels, waypoint_labels: &Labels) -> Binding<'_, 'a> {
        if let Some(instance) = self.waypoints.instance_of(&workload.namespace, labels) {
            workload.application_tunnel = instance.tunnel;
            return Binding::None;
        }
        let binding = self.waypoints.for_workload(self.world, &workload.namespace, waypoint_labels);
        workload.waypoint = binding.address();
        binding
    }

    /// Authorization policies, then peer authentication, then waypoints' own policies.
    fn attach_policies(
        &self,
        workload: &mut Workload,
        mut keys: Vec<String>,
        labels: &Labels,
        binding: &Binding<'_, '_>,
        listed: &[&Listed<'a>],
    ) {
        keys.extend(self.peers.attached(&workload.namespace, labels));
        if self.world.switches.allow_waypoints {
            let bound = binding.waypoint().map(|waypoint| &waypoint.name);
            let through_services = listed.iter().filter_map(|listed| listed.waypoint.as_ref());
            let mut allowed: Vec<String> = bound
                .into_iter()
                .chain(through_services)
                .filter_map(|name| self.waypoints.get(name))
                .filter_map(super::authorization::waypoint_policy_key)
                .collect();
            allowed.sort_unstable();
            allowed.dedup();
            keys.extend(allowed);
        }
        workload.authorization_policies = keys;
    }
}

/// All addresses, if there are any and every one parses.
fn pod_addresses(pod: &Pod) -> Option<Vec<IpAddr>> {
    let status = &pod.status;
    let single = (status.pod_ips.is_empty() && !status.pod_ip.is_empty()).then_some(&status.pod_ip);
    let addresses: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .map(|ip| &ip.ip)
        .chain(single)
        .map(|ip| ip.parse())
        .collect::<Result<_, _>>()
        .ok()?;
    (!addresses.is_empty()).then_some(addresses)
}

fn pod_status(pod: &Pod) -> WorkloadStatus {
    let ready =
        pod.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
    if ready && pod.metadata.deletion_timestamp.is_none() {
        WorkloadStatus::Healthy
    } else {
        WorkloadStatus::Unhealthy
    }
}

/// Pods of the host's network share its address: nobody may be found by it.
fn network_mode(pod: &Pod) -> NetworkMode {
    if pod.spec.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard }
}

fn locality(node: &Node) -> Option<Locality> {
    let label = |key| node.metadata.label(key).unwrap_or("").to_owned();
    let locality = Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    };
    (locality != Locality::default()).then_some(locality)
}

/// HBONE where the node agent says the pod is captured, or the workload says it speaks it itself.
fn tunnel(labels: &Labels, annotations: &Labels) -> (TunnelProtocol, bool) {
    let native = labels.get(TUNNEL).is_some_and(|list| list.split(',').any(|protocol| protocol == "http"));
    let captured = annotations.get(REDIRECTION).is_some_and(|value| value == "enabled");
    (if native || captured { TunnelProtocol::Hbone } else { TunnelProtocol::None }, native)
}
