//! Workloads outside the cluster: workload entries and the endpoints of service entries (control-plane 3.10).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use wire::workload::{Locality, Workload, WorkloadStatus, WorkloadType};

use super::super::notes::Notes;
use super::super::owner::{WORKLOAD_NAME, canonical};
use super::super::ports::number;
use super::super::service::{Listed, Source};
use super::super::waypoint::Binding;
use super::super::{StatusCondition, address_bytes};
use super::{Context, Labels, tunnel};
use crate::sources::objects::{EntryEndpoint, Kind, Name, Resolution, ServiceEntry, WorkloadEntry};

const AUTO_REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";

impl<'a> Context<'_, 'a> {
    pub(super) fn workload_entries(&self, notes: &mut Notes, workloads: &mut Vec<Workload>) {
        let entries = self.world.objects.workload_entries.values();
        for entry in entries.filter(|entry| self.world.uses(&entry.metadata)) {
            workloads.push(self.workload_entry(entry, notes));
        }
    }

    fn workload_entry(&self, entry: &WorkloadEntry, notes: &mut Notes) -> Workload {
        let meta = &entry.metadata;
        let labels = merged(&entry.spec.labels, &meta.labels);
        let name = meta
            .annotation(AUTO_REGISTRATION_GROUP)
            .or_else(|| labels.get(WORKLOAD_NAME).map(String::as_str));
        let workload_name = name.unwrap_or(&meta.name).to_owned();
        let mut listed = self.services.selecting(&meta.namespace, &labels);
        let services_select = self.world.switches.services_select_workload_entries;
        listed.retain(|listed| listed.source == Source::Entry || services_select);
        let uid = format!(
            "{}/networking.istio.io/WorkloadEntry/{}/{}",
            self.world.switches.cluster_id, meta.namespace, meta.name
        );
        let mut workload =
            self.external(uid, &entry.spec, &labels, &meta.annotations, workload_name, &listed);
        workload.name.clone_from(&meta.name);
        workload.namespace.clone_from(&meta.namespace);
        let unhealthy = entry.status.conditions.iter().any(|c| c.kind == "Healthy" && c.status == "False");
        if unhealthy {
            workload.status = WorkloadStatus::Unhealthy.into();
        }
        let binding = self.bind(&mut workload, &labels, &labels);
        let keys = self.policies.attached(&meta.namespace, &labels);
        self.attach_policies(&mut workload, keys, &labels, &binding, &listed);
        note_binding(entry, &binding, notes);
        workload
    }

    pub(super) fn service_entries(&self, workloads: &mut Vec<Workload>) {
        for (name, entry) in &self.world.objects.service_entries {
            let listed = self.services.of_entry(name);
            if listed.is_empty() {
                continue;
            }
            // Two endpoints with one address are one record: the later.
            let mut by_uid = BTreeMap::new();
            for (endpoint, listed) in endpoints(entry, &listed) {
                let workload = self.service_entry_endpoint(name, entry, &endpoint, listed);
                by_uid.insert(workload.uid.clone(), workload);
            }
            workloads.extend(by_uid.into_values());
        }
    }

    fn service_entry_endpoint(
        &self,
        name: &Name,
        entry: &ServiceEntry,
        endpoint: &Endpoint<'_>,
        listed: &[&Listed<'a>],
    ) -> Workload {
        let meta = &entry.metadata;
        let uid = format!(
            "{}/networking.istio.io/ServiceEntry/{name}/{}",
            self.world.switches.cluster_id, endpoint.spec.address
        );
        let mut workload =
            self.external(uid, &endpoint.spec, &meta.labels, &meta.annotations, meta.name.clone(), listed);
        workload.name.clone_from(&meta.name);
        workload.namespace.clone_from(&meta.namespace);
        let binding = match endpoint.labels {
            Some(labels) => self.bind(&mut workload, labels, labels),
            None => Binding::None,
        };
        let keys = match meta.labels.is_empty() {
            true => self.policies.all(&meta.namespace),
            false => self.policies.attached(&meta.namespace, &meta.labels),
        };
        self.attach_policies(&mut workload, keys, &meta.labels, &binding, listed);
        workload
    }

    /// What both kinds have in common.
    fn external(
        &self,
        uid: String,
        spec: &EntryEndpoint,
        labels: &Labels,
        annotations: &Labels,
        workload_name: String,
        listed: &[&Listed<'a>],
    ) -> Workload {
        let ip = spec.address.parse::<IpAddr>().ok();
        let network = if spec.network.is_empty() { self.world.network } else { &spec.network };
        let (canonical_name, canonical_revision) = canonical(labels, &workload_name);
        let (tunnel_protocol, native_tunnel) = tunnel(labels, annotations);
        Workload {
            uid,
            addresses: ip.map(address_bytes).into_iter().collect(),
            hostname: if ip.is_some() { String::new() } else { spec.address.clone() },
            network: network.to_owned(),
            network_gateway: self.gateways.towards(network),
            tunnel_protocol: tunnel_protocol.into(),
            native_tunnel,
            trust_domain: self.world.trust_domain_field(),
            service_account: spec.service_account.clone(),
            canonical_name,
            canonical_revision,
            workload_type: WorkloadType::Pod.into(),
            workload_name,
            status: WorkloadStatus::Healthy.into(),
            cluster_id: self.world.switches.cluster_id.clone(),
            services: listed.iter().map(|l| (l.key.clone(), l.ports.of_endpoint(&spec.ports))).collect(),
            locality: locality(&spec.locality),
            capacity: Some(number(spec.weight)).filter(|weight| *weight > 0),
            ..Workload::default()
        }
    }
}

/// An endpoint of a service entry; implicit ones have no labels to be bound by.
struct Endpoint<'e> {
    spec: Cow<'e, EntryEndpoint>,
    labels: Option<&'e Labels>,
}

/// The endpoints written down, with all hosts; or one per host for names to be looked up.
fn endpoints<'e, 's, 'a>(
    entry: &'e ServiceEntry,
    listed: &'s [&'s Listed<'a>],
) -> Vec<(Endpoint<'e>, &'s [&'s Listed<'a>])> {
    let spec = &entry.spec;
    if !spec.endpoints.is_empty() {
        let written =
            |spec: &'e EntryEndpoint| Endpoint { spec: Cow::Borrowed(spec), labels: Some(&spec.labels) };
        return spec.endpoints.iter().map(|spec| (written(spec), listed)).collect();
    }
    let looked_up =
        matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns);
    if !looked_up || spec.workload_selector.is_some() {
        return Vec::new();
    }
    listed
        .chunks(1)
        .map(|own| {
            let address = own.iter().map(|listed| listed.hostname.clone()).collect();
            (
                Endpoint {
                    spec: Cow::Owned(EntryEndpoint { address, ..EntryEndpoint::default() }),
                    labels: None,
                },
                own,
            )
        })
        .collect()
}

/// Labels of the object win over those of its spec.
fn merged<'l>(spec: &'l Labels, meta: &'l Labels) -> Cow<'l, Labels> {
    if spec.is_empty() {
        return Cow::Borrowed(meta);
    }
    Cow::Owned(spec.iter().chain(meta).map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// `region/zone/subzone`
fn locality(text: &str) -> Option<Locality> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let locality = Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        subzone: parts.next().unwrap_or_default(),
    };
    (locality != Locality::default()).then_some(locality)
}

fn note_binding(entry: &WorkloadEntry, binding: &Binding<'_, '_>, notes: &mut Notes) {
    let (status, reason, waypoint) = match binding {
        Binding::None => return,
        Binding::Bound(waypoint) => (true, "WaypointAccepted", &waypoint.name),
        Binding::Refused(refusal) => (false, refusal.reason, &refusal.waypoint),
    };
    let message = format!("waypoint {waypoint}");
    let condition = StatusCondition { kind: "istio.io/WaypointBound", status, reason, message };
    notes.condition(Kind::WorkloadEntry, &entry.metadata, condition);
}
