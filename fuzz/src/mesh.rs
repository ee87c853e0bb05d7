//! Resources as a control plane may send them: what cannot be read is refused by name, and a mesh of the rest
//! decides about every address.

use std::net::SocketAddr;

use state::{Delta, Mesh, MeshConfig, ResourceType, RouteRequest};

use crate::input::Input;

/// Applies the resources of one input in several responses, then routes from each workload to each address.
pub fn apply(data: &[u8]) {
    let mut input = Input(data);
    let mut mesh = Mesh::new(MeshConfig { node: Some("n".into()), ..MeshConfig::default() });
    let mut names = Vec::new();
    while !input.0.is_empty() {
        let choice = input.byte();
        let kind = if choice & 1 == 0 { ResourceType::Address } else { ResourceType::Authorization };
        let length = input.short();
        let payload = input.take(length);
        let name = format!("ns/{}", choice >> 2 & 3);
        let removed = (choice & 2 != 0).then(|| names.pop()).flatten();
        let delta = Delta::decode(kind, [(name.as_str(), Some(payload))], removed);
        let (next, applied) = mesh.apply(delta);
        assert!(applied.rejected.iter().all(|rejected| rejected.name == name));
        assert_eq!(applied.nack().is_none(), applied.rejected.is_empty());
        names.push(name);
        mesh = next;
    }
    let everywhere: Vec<SocketAddr> = mesh
        .workloads()
        .flat_map(|workload| workload.addresses.clone())
        .chain(["10.0.0.1".parse().expect("an address")])
        .flat_map(|ip| [80, 15001, 15008].map(|port| SocketAddr::new(ip, port)))
        .take(64)
        .collect();
    for source in mesh.workloads().take(8) {
        for destination in &everywhere {
            let client = destination.ip();
            let request = RouteRequest {
                source,
                client,
                destination: *destination,
                seed: 1,
                resolved: &[],
                absent: &[],
            };
            drop(mesh.route(&request));
        }
        let connection = state_connection(everywhere[0]);
        let _ = mesh.evaluate(source, &connection).is_allowed();
    }
}

fn state_connection(destination: SocketAddr) -> policy::Connection {
    policy::Connection { source_ip: destination.ip(), source_identity: None, destination }
}
