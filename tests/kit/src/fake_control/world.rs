//! What the fake control plane serves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;
use wire::security::AUTHORIZATION_TYPE;
use wire::workload::{ADDRESS_TYPE, address};
use xds::server::{Changes, Kind, Selection, Session};
use xds::{Change, Record};

use super::Thing;

/// What it offers.
pub const KINDS: &[Kind] = &[
    Kind { type_url: ADDRESS_TYPE, short: "wds", selection: Selection::Addressable },
    Kind { type_url: AUTHORIZATION_TYPE, short: "wads", selection: Selection::Broadcast },
];

/// Records by type and name.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    number: u64,
    tables: BTreeMap<String, BTreeMap<String, Arc<Record>>>,
}

/// A lock as the session's adapter wants it.
pub(super) fn lock(session: Session<World>) -> parking_lot::Mutex<Session<World>> {
    parking_lot::Mutex::new(session)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl World {
    pub(super) fn put(&mut self, thing: &Thing) {
        let (type_url, payload) = match thing {
            Thing::Address(address) => (ADDRESS_TYPE, address.encode_to_vec()),
            Thing::Policy(policy) => (AUTHORIZATION_TYPE, policy.encode_to_vec()),
        };
        let mut record = Record {
            name: "".into(),
            version: xds::version_of(&payload),
            payload: payload.into(),
            aliases: Vec::new(),
            parents: Vec::new(),
            place: None,
        };
        match thing {
            Thing::Policy(policy) => record.name = format!("{}/{}", policy.namespace, policy.name).into(),
            Thing::Address(address) => match address.r#type.as_ref().unwrap() {
                address::Type::Workload(workload) => {
                    record.name = workload.uid.as_str().into();
                    record.parents = workload.services.keys().map(|name| name.as_str().into()).collect();
                    let ips = workload.addresses.iter().filter_map(|bytes| ip(bytes));
                    record.aliases = ips.map(|ip| format!("{}/{ip}", workload.network)).collect();
                }
                address::Type::Service(service) => {
                    record.name = format!("{}/{}", service.namespace, service.hostname).into();
                    let ips = service.addresses.iter().filter_map(|a| Some((&a.network, ip(&a.address)?)));
                    record.aliases = ips.map(|(network, ip)| format!("{network}/{ip}")).collect();
                }
            },
        }
        self.number += 1;
        let table = self.tables.entry(type_url.to_owned()).or_default();
        table.insert(record.name.to_string(), Arc::new(record));
    }

    pub(super) fn remove(&mut self, type_url: &str, name: &str) {
        self.number += 1;
        let removed = self.tables.get_mut(type_url).and_then(|table| table.remove(name));
        assert!(removed.is_some(), "{name} is not served");
    }
}

impl xds::World for World {
    fn version(&self) -> String {
        format!("fake/{}-", self.number)
    }

    fn get(&self, type_url: &str, name: &str) -> Option<&Arc<Record>> {
        self.tables.get(type_url)?.get(name)
    }

    fn all(&self, type_url: &str) -> Box<dyn Iterator<Item = &Arc<Record>> + '_> {
        Box::new(self.tables.get(type_url).into_iter().flat_map(BTreeMap::values))
    }

    fn lookup(&self, type_url: &str, key: &str) -> Vec<Arc<Record>> {
        let answers =
            |record: &Arc<Record>| &*record.name == key || record.aliases.iter().any(|alias| alias == key);
        let mut found: Vec<Arc<Record>> =
            self.all(type_url).filter(|record| answers(record)).cloned().collect();
        let members: Vec<Arc<Record>> = self
            .all(type_url)
            .filter(|record| {
                record.parents.iter().any(|parent| found.iter().any(|found| found.name == *parent))
            })
            .cloned()
            .collect();
        found.extend(members);
        found
    }

    fn at(&self, _type_url: &str, _place: &str) -> Vec<Arc<Record>> {
        Vec::new()
    }

    fn changes_since(&self, older: &Self) -> Arc<Changes> {
        let mut changes = Changes::default();
        for kind in KINDS {
            let list = changes.by_type.entry(kind.type_url).or_default();
            for before in xds::World::all(older, kind.type_url) {
                let after = xds::World::get(self, kind.type_url, &before.name).cloned();
                if after.as_ref() != Some(before) {
                    list.push(Change { before: Some(Arc::clone(before)), after });
                }
            }
            let is_new =
                |record: &&Arc<Record>| xds::World::get(older, kind.type_url, &record.name).is_none();
            let added = xds::World::all(self, kind.type_url).filter(is_new);
            list.extend(added.map(|after| Change { before: None, after: Some(Arc::clone(after)) }));
        }
        Arc::new(changes)
    }
}
