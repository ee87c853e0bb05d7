//! Addresses for service entries that name hosts only (control-plane 3.7.5), in place of the
//! controller that writes them to status in a cluster.
//!
//! An address follows from a hash of namespace, name and host, with the next free one taken where two
//! meet; so it survives restarts even without the table that is kept in the state folder.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

use super::objects::{AllocatedAddress, Objects, ServiceEntry};
use crate::translate::wants_allocation;

/// 240.240.0.1 to 240.240.255.254, and 2001:2:: with the same last number.
const FIRST: u32 = 1;
const LAST: u32 = 65534;

/// Numbers given to hosts, by `<namespace>/<name>/<host>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Allocation {
    numbers: BTreeMap<String, u32>,
}

impl Allocation {
    /// Gives every host that needs one an address; returns whether the table changed.
    pub(super) fn fill_in(&mut self, objects: &mut Objects) -> bool {
        let before = std::mem::take(&mut self.numbers);
        let mut taken = written_addresses(objects);
        let mut entries: Vec<Arc<ServiceEntry>> = objects.service_entries.values().cloned().collect();
        entries.sort_by(|a, b| a.metadata.age().cmp(&b.metadata.age()));

        // What is in status already stays, the oldest first; then what the table remembers; then new ones.
        let mut wanting: Vec<(String, usize, String)> = Vec::new();
        let mut settled: Vec<Vec<AllocatedAddress>> = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let mut addresses = Vec::new();
            for host in entry.spec.hosts.iter().filter(|host| wants_allocation(entry, host)) {
                let own: Vec<&AllocatedAddress> =
                    entry.status.addresses.iter().filter(|address| address.host == **host).collect();
                let free = own
                    .iter()
                    .all(|address| address.value.parse().is_ok_and(|ip: IpAddr| !taken.contains(&ip)));
                if !own.is_empty() && free {
                    taken.extend(own.iter().filter_map(|address| address.value.parse::<IpAddr>().ok()));
                    addresses.extend(own.into_iter().cloned());
                } else {
                    let key = format!("{}/{}/{host}", entry.metadata.namespace, entry.metadata.name);
                    wanting.push((key, i, host.clone()));
                }
            }
            settled.push(addresses);
        }
        let remembered = |key: &String| !before.contains_key(key);
        wanting.sort_by_key(|(key, ..)| remembered(key));
        for (key, i, host) in wanting {
            let Some(number) = next_free(before.get(&key).copied(), &key, &taken) else { continue };
            let addresses = [v4(number), v6(number)];
            taken.extend(addresses);
            self.numbers.insert(key, number);
            if let Some(settled) = settled.get_mut(i) {
                let allocated = addresses
                    .map(|address| AllocatedAddress { value: address.to_string(), host: host.clone() });
                settled.extend(allocated);
            }
        }
        for (entry, addresses) in entries.iter().zip(settled) {
            let name = super::objects::Name::new(&entry.metadata.namespace, &entry.metadata.name);
            if let Some(entry) = objects.service_entries.get_mut(&name)
                && entry.status.addresses != addresses
            {
                Arc::make_mut(entry).status.addresses = addresses;
            }
        }
        self.numbers != before
    }
}

/// Addresses people wrote down: they always win.
fn written_addresses(objects: &Objects) -> BTreeSet<IpAddr> {
    objects
        .service_entries
        .values()
        .flat_map(|entry| &entry.spec.addresses)
        .filter_map(|text| text.parse().ok())
        .collect()
}

fn next_free(remembered: Option<u32>, key: &str, taken: &BTreeSet<IpAddr>) -> Option<u32> {
    let size = LAST - FIRST + 1;
    let hashed = u32::try_from(xxh64(key.as_bytes(), 0) % u64::from(size)).ok()? + FIRST;
    let probes = (0..size).map(|step| FIRST + (hashed - FIRST + step) % size);
    let in_range = remembered.filter(|number| (FIRST..=LAST).contains(number));
    in_range
        .into_iter()
        .chain(probes)
        .find(|number| !taken.contains(&v4(*number)) && !taken.contains(&v6(*number)))
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(240, 240, 0, 0)) | number))
}

fn v6(number: u32) -> IpAddr {
    let base = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
    IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() | u128::from(number)))
}
