//! One session against recorded streams, and what the recordings do not show.

mod replay;
mod rules;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

pub(super) const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
pub(super) const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
pub(super) const POLICY: &str = "type.googleapis.com/istio.security.Authorization";

pub(super) const KINDS: &[Kind] = &[
    Kind { type_url: ADDRESS, short: "wds", selection: Selection::Addressable },
    Kind { type_url: WORKLOAD, short: "workload", selection: Selection::Addressable },
    Kind { type_url: POLICY, short: "wads", selection: Selection::Broadcast },
];

/// A world in memory: records by type and name.
#[derive(Clone, Debug, Default)]
pub(super) struct TestWorld {
    pub(super) records: BTreeMap<&'static str, BTreeMap<String, Arc<Record>>>,
    /// Further keys under which a record is found, though not advertised.
    pub(super) also: BTreeMap<String, String>,
    pub(super) generation: u64,
}

/// A record written down shortly.
#[derive(Clone, Debug, Default)]
pub(super) struct Short<'a> {
    pub(super) version: &'a str,
    pub(super) aliases: &'a [&'a str],
    pub(super) parents: &'a [&'a str],
    pub(super) place: Option<&'a str>,
}

impl TestWorld {
    pub(super) fn put(&mut self, type_url: &'static str, name: &str, short: &Short<'_>) {
        let record = Record {
            name: name.into(),
            version: short.version.to_owned(),
            payload: name.as_bytes().into(),
            aliases: short.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            parents: short.parents.iter().map(|parent| Arc::from(*parent)).collect(),
            place: short.place.map(Arc::from),
        };
        self.generation += 1;
        self.records.entry(type_url).or_default().insert(name.to_owned(), Arc::new(record));
    }

    pub(super) fn update(&mut self, type_url: &'static str, name: &str, version: &str) {
        let records = self.records.get_mut(type_url).expect("the type");
        let mut record = Record::clone(records.get(name).expect("the record"));
        record.version = version.to_owned();
        records.insert(name.to_owned(), Arc::new(record));
        self.generation += 1;
    }

    pub(super) fn remove(&mut self, type_url: &'static str, name: &str) {
        self.records.get_mut(type_url).expect("the type").remove(name).expect("the record");
        self.generation += 1;
    }
}

impl World for TestWorld {
    fn version(&self) -> String {
        format!("2026-11-23T03:58:57Z/{}", self.generation)
    }

    fn get(&self, type_url: &str, name: &str) -> Option<&Arc<Record>> {
        self.records.get(type_url)?.get(name)
    }

    fn all(&self, type_url: &str) -> Box<dyn Iterator<Item = &Arc<Record>> + '_> {
        Box::new(self.records.get(type_url).into_iter().flat_map(BTreeMap::values))
    }

    fn lookup(&self, type_url: &str, key: &str) -> Vec<Arc<Record>> {
        let name = self.also.get(key).map_or(key, String::as_str);
        let direct: Vec<&Arc<Record>> = self
            .all(type_url)
            .filter(|record| {
                &*record.name == name
                    || record.aliases.iter().any(|alias| alias == name && !alias.contains("/198"))
            })
            .collect();
        let members = |of: &Arc<Record>| {
            let of = Arc::clone(&of.name);
            self.all(type_url).filter(move |record| record.parents.contains(&of)).cloned().collect::<Vec<_>>()
        };
        direct.iter().flat_map(|record| std::iter::once(Arc::clone(record)).chain(members(record))).collect()
    }

    fn at(&self, type_url: &str, place: &str) -> Vec<Arc<Record>> {
        self.all(type_url).filter(|record| record.place.as_deref() == Some(place)).cloned().collect()
    }

    fn changes_since(&self, older: &Self) -> Arc<Changes> {
        let mut changes = Changes::default();
        for type_url in [ADDRESS, WORKLOAD, POLICY] {
            let list = changes.by_type.entry(type_url).or_default();
            for before in older.all(type_url) {
                let after = self.get(type_url, &before.name);
                if after.is_none_or(|after| after != before) {
                    list.push(Change { before: Some(Arc::clone(before)), after: after.cloned() });
                }
            }
            for after in self.all(type_url).filter(|after| older.get(type_url, &after.name).is_none()) {
                list.push(Change { before: None, after: Some(Arc::clone(after)) });
            }
        }
        Arc::new(changes)
    }
}

/// The world of most recordings.
pub(super) fn recorded_world() -> TestWorld {
    let mut world = TestWorld::default();
    for type_url in [ADDRESS, WORKLOAD] {
        let pod = |version, alias, place| Short {
            version,
            aliases: alias,
            parents: &["xp/s.xp.svc.cluster.local"],
            place: Some(place),
        };
        world.put(type_url, "Kubernetes//Pod/xp/p1", &pod("a9efa798f76d54ff", &["/10.30.0.1"], "n1"));
        world.put(type_url, "Kubernetes//Pod/xp/p2", &pod("8646f9f3dab74232", &["/10.30.0.2"], "n2"));
        let slice = Short {
            version: "adef32e35eaa0169",
            aliases: &["/10.0.0.1"],
            parents: &["default/kubernetes.default.svc.cluster.local"],
            place: None,
        };
        world.put(type_url, "Kubernetes/discovery.k8s.io/EndpointSlice/default/kubernetes/10.0.0.1", &slice);
    }
    let service = |version, alias| Short { version, aliases: alias, parents: &[], place: None };
    world.put(
        ADDRESS,
        "default/kubernetes.default.svc.cluster.local",
        &service("46554a34ba2302d2", &["/10.96.0.1"]),
    );
    world.put(ADDRESS, "xp/cidr.xp.example", &service("bd1ff860d7e9f845", &["/198.51.100.0/24"]));
    world.put(ADDRESS, "xp/s.xp.svc.cluster.local", &service("f4ae4d582217b025", &["/10.96.60.1"]));
    world.also.insert("/198.51.100.0".to_owned(), "xp/cidr.xp.example".to_owned());
    world.put(POLICY, "xp/sel", &Short { version: "1", ..Short::default() });
    world
}

pub(super) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}

pub(super) fn ask(type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

pub(super) fn answer(received: Received) -> DeltaDiscoveryResponse {
    match received {
        Received::Answer(response) => response,
        other => panic!("expected an answer, got {other:?}"),
    }
}

pub(super) fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}
