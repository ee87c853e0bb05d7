//! Applications behind application tunnels: what they read before the client's bytes, and where they are reached.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use kit::echo::{Application, exchange};
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, sandboxed};

use super::hostname::through;
use super::*;

const CLIENT: &str = "spiffe://cluster.local/ns/ns/sa/client";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What an application has read of its first connection.
struct Read {
    client: SocketAddr,
    bytes: Vec<u8>,
}

/// An application that answers when the client has ended.
fn listening(host: &Host, at: &str) -> JoinHandle<Read> {
    let at = address(at);
    let listener = host.run(|| TcpListener::bind(at)).unwrap();
    host.spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(b"an answer after the end").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        Read { client, bytes }
    })
}

/// A header as the application is to read it, with the source port that it names.
fn header(family: u8, ends: [&str; 2], ports: [u16; 2]) -> Vec<u8> {
    let ips = ends.map(|ip| match ip.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    let addresses = [ips.concat(), ports.map(u16::to_be_bytes).concat()].concat();
    let tlv = [&[0xd0, 0, 38], CLIENT.as_bytes()].concat();
    let length = u8::try_from(addresses.len() + tlv.len()).unwrap();
    [SIGNATURE, &[0x21, family, 0, length], &addresses, &tlv].concat()
}

/// The source port that a header over IPv4 or IPv6 names.
fn source_port(bytes: &[u8]) -> u16 {
    let at = if bytes[13] == 0x11 { 24 } else { 48 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The server as an instance of a waypoint: of a service without ports, which others name by its address.
fn sandwich(tunnel: &str) -> String {
    let instance = "services: {\"ns/wp.ns.svc.cluster.local\": {}}, applicationTunnel: ";
    WORLD
        .replace("services: {\"ns/server.ns.svc.cluster.local\": {80: 8080}}", &format!("{instance}{tunnel}"))
        + r#"- {name: wp, namespace: ns, hostname: wp.ns.svc.cluster.local, vips: ["/10.96.0.9"], ports: {}, canonical: true}
- {name: api, namespace: ns, hostname: api.ns.svc.cluster.local, vips: ["remote/10.96.1.5", "/fd00::5", "/10.96.0.5"], ports: {80: 8080},
   canonical: true, waypoint: {destination: /10.96.0.9, hboneMtlsPort: 15008}}
- {name: six, namespace: ns, hostname: six.ns.svc.cluster.local, vips: ["/fd00::6"], ports: {80: 8080}, canonical: true}
- {name: nowhere, namespace: ns, hostname: nowhere.ns.svc.cluster.local, vips: [], ports: {80: 8080}, canonical: true}
"#
}

// A-NS-15, A-IN-05
#[test]
fn a_waypoints_application_reads_a_proxy_header_and_then_the_bytes() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = sandwich("{protocol: PROXY, port: 15088}");
            let (a, b) = (Node::start("a", &world, &ca).await, Node::start("b", &world, &ca).await);
            let (client, server) =
                (sandbox.host("client", &["10.1.0.1"]), sandbox.host("server", &["10.1.0.2"]));
            a.enrol(&client).await;
            b.enrol(&server).await;
            let application = listening(&server, "127.0.0.1:15088");
            let answer = inside(&client, || exchange(address("10.96.0.5:80"), b"hello world")).await;
            assert_eq!(answer.unwrap(), b"an answer after the end");
            let read = Host::join(application);
            assert_eq!(read.client.ip().to_string(), "127.0.0.1");
            let ports = [source_port(&read.bytes), 80];
            let wanted = [&header(0x11, ["10.1.0.1", "10.96.0.5"], ports)[..], b"hello world"].concat();
            assert_eq!(read.bytes, wanted);
            let source = format!("src.addr=10.1.0.1:{}", ports[0]);
            // The header is not the client's: it is not counted.
            b.line(&["info\taccess", &source, "dst.hbone_addr=10.96.0.5:80", "bytes_sent=23 bytes_recv=11"])
                .await;
        });
    });
}

// A-NS-14: the application is given the bytes as they are, and calls on.
#[test]
fn a_waypoints_application_without_header_calls_on() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = sandwich("{protocol: NONE, port: 15088}");
            let (a, b) = (Node::start("a", &world, &ca).await, Node::start("b", &world, &ca).await);
            let (client, server) =
                (sandbox.host("client", &["10.1.0.1"]), sandbox.host("server", &["10.1.0.2"]));
            let outside = sandbox.host("outside", &["10.1.0.3"]);
            a.enrol(&client).await;
            b.enrol(&server).await;
            let _backend = outside.run(|| Application::doubling(address("10.1.0.3:8080"))).unwrap();
            let listener = server.run(|| TcpListener::bind("10.1.0.2:15088")).unwrap();
            let waypoint = server.spawn(move || {
                let (mut stream, from) = listener.accept().unwrap();
                let mut request = Vec::new();
                stream.read_to_end(&mut request).unwrap();
                stream.write_all(&exchange(address("10.1.0.3:8080"), &request).unwrap()).unwrap();
                from
            });
            let answer = inside(&client, || exchange(address("10.96.0.5:80"), b"hello world")).await;
            assert_eq!(answer.unwrap(), b"hello worldhello world");
            assert_eq!(Host::join(waypoint).ip().to_string(), "10.1.0.1");
        });
    });
}

// Data-path 5.5: what the header names, and an end that comes before any byte.
#[test]
fn a_header_names_what_was_asked_for() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let b = Node::start("b", &sandwich("{protocol: PROXY, port: 15088}"), &ca).await;
            let (client, server) =
                (sandbox.host("client", &["10.1.0.1"]), sandbox.host("server", &["10.1.0.2"]));
            b.enrol(&server).await;
            let certificate = || ca.issue(&identity("client"), Duration::from_secs(60));
            for (authority, said, named) in [
                ("192.0.2.7:443", &b"hello world"[..], Some(("192.0.2.7", 443))),
                ("192.0.2.7:443", b"", Some(("192.0.2.7", 443))),
                ("api.ns.svc.cluster.local:80", b"hello world", Some(("10.96.0.5", 80))),
                ("six.ns.svc.cluster.local:80", b"hello world", None),
            ] {
                let application = listening(&server, "127.0.0.1:15088");
                let answer = through(&client, certificate(), authority, said).await;
                assert_eq!(answer.unwrap(), b"an answer after the end", "{authority}");
                let read = Host::join(application).bytes;
                let header = match named {
                    Some((ip, port)) => header(0x11, ["10.1.0.1", ip], [source_port(&read), port]),
                    None => [SIGNATURE, &[0x21, 0x01, 0, 41], &[0xd0, 0, 38], CLIENT.as_bytes()].concat(),
                };
                assert_eq!(read, [&header[..], said].concat(), "{authority}");
            }
            let no_address = through(&client, certificate(), "nowhere.ns.svc.cluster.local:80", b"").await;
            assert_eq!(no_address, Err(503));
            b.line(&["connection failed", "code=\"inbound-no-vip\""]).await;
            let nobody = through(&client, certificate(), "192.0.2.7:443", b"").await;
            assert_eq!(nobody, Err(503));
            b.line(&["error\taccess", "dst.hbone_addr=192.0.2.7:443", "code=\"app-unreachable\""]).await;
        });
    });
}

// Data-path 1.6, 5.5: without loopback the application sees the client's address.
#[test]
fn a_header_goes_to_the_pods_address_without_loopback() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = sandwich("{protocol: PROXY}").replace("\"10.1.0.2\"", "\"10.1.0.2\", \"fd00::2\"");
            let [server, four, six] = [
                sandbox.host("server", &["10.1.0.2", "fd00::2"]),
                sandbox.host("four", &["10.1.0.1"]),
                sandbox.host("six", &["fd00::1"]),
            ];
            for (loopback, client, at, family, ends, seen) in [
                ("false", &four, "10.1.0.2:8443", 0x11, ["10.1.0.1", "192.0.2.7"], "10.1.0.1"),
                ("false", &six, "[fd00::2]:8443", 0x21, ["fd00::1", "fd00::7"], "fd00::1"),
                ("true", &six, "[::1]:8443", 0x21, ["fd00::1", "fd00::7"], "::1"),
            ] {
                let b = Node::start_with("b", &world, &ca, &[("LOCALHOST_APP_TUNNEL", loopback)]).await;
                b.enrol(&server).await;
                let application = listening(&server, at);
                let authority = SocketAddr::new(ends[1].parse().unwrap(), 8443).to_string();
                let certificate = ca.issue(&identity("client"), Duration::from_secs(60));
                let answer = through(client, certificate, &authority, b"hello world").await;
                assert_eq!(answer.unwrap(), b"an answer after the end", "{at}");
                let read = Host::join(application);
                assert_eq!(read.client.ip().to_string(), seen, "{at}");
                let header = header(family, ends, [source_port(&read.bytes), 8443]);
                assert_eq!(read.bytes, [&header[..], b"hello world"].concat(), "{at}");
                assert_eq!(b.delete("server").await, "");
            }
        });
    });
}
