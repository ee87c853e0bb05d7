//! The snapshot and its lookups.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::{Connection, Decision, Policy};

use crate::address::{NetworkAddress, NetworkCidr, ServiceKey};
use crate::endpoints::Endpoint;
use crate::service::Service;
use crate::shards::Shards;
use crate::workload::{NetworkMode, Pod, Workload};

/// What a node knows beside the mesh itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Own network; `""` is the default network.
    pub network: Arc<str>,
    /// Own node; none: every workload is local.
    pub node: Option<Arc<str>>,
    /// The proxy's own ports: never dialled on a pod.
    pub illegal_ports: Vec<u16>,
    /// What is unknown may be asked for.
    pub on_demand: bool,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self { network: "".into(), node: None, illegal_ports: vec![15001, 15006, 15008], on_demand: false }
    }
}

/// The mesh at one moment. Cheap to clone; clones share what they have in common.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(crate) config: Arc<MeshConfig>,
    pub(crate) workloads: Shards<Arc<str>, Arc<Workload>>,
    pub(crate) by_address: Shards<NetworkAddress, Vec<Arc<Workload>>>,
    pub(crate) by_pod: Shards<Pod, Vec<Arc<Workload>>>,
    pub(crate) by_workload_hostname: Shards<ServiceKey, Vec<Arc<Workload>>>,
    pub(crate) services: Shards<ServiceKey, Arc<Service>>,
    pub(crate) by_hostname: Shards<Arc<str>, Vec<Arc<Service>>>,
    pub(crate) by_vip: Shards<NetworkAddress, Vec<Arc<Service>>>,
    pub(crate) by_cidr: Shards<NetworkCidr, Vec<Arc<Service>>>,
    /// How many ranges of each prefix length there are, IPv4 and IPv6: what a lookup has to try.
    pub(crate) prefix_lengths: [[u32; 129]; 2],
    pub(crate) endpoints: Shards<ServiceKey, Arc<Vec<Endpoint>>>,
    pub(crate) policies: Shards<Arc<str>, Arc<Policy>>,
    /// Keys of the policies of a namespace; under `""` the global ones.
    pub(crate) policies_by_namespace: Shards<Arc<str>, Vec<Arc<Policy>>>,
}

impl Mesh {
    /// A mesh of nothing.
    pub fn new(config: MeshConfig) -> Self {
        Self {
            config: Arc::new(config),
            workloads: Shards::default(),
            by_address: Shards::default(),
            by_pod: Shards::default(),
            by_workload_hostname: Shards::default(),
            services: Shards::default(),
            by_hostname: Shards::default(),
            by_vip: Shards::default(),
            by_cidr: Shards::default(),
            prefix_lengths: [[0; 129]; 2],
            endpoints: Shards::default(),
            policies: Shards::default(),
            policies_by_namespace: Shards::default(),
        }
    }

    /// What this node knows beside the mesh.
    pub fn config(&self) -> &MeshConfig {
        &self.config
    }

    /// An address on the own network.
    pub fn own_address(&self, ip: IpAddr) -> NetworkAddress {
        NetworkAddress { network: self.config.network.clone(), ip }
    }

    /// The workload of this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|(_, workload)| workload)
    }

    /// How many workloads there are.
    pub fn n_workloads(&self) -> usize {
        self.workloads.len()
    }

    /// The workload that has this address: of several a pod before others, HBONE before plain, the latest.
    pub fn workload_by_address(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(address)?.iter().max_by_key(|workload| workload.address_rank())
    }

    /// The first workload of this hostname.
    pub fn workload_by_hostname(&self, key: &ServiceKey) -> Option<&Arc<Workload>> {
        self.by_workload_hostname.get(key)?.first()
    }

    /// The workload of a pod of the own node.
    pub fn local_workload(&self, pod: &Pod) -> Option<&Arc<Workload>> {
        self.by_pod.get(pod)?.iter().rfind(|workload| self.is_local(workload))
    }

    /// Whether a workload is on the own node.
    pub fn is_local(&self, workload: &Workload) -> bool {
        self.config.node.as_ref().is_none_or(|node| *node == workload.node)
    }

    /// The service of this namespace and hostname, whoever asks.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().map(|(_, service)| service)
    }

    /// How many services there are.
    pub fn n_services(&self) -> usize {
        self.services.len()
    }

    /// The best service of this hostname for a client in `namespace`.
    pub fn service_by_hostname(&self, hostname: &str, namespace: Option<&str>) -> Option<&Arc<Service>> {
        best(self.by_hostname.get(hostname)?, namespace)
    }

    /// The services of this hostname that a client in `namespace` may find, in the order they came.
    pub fn services_by_hostname<'a>(
        &'a self,
        hostname: &str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let services = self.by_hostname.get(hostname).map_or(&[][..], Vec::as_slice);
        services.iter().filter(move |service| service.is_visible_to(namespace))
    }

    /// The best service that has this address for a client in `namespace`: by exact address, else by range.
    pub fn service_by_address(
        &self,
        address: &NetworkAddress,
        namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let exact = self.by_vip.get(address).and_then(|services| best(services, namespace));
        exact.or_else(|| self.service_by_range(address, namespace))
    }

    /// Own namespace before prefix length before canonical before first: longest prefixes come first here.
    fn service_by_range(&self, address: &NetworkAddress, namespace: Option<&str>) -> Option<&Arc<Service>> {
        let lengths = &self.prefix_lengths[usize::from(address.ip.is_ipv6())];
        let longest: u8 = if address.ip.is_ipv4() { 32 } else { 128 };
        let mut found: Option<&Arc<Service>> = None;
        for length in (0..=longest).rev().filter(|length| lengths[usize::from(*length)] > 0) {
            let Ok(net) = IpNet::new(address.ip, length) else { continue };
            let key = NetworkCidr { network: address.network.clone(), cidr: net.trunc() };
            let Some(service) = self.by_cidr.get(&key).and_then(|services| best(services, namespace)) else {
                continue;
            };
            if namespace.is_none_or(|namespace| namespace == &*service.key.namespace) {
                return Some(service);
            }
            found = found.or(Some(service));
        }
        found
    }

    /// The endpoints of a service, whether it is known or not, whatever their health; ordered by uid.
    pub fn endpoints(&self, key: &ServiceKey) -> &[Endpoint] {
        self.endpoints.get(key).map_or(&[], |endpoints| endpoints.as_slice())
    }

    /// Whether `workload` is an endpoint of the service.
    pub fn is_endpoint(&self, key: &ServiceKey, uid: &str) -> bool {
        self.endpoints(key).binary_search_by(|endpoint| (*endpoint.workload.uid).cmp(uid)).is_ok()
    }

    /// The policy of this key, `<namespace>/<name>`.
    pub fn policy(&self, key: &str) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter().map(|(_, policy)| policy)
    }

    /// How many policies there are.
    pub fn n_policies(&self) -> usize {
        self.policies.len()
    }

    /// The policies that apply to a workload.
    pub fn policies_for(&self, workload: &Workload) -> PolicySet {
        let of = |namespace: &str| self.policies_by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        let scoped: Cow<'_, [Arc<Policy>]> = match &*workload.namespace {
            "" => of("").into(),
            namespace => of("").iter().chain(of(namespace)).cloned().collect(),
        };
        let mut set = PolicySet { policies: scoped.into_owned(), unknown: Vec::new() };
        for key in &workload.authorization_policies {
            match self.policies.get(key) {
                Some(policy) if set.policies.iter().any(|known| known.key == policy.key) => {}
                Some(policy) => set.policies.push(policy.clone()),
                None => set.unknown.push(key.clone()),
            }
        }
        set
    }

    /// Judges a connection to `workload` by the policies that apply to it.
    pub fn evaluate(&self, workload: &Workload, connection: &Connection) -> Decision {
        policy::evaluate(&self.policies_for(workload).policies, connection)
    }

    /// Whether `workload` is indexed by its addresses.
    pub(crate) fn has_own_addresses(workload: &Workload) -> bool {
        workload.network_mode == NetworkMode::Standard
    }
}

/// The policies of a workload.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Those known.
    pub policies: Vec<Arc<Policy>>,
    /// Keys the workload names and nobody has sent: to be warned about and counted.
    pub unknown: Vec<Arc<str>>,
}

/// The best of the visible ones.
pub(crate) fn best<'a>(services: &'a [Arc<Service>], namespace: Option<&str>) -> Option<&'a Arc<Service>> {
    best_of(services, namespace, None, |_| true)
}

/// Own namespace, else the last canonical, else in the preferred namespace, else the first; of the visible ones that
/// are usable.
pub(crate) fn best_of<'a>(
    services: &'a [Arc<Service>],
    namespace: Option<&str>,
    preferred: Option<&str>,
    usable: impl Fn(&Service) -> bool,
) -> Option<&'a Arc<Service>> {
    let visible = || services.iter().filter(|service| service.is_visible_to(namespace) && usable(service));
    let inside = |wanted: Option<&str>| {
        wanted.and_then(|wanted| visible().find(|service| &*service.key.namespace == wanted))
    };
    inside(namespace)
        .or_else(|| visible().rfind(|service| service.canonical))
        .or_else(|| inside(preferred))
        .or_else(|| visible().next())
}
