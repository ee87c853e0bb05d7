//! Cluster objects to records: a pure function.
//!
//! [`translate`] reads one consistent set of objects and gives every record of the mesh. It does
//! no I/O, keeps no state and cannot fail: an object it cannot use yields no record and a
//! condition or a [`Remark`] that says why. Comparing with what was sent before is the catalog's work.

mod authorization;
mod labels;
mod network;
mod notes;
mod owner;
mod peer_authentication;
mod ports;
mod service;
mod switches;
#[cfg(test)]
mod tests;
mod waypoint;
mod workload;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wire::security::Authorization;
use wire::workload::{Address, address};

use crate::sources::objects::{MeshConfig, Name, ObjectRef, Objects};

pub(crate) use authorization::invalid_values;
pub(crate) use service::{is_address_or_range, wants_allocation};
pub(crate) use switches::Switches;

/// All records of a mesh at one moment, by resource name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    /// Workloads by `uid`, services by `<namespace>/<hostname>`.
    pub(crate) addresses: BTreeMap<String, Address>,
    /// Policies by `<namespace>/<name>`.
    pub(crate) authorizations: BTreeMap<String, Authorization>,
    /// Which identities run where, from the same objects as the records.
    pub(crate) pods: PodIndex,
    /// What each object's status should say (control-plane 3.13, 4.5).
    pub(crate) conditions: BTreeMap<ObjectRef, Vec<StatusCondition>>,
    /// What was left out of an object that is used otherwise.
    pub(crate) remarks: Vec<Remark>,
}

/// A status condition, computed; nobody writes it back to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusCondition {
    pub(crate) kind: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    /// The names the message has to mention.
    pub(crate) message: String,
}

/// A part of an object that has no effect, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) object: ObjectRef,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// The node authorizer's view of pods (control-plane 1.6): all that have not failed, with node and account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodIndex {
    pods: BTreeMap<Name, PodIdentity>,
    /// (namespace, service account, node)
    running: BTreeSet<(String, String, String)>,
}

/// Who a pod is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodIdentity {
    pub(crate) uid: String,
    pub(crate) service_account: String,
    pub(crate) node: String,
}

impl PodIndex {
    fn of(objects: &Objects) -> Self {
        let mut index = Self::default();
        for (name, pod) in objects.pods.iter().filter(|(_, pod)| pod.status.phase != "Failed") {
            let (node, service_account) = (&pod.spec.node_name, &pod.spec.service_account_name);
            if node.is_empty() || service_account.is_empty() {
                continue;
            }
            index.running.insert((name.namespace.clone(), service_account.clone(), node.clone()));
            let identity = PodIdentity {
                uid: pod.metadata.uid.clone(),
                service_account: service_account.clone(),
                node: node.clone(),
            };
            index.pods.insert(name.clone(), identity);
        }
        index
    }

    /// Does any pod with this identity stand on this node?
    pub(crate) fn runs_on(&self, namespace: &str, service_account: &str, node: &str) -> bool {
        self.running.contains(&(namespace.to_owned(), service_account.to_owned(), node.to_owned()))
    }

    #[cfg(test)]
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&PodIdentity> {
        self.pods.get(&Name::new(namespace, name))
    }
}

/// Every record of the mesh that these objects describe.
pub(crate) fn translate(objects: &Objects, mesh: &MeshConfig, switches: &Switches) -> Records {
    let world = world::World::new(objects, mesh, switches);
    let mut notes = notes::Notes::default();
    let waypoints = waypoint::Waypoints::index(&world);
    let gateways = network::NetworkGateways::index(&world);
    let services = service::Services::build(&world, &waypoints, &mut notes);
    let policies = authorization::Policies::build(&world, &waypoints, &mut notes);
    let peers = peer_authentication::PeerAuthentications::index(&world);
    let context = workload::Context {
        world: &world,
        waypoints: &waypoints,
        gateways: &gateways,
        services: &services,
        policies: &policies,
        peers: &peers,
    };
    let workloads = workload::translate(&context, &mut notes);
    let authorizations = peers.authorizations();
    let services = services.records.into_iter().map(|service| {
        (format!("{}/{}", service.namespace, service.hostname), address::Type::Service(service))
    });
    let workloads = workloads.into_iter().chain(gateways.workloads);
    let workloads = workloads.map(|workload| (workload.uid.clone(), address::Type::Workload(workload)));
    Records {
        addresses: workloads.chain(services).map(|(name, t)| (name, Address { r#type: Some(t) })).collect(),
        authorizations: policies
            .authorizations
            .into_iter()
            .chain(authorizations)
            .map(|policy| (format!("{}/{}", policy.namespace, policy.name), policy))
            .collect(),
        pods: PodIndex::of(objects),
        conditions: notes.conditions,
        remarks: notes.remarks,
    }
}

/// An address as records carry it: 4 or 16 bytes.
fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
