//! The next snapshot from what discovery sent.

mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::address::ServiceKey;
use crate::endpoints::Endpoint;
use crate::from_wire::{self, RejectReason};
use crate::mesh::Mesh;
use crate::service::Service;
use crate::workload::Workload;
use policy::Policy;

/// A type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// `istio.workload.Address`: workloads and services.
    Address,
    /// `istio.security.Authorization`: policies.
    Authorization,
}

impl ResourceType {
    /// The type with this URL.
    pub fn from_url(url: &str) -> Option<Self> {
        match url {
            wire::workload::ADDRESS_TYPE => Some(Self::Address),
            wire::security::AUTHORIZATION_TYPE => Some(Self::Authorization),
            _ => None,
        }
    }
}

/// A change of the mesh, read from one response: what is new, what is gone, and what could not be read.
#[derive(Clone, Debug)]
pub struct Delta {
    pub(crate) kind: ResourceType,
    pub(crate) updates: Vec<Update>,
    pub(crate) removed: Vec<String>,
    pub(crate) rejected: Vec<Rejected>,
}

/// A resource that could be read.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Workload(Arc<Workload>),
    Service(Arc<Service>),
    Policy(Arc<Policy>),
    /// Not readable, but it must not lose its protection: stands where no readable version is known.
    Quarantine(Arc<Policy>),
    /// From a file: a member of a service that the workload itself does not list.
    Endpoint(ServiceKey, Endpoint),
}

/// A resource that was refused, alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: RejectReason,
}

impl Delta {
    /// Reads one response: resources by name with their payload (none: the response had none), and removed names.
    pub fn decode<'a>(
        kind: ResourceType,
        resources: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        removed: impl IntoIterator<Item = String>,
    ) -> Self {
        from_wire::decode(kind, resources, removed.into_iter().collect())
    }
}

/// What a delta did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Workloads that came, changed or went.
    pub workloads: Vec<WorkloadChange>,
    /// Services that came, changed or went, or whose endpoints did.
    pub services: Vec<ServiceKey>,
    /// Keys of policies that came, changed or went.
    pub policies: Vec<Arc<str>>,
    /// Resources that were refused.
    pub rejected: Vec<Rejected>,
    /// How many services had their endpoints rebuilt.
    pub n_rebuilt: usize,
}

impl Applied {
    /// The text of the NACK; none if all was accepted.
    pub fn nack(&self) -> Option<String> {
        let entry = |rejected: &Rejected| format!("{}: {}", rejected.name, rejected.reason);
        let entries: Vec<String> = self.rejected.iter().map(entry).collect();
        (!entries.is_empty()).then(|| entries.join("; "))
    }
}

/// A workload before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadChange {
    /// None: it came.
    pub before: Option<Arc<Workload>>,
    /// None: it went.
    pub after: Option<Arc<Workload>>,
}

/// Endpoints to set (`Some`) or drop (`None`), by service and uid: merged once per service.
type EndpointChanges = BTreeMap<ServiceKey, BTreeMap<Arc<str>, Option<Endpoint>>>;

impl Mesh {
    /// The mesh after `delta`, and what changed. All updates first, in their order, then all removals.
    pub fn apply(&self, delta: Delta) -> (Self, Applied) {
        let mut next = self.clone();
        let mut applied = Applied { rejected: delta.rejected, ..Applied::default() };
        let mut endpoints = EndpointChanges::new();
        let mut services = BTreeSet::new();
        for update in delta.updates {
            match update {
                Update::Workload(workload) => next.put_workload(workload, &mut endpoints, &mut applied),
                Update::Service(service) => {
                    services.insert(service.key.clone());
                    next.put_service(service);
                }
                Update::Policy(policy) => {
                    applied.policies.push(policy.key.clone());
                    next.put_policy(policy);
                }
                Update::Quarantine(policy) => {
                    if next.policy(&policy.key).is_none() {
                        applied.policies.push(policy.key.clone());
                        next.put_policy(policy);
                    }
                }
                Update::Endpoint(service, endpoint) => {
                    endpoints
                        .entry(service)
                        .or_default()
                        .insert(endpoint.workload.uid.clone(), Some(endpoint));
                }
            }
        }
        for name in delta.removed {
            match delta.kind {
                ResourceType::Authorization => {
                    if let Some(policy) = next.remove_policy(&name) {
                        applied.policies.push(policy.key.clone());
                    }
                }
                ResourceType::Address => {
                    if next.workload(&name).is_some() {
                        next.remove_workload(&name, &mut endpoints, &mut applied);
                    } else if let Ok(key) = name.parse::<ServiceKey>()
                        && next.remove_service(&key)
                    {
                        services.insert(key);
                    }
                }
            }
        }
        applied.n_rebuilt = endpoints.len();
        for (service, changes) in endpoints {
            next.merge_endpoints(&service, changes);
            services.insert(service);
        }
        applied.services = services.into_iter().collect();
        (next, applied)
    }

    fn put_workload(
        &mut self,
        workload: Arc<Workload>,
        endpoints: &mut EndpointChanges,
        applied: &mut Applied,
    ) {
        let before = self.unindex_workload(&workload.uid);
        if let Some(before) = &before {
            leave(before, endpoints);
        }
        for (service, ports) in &workload.services {
            let endpoint = Endpoint { workload: workload.clone(), ports: ports.clone() };
            endpoints.entry(service.clone()).or_default().insert(workload.uid.clone(), Some(endpoint));
        }
        self.index_workload(&workload);
        applied.workloads.push(WorkloadChange { before, after: Some(workload) });
    }

    fn remove_workload(&mut self, uid: &str, endpoints: &mut EndpointChanges, applied: &mut Applied) {
        if let Some(before) = self.unindex_workload(uid) {
            leave(&before, endpoints);
            applied.workloads.push(WorkloadChange { before: Some(before), after: None });
        }
    }

    /// One pass over what was and what changes, both ordered by uid.
    fn merge_endpoints(&mut self, service: &ServiceKey, changes: BTreeMap<Arc<str>, Option<Endpoint>>) {
        let before = self.endpoints(service);
        let mut after = Vec::with_capacity(before.len() + changes.len());
        let mut kept = before.iter().peekable();
        for (uid, change) in changes {
            while let Some(endpoint) = kept.next_if(|endpoint| endpoint.workload.uid < uid) {
                after.push(endpoint.clone());
            }
            kept.next_if(|endpoint| endpoint.workload.uid == uid);
            after.extend(change);
        }
        after.extend(kept.cloned());
        if after.is_empty() {
            self.endpoints.remove(service);
        } else {
            self.endpoints.insert(service.clone(), Arc::new(after));
        }
    }
}

/// `workload` leaves all of its services.
fn leave(workload: &Workload, endpoints: &mut EndpointChanges) {
    for service in workload.services.keys() {
        endpoints.entry(service.clone()).or_default().insert(workload.uid.clone(), None);
    }
}

#[cfg(test)]
mod tests;
