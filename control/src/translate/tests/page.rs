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

/// The demo's folder is the page's world, but for what the demo does not run.
#[test]
fn the_bookinfo_example_gives_the_recorded_resources() {
    let (mut addresses, authorizations) = recorded();
    let records = load(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bookinfo").into());
    assert_eq!(records.authorizations, authorizations);
    let without = [
        "Kubernetes//Pod/default/waypoint-5f7bb9d58c-w4ypt",
        "default/waypoint.default.svc.cluster.local",
        "default/kubernetes.default.svc.cluster.local",
        "Kubernetes/discovery.k8s.io/EndpointSlice/default/kubernetes/10.0.0.1",
    ];
    for name in without {
        assert!(addresses.remove(name).is_some(), "{name} was recorded");
    }
    let ratings = addresses.get_mut("default/ratings.default.svc.cluster.local");
    if let Some(address::Type::Service(service)) = ratings.and_then(|record| record.r#type.as_mut()) {
        service.waypoint = None;
    }
    // The demo's control plane has an address of its own.
    let control = addresses.get_mut("Kubernetes//Pod/istio-system/istiod-0");
    if let Some(address::Type::Workload(workload)) = control.and_then(|record| record.r#type.as_mut()) {
        workload.network_mode = wire::workload::NetworkMode::Standard.into();
    }
    let allocated = "default/api.example.com";
    let mut ours = records.addresses;
    let external = ours.remove(allocated).and_then(|record| record.r#type);
    assert!(matches!(external, Some(address::Type::Service(service)) if service.addresses.len() == 2));
    assert!(addresses.remove(allocated).is_some());
    for (name, record) in &addresses {
        assert_eq!(ours.get(name), Some(record), "{name}");
    }
    assert_eq!(ours.len(), addresses.len());
}
