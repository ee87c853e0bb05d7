//! Endpoint slices: endpoints that are no pod become workloads, those that are link the pod to its service.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use wire::workload::{AppProtocol, NetworkMode, Port, PortList, Workload, WorkloadStatus};

use super::super::address_bytes;
use super::super::ports::number;
use super::Context;
use crate::sources::objects::{Endpoint, EndpointSlice, Name, Service};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the slices say.
#[derive(Default)]
pub(super) struct Slices<'a> {
    pub(super) workloads: Vec<Workload>,
    /// Services without selector, by the pod (and its UID) their slices point at.
    of_pod: HashMap<(&'a str, &'a str, &'a str), Vec<Name>>,
}

impl<'a> Slices<'a> {
    pub(super) fn read(context: &Context<'_, 'a>) -> Self {
        let world = context.world;
        let mut slices = Self::default();
        for slice in world.objects.endpoint_slices.values().filter(|slice| world.in_scope(&slice.metadata)) {
            let Some(service_name) = slice.metadata.label(SERVICE_NAME) else { continue };
            let name = Name::new(&slice.metadata.namespace, service_name);
            let Some(service) = world.objects.services.get(&name) else { continue };
            if slice.address_type != "FQDN" {
                slices.add(context, slice, &name, service);
            }
        }
        slices
    }

    fn add(&mut self, context: &Context<'_, 'a>, slice: &'a EndpointSlice, name: &Name, service: &Service) {
        // Two endpoints whose first address is the same are one: the first.
        let mut by_address: BTreeMap<String, Workload> = BTreeMap::new();
        for endpoint in &slice.endpoints {
            match &endpoint.target_ref {
                Some(target) if target.kind == "Pod" => {
                    if service.spec.selector.is_empty() {
                        let pod = (target.namespace.as_str(), target.name.as_str(), target.uid.as_str());
                        self.of_pod.entry(pod).or_default().push(name.clone());
                    }
                }
                _ => {
                    let Some(workload) = workload(context, slice, name, service, endpoint) else { continue };
                    by_address.entry(workload.uid.clone()).or_insert(workload);
                }
            }
        }
        self.workloads.extend(by_address.into_values());
    }

    /// Services whose slices point at exactly this pod; only those of its own namespace count.
    pub(super) fn services_of<'s>(&'s self, pod: &'s Name, uid: &'s str) -> impl Iterator<Item = &'s Name> {
        let found = self.of_pod.get(&(pod.namespace.as_str(), pod.name.as_str(), uid));
        found.into_iter().flatten().filter(|service| service.namespace == pod.namespace)
    }
}

fn workload(
    context: &Context<'_, '_>,
    slice: &EndpointSlice,
    name: &Name,
    service: &Service,
    endpoint: &Endpoint,
) -> Option<Workload> {
    let listed = context.services.of_service(name)?;
    let addresses: Vec<IpAddr> =
        endpoint.addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>().ok()?;
    let first = addresses.first()?;
    let meta = &slice.metadata;
    let cluster_id = &context.world.switches.cluster_id;
    let ready = endpoint.conditions.ready.unwrap_or(true);
    Some(Workload {
        uid: format!("{cluster_id}/discovery.k8s.io/EndpointSlice/{}/{}/{first}", meta.namespace, meta.name),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        addresses: addresses.iter().copied().map(address_bytes).collect(),
        network: context.world.network.to_owned(),
        trust_domain: context.world.trust_domain_field(),
        cluster_id: cluster_id.clone(),
        network_mode: NetworkMode::HostNetwork.into(),
        status: if ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy }.into(),
        services: [(listed.key.clone(), ports(slice, service))].into(),
        ..Workload::default()
    })
}

/// The service's ports and the slice's meet by name.
fn ports(slice: &EndpointSlice, service: &Service) -> PortList {
    let is_tcp = |protocol: &str| matches!(protocol, "" | "TCP");
    let target = |name: &str| {
        let found = slice.ports.iter().find(|port| port.name == name && is_tcp(&port.protocol));
        found.and_then(|port| port.port)
    };
    let ports = service.spec.ports.iter().filter(|port| is_tcp(&port.protocol));
    let ports = ports.filter_map(|port| {
        Some(Port {
            service_port: number(port.port),
            target_port: number(target(&port.name)?),
            app_protocol: AppProtocol::Unknown.into(),
        })
    });
    PortList { ports: ports.collect() }
}
