//! The world of the page: what a control plane was given, and what it then sent.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost::Message;
use serde_json::Value;
use wire::discovery::DeltaDiscoveryResponse;
use wire::security::{AUTHORIZATION_TYPE, Authorization};
use wire::workload::{ADDRESS_TYPE, Address, address};

use super::data;
use crate::sources::{FileSource, FileSourceConfig};
use crate::translate::{Records, Switches, translate};

fn load(folder: std::path::PathBuf) -> Records {
    let config = FileSourceConfig { folder, mesh_config: None, state: None, allocate_addresses: true };
    let now: Timestamp = "2026-11-23T05:00:00Z".parse().expect("a time");
    let (_, snapshot) = FileSource::open(config, now).unwrap_or_else(|error| panic!("{error}"));
    translate(&snapshot.objects, &snapshot.mesh, &Switches::default())
}

/// The last resource sent under each name.
fn recorded() -> (BTreeMap<String, Address>, BTreeMap<String, Authorization>) {
    let mut addresses = BTreeMap::new();
    let mut authorizations = BTreeMap::new();
    for line in fs::read_to_string(data("page/xds/stream.jsonl")).expect("a stream").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let message = line.as_object().and_then(|fields| {
            fields
                .values()
                .filter_map(Value::as_str)
                .filter_map(|text| STANDARD.decode(text).ok())
                .max_by_key(Vec::len)
        });
        let response =
            DeltaDiscoveryResponse::decode(message.expect("a message").as_slice()).expect("a response");
        for resource in response.resources {
            let payload = resource.resource.expect("a payload");
            match payload.type_url.as_str() {
                ADDRESS_TYPE => {
                    addresses.insert(
                        resource.name,
                        Address::decode(payload.value.as_slice()).expect("an address"),
                    );
                }
                AUTHORIZATION_TYPE => {
                    let policy = Authorization::decode(payload.value.as_slice()).expect("a policy");
                    authorizations.insert(resource.name, policy);
                }
                other => panic!("unexpected type {other}"),
            }
        }
    }
    (addresses, authorizations)
}

/// Order means nothing in lists of addresses, and the reference's is random.
fn sorted(mut record: Address) -> Address {
    if let Some(address::Type::Service(service)) = &mut record.r#type {
        service.addresses.sort_by(|a, b| a.address.cmp(&b.address));
    }
    record
}

#[test]
fn the_recorded_world_gives_exactly_the_recorded_resources() {
    let (addresses, authorizations) = recorded();
    assert!(
        addresses.len() > 20 && authorizations.len() > 3,
        "{} and {}",
        addresses.len(),
        authorizations.len()
    );
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(data("page/world/settled.json"), folder.path().join("settled.json")).expect("the world");
    let records = load(folder.path().to_owned());
    let sort = |all: BTreeMap<String, Address>| {
        all.into_iter().map(|(name, r)| (name, sorted(r))).collect::<BTreeMap<_, _>>()
    };
    let (ours, theirs) = (sort(records.addresses), sort(addresses));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, record) in &theirs {
        assert_eq!(ours.get(name), Some(record), "{name}");
    }
    assert_eq!(records.authorizations, authorizations);
}
