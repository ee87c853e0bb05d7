use std::net::SocketAddr;

use super::*;
use crate::workload::PortMap;
use crate::{Mesh, MeshConfig};

const FILE: &str = r#"
workloads:
- {uid: c1//Pod/shop/cart-0, name: cart-0, namespace: shop, serviceAccount: cart, trustDomain: cluster.local,
   workloadIps: ["10.1.0.7"], protocol: HBONE, node: n1, network: "",
   services: {"shop/cart.shop.svc.cluster.local": {80: 8080}}}
- {uid: c1//Pod/shop/far-0, namespace: shop, workloadIps: [], services: {}, status: Unhealthy, capacity: 7,
   waypoint: {destination: "remote/10.9.9.9", hboneMtlsPort: 15008},
   networkGateway: {destination: "istio-system/gateway.example.com", hboneMtlsPort: 15009},
   applicationTunnel: {protocol: PROXY, port: null}, locality: {region: r, zone: z, subzone: ""}}
services:
- {name: cart, namespace: shop, hostname: cart.shop.svc.cluster.local, vips: ["/10.96.0.7"], ports: {80: 8080}, canonical: true,
   cidrVips: [{network: remote, cidr: 240.0.0.0/24}], visibility: Namespace, ipFamilies: IPv4,
   loadBalancer: {routingPreferences: [Network, Region], mode: Failover, healthPolicy: AllowAll},
   endpoints: {"c1//Pod/shop/far-0": {workloadUid: "c1//Pod/shop/far-0", port: {80: 81}, status: Unhealthy}},
   weightedWaypoints: [{destination: {destination: "shop/wp", hboneMtlsPort: 15008}, weight: 3}]}
policies:
- name: only-web
  namespace: shop
  scope: Namespace
  action: Allow
  dryRun: false
  rules:
  - - - principals: [!Prefix cluster.local/ns/web/, !Presence []]
        notNamespaces: [{Exact: x}]
        sourceIps: [10.0.0.0/8]
        notDestinationPorts: [9999]
        serviceAccounts: [{namespace: a, serviceAccount: b}]
"#;

// A-ST-21, CO-11.2
#[test]
fn a_local_file_gives_the_same_objects_as_discovery() {
    let (mesh, applied) = Mesh::new(MeshConfig::default()).apply(parse(FILE).unwrap());
    assert_eq!((applied.workloads.len(), applied.services.len(), applied.policies.len()), (2, 1, 1));
    let address: SocketAddr = "10.96.0.7:80".parse().unwrap();
    let service = mesh.service_by_address(&mesh.own_address(address.ip()), Some("shop")).unwrap();
    assert_eq!(mesh.endpoints(&service.key).len(), 2);
    assert_eq!(service.ports, PortMap::from([(80, 8080)]));
    let cart = mesh.workload("c1//Pod/shop/cart-0").unwrap();
    assert_eq!(cart.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    let policy = mesh.policy("shop/only-web").unwrap();
    let m = &policy.rules[0].clauses[0].matches[0];
    assert_eq!(m.principals, [StringMatch::Prefix("cluster.local/ns/web/".into()), StringMatch::Presence]);
    assert_eq!(m.not_namespaces, [StringMatch::Exact("x".into())]);
    let far = mesh.workload("c1//Pod/shop/far-0").unwrap();
    assert_eq!(far.waypoint.as_ref().unwrap().destination.to_string(), "remote/10.9.9.9");
    assert_eq!((far.capacity, &*far.trust_domain), (7, ""));
}

#[test]
fn unknown_keys_and_nonsense_are_refused() {
    for (text, code) in [
        ("workload: []", "source-malformed-yaml"),
        ("workloads: [{workloadIps: [x], namespace: a, services: {}}]", "source-malformed-yaml"),
        ("workloads: [{workloadIps: [], namespace: a, services: {}, color: red}]", "source-malformed-yaml"),
        ("workloads: [{workloadIps: [], namespace: a, services: {nokey: {}}}]", "source-refused-resource"),
        (
            "services: [{name: a, namespace: b, hostname: c, vips: ['1.2.3.4'], ports: {}}]",
            "source-invalid-address",
        ),
        (
            "services: [{name: a, namespace: b, hostname: c, vips: [], ports: {}, endpoints: {x: {workloadUid: x}}}]",
            "source-unknown-endpoint",
        ),
        ("]", "source-malformed-yaml"),
    ] {
        assert_eq!(parse(text).unwrap_err().code(), code, "{text}");
    }
    assert!(parse("{}").is_ok());
    assert!(parse(r#"{"workloads": [{"workloadIps": ["10.0.0.1"], "namespace": "a", "services": {"a/b": {"80": 81}}}]}"#).is_ok());
}
