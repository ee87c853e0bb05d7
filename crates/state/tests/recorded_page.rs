//! The recorded stream of a real control plane gives the recorded dump of a real node proxy.
// CP-A: page/xds into our node; 6.3 of the operations contract.
#![allow(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use culvert_state::{Delta, Mesh, MeshConfig, ResourceType};
use prost::Message;
use serde_json::{Value, json};
use wire::discovery::DeltaDiscoveryResponse;

fn data(name: &str) -> String {
    let path = format!("{}/../../tests/data/page/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn recorded_mesh() -> Mesh {
    let mut mesh = Mesh::new(MeshConfig { node: Some("ambient-worker".into()), ..MeshConfig::default() });
    for line in data("xds/stream.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = line.as_object().unwrap().values().filter_map(Value::as_str);
        let message = bytes
            .filter_map(|text| DeltaDiscoveryResponse::decode(&*STANDARD.decode(text).ok()?).ok())
            .find(|response| !response.resources.is_empty())
            .expect("a response on each line");
        let kind = ResourceType::from_url(&message.type_url).expect("a known type");
        let resources = message.resources.iter().map(|resource| {
            (resource.name.as_str(), resource.resource.as_ref().map(|any| any.value.as_slice()))
        });
        let (next, applied) = mesh.apply(Delta::decode(kind, resources, message.removed_resources.clone()));
        assert_eq!(applied.nack(), None);
        mesh = next;
    }
    mesh
}

/// Lists without an order are compared as sets.
fn sorted(mut value: Value) -> Value {
    for workload in value["workloads"].as_array_mut().unwrap() {
        if let Some(services) = workload.get_mut("services").and_then(Value::as_array_mut) {
            services.sort_by_key(|service| service.as_str().unwrap().to_owned());
        }
    }
    value
}

#[test]
fn the_recorded_stream_gives_the_recorded_dump() {
    let mesh = recorded_mesh();
    for recorded in ["config_dump-n1.json", "config_dump-n2.json"] {
        let recorded: Value = serde_json::from_str(&data(recorded)).unwrap();
        let expected = sorted(json!({
            "workloads": recorded["workloads"], "services": recorded["services"],
            "policies": recorded["policies"], "stagedServices": recorded["stagedServices"],
        }));
        let actual = sorted(json!({
            "workloads": mesh.dump_workloads(), "services": mesh.dump_services(),
            "policies": mesh.dump_policies(), "stagedServices": mesh.dump_staged_services(),
        }));
        for part in ["workloads", "services", "policies", "stagedServices"] {
            assert_eq!(actual[part], expected[part], "{part}");
        }
    }
}

#[test]
fn refused_resources_leave_the_others_alone() {
    let mesh = recorded_mesh();
    let before = mesh.n_workloads();
    let removed = vec!["/invalid".to_owned(), "nobody".to_owned()];
    let (after, applied) = mesh.apply(Delta::decode(
        ResourceType::Address,
        [("x", None), ("y", Some(&b"\xff\xff"[..])), ("z", Some(&b""[..]))],
        removed,
    ));
    assert_eq!((before, after.n_workloads()), (mesh.n_workloads(), mesh.n_workloads()));
    let nack = applied.nack().unwrap();
    assert!(
        nack.starts_with("z: unknown address type; x: XDS payload without resource; y: decode: "),
        "{nack}"
    );
    assert!(applied.workloads.is_empty() && applied.services.is_empty());
}
