use super::*;
use crate::{Mesh, MeshConfig, local_file};

// A-ST-04: endpoint over service over application tunnel; undeclared ports.
#[test]
fn ports_are_mapped_in_order() {
    // (service's ports, endpoint's ports, tunnel) → target in standard and waypoint mode
    let table = [
        ("{80: 8080}", "{80: 9090}", "", Some(9090), Some(9090)),
        ("{80: 8080}", "{}", "", Some(8080), Some(8080)),
        ("{80: 0}", "{80: 9090}", "", Some(9090), Some(9090)),
        ("{80: 0}", "{}", "", None, None),
        ("{80: 0}", "{}", ", applicationTunnel: {protocol: PROXY, port: 15088}", Some(80), Some(80)),
        ("{}", "{80: 9090}", "", None, None),
        ("{}", "{}", ", applicationTunnel: {protocol: PROXY, port: 15088}", None, Some(80)),
        ("{}", "{80: 9090}", ", applicationTunnel: {protocol: PROXY, port: 15088}", None, Some(9090)),
    ];
    for (service, endpoint, tunnel, standard, waypoint) in table {
        let text = format!(
            "{{workloads: [{{uid: a, namespace: ns, workloadIps: [10.0.0.1], services: {{ns/e: {endpoint}}}{tunnel}}}],
              services: [{{name: e, namespace: ns, hostname: e, vips: [], ports: {service}}}]}}"
        );
        let (mesh, _) = Mesh::new(MeshConfig::default()).apply(local_file::parse(&text).unwrap());
        let service = mesh.services().next().unwrap();
        let endpoint = &mesh.endpoints(&service.key)[0];
        let actual =
            [Resolution::Standard, Resolution::Waypoint].map(|mode| target_port(service, endpoint, 80, mode));
        assert_eq!(actual, [standard, waypoint], "{text}");
    }
}
