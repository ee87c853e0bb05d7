//! Keeping the indexes of a snapshot under way.

use std::sync::Arc;

use policy::{Policy, Scope};

use crate::address::ServiceKey;
use crate::mesh::Mesh;
use crate::service::Service;
use crate::workload::{Pod, Workload};

use crate::address::NetworkAddress;

impl Mesh {
    pub(super) fn index_workload(&mut self, workload: &Arc<Workload>) {
        for address in own_addresses(workload) {
            self.by_address.edit(&address, |there| there.push(workload.clone()));
        }
        self.by_pod.edit(&pod(workload), |there| there.push(workload.clone()));
        if let Some(key) = hostname(workload) {
            self.by_workload_hostname.edit(&key, |there| there.push(workload.clone()));
        }
        self.workloads.insert(workload.uid.clone(), workload.clone());
    }

    pub(super) fn unindex_workload(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove(uid)?;
        let others = |there: &mut Vec<Arc<Workload>>| there.retain(|other| *other.uid != *uid);
        for address in own_addresses(&workload) {
            self.by_address.edit(&address, others);
        }
        self.by_pod.edit(&pod(&workload), others);
        if let Some(key) = hostname(&workload) {
            self.by_workload_hostname.edit(&key, others);
        }
        Some(workload)
    }

    /// A service that is there already keeps its place among those it shares a name or address with.
    pub(super) fn put_service(&mut self, service: Arc<Service>) {
        let before = self.services.insert(service.key.clone(), service.clone());
        if let Some(before) = before {
            self.forget_addresses(&before, Some(&service));
        }
        let put = |there: &mut Vec<Arc<Service>>| match there.iter_mut().find(|old| old.key == service.key) {
            Some(old) => *old = service.clone(),
            None => there.push(service.clone()),
        };
        self.by_hostname.edit(&service.key.hostname, put);
        for vip in &service.vips {
            self.by_vip.edit(vip, put);
        }
        for range in &service.cidr_vips {
            let new =
                !self.by_cidr.get(range).is_some_and(|there| there.iter().any(|s| s.key == service.key));
            self.by_cidr.edit(range, put);
            if new {
                self.count_prefix(range.cidr, 1);
            }
        }
    }

    pub(super) fn remove_service(&mut self, key: &ServiceKey) -> bool {
        let Some(service) = self.services.remove(key) else { return false };
        self.by_hostname.edit(&key.hostname, |there| there.retain(|other| other.key != *key));
        self.forget_addresses(&service, None);
        true
    }

    /// Drops the addresses that `service` had and `next` does not.
    fn forget_addresses(&mut self, service: &Service, next: Option<&Service>) {
        let others = |there: &mut Vec<Arc<Service>>| there.retain(|other| other.key != service.key);
        for vip in service.vips.iter().filter(|vip| !next.is_some_and(|next| next.vips.contains(vip))) {
            self.by_vip.edit(vip, others);
        }
        for range in
            service.cidr_vips.iter().filter(|range| !next.is_some_and(|next| next.cidr_vips.contains(range)))
        {
            if self.by_cidr.get(range).is_some_and(|there| there.iter().any(|other| other.key == service.key))
            {
                self.by_cidr.edit(range, others);
                self.count_prefix(range.cidr, -1);
            }
        }
    }

    fn count_prefix(&mut self, range: ipnet::IpNet, change: i32) {
        let family = usize::from(range.addr().is_ipv6());
        if let Some(count) = self.prefix_lengths[family].get_mut(usize::from(range.prefix_len())) {
            *count = count.saturating_add_signed(change);
        }
    }

    pub(super) fn put_policy(&mut self, policy: Arc<Policy>) {
        self.remove_policy(&policy.key);
        if let Some(namespace) = scoped_to(&policy) {
            self.policies_by_namespace.edit(&namespace, |there| there.push(policy.clone()));
        }
        self.policies.insert(policy.key.clone(), policy);
    }

    pub(super) fn remove_policy(&mut self, key: &str) -> Option<Arc<Policy>> {
        let policy = self.policies.remove(key)?;
        if let Some(namespace) = scoped_to(&policy) {
            self.policies_by_namespace.edit(&namespace, |there| there.retain(|other| *other.key != *key));
        }
        Some(policy)
    }
}

fn own_addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> {
    let addresses = if Mesh::has_own_addresses(workload) { workload.addresses.as_slice() } else { &[] };
    addresses.iter().map(|ip| NetworkAddress { network: workload.network.clone(), ip: *ip })
}

fn pod(workload: &Workload) -> Pod {
    Pod {
        namespace: workload.namespace.clone(),
        name: workload.name.clone(),
        service_account: workload.service_account.clone(),
    }
}

fn hostname(workload: &Workload) -> Option<ServiceKey> {
    let (namespace, hostname) = (workload.namespace.clone(), workload.hostname.clone());
    (!hostname.is_empty()).then_some(ServiceKey { namespace, hostname })
}

/// The namespace under which a policy is found; none if workloads name it.
fn scoped_to(policy: &Policy) -> Option<Arc<str>> {
    match policy.scope {
        Scope::Global => Some("".into()),
        Scope::Namespace => Some(policy.namespace.clone()),
        Scope::WorkloadSelector => None,
    }
}
