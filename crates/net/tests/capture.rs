//! A captured namespace: what is redirected and what is not, source addresses, DNS, applying twice, removal.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use culvert_net as net;
use kit::sandbox::{Host, Sandbox, sandboxed};
use net::capture::{
    self, Capture, DNS_PROXY, INBOUND_PLAINTEXT, OUTBOUND, Obstacle, PROXY_MARK, Setting, WayBack,
};
use net::links::{Family, Links};
use net::nftables;
use net::socket::{
    DialOptions, ListenOptions, Transparent, UdpOptions, bind_udp, dial, listen, original_destination,
};
use net::tracking::tracked;
use tokio::io::AsyncWriteExt;

const LIMIT: Duration = Duration::from_secs(5);

fn pair(sandbox: &mut Sandbox) -> (Host, Host) {
    (sandbox.host("pod", &["10.0.0.1", "fd00::1"]), sandbox.host("peer", &["10.0.0.2", "fd00::2"]))
}

fn capturing(host: &Host, capture: &Capture) {
    let obstacle = capture::apply(&host.namespace, capture).unwrap();
    assert!(obstacle.is_none(), "{obstacle:?}");
}

const SETTINGS: [Setting; 3] = [Setting::Accept, Setting::ReflectV4, Setting::ReflectV6];

/// Of a namespace where nobody changed the settings before.
fn by_socket() -> WayBack {
    WayBack::BySocket(SETTINGS.map(|setting| (setting, 0)).into_iter().collect())
}

fn path_of(setting: Setting) -> String {
    format!("/proc/sys/{}", setting.name().replace('.', "/"))
}

fn settings(host: &Host) -> [String; 3] {
    host.run(|| SETTINGS.map(|setting| std::fs::read_to_string(path_of(setting)).unwrap().trim().to_owned()))
}

/// Nobody in this test's mount namespace can write a kernel setting any more, until the mount is taken away.
fn settings_read_only() {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    mount_bind("/proc/sys", "/proc/sys").unwrap();
    mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
}

fn settings_writable() {
    rustix::mount::unmount("/proc/sys", rustix::mount::UnmountFlags::empty()).unwrap();
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
        assert_eq!(call(&peer, (pod.v4(), 15008).into()), "15008 10.0.0.2 10.0.0.1:15008 Transparent");
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
            let tracked = !wanted.virtual_interfaces.is_empty();
            let needed = |setting: &Setting| wanted.ipv6 || *setting != Setting::ReflectV6;
            let before = SETTINGS.into_iter().filter(needed).map(|setting| (setting, 0)).collect();
            let way = if tracked { WayBack::ByConnection } else { WayBack::BySocket(before) };
            let written = capture::rules(&wanted, &way);
            assert_eq!(once.to_string(), written.to_string(), "read back as written");
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
            tables: vec![nftables::Table {
                name: "somebody-elses".to_owned(),
                comment: None,
                chains: vec![],
            }],
        };
        nftables::replace(&pod.namespace, &foreign, &[]).unwrap();
        capturing(&pod, &Capture::default());
        let other = capture::rules(&Capture { ingress: true, ..Capture::default() }, &by_socket());
        nftables::replace(&pod.namespace, &other, &[]).unwrap();
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        capture::remove(&pod.namespace).unwrap();
        assert_eq!(nftables::table_names(&pod.namespace).unwrap(), ["somebody-elses"]);
    });
}

/// The application's end of a connection that stays open, and the proxy's end with the client's address.
fn held_open(pod: &Host, client: IpAddr, port: u16) -> (TcpStream, TcpStream) {
    let target = if client.is_ipv4() { pod.v4() } else { pod.v6() };
    let listener = pod.run(|| TcpListener::bind((target, port))).unwrap();
    let namespace = pod.namespace.try_clone().unwrap();
    let proxy = Host::join(pod.spawn_async(move || async move {
        let options =
            DialOptions { mark: Some(PROXY_MARK.value), source: Some(client), ..DialOptions::default() };
        let dialing = dial((target, port).into(), Some(&namespace), &options);
        tokio::time::timeout(LIMIT, dialing).await.unwrap().unwrap().stream.into_std().unwrap()
    }));
    let (application, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), client);
    for stream in [&proxy, &application] {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }
    (proxy, application)
}

fn carries(ends: &mut (TcpStream, TcpStream)) {
    for _ in 0..2 {
        ends.0.write_all(b"question").unwrap();
        let mut buffer = [0; 8];
        ends.1.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"question");
        ends.1.write_all(b"response").unwrap();
        ends.0.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"response");
    }
}

/// Ports that a tracked connection of the namespace was opened to.
fn tracked_ports(host: &Host) -> Vec<u16> {
    let mut ports: Vec<u16> =
        tracked(&host.namespace).unwrap().iter().map(|connection| connection.destination.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn neither_tunnels_nor_the_way_to_the_application_are_tracked() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        proxy(&pod, OUTBOUND);
        proxy(&pod, INBOUND_PLAINTEXT);
        proxy(&pod, capture::INBOUND_HBONE);
        application(&peer, "::".parse().unwrap(), 15008);
        for (client, own) in [(peer.v4(), pod.v4()), (peer.v6(), pod.v6())] {
            // A tunnel in, a tunnel out, the application reached with the client's address.
            assert!(call(&peer, (own, 15008).into()).starts_with("15008 "));
            assert_eq!(call_marked(&pod, (client, 15008).into(), None), format!("app {own}"));
            carries(&mut held_open(&pod, client, 8080));
        }
        assert_eq!(tracked_ports(&pod), Vec::<u16>::new());
        // What is translated has to be, an application's own call of that port among it.
        assert_eq!(call(&pod, (peer.v4(), 15008).into()), "15001 10.0.0.1 10.0.0.2:15008 ConnectionTracking");
        assert!(call(&pod, (peer.v4(), 80).into()).starts_with("15001 "));
        assert!(call(&peer, (pod.v4(), 8081).into()).starts_with("15006 "));
        assert_eq!(tracked_ports(&pod), [80, 8081, 15008]);
    });
}

/// A port nobody listens on says so at once, to the proxy and not to the client.
#[test]
fn a_refusal_comes_back_to_the_proxy() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        for (client, own) in [(peer.v4(), pod.v4()), (peer.v6(), pod.v6())] {
            let namespace = pod.namespace.try_clone().unwrap();
            let error = Host::join(pod.spawn_async(move || async move {
                let options = DialOptions {
                    mark: Some(PROXY_MARK.value),
                    source: Some(client),
                    ..DialOptions::default()
                };
                let dialing = dial((own, 9).into(), Some(&namespace), &options);
                tokio::time::timeout(LIMIT, dialing).await.expect("an answer").unwrap_err()
            }));
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
}

/// An application that closes with bytes unread resets the connection; later bytes meet no socket at all.
#[test]
fn a_reset_comes_back_to_the_proxy() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        for client in [peer.v4(), peer.v6()] {
            let (mut proxy, mut application) = held_open(&pod, client, 8080);
            proxy.write_all(b"unread").unwrap();
            let mut byte = [0];
            application.read_exact(&mut byte).unwrap();
            drop(application);
            assert_eq!(proxy.read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}

/// The source port of tunnels' answers opens no way past the redirection.
#[test]
fn a_stranger_who_calls_from_the_tunnels_port_is_redirected_like_anybody() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        proxy(&pod, INBOUND_PLAINTEXT);
        application(&pod, "::".parse().unwrap(), 8080);
        proxy(&pod, OUTBOUND);
        let from_15008 = |host: &Host, target: SocketAddr| {
            let local = SocketAddr::from((host.v4(), 15008));
            let mut stream = Host::join(host.spawn_async(move || async move {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(local).unwrap();
                let connecting = tokio::time::timeout(LIMIT, socket.connect(target));
                connecting.await.unwrap().unwrap().into_std().unwrap()
            }));
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let text = from_15008(&peer, (pod.v4(), 8080).into());
        assert_eq!(text, "15006 10.0.0.2 10.0.0.1:8080 ConnectionTracking");
        for port in [OUTBOUND, INBOUND_PLAINTEXT] {
            let text = from_15008(&peer, (pod.v4(), port).into());
            assert_eq!(text, format!("15006 10.0.0.2 10.0.0.1:{port} ConnectionTracking"));
        }
        // Nor out.
        let text = from_15008(&pod, (peer.v4(), 80).into());
        assert_eq!(text, "15001 10.0.0.1 10.0.0.2:80 ConnectionTracking");
    });
}

/// Where the settings cannot be written the connection's mark leads back, and it is said why.
#[test]
fn without_the_settings_answers_find_back_by_their_connection() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        settings_read_only();
        let wanted = Capture::default();
        for _ in 0..2 {
            let obstacle = capture::apply(&pod.namespace, &wanted).unwrap().unwrap();
            assert!(matches!(obstacle, Obstacle::Setting(_)), "{obstacle}");
            assert!(obstacle.to_string().contains("net.ipv4.tcp_fwmark_accept: Read-only"), "{obstacle}");
            assert!(capture::stands(&pod.namespace, &wanted).unwrap());
            let written = capture::rules(&wanted, &WayBack::ByConnection);
            assert_eq!(nftables::read(&pod.namespace, &capture::TABLES).unwrap(), written);
        }
        assert_eq!(settings(&pod), ["0", "0", "0"]);
        proxy(&pod, capture::INBOUND_HBONE);
        for (client, own) in [(peer.v4(), pod.v4()), (peer.v6(), pod.v6())] {
            carries(&mut held_open(&pod, client, 8080));
            assert!(call(&peer, (own, 15008).into()).starts_with("15008 "));
        }
        assert_eq!(tracked_ports(&pod), [8080], "tunnels are not tracked this way either");
        // As soon as they can be written, the rules that stand are not the best.
        settings_writable();
        assert!(!capture::stands(&pod.namespace, &wanted).unwrap());
        capturing(&pod, &wanted);
        assert!(capture::stands(&pod.namespace, &wanted).unwrap());
        assert_eq!(settings(&pod), ["1", "1", "1"]);
    });
}

/// A listener with a mark of its own hands that one on; the connection's mark goes before it.
#[test]
fn answers_of_sockets_with_a_mark_of_their_own_find_back_where_they_are_tracked() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        let tracking = Capture { track_answers: true, ..Capture::default() };
        assert!(!capture::stands(&pod.namespace, &tracking).unwrap());
        capturing(&pod, &tracking);
        assert!(capture::stands(&pod.namespace, &tracking).unwrap());
        assert_eq!(settings(&pod), ["0", "0", "0"]);
        let options = ListenOptions { mark: Some(7), ..ListenOptions::default() };
        let listener = pod.run(|| listen((pod.v4(), 8080).into(), &options)).unwrap().socket;
        listener.set_nonblocking(false).unwrap();
        pod.spawn(move || listener.accept().unwrap().0.write_all(b"marked").unwrap());
        assert_eq!(call_marked(&pod, (pod.v4(), 8080).into(), Some(peer.v4())), "marked");
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
    });
}

/// A setting that somebody takes back is noticed.
#[test]
fn rules_without_their_settings_do_not_stand() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        pod.run(|| std::fs::write(path_of(Setting::Accept), "0\n").unwrap());
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        capturing(&pod, &Capture::default());
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
        capture::remove(&pod.namespace).unwrap();
        assert_eq!(settings(&pod), ["0", "0", "0"]);
    });
}

#[test]
fn removal_puts_settings_back_to_what_they_were() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        pod.run(|| std::fs::write(path_of(Setting::ReflectV4), "1\n").unwrap());
        capturing(&pod, &Capture { ipv6: false, ..Capture::default() });
        assert_eq!(settings(&pod), ["1", "1", "0"]);
        // What they were is known after any number of changes.
        capturing(&pod, &Capture { ingress: true, ..Capture::default() });
        capturing(&pod, &Capture::default());
        assert_eq!(settings(&pod), ["1", "1", "1"]);
        capture::remove(&pod.namespace).unwrap();
        assert_eq!(settings(&pod), ["0", "1", "0"]);
    });
}

/// Rules of an earlier version, by connection and with tunnels tracked.
fn earlier() -> nftables::Ruleset {
    let mut rules = capture::rules(&Capture::default(), &WayBack::ByConnection);
    rules.tables.retain(|table| !table.name.ends_with("raw"));
    rules
}

#[test]
fn rules_of_an_earlier_version_give_way_when_no_connection_needs_them() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        let wanted = Capture::default();
        // The routing is the same in all versions.
        capturing(&pod, &wanted);
        capture::remove(&pod.namespace).unwrap();
        nftables::replace(&pod.namespace, &earlier(), &[]).unwrap();
        let mut links = Links::open(&pod.namespace).unwrap();
        for family in [Family::V4, Family::V6] {
            links.add_local_table(capture::RETURN_RULE.table, family).unwrap();
            links.add_mark_rule(capture::RETURN_RULE, family).unwrap();
        }
        let mut ends = held_open(&pod, peer.v4(), 8080);
        carries(&mut ends);
        assert!(!capture::stands(&pod.namespace, &wanted).unwrap());
        let obstacle = capture::apply(&pod.namespace, &wanted).unwrap().unwrap();
        assert!(matches!(obstacle, Obstacle::Open(1)), "{obstacle}");
        assert!(capture::stands(&pod.namespace, &wanted).unwrap());
        carries(&mut ends);
        // New ones too.
        let mut later = held_open(&pod, peer.v6(), 8081);
        carries(&mut later);
        for (mut proxy, application) in [ends, later] {
            drop(application);
            assert_eq!(proxy.read(&mut [0]).unwrap(), 0);
        }
        assert!(!capture::stands(&pod.namespace, &wanted).unwrap());
        capturing(&pod, &wanted);
        assert!(capture::stands(&pod.namespace, &wanted).unwrap());
        assert_eq!(
            nftables::read(&pod.namespace, &capture::TABLES).unwrap(),
            capture::rules(&wanted, &by_socket())
        );
        carries(&mut held_open(&pod, peer.v4(), 8082));
    });
}
