use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use hickory_proto::op::{Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use net::socket::{ListenOptions, Transparent, UdpOptions, bind_udp, listen};
use prometheus_client::registry::Registry;
use runtime::drain::Trigger;
use state::{Mesh, MeshConfig};

use super::*;

const WORLD: &str = r#"
workloads:
- {uid: c//Pod/ns1/client, name: client, namespace: ns1, serviceAccount: sa, workloadIps: [10.0.0.1], canonicalName: web,
   canonicalRevision: v1, services: {}}
- {uid: c//Pod/ns1/h-0, name: h-0, namespace: ns1, workloadIps: [10.0.0.2, "fd00::2"], services: {ns1/headless.ns1.svc.cluster.local: {80: 80}}}
- {uid: c//Pod/ns1/h-1, name: h-1, namespace: ns1, workloadIps: [10.0.0.3, "fd00::3"], services: {ns1/headless.ns1.svc.cluster.local: {80: 80}}}
- {uid: c//Pod/ns1/h-2, name: h-2, namespace: ns1, workloadIps: [10.0.0.4], status: Unhealthy, services: {ns1/headless.ns1.svc.cluster.local: {80: 80}}}
services:
- {name: productpage, namespace: ns1, hostname: productpage.ns1.svc.cluster.local, vips: [/10.9.0.1], ports: {80: 80}}
- {name: example, namespace: ns2, hostname: example.ns2.svc.cluster.local, vips: [/10.9.0.2], ports: {80: 80}}
- {name: private, namespace: ns2, hostname: private.ns2.svc.cluster.local, vips: [/10.9.0.3], ports: {80: 80}, visibility: Namespace}
- {name: mine, namespace: ns1, hostname: mine.ns1.svc.cluster.local, vips: [/10.9.0.4], ports: {80: 80}, visibility: Namespace}
- {name: google, namespace: ns1, hostname: www.google.com, vips: [/1.1.1.1], ports: {80: 80}}
- {name: far, namespace: ns1, hostname: far.ns1.svc.remote.test, vips: [/1.0.0.1, /1.0.0.2, /1.0.0.3, /1.0.0.4], ports: {80: 80}}
- {name: dual, namespace: ns1, hostname: dual.test, vips: [/1.0.1.1, "/fd01::1"], ports: {80: 80}}
- {name: six, namespace: ns1, hostname: six.test, vips: ["/fd01::6"], ports: {80: 80}}
- {name: wild, namespace: ns1, hostname: "*.wildcard", vips: [/1.0.2.1], ports: {80: 80}}
- {name: wilder, namespace: ns1, hostname: "*.b.wildcard", vips: [/1.0.2.2], ports: {80: 80}}
- {name: company, namespace: ns1, hostname: "*.svc.mesh.company.net", vips: [/1.0.2.3], ports: {80: 80}}
- {name: other, namespace: ns1, hostname: other.test, vips: [remote/1.0.3.1], ports: {80: 80}}
- {name: both, namespace: ns1, hostname: both.test, vips: [remote/1.0.3.2, /1.0.3.3], ports: {80: 80}}
- {name: headless, namespace: ns1, hostname: headless.ns1.svc.cluster.local, vips: [], ports: {80: 80}}
- {name: novip, namespace: ns1, hostname: novip.test, vips: [], ports: {80: 80}}
- {name: a, namespace: ns2, hostname: shared.test, vips: [/1.0.4.2], ports: {80: 80}}
- {name: a, namespace: ns3, hostname: shared.test, vips: [/1.0.4.3], ports: {80: 80}, canonical: true}
- {name: a, namespace: ns4, hostname: preferred.test, vips: [/1.0.4.4], ports: {80: 80}}
- {name: a, namespace: ns5, hostname: preferred.test, vips: [/1.0.4.5], ports: {80: 80}}
"#;

struct World {
    address: SocketAddr,
    registry: Registry,
    /// What the resolver was sent.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Begins the drain of the pod.
    trigger: Trigger,
}

/// The resolver's answer to everything it can read: NXDOMAIN with an SOA for `nx`, else an A and an additional.
fn resolver_reply(packet: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(packet).unwrap();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    let name = query.queries[0].name().clone();
    if name.to_ascii().starts_with("nx") {
        reply.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 5);
        reply.add_authority(Record::from_rdata(Name::root(), 9, RData::SOA(soa)));
    } else {
        reply.add_answer(Record::from_rdata(name.clone(), 77, RData::A(A(Ipv4Addr::new(9, 9, 9, 9)))));
        reply.add_additional(Record::from_rdata(name, 78, RData::A(A(Ipv4Addr::new(8, 8, 8, 8)))));
    }
    reply.to_vec().unwrap()
}

async fn resolver(udp: tokio::net::UdpSocket, tcp: tokio::net::TcpListener, seen: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            Ok((n, from)) = udp.recv_from(&mut buffer) => {
                seen.lock().unwrap().push(buffer[..n].to_vec());
                // A forgery comes first: other id, so it is not believed.
                let mut forged = resolver_reply(&buffer[..n]);
                forged[0] ^= 0xff;
                udp.send_to(&forged, from).await.unwrap();
                udp.send_to(&resolver_reply(&buffer[..n]), from).await.unwrap();
            }
            Ok((mut stream, _)) = tcp.accept() => {
                let packet = read_message(&mut stream).await.unwrap();
                write_message(&mut stream, &resolver_reply(&packet)).await.unwrap();
                seen.lock().unwrap().push(packet);
            }
        }
    }
}

fn upstream() -> Upstream {
    Upstream {
        udp: Rc::new(|_| UdpSocket::bind("127.0.0.1:0")),
        tcp: Rc::new(|to| Box::pin(TcpStream::connect(to))),
    }
}

/// Runs `test` beside a proxy for `ns1/client` of [`WORLD`].
fn with_world<F: Future<Output = ()>>(world: &str, with_resolver: bool, test: impl FnOnce(World) -> F) {
    with_sockets(same_port(), world, with_resolver, test);
}

/// The same on these sockets.
fn with_sockets<F: Future<Output = ()>>(
    (udp, tcp): (UdpSocket, TcpListener),
    world: &str,
    with_resolver: bool,
    test: impl FnOnce(World) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mesh, _) = Mesh::new(MeshConfig::default()).apply(state::local_file::parse(world).unwrap());
        let (_sender, mesh) = watch::channel(Arc::new(mesh));
        let (upstream_udp, upstream_tcp) = same_port();
        let resolver_address = upstream_udp.local_addr().unwrap();
        upstream_udp.set_nonblocking(true).unwrap();
        upstream_tcp.set_nonblocking(true).unwrap();
        let upstream_udp = tokio::net::UdpSocket::from_std(upstream_udp).unwrap();
        let upstream_tcp = tokio::net::TcpListener::from_std(upstream_tcp).unwrap();
        let mut registry = Registry::default();
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (trigger, drain) = Drain::new();
        let dependencies = Dependencies {
            mesh,
            pod: state::Pod { namespace: "ns1".into(), name: "client".into(), service_account: "sa".into() },
            settings: Arc::new(Settings {
                cluster_domain: "cluster.local".into(),
                preferred_namespace: Some("ns5".into()),
                ipv6: true,
                search: None,
            }),
            resolvers: if with_resolver { vec![resolver_address] } else { Vec::new() },
            upstream: upstream(),
            metrics: Metrics::new(&mut registry),
            drain: drain.clone(),
        };
        let address = udp.local_addr().unwrap();
        let world = World { address, registry, seen: seen.clone(), trigger };
        let serving = serve(Sockets { udp: vec![udp], tcp: vec![tcp] }, dependencies);
        let serving = async {
            serving.await;
            assert!(drain.is_draining(), "it serves until it is told to stop");
            std::future::pending::<()>().await;
        };
        let test = timeout(Duration::from_secs(20), test(world));
        tokio::select! {
            () = resolver(upstream_udp, upstream_tcp, seen) => {}
            () = serving => {}
            done = test => done.expect("in time"),
        }
    });
}

fn same_port() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

impl World {
    async fn raw(&self, transport: Transport, packet: &[u8]) -> Vec<u8> {
        match transport {
            Transport::Udp => {
                let own = SocketAddr::new(self.address.ip(), 0);
                let socket = tokio::net::UdpSocket::bind(own).await.unwrap();
                socket.send_to(packet, self.address).await.unwrap();
                let mut buffer = vec![0; 65_535];
                let n = socket.recv(&mut buffer).await.unwrap();
                buffer[..n].to_vec()
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect(self.address).await.unwrap();
                write_message(&mut stream, packet).await.unwrap();
                read_message(&mut stream).await.unwrap()
            }
        }
    }

    async fn ask(&self, transport: Transport, name: &str, record_type: RecordType) -> Message {
        Message::from_vec(&self.raw(transport, &question(name, record_type, None)).await).unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn question(name: &str, record_type: RecordType, udp_payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(format!("{name}.")).unwrap(), record_type));
    if let Some(payload) = udp_payload {
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// Answers as `owner type data`, sorted.
fn answers(message: &Message) -> Vec<String> {
    let mut all: Vec<String> =
        message.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    all.sort();
    all
}

// A-DN-02, 03, 05 to 16
#[test]
fn names_of_the_mesh_are_answered() {
    with_world(WORLD, true, |world| async move {
        use RecordType::{A, AAAA};
        let table: &[(&str, RecordType, &[&str])] = &[
            ("www.google.com", A, &["www.google.com. A 1.1.1.1"]),
            (
                "www.google.com.ns1.svc.cluster.local",
                A,
                &["www.google.com. A 1.1.1.1", "www.google.com.ns1.svc.cluster.local. CNAME www.google.com."],
            ),
            ("productpage", A, &["productpage. A 10.9.0.1"]),
            ("ProductPage", A, &["ProductPage. A 10.9.0.1"]),
            ("productpage.ns1", A, &["productpage.ns1. A 10.9.0.1"]),
            ("productpage.ns1.svc.cluster.local", A, &["productpage.ns1.svc.cluster.local. A 10.9.0.1"]),
            (
                "productpage.ns1.ns1.svc.cluster.local",
                A,
                &[
                    "productpage.ns1. A 10.9.0.1",
                    "productpage.ns1.ns1.svc.cluster.local. CNAME productpage.ns1.",
                ],
            ),
            ("productpage.ns1.ns1.svc.cluster.local", AAAA, &[]),
            ("example.ns2", A, &["example.ns2. A 10.9.0.2"]),
            ("example.ns2.svc", A, &["example.ns2.svc. A 10.9.0.2"]),
            ("example.ns2.svc.cluster.local", A, &["example.ns2.svc.cluster.local. A 10.9.0.2"]),
            ("mine", A, &["mine. A 10.9.0.4"]),
            (
                "far.ns1.svc.remote.test",
                A,
                &[
                    "far.ns1.svc.remote.test. A 1.0.0.1",
                    "far.ns1.svc.remote.test. A 1.0.0.2",
                    "far.ns1.svc.remote.test. A 1.0.0.3",
                    "far.ns1.svc.remote.test. A 1.0.0.4",
                ],
            ),
            ("dual.test", A, &["dual.test. A 1.0.1.1"]),
            ("dual.test", AAAA, &["dual.test. AAAA fd01::1"]),
            ("six.test", A, &[]),
            ("productpage", AAAA, &[]),
            ("foo.wildcard", A, &["foo.wildcard. A 1.0.2.1"]),
            ("a.c.wildcard", A, &["a.c.wildcard. A 1.0.2.1"]),
            ("a.b.wildcard", A, &["a.b.wildcard. A 1.0.2.2"]),
            ("x.y.svc.mesh.company.net", A, &["x.y.svc.mesh.company.net. A 1.0.2.3"]),
            ("foo.wildcard.ns1.svc.cluster.local", A, &["foo.wildcard.ns1.svc.cluster.local. A 1.0.2.1"]),
            ("other.test", A, &[]),
            ("both.test", A, &["both.test. A 1.0.3.3"]),
            ("headless", A, &["headless. A 10.0.0.2", "headless. A 10.0.0.3"]),
            ("headless.ns1", AAAA, &["headless.ns1. AAAA fd00::2", "headless.ns1. AAAA fd00::3"]),
            ("shared.test", A, &["shared.test. A 1.0.4.3"]),
            ("preferred.test", A, &["preferred.test. A 1.0.4.5"]),
        ];
        for (name, record_type, expected) in table {
            for transport in [Transport::Udp, Transport::Tcp] {
                let reply = world.ask(transport, name, *record_type).await;
                assert_eq!(answers(&reply), *expected, "{name} {record_type} {transport:?}");
                assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
                assert!(reply.metadata.authoritative && reply.metadata.recursion_available, "{name}");
                assert!(reply.metadata.recursion_desired && reply.metadata.id == 0x1234);
                assert!(reply.answers.iter().all(|record| record.ttl == 30) && reply.authorities.is_empty());
            }
        }
        assert!(world.seen.lock().unwrap().is_empty(), "nothing of this left the pod");
    });
}

// A-DN-01, 04, 07, 08, 09, 14, 15, 20
#[test]
fn everything_else_is_forwarded_untouched() {
    with_world(WORLD, true, |world| async move {
        for transport in [Transport::Udp, Transport::Tcp] {
            for (name, record_type) in [
                ("www.google.com", RecordType::NS),
                ("unknown.example", RecordType::A),
                ("nx.example", RecordType::A),
                ("example", RecordType::A),
                ("private.ns2", RecordType::A),
                ("far.ns1", RecordType::A),
                ("h-0.headless.ns1.svc.cluster.local", RecordType::A),
                ("novip.test", RecordType::AAAA),
                ("productpage", RecordType::Unknown(65_280)),
            ] {
                // An option nobody knows: what goes on is what came, not what was understood.
                let mut sent = question(name, record_type, Some(1400));
                let at = sent.len() - 2;
                sent.truncate(at);
                sent.extend([0, 8, 0xff, 0xee, 0, 4, 1, 2, 3, 4]);
                let reply = world.raw(transport, &sent).await;
                let seen = world.seen.lock().unwrap().pop().expect(name);
                assert_eq!(seen[2..], sent[2..], "{name}");
                let mut expected = resolver_reply(&seen);
                expected[..2].copy_from_slice(&sent[..2]);
                assert_eq!(reply, expected, "{name}");
            }
        }
        let metrics = world.metrics();
        let labels =
            r#"request_protocol="udp",source_canonical_service="web",source_canonical_revision="v1"}"#;
        for (metric, kind, count) in [
            ("istio_dns_requests_total", "ns", 1),
            ("istio_dns_upstream_requests_total", "a", 6),
            ("istio_dns_upstream_failures_total", "a", 1),
            ("istio_dns_upstream_request_duration_seconds_count", "aaaa", 1),
            ("istio_dns_upstream_requests_total", "unknown", 1),
        ] {
            let line = format!("{metric}{{request_query_type=\"{kind}\",{labels} {count}\n");
            assert!(metrics.contains(&line), "{line} in\n{metrics}");
        }
    });
}

#[test]
fn without_a_resolver_the_answer_is_servfail() {
    with_world(WORLD, false, |world| async move {
        let reply = world.ask(Transport::Udp, "unknown.example", RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        let reply = world.ask(Transport::Udp, "productpage", RecordType::A).await;
        assert_eq!(answers(&reply), ["productpage. A 10.9.0.1"]);
    });
}

// 8.2.1: opcodes, responses, short packets, no question
#[test]
fn odd_packets_get_the_answer_they_deserve() {
    with_world(WORLD, true, |world| async move {
        let mut update = question("productpage", RecordType::A, None);
        update[2] = 5 << 3;
        let mut response = question("productpage", RecordType::A, None);
        response[2] |= 0x80;
        let mut empty = question("productpage", RecordType::A, None);
        empty.truncate(12);
        empty[5] = 0;
        let mut broken = question("productpage", RecordType::A, None);
        broken.truncate(20);
        for (packet, code) in [(&update, 4), (&empty, 2), (&broken, 1)] {
            let reply = world.raw(Transport::Udp, packet).await;
            assert_eq!((&reply[..2], reply[3]), (&[0x12, 0x34][..], code), "code, and RA is 0");
        }
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for dropped in [&response[..], &[0x12, 0x34, 0][..], &[]] {
            socket.send_to(dropped, world.address).await.unwrap();
        }
        // The next answer is to this: those before got none.
        socket.send_to(&question("mine", RecordType::A, None), world.address).await.unwrap();
        let mut buffer = vec![0; 512];
        let n = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(answers(&Message::from_vec(&buffer[..n]).unwrap()), ["mine. A 10.9.0.4"]);
    });
}

// A-DN-18
#[test]
fn large_answers_are_truncated_over_udp_only() {
    let vips: Vec<String> = (0..256).map(|n| format!("/10.8.0.{n}")).collect();
    let service = format!(
        "- {{name: large, namespace: ns1, hostname: large.test, vips: [{}], ports: {{80: 80}}}}\n",
        vips.join(", ")
    );
    with_world(&format!("{WORLD}{service}"), true, |world| async move {
        let all = world.ask(Transport::Tcp, "large.test", RecordType::A).await;
        assert_eq!((all.answers.len(), all.metadata.truncation), (256, false));
        for (payload, limit) in [(None, 512), (Some(1232), 1232), (Some(100), 512)] {
            let bytes = world.raw(Transport::Udp, &question("large.test", RecordType::A, payload)).await;
            let some = Message::from_vec(&bytes).unwrap();
            assert!(
                some.metadata.truncation && bytes.len() <= limit && bytes.len() + 16 > limit,
                "{}",
                bytes.len()
            );
            assert_eq!(some.edns.map(|edns| edns.max_payload()), payload.map(|asked| asked.max(512)));
        }
    });
}

#[test]
fn an_unknown_pod_gets_servfail_and_is_counted() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (sender, mesh) = watch::channel(Arc::new(Mesh::new(MeshConfig::default())));
        let mut registry = Registry::default();
        let dependencies = Dependencies {
            mesh,
            pod: state::Pod { namespace: "ns1".into(), name: "client".into(), service_account: "sa".into() },
            settings: Arc::new(Settings {
                cluster_domain: "cluster.local".into(),
                preferred_namespace: None,
                ipv6: true,
                search: None,
            }),
            resolvers: Vec::new(),
            upstream: upstream(),
            metrics: Metrics::new(&mut registry),
            drain: Drain::new().1,
        };
        let asked = question("mine", RecordType::A, None);
        let refused = reply(&asked, Transport::Udp, true, &dependencies).await.unwrap();
        assert_eq!(refused[3] & 0x0f, 2);
        let arrives = async {
            sleep(Duration::from_secs(4)).await;
            let (mesh, _) = Mesh::new(MeshConfig::default()).apply(state::local_file::parse(WORLD).unwrap());
            sender.send_replace(Arc::new(mesh));
        };
        let (answered, ()) = tokio::join!(reply(&asked, Transport::Udp, true, &dependencies), arrives);
        assert_eq!(answers(&Message::from_vec(&answered.unwrap()).unwrap()), ["mine. A 10.9.0.4"]);
    });
}

// A-DN-17: IPv4 clients of a dual-stack socket.
#[test]
fn ipv4_clients_are_served_on_a_dual_stack_socket() {
    let any = "[::]:0".parse().unwrap();
    let udp = bind_udp(any, &UdpOptions { mark: None, reuse_port: true }).unwrap();
    let options = ListenOptions {
        mark: None,
        reuse_port: true,
        transparent: Transparent::Never,
        backlog: 16,
        keepalive: None,
        user_timeout: false,
    };
    let here = SocketAddr::new(any.ip(), udp.local_addr().unwrap().port());
    let tcp = listen(here, &options).unwrap().socket;
    with_sockets((udp, tcp), WORLD, true, |mut world| async move {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            world.address.set_ip(ip);
            for transport in [Transport::Udp, Transport::Tcp] {
                let reply = world.ask(transport, "mine", RecordType::A).await;
                assert_eq!(answers(&reply), ["mine. A 10.9.0.4"], "{transport:?} from {ip}");
            }
        }
    });
}

// Data-path 10.1: what was asked before the drain is answered, nothing is asked after it.
#[test]
fn questions_under_way_are_answered_while_draining() {
    with_world(WORLD, true, |world| async move {
        let mut connected = TcpStream::connect(world.address).await.unwrap();
        let asked = question("mine", RecordType::A, None);
        write_message(&mut connected, &asked).await.unwrap();
        read_message(&mut connected).await.unwrap();
        // The resolver has it, and its answer is still to come, when the drain begins.
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&question("elsewhere.test", RecordType::A, None), world.address).await.unwrap();
        while world.seen.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        world.trigger.start();
        let mut buffer = vec![0; 512];
        let n = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(query::response_code(&buffer[..n]), 0);
        assert_eq!(connected.read(&mut buffer).await.unwrap(), 0, "idle connections end");
    });
}
