//! Connections between pods, as the applications, the logs and the metrics see them.

use std::io::{Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use hbone::{ConnectRequest, OpenError, Pool, PoolError};
use kit::echo::{Application, connect, exchange};
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, Sandbox, sandboxed};

use super::*;

const CLIENT: &str = "10.1.0.1";

struct World {
    client: Host,
    server: Host,
    outside: Host,
    a: Node,
    b: Node,
    ca: Arc<FakeCa>,
}

async fn world(sandbox: &mut Sandbox) -> World {
    let ca = Arc::new(FakeCa::new());
    let (a, b) = (Node::start("a", WORLD, &ca).await, Node::start("b", WORLD, &ca).await);
    let client = sandbox.host("client", &[CLIENT]);
    let server = sandbox.host("server", &["10.1.0.2"]);
    let outside = sandbox.host("outside", &["10.1.0.3"]);
    a.enrol(&client).await;
    b.enrol(&server).await;
    World { client, server, outside, a, b, ca }
}

fn doubling(host: &Host, at: &str) -> Application {
    let at = address(at);
    host.run(|| Application::doubling(at)).unwrap()
}

fn assert_numbers(node: &Node, reporter: &str) {
    let reporter = format!("reporter=\"{reporter}\"");
    let count = |name: &str| node.counted(&[name, &reporter]);
    assert_eq!(count("istio_tcp_connections_opened_total"), 1, "{reporter}");
    assert_eq!(count("istio_tcp_connections_closed_total"), 1, "{reporter}");
    assert_eq!(count("istio_tcp_connections_failed_total"), 0, "{reporter}");
    assert_eq!(count("istio_tcp_received_bytes_total"), 11, "{reporter}");
    assert_eq!(count("istio_tcp_sent_bytes_total"), 22, "{reporter}");
}

// A-NS-02, A-NS-06, data-path 1.6: through a service, with both reporters and both lines.
#[test]
fn captured_pods_of_two_nodes_talk_over_hbone() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let application = doubling(&world.server, "10.1.0.2:8080");
            let answer = inside(&world.client, || exchange(address("10.96.0.1:80"), b"hello world")).await;
            assert_eq!(answer.unwrap().len(), 22);
            // The application sees the client's address.
            assert_eq!(application.client().ip().to_string(), CLIENT);

            let line = world.a.line(&["connection complete", "outbound"]).await;
            for part in [
                "info\taccess\tconnection complete\tsrc.addr=10.1.0.1:",
                " src.workload=\"client\" src.namespace=\"ns\" \
                 src.identity=\"spiffe://cluster.local/ns/ns/sa/client\" src.cluster=\"c1\" \
                 dst.addr=10.1.0.2:15008 dst.hbone_addr=10.1.0.2:8080 \
                 dst.service=\"server.ns.svc.cluster.local\" dst.workload=\"server\" \
                 dst.namespace=\"ns\" dst.identity=\"spiffe://cluster.local/ns/ns/sa/server\" \
                 dst.cluster=\"c1\" direction=\"outbound\" bytes_sent=11 bytes_recv=22 duration=\"",
            ] {
                assert!(line.contains(part), "{line}");
            }
            let line = world.b.line(&["connection complete", "inbound"]).await;
            for part in [
                " src.workload=\"client\" src.namespace=\"ns\" \
                 src.identity=\"spiffe://cluster.local/ns/ns/sa/client\" src.cluster=\"c1\" \
                 dst.addr=10.1.0.2:15008 dst.hbone_addr=10.1.0.2:8080 \
                 dst.service=\"server.ns.svc.cluster.local\" dst.workload=\"server\"",
                " direction=\"inbound\" bytes_sent=22 bytes_recv=11 duration=\"",
            ] {
                assert!(line.contains(part), "{line}");
            }
            assert_numbers(&world.a, "source");
            assert_numbers(&world.b, "destination");
            let service = "destination_service_name=\"server\"";
            assert!(world.a.counted(&["opened", service, "mutual_tls"]) == 1);
        });
    });
}

// A-NS-01: both pods on one node.
#[test]
fn captured_pods_of_one_node_talk_over_hbone() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = WORLD.replace("node: b", "node: a");
            let a = Node::start("a", &world, &ca).await;
            let client = sandbox.host("client", &[CLIENT]);
            let server = sandbox.host("server", &["10.1.0.2"]);
            a.enrol(&client).await;
            a.enrol(&server).await;
            let _application = doubling(&server, "10.1.0.2:8080");
            let answer = inside(&client, || exchange(address("10.1.0.2:8080"), b"hello world"));
            assert_eq!(answer.await.unwrap().len(), 22);
            a.line(&["connection complete", "outbound"]).await;
            a.line(&["connection complete", "inbound"]).await;
            assert_numbers(&a, "source");
            assert_numbers(&a, "destination");
        });
    });
}

// A-NS-03, A-NS-06: no identities on the line of plain TCP.
#[test]
fn captured_client_reaches_a_workload_outside_the_mesh() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let _application = doubling(&world.outside, "10.1.0.3:8080");
            let answer = inside(&world.client, || exchange(address("10.1.0.3:8080"), b"hello world")).await;
            assert_eq!(answer.unwrap().len(), 22);
            let line = world.a.line(&["connection complete", "outbound"]).await;
            assert!(line.contains("bytes_sent=11 bytes_recv=22"), "{line}");
            assert!(line.contains("dst.workload=\"outside\""), "{line}");
            assert!(!line.contains("identity") && !line.contains("hbone_addr"), "{line}");
            assert_numbers(&world.a, "source");
        });
    });
}

// A-NS-04
#[test]
fn client_outside_the_mesh_reaches_a_captured_server() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let application = doubling(&world.server, "10.1.0.2:8080");
            let answer = inside(&world.outside, || exchange(address("10.1.0.2:8080"), b"hello world")).await;
            assert_eq!(answer.unwrap().len(), 22);
            assert_eq!(application.client().ip().to_string(), "10.1.0.3");
            let line = world.b.line(&["connection complete", "inbound"]).await;
            assert!(line.contains("bytes_sent=22 bytes_recv=11"), "{line}");
            assert!(!line.contains("identity"), "{line}");
            assert_numbers(&world.b, "destination");
            let security = "connection_security_policy=\"unknown\"";
            assert_eq!(world.b.counted(&["opened", security, "source_principal=\"unknown\""]), 1);
        });
    });
}

// IPv6 throughout, and the family of a dual-stack pod is kept (A-OUT-18).
#[test]
fn captured_pods_talk_over_ipv6() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = WORLD
                .replace("[\"10.1.0.1\"]", "[\"10.1.0.1\", \"fd00::1\"]")
                .replace("[\"10.1.0.2\"]", "[\"10.1.0.2\", \"fd00::2\"]");
            let (a, b) = (Node::start("a", &world, &ca).await, Node::start("b", &world, &ca).await);
            let client = sandbox.host("client", &[CLIENT, "fd00::1"]);
            let server = sandbox.host("server", &["10.1.0.2", "fd00::2"]);
            a.enrol(&client).await;
            b.enrol(&server).await;
            let application = doubling(&server, "[fd00::2]:8080");
            let answer = inside(&client, || exchange(address("[fd00::2]:8080"), b"hello world")).await;
            assert_eq!(answer.unwrap().len(), 22);
            assert_eq!(application.client().ip().to_string(), "fd00::1");
            a.line(&["dst.addr=[fd00::2]:15008 dst.hbone_addr=[fd00::2]:8080"]).await;
            b.line(&["connection complete", "src.addr=[fd00::1]:"]).await;
            assert_numbers(&a, "source");
            assert_numbers(&b, "destination");
        });
    });
}

// A-NS-26: a peer that is not who the route expects gets no request.
#[test]
fn a_peer_with_another_identity_is_not_spoken_to() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            // To node `a` the server has another account than to node `b`, which is its own.
            let other = WORLD.replace("serviceAccount: server", "serviceAccount: somebody");
            let (a, b) = (Node::start("a", &other, &ca).await, Node::start("b", WORLD, &ca).await);
            let client = sandbox.host("client", &[CLIENT]);
            let server = sandbox.host("server", &["10.1.0.2"]);
            a.enrol(&client).await;
            b.enrol(&server).await;
            let _application = doubling(&server, "10.1.0.2:8080");
            let answer = inside(&client, || exchange(address("10.1.0.2:8080"), b"x")).await;
            assert!(answer.map_or(true, |answer| answer.is_empty()));
            a.line(&["error\taccess", "outbound", "code=\"tls-unexpected-identity\""]).await;
            let flag = "response_flags=\"TLS_FAILURE\"";
            assert_eq!(a.counted(&["istio_tcp_connections_failed_total", flag]), 1);
            assert_eq!(b.counted(&["istio_tcp_connections_opened_total"]), 0);
        });
    });
}

// HD, data-path 5.6: a source that discovery does not know is named by its baggage.
#[test]
fn an_unknown_source_is_named_by_its_baggage() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let stranger = sandbox.host("stranger", &["10.1.0.9"]);
            let _application = doubling(&world.server, "10.1.0.2:8080");
            let certificate = world.ca.issue(&identity("client"), Duration::from_secs(60));
            let opened = stranger.spawn_async(move || async move {
                let tcp = tokio::net::TcpStream::connect("10.1.0.2:15008").await.unwrap();
                let tls = certificate.client_config(&[identity("server")]);
                let settings = hbone::Settings::default();
                let connection = hbone::client::connect(tcp, tls, &settings).await.unwrap();
                let baggage = "k8s.namespace.name=far,k8s.deployment.name=w,service.name=\"svc\"";
                let request = ConnectRequest {
                    authority: "server.ns.svc.cluster.local:80".to_owned(),
                    headers: vec![
                        ("baggage".to_owned(), baggage.to_owned()),
                        ("forwarded".to_owned(), "host=server.ns.svc.cluster.local".to_owned()),
                        ("traceparent".to_owned(), format!("00-{}", "0".repeat(52))),
                    ],
                };
                let (head, tunnel) = connection.open(request).await.unwrap();
                drop(tunnel);
                head.headers
            });
            until("the tunnel", || opened.is_finished()).await;
            let headers = Host::join(opened);
            let wanted = "k8s.cluster.name=c1,k8s.namespace.name=ns,k8s.pod.name=server,\
                          service.name=server,service.version=v1";
            assert_eq!(headers, [("baggage".to_owned(), wanted.as_bytes().to_vec())]);
            let line = world.b.line(&["connection complete", "src.addr=10.1.0.9:"]).await;
            let names = r#"src.workload="\"svc\"" src.namespace="far" src.identity="spiffe://cluster.local/ns/ns/sa/client" dst.addr=10.1.0.2:15008 dst.hbone_addr=server.ns.svc.cluster.local:80"#;
            assert!(line.contains(names), "{line}");
            // Escaped, so that the page can be read (W95).
            let labels = r#"source_workload="w",source_canonical_service="\"svc\"""#;
            assert_eq!(world.b.counted(&["connections_opened_total", labels]), 1);
        });
    });
}

// A-NS-20, data-path 4.7: what a peer is told, and that nothing is counted.
#[test]
fn requests_for_others_are_refused() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let certificate = world.ca.issue(&identity("client"), Duration::from_secs(60));
            let refusals = world.outside.spawn_async(move || async move {
                let pool: Rc<Pool<(), hbone::ConnectError>> = Rc::new(Pool::new(100, LIMIT));
                let mut statuses = Vec::new();
                for authority in [CLIENT_AUTHORITY, "10.1.0.2:15001", "nobody.ns:80", "10.1.0.2"] {
                    let tls = certificate.client_config(&[identity("server")]);
                    let dial = || {
                        let tls = Arc::clone(&tls);
                        async move {
                            let tcp = tokio::net::TcpStream::connect("10.1.0.2:15008").await;
                            hbone::client::connect(tcp.unwrap(), tls, &hbone::Settings::default()).await
                        }
                    };
                    let request = ConnectRequest { authority: authority.to_owned(), headers: Vec::new() };
                    match pool.open(&(), dial, request).await {
                        Err(PoolError::Open(OpenError::Status(status))) => statuses.push(status),
                        other => panic!("{authority}: {other:?}"),
                    }
                }
                statuses
            });
            until("the refusals", || refusals.is_finished()).await;
            assert_eq!(Host::join(refusals), [400, 503, 503, 400]);
            world.b.line(&["connection failed", "error=\"ip mismatch: 10.1.0.2 != 10.1.0.1\""]).await;
            world.b.line(&["connection failed", "code=\"inbound-self-call\""]).await;
            world.b.line(&["error=\"no service or workload for hostname: nobody.ns\""]).await;
            world.b.line(&["error=\"no valid authority pseudo header: 10.1.0.2\""]).await;
            assert_eq!(world.b.counted(&["istio_tcp_connections_opened_total"]), 0);
        });
    });
}

const CLIENT_AUTHORITY: &str = "10.1.0.1:8080";

// A-NS-25
#[test]
fn the_proxys_own_ports_answer_nothing() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            for port in [15001, 15006, 15080, 15000, 15020, 15021, 15053] {
                let answer = inside(&world.outside, move || {
                    let mut stream = connect(SocketAddr::new("10.1.0.2".parse().unwrap(), port))?;
                    stream.write_all(b"x")?;
                    let mut answer = Vec::new();
                    // Closed, or reset because of the byte that nobody read.
                    let _ = stream.read_to_end(&mut answer);
                    io::Result::Ok(answer)
                });
                assert_eq!(answer.await.unwrap(), b"", "{port}");
            }
            world.b.line(&["connection failed", "dst.addr=10.1.0.2:15001", "recursive call"]).await;
            world.b.line(&["connection failed", "dst.addr=10.1.0.2:15006", "recursive call"]).await;
            let refused = "error=\"connection failed: Connection refused (os error 111)\"";
            world.b.line(&["connection complete", "dst.addr=10.1.0.2:15020", refused]).await;
        });
    });
}

// Data-path 2.2 step 2a and 10.5: a warning, no counters.
#[test]
fn a_service_without_endpoints_is_told_by_its_code() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let answer = inside(&world.client, || exchange(address("10.96.0.1:81"), b"x")).await;
            assert!(answer.map_or(true, |answer| answer.is_empty()));
            let line = world.a.line(&["warn\taccess\tconnection failed"]).await;
            let wanted = "dst.addr=10.96.0.1:81 direction=\"outbound\" \
                          error=\"no healthy upstream: 10.96.0.1:81\" code=\"route-no-healthy-upstream\"";
            assert!(line.ends_with(wanted), "{line}");
            assert_eq!(world.a.counted(&["istio_tcp_connections_opened_total"]), 0);
        });
    });
}

// OB-15: the application's port is closed; both sides tell it.
#[test]
fn a_closed_application_port_is_an_answer() {
    sandboxed(|mut sandbox| {
        run(async {
            let world = world(&mut sandbox).await;
            let answer = inside(&world.client, || exchange(address("10.1.0.2:7999"), b"x")).await;
            assert!(answer.map_or(true, |answer| answer.is_empty()));
            let refused = "error=\"connection failed: Connection refused (os error 111)\"";
            world.b.line(&["error\taccess", "inbound", refused, "app-unreachable"]).await;
            let status = "error=\"http status: 503 Service Unavailable\"";
            world.a.line(&["error\taccess", "outbound", status, "hbone-connect-status"]).await;
            let flag = "response_flags=\"CONNECT\"";
            assert_eq!(world.a.counted(&["istio_tcp_connections_failed_total", flag]), 1);
            assert_eq!(world.b.counted(&["istio_tcp_connections_failed_total", flag]), 1);
        });
    });
}
