use super::*;
use crate::{MeshConfig, local_file};

const WORLD: &str = r#"
workloads:
- {uid: c//Pod/ns/server, name: server, namespace: ns, workloadIps: [10.0.0.1], protocol: HBONE, services: {ns/server.example: {80: 8080, 81: 8081}, ns/second.example: {90: 9090}}}
- {uid: c//Pod/ns/client, name: client, namespace: ns, workloadIps: [10.0.0.2], services: {}}
- {uid: c//Pod/ns/wp, name: wp, namespace: ns, workloadIps: [10.0.0.3], services: {ns/wp.example: {15008: 15008}}}
- {uid: c//Pod/ns/by-ip, name: by-ip, namespace: ns, workloadIps: [10.0.0.4], services: {}, waypoint: {destination: /10.0.0.3, hboneMtlsPort: 15008}}
- {uid: c//Pod/ns/by-vip, name: by-vip, namespace: ns, workloadIps: [10.0.0.5], services: {}, waypoint: {destination: /10.9.0.3, hboneMtlsPort: 15008}}
- {uid: c//Pod/ns/backend, name: backend, namespace: ns, workloadIps: [10.0.0.6], services: {ns/attached.example: {80: 8080}}}
- {uid: c//Pod/ns/tunnel, name: tunnel, namespace: ns, workloadIps: [10.0.0.7], services: {ns/tunnel.example: {15008: 15008}}, applicationTunnel: {protocol: PROXY, port: 15088}}
services:
- {name: server, namespace: ns, hostname: server.example, vips: [/10.9.0.1], ports: {80: 8080, 81: 0, 82: 0, 83: 15008}}
- {name: second, namespace: ns, hostname: second.example, vips: [/10.9.0.2], ports: {90: 9090}}
- {name: wp, namespace: ns, hostname: wp.example, vips: [/10.9.0.3], ports: {15008: 15008}}
- {name: attached, namespace: ns, hostname: attached.example, vips: [/10.9.0.4], ports: {80: 8080}, waypoint: {destination: ns/wp.example, hboneMtlsPort: 15008}}
- {name: split, namespace: ns, hostname: split.example, vips: [/10.9.0.5], ports: {80: 8080},
   weightedWaypoints: [{destination: {destination: /10.0.0.99, hboneMtlsPort: 15008}, weight: 1}, {destination: {destination: /10.9.0.3, hboneMtlsPort: 15008}, weight: 1}]}
- {name: private, namespace: other, hostname: private.example, vips: [/10.9.0.6], ports: {80: 8080}, visibility: Namespace}
- {name: far, namespace: other, hostname: far.example, vips: [remote/10.9.0.7, "/fd00::7", /10.9.0.8], ports: {80: 8080}}
"#;

fn world() -> Mesh {
    Mesh::new(MeshConfig::default()).apply(local_file::parse(WORLD).unwrap()).0
}

fn admit(mesh: &Mesh, pod: &str, authority: &str, named: Option<&str>) -> Result<Admission, NotAdmitted> {
    let local = mesh.workload(&format!("c//Pod/ns/{pod}")).unwrap();
    let authority = authority.parse().unwrap();
    let connection_ip = local.addresses[0];
    mesh.admit(&InboundRequest {
        local,
        connection_ip,
        authority: &authority,
        forwarded_host: named,
        absent: &[],
    })
}

fn text(result: Result<Admission, NotAdmitted>) -> String {
    match result {
        Ok(admission) => admission.target.to_string(),
        Err(NotAdmitted::Refused(refusal)) => format!("{} {refusal}", refusal.status()),
        Err(NotAdmitted::Missing(key)) => format!("missing {key}"),
    }
}

// A-IN-01 to A-IN-08, W11, W90
#[test]
fn a_request_must_belong_to_the_pod() {
    let world = world();
    for (pod, authority, expected) in [
        ("server", "10.0.0.1:80", "10.0.0.1:80"),
        ("server", "server.example:80", "10.0.0.1:8080"),
        ("server", "server.example:81", "10.0.0.1:8081"),
        (
            "server",
            "server.example:82",
            "503 requested service server.example:82 found, but cannot resolve port",
        ),
        (
            "server",
            "server.example:7",
            "503 requested service server.example:7 found, but cannot resolve port",
        ),
        ("server", "server.example:83", "503 attempted recursive call to ourselves"),
        ("server", "10.0.0.1:15006", "503 attempted recursive call to ourselves"),
        ("server", "SERVER.example:80", "503 no service or workload for hostname: SERVER.example"),
        ("server", "private.example:80", "503 no service or workload for hostname: private.example"),
        ("server", "far.example:80", "400 hostname mismatch: server is no endpoint of far.example"),
        ("server", "10.0.0.2:80", "400 ip mismatch: 10.0.0.1 != 10.0.0.2"),
        ("server", "10.9.0.1:80", "400 ip mismatch: 10.0.0.1 != 10.9.0.1"),
        ("server", "127.0.0.1:80", "400 ip mismatch: 10.0.0.1 != 127.0.0.1"),
        ("server", "[::ffff:10.0.0.1]:80", "400 ip mismatch: 10.0.0.1 != ::ffff:10.0.0.1"),
        ("wp", "10.0.0.4:80", "10.0.0.3:80"),
        ("wp", "10.0.0.5:80", "10.0.0.3:80"),
        ("wp", "10.9.0.4:80", "10.0.0.3:80"),
        ("wp", "10.9.0.5:80", "10.0.0.3:80"),
        ("wp", "attached.example:80", "10.0.0.3:8080"),
        ("wp", "10.0.0.1:80", "400 ip mismatch: 10.0.0.3 != 10.0.0.1"),
        ("wp", "10.0.0.6:80", "400 ip mismatch: 10.0.0.3 != 10.0.0.6"),
        ("wp", "10.9.0.1:80", "400 ip mismatch: 10.0.0.3 != 10.9.0.1"),
        ("wp", "10.7.7.7:80", "400 ip mismatch: 10.0.0.3 != 10.7.7.7"),
        ("tunnel", "10.7.7.7:80", "10.0.0.7:15088"),
    ] {
        assert_eq!(text(admit(&world, pod, authority, None)), expected, "{pod} {authority}");
    }
}

// A-IN-05, 5.5
#[test]
fn a_proxy_header_names_what_was_asked_for() {
    let world = world();
    for (authority, expected) in [("10.9.0.4:80", "10.9.0.4:80"), ("far.example:80", "10.9.0.8:80")] {
        let admission = admit(&world, "tunnel", authority, None).unwrap();
        assert_eq!(admission.application, Application::Proxy { destination: expected.parse().unwrap() });
    }
}

// 5.3, 5.6
#[test]
fn services_and_sources_are_attributed() {
    let world = world();
    for (authority, named, expected) in [
        ("10.0.0.1:8080", None, Some("server.example")),
        ("10.0.0.1:9090", None, Some("second.example")),
        ("10.0.0.1:9090", Some("server.example"), Some("server.example")),
        ("10.0.0.1:9090", Some("far.example"), Some("second.example")),
        ("10.0.0.1:7", None, None),
        ("server.example:80", Some("second.example"), Some("server.example")),
    ] {
        let service = admit(&world, "server", authority, named).unwrap().service;
        assert_eq!(service.as_ref().map(|service| &*service.key.hostname), expected, "{authority} {named:?}");
    }
    let peer = "10.0.0.2".parse().unwrap();
    assert_eq!(world.source_workload(peer, None).unwrap().name, "client".into());
    assert_eq!(world.source_workload(peer, Some("")).unwrap().name, "client".into());
    assert_eq!(world.source_workload(peer, Some("remote")), None);
}

#[test]
fn unknown_addresses_are_asked_for_once_on_demand() {
    let world = Mesh::new(MeshConfig { on_demand: true, ..MeshConfig::default() });
    let world = world.apply(local_file::parse(WORLD).unwrap()).0;
    let Err(NotAdmitted::Missing(key)) = admit(&world, "server", "10.7.7.7:80", None) else { panic!() };
    let local = world.workload("c//Pod/ns/server").unwrap();
    let request = InboundRequest {
        local,
        connection_ip: local.addresses[0],
        authority: &"10.7.7.7:80".parse().unwrap(),
        forwarded_host: None,
        absent: &[key],
    };
    assert_eq!(text(world.admit(&request)), "400 ip mismatch: 10.0.0.1 != 10.7.7.7");
}

// 4.7, 5.1
#[test]
fn authorities_have_a_host_and_a_port() {
    for (text, good) in [
        ("10.0.0.1:80", true),
        ("[fd00::1]:80", true),
        ("a.b:0", true),
        ("user@a.b:80", true),
        ("a.b.:80", true),
        ("a.b", false),
        ("a.b:", false),
        ("a.b:+80", false),
        ("a.b:http", false),
        ("a.b:65536", false),
        (":80", false),
        ("", false),
        ("fd00::1:80", false),
        ("[fd00::1:80", false),
        ("[a.b]:80", false),
        ("http://a.b:80", false),
    ] {
        let parsed = text.parse::<Authority>();
        assert_eq!(parsed.is_ok(), good, "{text}");
        match parsed {
            Ok(authority) => assert_eq!(authority.to_string(), text),
            Err(error) => assert_eq!(error.to_string(), format!("no valid authority pseudo header: {text}")),
        }
    }
}
