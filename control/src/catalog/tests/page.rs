//! The page's world as two clients were sent it: names, versions, aliases and bytes.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use xds::server::{Received, Session};

use super::*;
use crate::sources::{FileSource, FileSourceConfig};
use crate::translate::{Switches, translate};

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/page").join(name)
}

fn catalog() -> Catalog {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(data("world/settled.json"), folder.path().join("settled.json")).expect("the world");
    let config = FileSourceConfig {
        folder: folder.path().to_owned(),
        mesh_config: None,
        state: None,
        allocate_addresses: true,
    };
    let now = "2026-11-23T05:00:00Z".parse().expect("a time");
    let (_, snapshot) = FileSource::open(config, now).unwrap_or_else(|error| panic!("{error}"));
    Catalog::first(Arc::new(translate(&snapshot.objects, &snapshot.mesh, &Switches::default())), now)
}

fn recorded(stream: &str) -> Vec<DeltaDiscoveryResponse> {
    let text = std::fs::read_to_string(data(stream)).expect("a recorded stream");
    let response = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let message = line["delta_discovery_response_base64"].as_str().expect("a message");
        DeltaDiscoveryResponse::decode(STANDARD.decode(message).expect("base64").as_slice())
            .expect("a response")
    };
    text.lines().map(response).collect()
}

/// What a response says, whatever its order.
type Said = BTreeMap<String, (String, Vec<String>, Vec<u8>)>;

fn said(response: &DeltaDiscoveryResponse, with_versions: bool) -> Said {
    let resources = response.resources.iter().map(|resource| {
        let version = if with_versions { resource.version.clone() } else { String::new() };
        let payload = resource.resource.clone().expect("a payload").value;
        (resource.name.clone(), (version, resource.aliases.clone(), payload))
    });
    resources.collect()
}

fn compare(session: &mut Session<Catalog>, requests: Vec<DeltaDiscoveryRequest>, stream: &str) {
    let recorded = recorded(stream);
    assert_eq!(recorded.len(), 2);
    for request in requests {
        let type_url = request.type_url.clone();
        let Received::Answer(ours) = session.request(request) else { panic!("{type_url} is answered") };
        let theirs = recorded.iter().find(|response| response.type_url == type_url).expect("it is recorded");
        // The reference has no versions for policies.
        let with_versions = type_url == ADDRESS_TYPE;
        assert_eq!(said(&ours, with_versions), said(theirs, with_versions), "{stream} {type_url}");
        assert_eq!(ours.removed_resources, theirs.removed_resources, "{stream} {type_url}");
    }
}

#[test]
fn a_wildcard_client_is_sent_the_recorded_bytes() {
    let mut session = Session::new(KINDS, Arc::new(catalog()), Some("ambient-worker".to_owned()), 1);
    let ask = |type_url: &str| DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() };
    compare(&mut session, vec![ask(ADDRESS_TYPE), ask(AUTHORIZATION_TYPE)], "xds/stream.jsonl");
}

#[test]
fn an_on_demand_client_is_sent_the_recorded_bytes() {
    let mut session = Session::new(KINDS, Arc::new(catalog()), Some("ambient-worker".to_owned()), 1);
    let names = [
        "*",
        "/10.96.0.22",
        "default/productpage.default.svc.cluster.local",
        "Kubernetes//Pod/default/sleep-7656cf8794-m9b5q",
        "/10.99.99.99",
    ];
    let addresses = DeltaDiscoveryRequest {
        type_url: ADDRESS_TYPE.to_owned(),
        resource_names_subscribe: names.map(str::to_owned).into(),
        resource_names_unsubscribe: vec!["*".to_owned()],
        ..Default::default()
    };
    let policies = DeltaDiscoveryRequest { type_url: AUTHORIZATION_TYPE.to_owned(), ..Default::default() };
    compare(&mut session, vec![addresses, policies], "xds-ondemand/stream.jsonl");
}
