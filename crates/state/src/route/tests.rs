use std::collections::BTreeMap;

use super::*;
use crate::service::WeightedWaypoint;
use crate::{Delta, MeshConfig, local_file};

/// What every world has: the caller.
const CALLER: &str = r#"
- {uid: c//Pod/ns/client, name: client, namespace: ns, serviceAccount: client, trustDomain: cluster.local, node: local,
   workloadIps: [127.0.0.1], services: {}, locality: {region: r, zone: z, subzone: s},
   waypoint: {destination: ns/wp.example, hboneMtlsPort: 15008}}
"#;

fn mesh(workloads: &str, services: &str) -> Mesh {
    let services = if services.is_empty() { " []" } else { services };
    let text = format!("workloads:{CALLER}{workloads}\nservices:\n{services}");
    let delta: Delta = local_file::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Mesh::new(MeshConfig { node: Some("local".into()), ..MeshConfig::default() }).apply(delta).0
}

fn decide(mesh: &Mesh, destination: &str, seed: u64) -> Result<Route, Unrouted> {
    let source = mesh.workload("c//Pod/ns/client").unwrap();
    let destination = destination.parse().unwrap();
    let client = source.addresses[0];
    mesh.route(&RouteRequest { source, client, destination, seed, resolved: &[], absent: &[] })
}

/// `PROTOCOL next-hop authority`, the same for every seed.
fn decided(mesh: &Mesh, destination: &str) -> String {
    let all: Vec<String> = (0..20).map(|seed| text(decide(mesh, destination, seed))).collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

fn text(decision: Result<Route, Unrouted>) -> String {
    match decision {
        Ok(route) => match route.authority {
            Some(authority) => format!("{} {} {authority}", route.protocol, route.next_hop),
            None => format!("{} {}", route.protocol, route.next_hop),
        },
        Err(Unrouted::Refused(refusal)) => refusal.to_string(),
        Err(other) => format!("{other:?}"),
    }
}

const GATEWAY_POD: &str = r#"
- {uid: c//Pod/gw/g, name: g, namespace: gw, serviceAccount: gateway, trustDomain: cluster.local, protocol: HBONE, workloadIps: [10.22.1.1],
   services: {"gw/gateway.example": {15009: 15008}}}
"#;
const EXAMPLE: &str =
    "- {name: example, namespace: ns, hostname: example.com, vips: [/127.0.0.3], ports: {80: 8080}}\n";

fn remote(extra: &str) -> String {
    format!(
        "- {{uid: r//Pod/ns/far, name: far, namespace: ns, serviceAccount: far, trustDomain: cluster.local, protocol: HBONE,
   network: remote, workloadIps: [10.5.0.1], services: {{\"ns/example.com\": {{80: 8080}}}}{extra}}}\n"
    )
}

// A-OUT-01, A-OUT-10
#[test]
fn unknown_addresses_pass_through_whatever_waypoint_the_caller_has() {
    assert_eq!(decided(&mesh("", ""), "1.2.3.4:80"), "TCP 1.2.3.4:80");
    assert_eq!(decide(&mesh("", ""), "1.2.3.4:80", 0).unwrap().row, Row::Passthrough);
}

#[test]
fn calls_to_the_proxys_own_ports_are_refused() {
    let refused = decide(&mesh("", ""), "127.0.0.1:15001", 0).unwrap_err();
    let Unrouted::Refused(refusal) = refused else { panic!() };
    assert_eq!(
        (refusal.to_string().as_str(), refusal.reason.code()),
        ("attempted recursive call to ourselves", "route-self-call")
    );
    assert_eq!(decided(&mesh("", ""), "1.2.3.4:15008"), "TCP 1.2.3.4:15008");
}

// A-OUT-02 to 05
#[test]
fn other_networks_are_entered_through_their_gateway() {
    assert_eq!(decided(&mesh(&remote(""), EXAMPLE), "127.0.0.3:80"), "no healthy upstream: 127.0.0.3:80");

    let by_ip = remote(", networkGateway: {destination: /10.22.1.1, hboneMtlsPort: 15009}");
    let world = mesh(&format!("{GATEWAY_POD}{by_ip}"), EXAMPLE);
    assert_eq!(decided(&world, "127.0.0.3:80"), "DOUBLEHBONE 10.22.1.1:15009 example.com:80");
    let route = decide(&world, "127.0.0.3:80", 0).unwrap();
    assert_eq!(route.row, Row::OtherNetwork);
    assert_eq!(route.expected, ["spiffe://cluster.local/ns/gw/sa/gateway".parse().unwrap()]);
    assert_eq!(route.inner_expected, ["spiffe://cluster.local/ns/ns/sa/far".parse().unwrap()]);
    assert_eq!(route.service.unwrap().key.to_string(), "ns/example.com");

    let by_name = remote(", networkGateway: {destination: gw/gateway.example, hboneMtlsPort: 15009}");
    let gateway =
        "- {name: gateway, namespace: gw, hostname: gateway.example, vips: [], ports: {15009: 15008}}\n";
    let world = mesh(&format!("{GATEWAY_POD}{by_name}"), &format!("{EXAMPLE}{gateway}"));
    assert_eq!(decided(&world, "127.0.0.3:80"), "DOUBLEHBONE 10.22.1.1:15008 example.com:80");
    let world = mesh(&by_name, EXAMPLE);
    let refusal = decided(&world, "127.0.0.3:80");
    assert!(refusal.starts_with("unknown network gateway: network gateway "), "{refusal}");

    let waypoint = "
- {uid: r//Pod/ns/wp, name: wp, namespace: ns, network: remote, workloadIps: [10.5.0.9], protocol: HBONE,
   services: {ns/wp.example: {15008: 15008}}, networkGateway: {destination: /10.22.1.1, hboneMtlsPort: 15009}}\n";
    let services = "
- {name: example, namespace: ns, hostname: example.com, vips: [/127.0.0.3], ports: {80: 8080},
   waypoint: {destination: ns/wp.example, hboneMtlsPort: 15008}}
- {name: wp, namespace: ns, hostname: wp.example, vips: [], ports: {15008: 15008}}\n";
    let world = mesh(&format!("{GATEWAY_POD}{waypoint}"), services);
    assert_eq!(decided(&world, "127.0.0.3:80"), "DOUBLEHBONE 10.22.1.1:15009 example.com:80");
}

// A-OUT-06, A-OUT-07, and W5: health is judged when an endpoint is chosen
#[test]
fn failover_leaves_the_network_only_when_it_must() {
    let service =
        "- {name: example, namespace: ns, hostname: example.com, vips: [/127.0.0.3], ports: {80: 8080},
   loadBalancer: {routingPreferences: [Network], mode: Failover}}\n";
    let far = remote(", networkGateway: {destination: /10.22.1.1, hboneMtlsPort: 15009}");
    for (status, expected) in [
        ("Healthy", "HBONE 127.0.0.2:15008 127.0.0.2:8080"),
        ("Unhealthy", "DOUBLEHBONE 10.22.1.1:15009 example.com:80"),
    ] {
        let near = format!(
            "- {{uid: c//Pod/ns/near, name: near, namespace: ns, workloadIps: [127.0.0.2], protocol: HBONE, status: {status},
   services: {{\"ns/example.com\": {{80: 8080}}}}}}\n"
        );
        let world = mesh(&format!("{GATEWAY_POD}{far}{near}"), service);
        assert_eq!(decided(&world, "127.0.0.3:80"), expected);
    }
}

// A-OUT-08, A-OUT-09
#[test]
fn the_workloads_protocol_decides_not_its_node() {
    for node in ["local", "remote"] {
        for (protocol, expected) in
            [("TCP", "TCP 127.0.0.2:80"), ("HBONE", "HBONE 127.0.0.2:15008 127.0.0.2:80")]
        {
            let workload = format!(
                "- {{uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [127.0.0.2], protocol: {protocol}, node: {node}, services: {{}}}}\n"
            );
            assert_eq!(decided(&mesh(&workload, ""), "127.0.0.2:80"), expected);
        }
    }
}

const WAYPOINT_POD: &str = "
- {uid: c//Pod/ns/wp, name: wp, namespace: ns, serviceAccount: waypoint, trustDomain: cluster.local, workloadIps: [127.0.0.10],
   services: {ns/wp.example: {}}}
- {uid: c//Pod/ns/wp2, name: wp2, namespace: ns, workloadIps: [127.0.0.11, \"ff06::c4\"], services: {}}\n";

// A-OUT-11, A-OUT-12
#[test]
fn workload_waypoints_are_passed() {
    let workload = "
- {uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [127.0.0.2], protocol: HBONE, services: {}, waypoint: {destination: /127.0.0.10, hboneMtlsPort: 15008}}
- {uid: c//Pod/ns/b, name: b, namespace: ns, workloadIps: [127.0.0.5, \"ff06::c3\"], protocol: HBONE, services: {}, waypoint: {destination: /127.0.0.11, hboneMtlsPort: 15008}}
- {uid: c//Pod/ns/c, name: c, namespace: ns, workloadIps: [127.0.0.6], protocol: HBONE, services: {}, waypoint: {destination: ns/gone.example, hboneMtlsPort: 15008}}\n";
    let world = mesh(&format!("{WAYPOINT_POD}{workload}"), "");
    assert_eq!(decided(&world, "127.0.0.2:80"), "HBONE 127.0.0.10:15008 127.0.0.2:80");
    let route = decide(&world, "127.0.0.2:80", 0).unwrap();
    assert_eq!(route.row, Row::WorkloadWaypoint);
    assert_eq!(route.expected, ["spiffe://cluster.local/ns/ns/sa/waypoint".parse().unwrap()]);
    assert_eq!(route.workload.unwrap().name, "wp".into());
    assert_eq!(decided(&world, "[ff06::c3]:80"), "HBONE 127.0.0.11:15008 [ff06::c3]:80");
    assert_eq!(decided(&world, "127.0.0.6:80"), "unknown waypoint: waypoint gone.example not found");

    // The waypoint itself goes on directly; its identity alone, from another address, does not.
    let world = mesh(
        &format!("{WAYPOINT_POD}{workload}"),
        "- {name: wp, namespace: ns, hostname: wp.example, vips: [/127.0.0.77], ports: {15008: 15008}}\n",
    );
    for (client, expected) in [
        ("127.0.0.10", "HBONE 127.0.0.2:15008 127.0.0.2:80"),
        ("127.0.0.99", "HBONE 127.0.0.10:15008 127.0.0.2:80"),
    ] {
        let request = RouteRequest {
            source: world.workload("c//Pod/ns/wp").unwrap(),
            client: client.parse().unwrap(),
            destination: "127.0.0.2:80".parse().unwrap(),
            seed: 0,
            resolved: &[],
            absent: &[],
        };
        assert_eq!(text(world.route(&request)), expected);
    }
}

// A-OUT-13, A-OUT-20, A-OUT-21, W4
#[test]
fn service_waypoints_are_passed_with_the_address_that_was_asked_for() {
    let services = |address: &str, more: &str| {
        format!(
            "- {{name: example, namespace: ns, hostname: example.com, vips: [/{address}], ports: {{80: 8080}}, subjectAltNames: [\"spiffe://cluster.local/ns/x/sa/y\", nonsense]{more}}}
- {{name: wp, namespace: ns, hostname: wp.example, vips: [], ports: {{15008: 15008}}}}\n"
        )
    };
    let waypoint = ", waypoint: {destination: ns/wp.example, hboneMtlsPort: 15008}";
    let passthrough = ", loadBalancer: {mode: Passthrough}";
    let world = mesh(WAYPOINT_POD, &services("127.0.0.3", waypoint));
    assert_eq!(decided(&world, "127.0.0.3:80"), "HBONE 127.0.0.10:15008 127.0.0.3:80");
    let route = decide(&world, "127.0.0.3:80", 0).unwrap();
    assert_eq!((route.row, route.service.unwrap().name.clone()), (Row::ServiceWaypoint, "example".into()));
    let world = mesh(WAYPOINT_POD, &services("1.2.3.4", passthrough));
    assert_eq!(decided(&world, "1.2.3.4:80"), "TCP 1.2.3.4:80");
    let world = mesh(WAYPOINT_POD, &services("1.2.3.4", &format!("{passthrough}{waypoint}")));
    assert_eq!(decided(&world, "1.2.3.4:80"), "HBONE 127.0.0.10:15008 1.2.3.4:80");
    // A workload at the address of the service is no way round its waypoint.
    let both = "- {uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [127.0.0.3], services: {\"ns/example.com\": {80: 80}}}\n";
    let world = mesh(&format!("{WAYPOINT_POD}{both}"), &services("127.0.0.3", waypoint));
    assert_eq!(decided(&world, "127.0.0.3:80"), "HBONE 127.0.0.10:15008 127.0.0.3:80");
    let world = mesh("", &services("127.0.0.3", waypoint));
    assert_eq!(decided(&world, "127.0.0.3:80"), "unknown waypoint: waypoint wp.example not found");
}

// A-OUT-14, A-OUT-15, A-ST-07
#[test]
fn only_endpoints_with_the_port_and_an_address_are_called() {
    assert_eq!(decided(&mesh("", EXAMPLE), "127.0.0.3:80"), "no healthy upstream: 127.0.0.3:80");
    let named =
        "- {name: example, namespace: ns, hostname: example.com, vips: [/127.0.0.3], ports: {80: 0}}\n";
    let workloads = "
- {uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [127.0.0.2], services: {\"ns/example.com\": {80: 1234}}}
- {uid: c//Pod/ns/b, name: b, namespace: ns, workloadIps: [127.0.0.7], services: {\"ns/example.com\": {}}}
- {uid: c//Pod/ns/d, name: d, namespace: ns, workloadIps: [], services: {\"ns/example.com\": {80: 1}}}\n";
    let world = mesh(workloads, named);
    assert_eq!(decided(&world, "127.0.0.3:80"), "TCP 127.0.0.2:1234");
    assert_eq!(decided(&world, "127.0.0.3:81"), "no healthy upstream: 127.0.0.3:81");
    let Unrouted::Refused(refusal) = decide(&world, "127.0.0.3:81", 0).unwrap_err() else { panic!() };
    let Some(Step::Endpoint { tally, .. }) = refusal.trace.last() else { panic!("{refusal:?}") };
    assert_eq!((tally.total, tally.without_port, tally.unreachable), (3, 2, 1));
}

// A-OUT-16, A-OUT-17
#[test]
fn host_network_workloads_are_known_through_their_service_only() {
    let workloads = "
- {uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [127.0.0.2], networkMode: HostNetwork, services: {\"ns/example.com\": {80: 80}}}
- {uid: c//Pod/ns/b, name: b, namespace: ns, workloadIps: [127.0.0.2], networkMode: HostNetwork, services: {}}\n";
    let world = mesh(workloads, EXAMPLE);
    assert_eq!(decided(&world, "127.0.0.3:80"), "TCP 127.0.0.2:80");
    assert_eq!(decide(&world, "127.0.0.3:80", 0).unwrap().workload.unwrap().name, "a".into());
    let direct = decide(&world, "127.0.0.2:80", 0).unwrap();
    assert_eq!((direct.row, direct.workload), (Row::Passthrough, None));
}

// A-OUT-18, A-OUT-19
#[test]
fn the_address_family_is_kept_unless_the_service_restricts_it() {
    let workload = "- {uid: c//Pod/ns/a, name: a, namespace: ns, workloadIps: [\"ff06::c3\", 127.0.0.2], services: {\"ns/example.com\": {80: 80}}}\n";
    let service = |families: &str| {
        format!(
            "- {{name: e, namespace: ns, hostname: example.com, vips: [/127.0.0.3, /ff06::c5], ports: {{80: 80}}{families}}}\n"
        )
    };
    let world = mesh(workload, &service(""));
    assert_eq!(decided(&world, "127.0.0.2:80"), "TCP 127.0.0.2:80");
    assert_eq!(decided(&world, "[ff06::c3]:80"), "TCP [ff06::c3]:80");
    for (families, vip, expected) in [
        (", ipFamilies: IPv6", "127.0.0.3:80", "TCP [ff06::c3]:80"),
        (", ipFamilies: IPv4", "127.0.0.3:80", "TCP 127.0.0.2:80"),
        (", ipFamilies: Dual", "127.0.0.3:80", "TCP 127.0.0.2:80"),
        (", ipFamilies: Dual", "[ff06::c5]:80", "TCP [ff06::c3]:80"),
        ("", "[ff06::c5]:80", "TCP [ff06::c3]:80"),
    ] {
        assert_eq!(decided(&mesh(workload, &service(families)), vip), expected, "{families}");
    }
}

// 2.8
#[test]
fn hostname_workloads_wait_for_a_resolver_and_keep_their_choice() {
    let workloads: String = (0..5)
        .map(|n| format!("- {{uid: w{n}, name: w{n}, namespace: ns, workloadIps: [], hostname: h{n}.test, services: {{\"ns/example.com\": {{80: 80}}}}}}\n"))
        .collect();
    let world = mesh(&workloads, EXAMPLE);
    let source = world.workload("c//Pod/ns/client").unwrap();
    for seed in 0..20 {
        let request = RouteRequest {
            source,
            client: source.addresses[0],
            destination: "127.0.0.3:80".parse().unwrap(),
            seed,
            resolved: &[],
            absent: &[],
        };
        let Err(Unrouted::NeedsDns { uid, hostname }) = world.route(&request) else { panic!() };
        assert_eq!(hostname[1..2], uid[1..2]);
        let both = Resolved::Addresses(vec!["fd00::1".parse().unwrap(), "9.9.9.9".parse().unwrap()]);
        let resolved = [(uid.clone(), both)];
        let route = world.route(&RouteRequest { resolved: &resolved, ..request }).unwrap();
        assert_eq!(
            (route.workload.unwrap().uid.clone(), route.next_hop.to_string()),
            (uid.clone(), "9.9.9.9:80".into())
        );
        for (answer, expected) in [
            (Resolved::Failed, format!("no ip addresses were resolved for workload: {uid}")),
            (
                Resolved::Addresses(vec![]),
                format!(
                    "ip addresses were resolved for workload {uid}, but valid dns response had no A/AAAA records"
                ),
            ),
        ] {
            let resolved = [(uid.clone(), answer)];
            assert_eq!(text(world.route(&RouteRequest { resolved: &resolved, ..request })), expected);
        }
    }
}

#[test]
fn what_is_unknown_is_asked_for_once_on_demand() {
    let world = Mesh::new(MeshConfig { on_demand: true, ..MeshConfig::default() });
    let world = world.apply(local_file::parse(&format!("workloads:{CALLER}")).unwrap()).0;
    let Err(Unrouted::Missing(key)) = decide(&world, "1.2.3.4:80", 0) else { panic!() };
    assert_eq!(key.to_string(), "/1.2.3.4");
    let source = world.workload("c//Pod/ns/client").unwrap();
    let (client, destination) = (source.addresses[0], "1.2.3.4:80".parse().unwrap());
    let request = RouteRequest { source, client, destination, seed: 0, resolved: &[], absent: &[key] };
    assert_eq!(text(world.route(&request)), "TCP 1.2.3.4:80");
}

fn shares(world: &Mesh, destination: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for seed in 0..10_000 {
        *shares.entry(text(decide(world, destination, seed))).or_default() += 1;
    }
    shares
}

// A-ST-01
#[test]
fn weighted_waypoints_share_connections() {
    let pods = "
- {uid: c//Pod/ns/w1, name: w1, namespace: ns, workloadIps: [10.0.0.1], services: {}}
- {uid: c//Pod/ns/w2, name: w2, namespace: ns, workloadIps: [10.0.0.2], services: {}}
- {uid: c//Pod/ns/w3, name: w3, namespace: ns, workloadIps: [10.0.0.3], services: {}}\n";
    let world = mesh(pods, EXAMPLE);
    let service = world.service(&ServiceKey::new("ns", "example.com")).unwrap();
    let gateway = |ip: &str| crate::GatewayAddress {
        destination: crate::GatewayDestination::Address(world.own_address(ip.parse().unwrap())),
        hbone_mtls_port: 15008,
    };
    for (weights, range) in [
        (vec![100, 0], 10_000..=10_000),
        (vec![0, 100], 0..=0),
        (vec![75, 25], 7_000..=8_000),
        (vec![0, 0], 0..=0),
        (vec![], 0..=0),
    ] {
        let ips = ["10.0.0.1", "10.0.0.2"];
        let weighted = weights.iter().zip(ips);
        let changed = Service {
            waypoint: Some(gateway("10.0.0.3")),
            weighted_waypoints: weighted
                .map(|(weight, ip)| WeightedWaypoint { destination: gateway(ip), weight: *weight })
                .collect(),
            ..Service::clone(service)
        };
        let mut delta = local_file::parse("{}").unwrap();
        delta.updates.push(crate::apply::Update::Service(Arc::new(changed)));
        let shares = shares(&world.apply(delta).0, "127.0.0.3:80");
        let of = |ip: &str| shares.get(&format!("HBONE {ip}:15008 127.0.0.3:80")).copied().unwrap_or(0);
        assert!(range.contains(&of("10.0.0.1")), "{weights:?} {shares:?}");
        let fallback = if weights.iter().sum::<u32>() == 0 { 10_000 } else { 0 };
        assert_eq!(of("10.0.0.3"), fallback, "{weights:?}");
    }
}

/// The candidates of A-ST-06, by the part of the client's place that they share.
fn places() -> String {
    let gateway = ", networkGateway: {destination: /10.22.1.1, hboneMtlsPort: 15009}";
    [
        ("full", "", "r", "z", ""),
        ("region", "", "r", "other", ""),
        ("network", "", "other", "other", ""),
        ("far", "remote", "r", "z", gateway),
        ("nothing", "remote", "other", "other", gateway),
    ]
    .iter()
    .enumerate()
    .map(|(n, (name, network, region, zone, gateway))| {
        format!(
            "- {{uid: w/{name}, name: {name}, namespace: ns, network: \"{network}\", workloadIps: [10.0.1.{n}], locality: {{region: {region}, zone: {zone}, subzone: \"\"}}, services: {{\"ns/example.com\": {{80: 80}}}}{gateway}}}\n"
        )
    })
    .collect()
}

fn chosen(mode: &str, without: &[&str], network: &str, region: &str, zone: &str) -> Vec<String> {
    let service = format!(
        "- {{name: e, namespace: ns, hostname: example.com, vips: [/127.0.0.3], ports: {{80: 80}}, loadBalancer: {{mode: {mode}, routingPreferences: [Network, Region, Zone]}}}}\n"
    );
    let places: Vec<String> = places()
        .lines()
        .filter(|line| !without.iter().any(|name| line.contains(&format!("w/{name},"))))
        .map(str::to_owned)
        .collect();
    let world = mesh(&format!("{}\n", places.join("\n")), &service);
    let mut source = Workload::clone(world.workload("c//Pod/ns/client").unwrap());
    source.network = network.into();
    (source.locality.region, source.locality.zone) = (region.into(), zone.into());
    let service = world.service(&ServiceKey::new("ns", "example.com")).unwrap();
    let mut names: Vec<String> = (0..200)
        .filter_map(|seed| {
            let all = world.endpoints(&service.key);
            let mut dice = Dice::new(seed);
            let (choice, _) = endpoints::choose(service, all, &source, 80, Resolution::Standard, &mut dice);
            choice.map(|choice| choice.endpoint.workload.name.to_string())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

// A-ST-05, A-ST-06
#[test]
fn routing_preferences_rank_endpoints() {
    assert_eq!(chosen("Strict", &[], "", "r", "z"), ["full"]);
    assert!(chosen("Strict", &["full"], "", "r", "z").is_empty());
    assert_eq!(chosen("Failover", &[], "", "r", "z"), ["full"]);
    assert_eq!(chosen("Failover", &["full"], "", "r", "z"), ["region"]);
    assert_eq!(chosen("Failover", &["full", "region"], "", "r", "z"), ["network"]);
    assert_eq!(chosen("Failover", &["full", "region", "network"], "", "r", "z"), ["far"]);
    assert_eq!(chosen("Failover", &["full", "region", "network", "far"], "", "r", "z"), ["nothing"]);
    assert_eq!(chosen("Failover", &[], "", "q", "q"), ["full", "network", "region"]);
    assert_eq!(chosen("Standard", &[], "", "r", "z").len(), 5);
}

#[test]
fn endpoints_are_drawn_by_capacity_and_none_is_drawn_without() {
    let pods = |a: u32, b: u32| {
        format!(
            "
- {{uid: a, name: a, namespace: ns, workloadIps: [10.0.0.1], capacity: {a}, services: {{\"ns/example.com\": {{80: 80}}}}}}
- {{uid: b, name: b, namespace: ns, workloadIps: [10.0.0.2], capacity: {b}, services: {{\"ns/example.com\": {{80: 80}}}}}}\n"
        )
    };
    let shares = shares(&mesh(&pods(3, 1), EXAMPLE), "127.0.0.3:80");
    assert!((7_000..8_000).contains(&shares["TCP 10.0.0.1:80"]), "{shares:?}");
    assert_eq!(decided(&mesh(&pods(0, 1), EXAMPLE), "127.0.0.3:80"), "TCP 10.0.0.2:80");
    assert_eq!(decided(&mesh(&pods(0, 0), EXAMPLE), "127.0.0.3:80"), "no healthy upstream: 127.0.0.3:80");
}
