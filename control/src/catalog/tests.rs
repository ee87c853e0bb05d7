mod page;

use wire::workload::{NetworkAddress, PortList, Service, Workload};

use super::*;

pub(crate) fn workload(uid: &str, ip: [u8; 4], node: &str, services: &[&str]) -> (String, Address) {
    let workload = Workload {
        uid: uid.to_owned(),
        addresses: vec![ip.to_vec()],
        node: node.to_owned(),
        services: services.iter().map(|name| ((*name).to_owned(), PortList::default())).collect(),
        ..Default::default()
    };
    (uid.to_owned(), Address { r#type: Some(address::Type::Workload(workload)) })
}

pub(crate) fn service(name: &str, ip: [u8; 4], length: Option<u32>) -> (String, Address) {
    let (namespace, hostname) = name.split_once('/').expect("ns/host");
    let service = Service {
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vec![NetworkAddress { network: String::new(), address: ip.to_vec(), length }],
        ..Default::default()
    };
    (name.to_owned(), Address { r#type: Some(address::Type::Service(service)) })
}

pub(crate) fn records(addresses: impl IntoIterator<Item = (String, Address)>) -> Arc<Records> {
    Arc::new(Records { addresses: addresses.into_iter().collect(), ..Records::default() })
}

fn sample() -> Vec<(String, Address)> {
    vec![
        workload("c//Pod/xp/p1", [10, 30, 0, 1], "n1", &["xp/s.example"]),
        workload("c//Pod/xp/p2", [10, 30, 0, 2], "n2", &["xp/s.example"]),
        workload("c//Pod/xp/twin", [10, 30, 0, 2], "n2", &[]),
        service("xp/s.example", [10, 96, 0, 1], None),
        service("xp/wide.example", [198, 51, 100, 0], Some(24)),
        service("xp/narrow.example", [198, 51, 100, 128], Some(25)),
    ]
}

fn found(catalog: &Catalog, key: &str) -> Vec<String> {
    catalog.lookup(ADDRESS_TYPE, key).iter().map(|record| record.name.to_string()).collect()
}

// CP-A-01, CP-A-03, CP-A-06, CP-2.8; ranges by any address inside them (CP-11-4).
#[test]
fn keys_find_records_in_the_order_of_the_contract() {
    let catalog = Catalog::first(records(sample()), Timestamp::UNIX_EPOCH);
    assert_eq!(found(&catalog, "c//Pod/xp/p1"), ["c//Pod/xp/p1"]);
    assert_eq!(found(&catalog, "/10.30.0.1"), ["c//Pod/xp/p1"]);
    assert_eq!(found(&catalog, "/10.30.0.2"), ["c//Pod/xp/p2", "c//Pod/xp/twin"]);
    let service = ["xp/s.example", "c//Pod/xp/p1", "c//Pod/xp/p2"];
    assert_eq!(found(&catalog, "xp/s.example"), service);
    assert_eq!(found(&catalog, "/10.96.0.1"), service);
    assert_eq!(found(&catalog, "/198.51.100.7"), ["xp/wide.example"]);
    assert_eq!(found(&catalog, "/198.51.100.200"), ["xp/narrow.example"]);
    assert_eq!(found(&catalog, "/198.51.100.0/24"), ["xp/wide.example"]);
    for nothing in ["other/10.30.0.1", "/10.99.0.1", "noslash", "", "/", "xp/none", "/10.30.0.1/32", "/x/y"] {
        assert!(found(&catalog, nothing).is_empty(), "{nothing:?}");
    }
    let local: Vec<String> =
        catalog.at(ADDRESS_TYPE, "n2").iter().map(|record| record.name.to_string()).collect();
    assert_eq!(local, ["c//Pod/xp/p2", "c//Pod/xp/twin"]);
}

#[test]
fn aliases_are_the_addresses() {
    let catalog = Catalog::first(records(sample()), Timestamp::UNIX_EPOCH);
    let aliases = |name: &str| catalog.get(ADDRESS_TYPE, name).expect("it").aliases.clone();
    assert_eq!(aliases("c//Pod/xp/p1"), ["/10.30.0.1"]);
    assert_eq!(aliases("xp/s.example"), ["/10.96.0.1"]);
    assert_eq!(aliases("xp/wide.example"), ["/198.51.100.0/24"]);
}

#[test]
fn what_did_not_change_is_shared_and_what_did_is_told() {
    let first = Catalog::first(records(sample()), Timestamp::UNIX_EPOCH);
    let mut changed = sample();
    changed[0] = workload("c//Pod/xp/p1", [10, 30, 0, 9], "n1", &["xp/s.example"]);
    changed.remove(2);
    changed.push(service("xp/new.example", [10, 96, 0, 9], None));
    let second = first.next(records(changed), Timestamp::UNIX_EPOCH);
    let same = |name: &str| {
        Arc::ptr_eq(first.get(ADDRESS_TYPE, name).expect("it"), second.get(ADDRESS_TYPE, name).expect("it"))
    };
    assert!(same("c//Pod/xp/p2"));
    let told = |type_url: &str, catalog: &Catalog| -> Vec<(String, bool, bool)> {
        let changes = catalog.changes_since(&first);
        let name =
            |change: &Change| change.after.as_ref().or(change.before.as_ref()).expect("one").name.to_string();
        changes.of(type_url).iter().map(|c| (name(c), c.before.is_some(), c.after.is_some())).collect()
    };
    let expected = [
        ("c//Pod/xp/p1".to_owned(), true, true),
        ("c//Pod/xp/twin".to_owned(), true, false),
        ("xp/new.example".to_owned(), false, true),
    ];
    assert_eq!(told(ADDRESS_TYPE, &second), expected);
    assert_eq!(told(WORKLOAD_TYPE, &second), expected[..2]);
    // The same over a catalog in between.
    let third = second.next(Arc::new(second.records().clone()), Timestamp::UNIX_EPOCH);
    assert_eq!(told(ADDRESS_TYPE, &third), expected);
    assert!(third.changes().is_some_and(Changes::is_empty));
}

#[test]
fn a_workload_is_the_same_bytes_without_its_wrapper() {
    let catalog = Catalog::first(records(sample()), Timestamp::UNIX_EPOCH);
    let (address, workload) =
        (catalog.get(ADDRESS_TYPE, "c//Pod/xp/p1"), catalog.get(WORKLOAD_TYPE, "c//Pod/xp/p1"));
    let (address, workload) = (address.expect("it"), workload.expect("it"));
    assert_eq!(address.version, workload.version);
    let read = Workload::decode(&*workload.payload).expect("a Workload");
    assert_eq!(read.uid, "c//Pod/xp/p1");
    assert_eq!(catalog.all(WORKLOAD_TYPE).count(), 3);
}

#[test]
fn versions_look_like_a_time_and_a_number() {
    let catalog = Catalog::first(records([]), Timestamp::from_second(1_800_000_000).expect("a time"));
    assert_eq!(catalog.version(), "2027-01-15T08:00:00Z/1");
}
