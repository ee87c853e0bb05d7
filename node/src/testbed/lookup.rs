//! Destinations that have to be looked up first: by discovery on demand, or by DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kit::dns::Resolver;
use kit::echo::{Application, exchange};
use kit::fake_ca::FakeCa;
use kit::fake_control::{self, FakeControl};
use kit::sandbox::sandboxed;
use wire::workload::{NetworkAddress, Port, PortList, Service, TunnelProtocol, Workload};

use super::*;

const SERVER: &str = "server.ns.svc.cluster.local";

/// What a node knows without asking: its own pod.
fn only_the_client() -> String {
    let services = WORLD.find("- {uid: c1//Pod/ns/server").unwrap();
    WORLD[..services].to_owned()
}

fn ports() -> PortList {
    PortList { ports: vec![Port { service_port: 80, target_port: 8080, ..Default::default() }] }
}

fn server() -> Workload {
    Workload {
        uid: "c1//Pod/ns/server".into(),
        name: "server".into(),
        namespace: "ns".into(),
        service_account: "server".into(),
        addresses: vec![vec![10, 1, 0, 2]],
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        node: "b".into(),
        cluster_id: "c1".into(),
        services: [(format!("ns/{SERVER}"), ports())].into(),
        ..Default::default()
    }
}

fn service() -> Service {
    Service {
        name: "server".into(),
        namespace: "ns".into(),
        hostname: SERVER.into(),
        addresses: vec![NetworkAddress { address: vec![10, 96, 0, 1], ..Default::default() }],
        ports: ports().ports,
        ..Default::default()
    }
}

async fn asked_for(control: &FakeControl, key: &str) {
    let asks = |key: &str, request: &wire::discovery::DeltaDiscoveryRequest| {
        request.resource_names_subscribe.iter().any(|name| name == key)
    };
    control.until(|requests| requests.iter().any(|(_, request)| asks(key, request))).await;
}

// A-OUT: `XDS_ON_DEMAND`; an unknown address is asked for, answered and routed by the answer. What
// does not exist is passed through.
#[test]
fn an_unknown_destination_is_asked_for_and_then_routed() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let control = FakeControl::start().await;
            control.put([fake_control::workload(server()), fake_control::service(service())]);
            let variables = [("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "false")];
            let start = Start { variables: &variables, discovery: Some(&control), ..Start::default() };
            let a = Node::launch("a", &only_the_client(), &ca, start).await;
            let b = Node::start("b", WORLD, &ca).await;
            let client = sandbox.host("client", &["10.1.0.1"]);
            let server = sandbox.host("server", &["10.1.0.2"]);
            let stranger = sandbox.host("stranger", &["10.1.0.9"]);
            a.enrol(&client).await;
            b.enrol(&server).await;
            let _application = server.run(|| Application::doubling(address("10.1.0.2:8080"))).unwrap();
            let _other = stranger.run(|| Application::doubling(address("10.1.0.9:8080"))).unwrap();

            let answer = inside(&client, || exchange(address("10.96.0.1:80"), b"hello world")).await;
            assert_eq!(answer.unwrap().len(), 22);
            asked_for(&control, "/10.96.0.1").await;
            let hbone = "dst.addr=10.1.0.2:15008 dst.hbone_addr=10.1.0.2:8080";
            a.line(&["connection complete", "outbound", hbone, SERVER]).await;

            for _ in 0..2 {
                let answer = inside(&client, || exchange(address("10.1.0.9:8080"), b"hello world")).await;
                assert_eq!(answer.unwrap().len(), 22);
            }
            asked_for(&control, "/10.1.0.9").await;
            let line = a.line(&["connection complete", "outbound", "dst.addr=10.1.0.9:8080"]).await;
            assert!(!line.contains("hbone_addr") && !line.contains("dst.workload"), "{line}");
        });
    });
}

// Data-path 2.8, A-DI-08.
#[test]
fn workloads_known_by_hostname_are_resolved() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let there: IpAddr = "10.1.0.3".parse().unwrap();
            let resolver = SocketAddr::from(([127, 0, 0, 1], 53));
            let resolver = Resolver::start(resolver, &[("api.example.test", there)]).unwrap();
            let entry = |name: &str| {
                format!(
                    "- {{uid: c1//WorkloadEntry/ns/{name}, name: {name}, namespace: ns, \
                     workloadIps: [], hostname: {name}.example.test, protocol: TCP, services: {{\"ns/{name}.example.test\": {{80: 8080}}}}}}\n"
                )
            };
            let outside = format!("{}{}services:\n", entry("api"), entry("nowhere"));
            let world = WORLD.replace("services:\n-", &format!("{outside}-"))
                + "- {name: api, namespace: ns, hostname: api.example.test, vips: [\"/10.96.0.8\"], ports: {80: 8080}}\n\
                   - {name: nowhere, namespace: ns, hostname: nowhere.example.test, vips: [\"/10.96.0.9\"], ports: {80: 8080}}\n";
            // One thread, hence one cache.
            let variables = [("ZTUNNEL_WORKER_THREADS", "1")];
            let resolv_conf = "nameserver 127.0.0.1\n";
            let start = Start { variables: &variables, resolv_conf, ..Start::default() };
            let a = Node::launch("a", &world, &ca, start).await;
            let client = sandbox.host("client", &["10.1.0.1"]);
            let outside = sandbox.host("outside", &["10.1.0.3"]);
            a.enrol(&client).await;
            let _application = outside.run(|| Application::doubling(address("10.1.0.3:8080"))).unwrap();

            for _ in 0..2 {
                let answer = inside(&client, || exchange(address("10.96.0.8:80"), b"hello world")).await;
                assert_eq!(answer.unwrap().len(), 22);
            }
            let label = "hostname=\"api.example.test\"";
            assert_eq!(a.counted(&["istio_on_demand_dns_total", label, "source_workload=\"client\""]), 2);
            assert_eq!(resolver.n_asked("api.example.test"), 1, "the second answer is a kept one");
            a.line(&["connection complete", "dst.addr=10.1.0.3:8080", "dst.service=\"api.example.test\""])
                .await;

            let answer = inside(&client, || exchange(address("10.96.0.9:80"), b"x")).await;
            assert!(answer.map_or(true, |answer| answer.is_empty()));
            let error = "error=\"no ip addresses were resolved for workload: c1//WorkloadEntry/ns/nowhere\"";
            a.line(&["warn\taccess\tconnection failed", error, "code=\"route-dns-failed\""]).await;
        });
    });
}
