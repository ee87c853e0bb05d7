//! A captured namespace: what is redirected and what is not, source addresses, DNS, applying twice, removal.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use culvert_net as net;
use kit::sandbox::{Host, Sandbox, sandboxed};
use net::capture::{self, Capture, DNS_PROXY, INBOUND_PLAINTEXT, OUTBOUND, PROXY_MARK};
use net::links::{Family, Links};
use net::nftables;
use net::socket::{
    DialOptions, ListenOptions, Transparent, UdpOptions, bind_udp, dial, listen, original_destination,
};
use tokio::io::AsyncWriteExt;

const LIMIT: Duration = Duration::from_secs(5);

fn pair(sandbox: &mut Sandbox) -> (Host, Host) {
    (sandbox.host("pod", &["10.0.0.1", "fd00::1"]), sandbox.host("peer", &["10.0.0.2", "fd00::2"]))
}

fn capturing(host: &Host, capture: &Capture) {
    capture::apply(&host.namespace, capture).unwrap();
}

/// Says to each caller who it is and where it was going; serves until the test ends.
fn proxy(host: &Host, port: u16) {
    let options = ListenOptions {
        mark: Some(PROXY_MARK.value),
        transparent: Transparent::Mandatory,
        reuse_port: true,
        ..ListenOptions::default()
    };
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = host.run(|| listen(address, &options)).unwrap();
    assert!(listener.transparent);
    host.spawn_async(move || async move {
        let listener = listener.into_tokio().unwrap();
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            let found = original_destination(&stream).unwrap();
            let peer = net::socket::canonical(peer).ip();
            let text = format!("{port} {peer} {} {:?}", found.address, found.found_by);
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
}

/// An application: says who called it.
fn application(host: &Host, address: IpAddr, port: u16) {
    let listener = host.run(|| TcpListener::bind((address, port))).unwrap();
    host.spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(format!("app {peer}").as_bytes());
        }
    });
}

/// What the other end says to a connection from `host` to `target`.
fn call(host: &Host, target: SocketAddr) -> String {
    host.run(|| {
        let mut stream = TcpStream::connect_timeout(&target, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

/// The same from a proxy's marked socket.
fn call_marked(host: &Host, target: SocketAddr, source: Option<IpAddr>) -> String {
    let namespace = host.namespace.try_clone().unwrap();
    Host::join(host.spawn_async(move || async move {
        let options = DialOptions { mark: Some(PROXY_MARK.value), source, ..DialOptions::default() };
        let dialing = dial(target, Some(&namespace), &options);
        let dialed = tokio::time::timeout(LIMIT, dialing).await.unwrap().unwrap();
        assert!(dialed.fallback.is_none());
        let mut stream = dialed.stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }))
}

#[test]
fn outbound_is_redirected_and_the_destination_known() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        proxy(&pod, OUTBOUND);
        assert_eq!(call(&pod, (peer.v4(), 80).into()), "15001 10.0.0.1 10.0.0.2:80 ConnectionTracking");
        assert_eq!(call(&pod, (peer.v6(), 80).into()), "15001 fd00::1 [fd00::2]:80 ConnectionTracking");
        // An address nobody has is captured all the same.
        assert!(call(&pod, "240.240.0.1:7".parse().unwrap()).ends_with("240.240.0.1:7 ConnectionTracking"));
    });
}

#[test]
fn inbound_plaintext_is_redirected_but_hbone_and_loopback_are_not() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        proxy(&pod, INBOUND_PLAINTEXT);
        proxy(&pod, capture::INBOUND_HBONE);
        application(&pod, "::".parse().unwrap(), 8080);
        assert_eq!(call(&peer, (pod.v4(), 8080).into()), "15006 10.0.0.2 10.0.0.1:8080 ConnectionTracking");
        assert_eq!(call(&peer, (pod.v6(), 8080).into()), "15006 fd00::2 [fd00::1]:8080 ConnectionTracking");
        // 15008 is reached directly; its local address is the destination.
        assert_eq!(call(&peer, (pod.v4(), 15008).into()), "15008 10.0.0.2 10.0.0.1:15008 ConnectionTracking");
        // Within the pod: loopback and the pod's own address.
        assert_eq!(call(&pod, "127.0.0.1:8080".parse().unwrap()), "app 127.0.0.1");
        assert_eq!(call(&pod, "[::1]:8080".parse().unwrap()), "app ::1");
        assert_eq!(call(&pod, (pod.v4(), 8080).into()), "app 10.0.0.1");
        assert_eq!(call(&pod, (pod.v6(), 8080).into()), "app fd00::1");
    });
}

#[test]
fn marked_packets_are_not_redirected() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        application(&peer, "::".parse().unwrap(), 8080);
        assert_eq!(call_marked(&pod, (peer.v4(), 8080).into(), None), "app 10.0.0.1");
        assert_eq!(call_marked(&pod, (peer.v6(), 8080).into(), None), "app fd00::1");
    });
}

/// The application sees the client's address although the proxy calls it, and its answer comes back to the proxy.
#[test]
fn the_clients_address_is_kept_towards_the_application() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        application(&pod, "::".parse().unwrap(), 8080);
        assert_eq!(call_marked(&pod, (pod.v4(), 8080).into(), Some(peer.v4())), "app 10.0.0.2");
        assert_eq!(call_marked(&pod, (pod.v6(), 8080).into(), Some(peer.v6())), "app fd00::2");
        // A source that is the target itself is not bound.
        assert_eq!(call_marked(&pod, (pod.v4(), 8080).into(), Some(pod.v4())), "app 10.0.0.1");
    });
}

#[test]
fn ingress_mode_lets_plaintext_in() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture { ingress: true, ..Capture::default() });
        application(&pod, "::".parse().unwrap(), 8080);
        proxy(&pod, OUTBOUND);
        assert_eq!(call(&peer, (pod.v4(), 8080).into()), "app 10.0.0.2");
        assert_eq!(call(&pod, (peer.v4(), 80).into()), "15001 10.0.0.1 10.0.0.2:80 ConnectionTracking");
    });
}

#[test]
fn dns_goes_to_the_proxy_and_the_proxys_own_queries_to_the_server() {
    sandboxed(|mut sandbox| {
        let (pod, server) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        proxy(&pod, DNS_PROXY);
        answering(&pod, "127.0.0.1:15053", b"proxy");
        answering(&pod, "[::1]:15053", b"proxy");
        answering(&server, "10.0.0.2:53", b"server");
        answering(&server, "[fd00::2]:53", b"server");
        let marked = UdpOptions { mark: Some(PROXY_MARK.value), reuse_port: true };
        for (local, target) in [("0.0.0.0:0", server.v4()), ("[::]:0", server.v6())] {
            let local: SocketAddr = local.parse().unwrap();
            let application = pod.run(|| bind_udp(local, &UdpOptions::default())).unwrap();
            assert_eq!(ask(&application, (target, 53).into()), "proxy");
            // The same local port right after: only the zone keeps it apart from the redirected connection.
            let port = application.local_addr().unwrap().port();
            drop(application);
            let forwarder = pod.run(|| bind_udp((local.ip(), port).into(), &marked)).unwrap();
            assert_eq!(ask(&forwarder, (target, 53).into()), "server");
        }
        let text = call(&pod, (server.v4(), 53).into());
        assert_eq!(text, "15053 10.0.0.1 10.0.0.2:53 ConnectionTracking");
    });
}

#[test]
fn without_dns_capture_queries_pass() {
    sandboxed(|mut sandbox| {
        let (pod, server) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        capturing(&pod, &Capture { dns: false, ..Capture::default() });
        answering(&server, "10.0.0.2:53", b"server");
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        assert_eq!(ask(&socket, (server.v4(), 53).into()), "server");
    });
}

fn answering(host: &Host, address: &str, answer: &'static [u8]) {
    let socket = host.run(|| UdpSocket::bind(address)).unwrap();
    host.spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(answer, peer).unwrap();
        }
    });
}

fn ask(socket: &UdpSocket, target: SocketAddr) -> String {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.send_to(b"query", target).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, target, "the answer comes from whom was asked");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// A-IP-17
#[test]
fn applied_twice_there_is_no_difference_and_removal_leaves_nothing() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let taps = vec!["tap0".to_owned()];
        let captures = [
            Capture::default(),
            Capture { ingress: true, virtual_interfaces: taps, ..Capture::default() },
            Capture { dns: false, ipv6: false, ..Capture::default() },
        ];
        for wanted in captures {
            assert!(!capture::stands(&pod.namespace, &wanted).unwrap());
            capture::apply(&pod.namespace, &wanted).unwrap();
            let once = nftables::read(&pod.namespace, &capture::TABLES).unwrap();
            assert_eq!(once.to_string(), capture::rules(&wanted).to_string(), "read back as written");
            assert!(capture::stands(&pod.namespace, &wanted).unwrap());
            capture::apply(&pod.namespace, &wanted).unwrap();
            assert_eq!(nftables::read(&pod.namespace, &capture::TABLES).unwrap(), once);
            assert!(capture::stands(&pod.namespace, &wanted).unwrap());
        }
        for _ in 0..2 {
            capture::remove(&pod.namespace).unwrap();
            assert_eq!(nftables::table_names(&pod.namespace).unwrap(), Vec::<String>::new());
            let mut links = Links::open(&pod.namespace).unwrap();
            for family in [Family::V4, Family::V6] {
                assert!(!links.has_mark_rule(capture::RETURN_RULE, family).unwrap());
                assert!(!links.has_local_table(capture::RETURN_RULE.table, family).unwrap());
            }
        }
    });
}

#[test]
fn a_changed_rule_is_noticed_and_foreign_tables_are_left_alone() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let foreign = nftables::Ruleset {
            tables: vec![nftables::Table { name: "somebody-elses".to_owned(), chains: vec![] }],
        };
        nftables::replace(&pod.namespace, &foreign, &[]).unwrap();
        capturing(&pod, &Capture::default());
        let other = capture::rules(&Capture { ingress: true, ..Capture::default() });
        nftables::replace(&pod.namespace, &other, &[]).unwrap();
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        capture::remove(&pod.namespace).unwrap();
        assert_eq!(nftables::table_names(&pod.namespace).unwrap(), ["somebody-elses"]);
    });
}
