//! Everything the control plane serves at one moment, ready to send.
//!
//! A [`Catalog`] is built from the records of `translate` and never changes. Each record is serialized and hashed
//! once; what did not change is shared with the catalog before. It answers the lookups of on-demand clients
//! (control-plane 2.8) from indexes, and tells what differs from an older catalog.

mod index;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use prost::Message as _;
use wire::security::AUTHORIZATION_TYPE;
use wire::workload::{ADDRESS_TYPE, Address, WORKLOAD_TYPE, address};
use xds::server::{Changes, Kind, Selection};
use xds::{Change, Record, World};

use crate::translate::Records;
use index::Index;

/// What is offered over discovery, in the order of a push.
pub(crate) const KINDS: &[Kind] = &[
    Kind { type_url: ADDRESS_TYPE, short: "wds", selection: Selection::Addressable },
    Kind { type_url: WORKLOAD_TYPE, short: "workload", selection: Selection::Addressable },
    Kind { type_url: AUTHORIZATION_TYPE, short: "wads", selection: Selection::Broadcast },
];

/// Records of one type by name.
type Table = BTreeMap<Arc<str>, Arc<Record>>;

/// Everything served at one moment.
#[derive(Debug)]
pub(crate) struct Catalog {
    number: u64,
    built: Timestamp,
    addresses: Table,
    policies: Table,
    index: Index,
    /// The addresses that are workloads, in their own message; few clients ask.
    workloads: OnceLock<Table>,
    /// The number of the catalog before, and what differs from it.
    before: Option<(u64, Arc<Changes>)>,
    records: Arc<Records>,
}

impl Catalog {
    /// The first catalog.
    pub(crate) fn first(records: Arc<Records>, now: Timestamp) -> Self {
        Self::build(None, records, now)
    }

    /// The catalog after this one.
    pub(crate) fn next(&self, records: Arc<Records>, now: Timestamp) -> Self {
        Self::build(Some(self), records, now)
    }

    fn build(before: Option<&Self>, records: Arc<Records>, now: Timestamp) -> Self {
        let empty = Table::new();
        let (addresses_before, policies_before) =
            before.map_or((&empty, &empty), |before| (&before.addresses, &before.policies));
        let addresses: Table = records
            .addresses
            .iter()
            .map(|(name, address)| shared(addresses_before, address_record(name, address)))
            .collect();
        let policies: Table = records
            .authorizations
            .iter()
            .map(|(name, policy)| shared(policies_before, plain_record(name, policy.encode_to_vec())))
            .collect();
        let index = Index::new(&addresses, &records.addresses);
        let mut catalog = Self {
            number: before.map_or(1, |before| before.number + 1),
            built: now,
            addresses,
            policies,
            index,
            workloads: OnceLock::new(),
            before: None,
            records,
        };
        catalog.before = before.map(|before| (before.number, Arc::new(catalog.compare(before))));
        catalog
    }

    /// The records this was built from.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// When it was built.
    pub(crate) fn built(&self) -> Timestamp {
        self.built
    }

    /// How many workloads, services and policies there are.
    pub(crate) fn counts(&self) -> Counts {
        let n_workloads = self.records.addresses.values().filter(|address| is_workload(address)).count();
        Counts {
            n_workloads,
            n_services: self.addresses.len() - n_workloads,
            n_policies: self.policies.len(),
            n_bytes: self
                .addresses
                .values()
                .chain(self.policies.values())
                .map(|record| record.payload.len())
                .sum(),
        }
    }

    /// What this catalog changed; nothing for the first.
    pub(crate) fn changes(&self) -> Option<&Changes> {
        self.before.as_ref().map(|(_, changes)| &**changes)
    }

    fn table(&self, type_url: &str) -> Option<&Table> {
        match type_url {
            ADDRESS_TYPE => Some(&self.addresses),
            AUTHORIZATION_TYPE => Some(&self.policies),
            WORKLOAD_TYPE => Some(self.workloads.get_or_init(|| {
                let workloads = self.addresses.values().filter_map(|record| workload_record(record));
                workloads.map(|record| (Arc::clone(&record.name), Arc::new(record))).collect()
            })),
            _ => None,
        }
    }

    fn compare(&self, older: &Self) -> Changes {
        let addresses = differences(&older.addresses, &self.addresses);
        let as_workload =
            |record: &Option<Arc<Record>>| record.as_deref().and_then(workload_record).map(Arc::new);
        let workloads = addresses
            .iter()
            .map(|change| Change { before: as_workload(&change.before), after: as_workload(&change.after) })
            .filter(|change| change.before.is_some() || change.after.is_some())
            .collect();
        let policies = differences(&older.policies, &self.policies);
        let by_type = BTreeMap::from([
            (ADDRESS_TYPE, addresses),
            (WORKLOAD_TYPE, workloads),
            (AUTHORIZATION_TYPE, policies),
        ]);
        Changes { by_type }
    }

    /// The same records as another type knows them.
    fn as_type(&self, type_url: &str, names: Vec<Arc<str>>) -> Vec<Arc<Record>> {
        let table = self.table(type_url);
        names.iter().filter_map(|name| table?.get(name).cloned()).collect()
    }
}

/// Sizes of a catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) n_workloads: usize,
    pub(crate) n_services: usize,
    pub(crate) n_policies: usize,
    pub(crate) n_bytes: usize,
}

impl World for Catalog {
    fn version(&self) -> String {
        format!("{:.0}/{}", self.built, self.number)
    }

    fn get(&self, type_url: &str, name: &str) -> Option<&Arc<Record>> {
        self.table(type_url)?.get(name)
    }

    fn all(&self, type_url: &str) -> Box<dyn Iterator<Item = &Arc<Record>> + '_> {
        Box::new(self.table(type_url).into_iter().flat_map(BTreeMap::values))
    }

    fn lookup(&self, type_url: &str, key: &str) -> Vec<Arc<Record>> {
        match type_url {
            AUTHORIZATION_TYPE => self.policies.get(key).cloned().into_iter().collect(),
            _ => self.as_type(type_url, self.index.lookup(&self.addresses, key)),
        }
    }

    fn at(&self, type_url: &str, place: &str) -> Vec<Arc<Record>> {
        match type_url {
            AUTHORIZATION_TYPE => Vec::new(),
            _ => self.as_type(type_url, self.index.at(place)),
        }
    }

    fn changes_since(&self, older: &Self) -> Arc<Changes> {
        match &self.before {
            _ if older.number == self.number => Arc::default(),
            Some((number, changes)) if *number == older.number => Arc::clone(changes),
            _ => Arc::new(self.compare(older)),
        }
    }
}

/// The record as it was, if it is the same.
fn shared(before: &Table, record: Record) -> (Arc<str>, Arc<Record>) {
    match before.get(&record.name) {
        Some(same) if **same == record => (Arc::clone(&same.name), Arc::clone(same)),
        _ => (Arc::clone(&record.name), Arc::new(record)),
    }
}

fn plain_record(name: &str, payload: Vec<u8>) -> Record {
    Record {
        name: name.into(),
        version: xds::version_of(&payload),
        payload: payload.into(),
        aliases: Vec::new(),
        parents: Vec::new(),
        place: None,
    }
}

fn address_record(name: &str, address: &Address) -> Record {
    let record = plain_record(name, address.encode_to_vec());
    match &address.r#type {
        Some(address::Type::Workload(workload)) => Record {
            aliases: index::workload_addresses(workload)
                .map(|ip| format!("{}/{ip}", workload.network))
                .collect(),
            parents: workload.services.keys().map(|service| Arc::from(service.as_str())).collect(),
            place: (!workload.node.is_empty()).then(|| workload.node.as_str().into()),
            ..record
        },
        Some(address::Type::Service(service)) => Record {
            aliases: index::service_addresses(service).map(|address| address.to_string()).collect(),
            ..record
        },
        None => record,
    }
}

fn is_workload(address: &Address) -> bool {
    matches!(address.r#type, Some(address::Type::Workload(_)))
}

/// The `Workload` inside an `Address`: the same bytes without the wrapper, under the same version.
fn workload_record(record: &Record) -> Option<Record> {
    const WORKLOAD_FIELD: u8 = 0x0a;
    let mut rest = record.payload.strip_prefix(&[WORKLOAD_FIELD])?;
    prost::encoding::decode_varint(&mut rest).ok()?;
    Some(Record { payload: rest.into(), ..record.clone() })
}

fn differences(older: &Table, newer: &Table) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, before) in older {
        match newer.get(name) {
            Some(after) if Arc::ptr_eq(before, after) || before == after => {}
            after => changes.push(Change { before: Some(Arc::clone(before)), after: after.cloned() }),
        }
    }
    let added = newer.iter().filter(|(name, _)| !older.contains_key(*name));
    changes.extend(added.map(|(_, after)| Change { before: None, after: Some(Arc::clone(after)) }));
    changes
}
