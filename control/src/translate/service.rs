//! Services and service entries to service records (control-plane 3.7).

mod election;
mod fields;

use std::collections::{BTreeMap, HashMap};

use wire::workload::Service as Record;

use super::StatusCondition;
use super::labels::SelectorIndex;
use super::notes::Notes;
use super::ports::ServicePorts;
use super::waypoint::{Binding, Refusal, Waypoint, Waypoints};
use super::world::World;
use crate::sources::objects::{Kind, Metadata, Name, Service, ServiceEntry, Visibility};

use election::{Candidate, Winner};
pub(crate) use fields::{is_address_or_range, parse_bool, wants_allocation};

/// A service as workloads see it: what to list it as, with which ports.
pub(super) struct Listed<'a> {
    /// `<namespace>/<hostname>`
    pub(super) key: String,
    pub(super) hostname: String,
    pub(super) ports: ServicePorts<'a>,
    pub(super) source: Source,
    /// Its waypoint, if it has one.
    pub(super) waypoint: Option<Name>,
}

/// What a service record was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Service,
    Entry,
}

/// All service records, and the ways to find a service for a workload.
pub(super) struct Services<'a> {
    pub(super) records: Vec<Record>,
    listed: Vec<Listed<'a>>,
    by_namespace: HashMap<&'a str, SelectorIndex<'a, usize>>,
    of_service: BTreeMap<&'a Name, usize>,
    of_entry: BTreeMap<&'a Name, Vec<usize>>,
}

impl<'a> Services<'a> {
    pub(super) fn build(world: &World<'a>, waypoints: &Waypoints<'a>, notes: &mut Notes) -> Self {
        let mut services = Self {
            records: Vec::new(),
            listed: Vec::new(),
            by_namespace: HashMap::new(),
            of_service: BTreeMap::new(),
            of_entry: BTreeMap::new(),
        };
        let candidates = candidates(world);
        let bindings = bind_entries(world, waypoints, &candidates, notes);
        for winner in election::elect(candidates) {
            match winner.candidate {
                Candidate::Service { name, service } => {
                    services.add_service(world, waypoints, &winner, name, service, notes);
                }
                Candidate::Entry { name, entry, .. } => {
                    if let Some(binding) = bindings.get(name) {
                        services.add_entry(world, waypoints, &winner, name, entry, binding);
                    }
                }
            }
        }
        services
    }

    fn add_service(
        &mut self,
        world: &World<'a>,
        waypoints: &Waypoints<'a>,
        winner: &Winner<'a>,
        name: &'a Name,
        service: &'a Service,
        notes: &mut Notes,
    ) {
        let ports = ServicePorts::Service(&service.spec.ports);
        let binding = waypoints.for_service(world, &service.metadata);
        let canary = binding.waypoint().map(|primary| waypoints.weighted(world, &service.metadata, primary));
        note_binding(Kind::Service, &service.metadata, &binding, canary.as_ref(), notes);
        let mut record = self.record(world, winner, &service.metadata, ports, &binding);
        record.addresses = fields::cluster_addresses(world, &service.spec);
        record.ip_families = fields::ip_families(&service.spec.ip_families).into();
        record.load_balancing = fields::load_balancing(world, service);
        record.weighted_waypoints = canary.and_then(Result::ok).unwrap_or_default();
        let index = self.list(&record, ports, Source::Service, binding.waypoint());
        self.of_service.insert(name, index);
        if !service.spec.selector.is_empty() {
            self.by_namespace.entry(&name.namespace).or_default().insert(&service.spec.selector, index);
        }
        self.records.push(record);
    }

    fn add_entry(
        &mut self,
        world: &World<'a>,
        waypoints: &Waypoints<'a>,
        winner: &Winner<'a>,
        name: &'a Name,
        entry: &'a ServiceEntry,
        binding: &Binding<'_, 'a>,
    ) {
        let ports = ServicePorts::Entry(&entry.spec.ports);
        let canary = binding.waypoint().map(|primary| waypoints.weighted(world, &entry.metadata, primary));
        let mut record = self.record(world, winner, &entry.metadata, ports, binding);
        record.addresses = fields::entry_addresses(world, entry, &winner.hostname);
        record.subject_alt_names.clone_from(&entry.spec.subject_alt_names);
        record.load_balancing = fields::entry_load_balancing(world, entry);
        record.visibility = match winner.visibility {
            Visibility::Namespace => wire::workload::service::Visibility::Namespace.into(),
            Visibility::Public | Visibility::None => wire::workload::service::Visibility::Public.into(),
        };
        record.weighted_waypoints = canary.and_then(Result::ok).unwrap_or_default();
        let index = self.list(&record, ports, Source::Entry, binding.waypoint());
        self.of_entry.entry(name).or_default().push(index);
        let selector = entry.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        if let Some(selector) = selector.filter(|labels| !labels.is_empty()) {
            self.by_namespace.entry(&name.namespace).or_default().insert(selector, index);
        }
        self.records.push(record);
    }

    /// The fields that both sources fill in alike.
    fn record(
        &self,
        world: &World<'a>,
        winner: &Winner<'a>,
        meta: &Metadata,
        ports: ServicePorts<'a>,
        binding: &Binding<'_, 'a>,
    ) -> Record {
        Record {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            hostname: winner.hostname.clone(),
            ports: ports.of_service(),
            waypoint: binding.address(),
            ingress_use_waypoint: binding.waypoint().is_some() && fields::ingress_uses_waypoint(world, meta),
            canonical: winner.canonical,
            ..Record::default()
        }
    }

    fn list(
        &mut self,
        record: &Record,
        ports: ServicePorts<'a>,
        source: Source,
        waypoint: Option<&Waypoint<'a>>,
    ) -> usize {
        self.listed.push(Listed {
            key: format!("{}/{}", record.namespace, record.hostname),
            hostname: record.hostname.clone(),
            ports,
            source,
            waypoint: waypoint.map(|waypoint| waypoint.name.clone()),
        });
        self.listed.len() - 1
    }

    /// Services of a namespace that select these labels.
    pub(super) fn selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<&Listed<'a>> {
        let found = self.by_namespace.get(namespace).map(|index| index.matching(labels)).unwrap_or_default();
        found.into_iter().filter_map(|index| self.listed.get(index)).collect()
    }

    /// The record of a Kubernetes service.
    pub(super) fn of_service(&self, name: &Name) -> Option<&Listed<'a>> {
        self.listed.get(*self.of_service.get(name)?)
    }

    /// The records of a service entry: those of its hosts that no older one has taken.
    pub(super) fn of_entry(&self, name: &Name) -> Vec<&Listed<'a>> {
        self.of_entry.get(name).into_iter().flatten().filter_map(|index| self.listed.get(*index)).collect()
    }
}

/// Everything that could become a service record, by hostname.
fn candidates<'a>(world: &World<'a>) -> BTreeMap<String, Vec<Candidate<'a>>> {
    let mut by_host: BTreeMap<String, Vec<Candidate<'a>>> = BTreeMap::new();
    for (name, service) in
        world.objects.services.iter().filter(|(_, service)| world.in_scope(&service.metadata))
    {
        if service.spec.kind != "ExternalName" && fields::cluster_ips_parse(&service.spec) {
            let hostname = format!("{}.{}.svc.{}", name.name, name.namespace, world.switches.cluster_domain);
            by_host.entry(hostname).or_default().push(Candidate::Service { name, service });
        }
    }
    for (name, entry) in world.objects.service_entries.iter().filter(|(_, entry)| world.uses(&entry.metadata))
    {
        let visibility = fields::visibility(world, &name.namespace);
        if visibility == Visibility::None {
            continue;
        }
        for host in &entry.spec.hosts {
            let candidates = by_host.entry(host.clone()).or_default();
            let repeated = candidates
                .iter()
                .any(|other| matches!(other, Candidate::Entry { name: n, .. } if *n == name));
            if !repeated {
                candidates.push(Candidate::Entry { name, entry, visibility });
            }
        }
    }
    by_host
}

/// The waypoint of each service entry, told once for all its hosts.
fn bind_entries<'w, 'a>(
    world: &World<'a>,
    waypoints: &'w Waypoints<'a>,
    candidates: &BTreeMap<String, Vec<Candidate<'a>>>,
    notes: &mut Notes,
) -> BTreeMap<&'a Name, Binding<'w, 'a>> {
    let mut bindings = BTreeMap::new();
    for candidate in candidates.values().flatten() {
        let Candidate::Entry { name, entry, visibility } = candidate else { continue };
        if bindings.contains_key(name) {
            continue;
        }
        let mut binding = waypoints.for_service(world, &entry.metadata);
        if let Some(waypoint) = binding.waypoint()
            && *visibility == Visibility::Namespace
            && waypoint.name.namespace != name.namespace
        {
            let reason = "CrossNamespaceWaypointForbidden";
            binding = Binding::Refused(Refusal { reason, waypoint: waypoint.name.clone() });
        }
        note_entry(world, entry, *visibility, &binding, notes);
        let canary = binding.waypoint().map(|primary| waypoints.weighted(world, &entry.metadata, primary));
        note_binding(Kind::ServiceEntry, &entry.metadata, &binding, canary.as_ref(), notes);
        bindings.insert(*name, binding);
    }
    bindings
}

fn note_binding(
    kind: Kind,
    meta: &Metadata,
    binding: &Binding<'_, '_>,
    canary: Option<&Result<Vec<wire::workload::WeightedWaypoint>, Refusal>>,
    notes: &mut Notes,
) {
    let (status, reason, mut message) = match binding {
        Binding::None => return,
        Binding::Bound(waypoint) => {
            (true, "WaypointAccepted", format!("bound to waypoint {}", waypoint.name))
        }
        Binding::Refused(refusal) => {
            (false, refusal.reason, format!("not bound to waypoint {}", refusal.waypoint))
        }
    };
    if let Some(Err(refusal)) = canary {
        message.push_str(&format!("; canary {} is not used: {}", refusal.waypoint, refusal.reason));
    }
    notes.condition(kind, meta, StatusCondition { kind: "istio.io/WaypointBound", status, reason, message });
}

fn note_entry(
    world: &World<'_>,
    entry: &ServiceEntry,
    visibility: Visibility,
    binding: &Binding<'_, '_>,
    notes: &mut Notes,
) {
    let meta = &entry.metadata;
    if world.mesh.service_entry_visibility.is_some() {
        let reason = if visibility == Visibility::Namespace { "Namespace" } else { "Public" };
        let message = "visibility of this service entry".to_owned();
        notes.condition(
            Kind::ServiceEntry,
            meta,
            StatusCondition { kind: "istio.io/VisibilityApplied", status: true, reason, message },
        );
    }
    let wildcard = entry.spec.hosts.iter().any(|host| host.starts_with('*'));
    let races = meta.annotation("istio.io/connect-strategy") == Some("RACE_FIRST_TCP_CONNECT");
    let missing = match (wildcard, races) {
        (true, _) => Some("NoWaypointForWildcardService"),
        (false, true) => Some("NoWaypointForRacingConnectStrategy"),
        (false, false) => None,
    };
    if let Some(reason) = missing.filter(|_| binding.waypoint().is_none()) {
        let message = "needs a waypoint to work".to_owned();
        notes.condition(
            Kind::ServiceEntry,
            meta,
            StatusCondition { kind: "istio.io/WaypointMissing", status: true, reason, message },
        );
    }
    for address in entry.spec.addresses.iter().filter(|address| fields::parse_address(address).is_none()) {
        let message = format!("address {address:?} is neither an IP address nor a range and is left out");
        notes.remark(Kind::ServiceEntry, meta, "translate-invalid-address", message);
    }
}
