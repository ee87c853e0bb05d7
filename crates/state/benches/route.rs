//! Routing and admission, counted in instructions: `.ci/instructions` runs `route CASE TIMES` under valgrind and
//! compares.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that fails says so")]

use std::fmt::Write as _;
use std::hint::black_box;

use culvert_state::{InboundRequest, Mesh, MeshConfig, RouteRequest, Row, local_file};

/// 40 pods behind one service, one of them ours, and a service with a waypoint.
fn mesh() -> Mesh {
    let mut text = String::from("workloads:\n");
    for number in 0..40 {
        writeln!(
            text,
            "- {{uid: c//Pod/shop/web-{number}, name: web-{number}, namespace: shop, serviceAccount: web, \
             trustDomain: cluster.local, protocol: HBONE, node: n{}, workloadIps: [10.1.0.{number}], \
             services: {{\"shop/web.shop\": {{80: 8080}}}}, locality: {{region: r, zone: z, subzone: s}}}}",
            number % 4
        )
        .unwrap();
    }
    text.push_str(
        "- {uid: c//Pod/shop/wp, name: wp, namespace: shop, serviceAccount: wp, trustDomain: cluster.local, \
         protocol: HBONE, node: n1, workloadIps: [10.2.0.1], services: {\"shop/wp.shop\": {15008: 15008}}}\n\
         services:\n\
         - {name: web, namespace: shop, hostname: web.shop, vips: [/10.9.0.1], ports: {80: 8080}}\n\
         - {name: wp, namespace: shop, hostname: wp.shop, vips: [/10.9.0.2], ports: {15008: 15008}}\n\
         - {name: cart, namespace: shop, hostname: cart.shop, vips: [/10.9.0.3], ports: {80: 8080}, \
         waypoint: {destination: shop/wp.shop, hboneMtlsPort: 15008}}\n",
    );
    let delta = local_file::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Mesh::new(MeshConfig { node: Some("n0".into()), ..MeshConfig::default() }).apply(delta).0
}

fn route(destination: &str, row: Row, times: usize) {
    let mesh = mesh();
    let source = mesh.workload("c//Pod/shop/web-0").unwrap();
    let destination = destination.parse().unwrap();
    let client = source.addresses[0];
    for seed in 0..times as u64 {
        let request = RouteRequest { source, client, destination, seed, resolved: &[], absent: &[] };
        assert_eq!(mesh.route(black_box(&request)).unwrap().row, row);
    }
}

fn admit(times: usize) {
    let mesh = mesh();
    let local = mesh.workload("c//Pod/shop/web-0").unwrap();
    let authority = "10.1.0.0:8080".parse().unwrap();
    for _ in 0..times {
        let request = InboundRequest {
            local,
            connection_ip: local.addresses[0],
            authority: &authority,
            forwarded_host: Some("web.shop"),
            absent: &[],
        };
        assert!(mesh.admit(black_box(&request)).is_ok());
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    match case.as_str() {
        "service" => route("10.9.0.1:80", Row::Direct, times),
        "waypoint" => route("10.9.0.3:80", Row::ServiceWaypoint, times),
        "passthrough" => route("1.2.3.4:80", Row::Passthrough, times),
        "admit" => admit(times),
        // `cargo test` and `cargo bench` pass flags of their own.
        _ => admit(1),
    }
}
