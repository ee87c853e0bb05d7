//! Routes of applications' calls: segments of loopback for what ends at the proxy, the link's own for what crosses it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]
#![allow(unsafe_code, reason = "one request of the kernel that has no other name here")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use culvert_net as net;
use kit::sandbox::{Host, Sandbox, sandboxed};
use net::capture::{self, CALLS_TABLE, Capture, Conflict, OUTBOUND, Obstacle, PROXY_MARK};
use net::links::{Family, Links, MarkRule, RoutingChanges};
use net::nftables;
use net::socket::{DialOptions, ListenOptions, Transparent, dial, listen};
use net::star::LINK;
use socket2::SockRef;

const LIMIT: Duration = Duration::from_secs(5);
/// What a segment of the pod's link holds at most, of either family.
const OF_LINK: u32 = 1460;
/// Nothing smaller is a segment of loopback, which half of the window bounds at the start.
const OF_LOOPBACK: u32 = 30_000;

/// A pod, and somebody whose link takes more than the pod's: what the pod sends is limited by its own routes only.
fn pair(sandbox: &mut Sandbox) -> (Host, Host) {
    let pod = sandbox.host("pod", &["10.0.0.1", "fd00::1"]);
    let probe = Capture::default();
    let (v4, v6) = (probe.probe_v4.to_string(), probe.probe_v6.to_string());
    let peer = sandbox.host("peer", &["10.0.0.2", "fd00::2", &v4, &v6]);
    Links::open(&peer.namespace).unwrap().set_mtu(LINK, 9000).unwrap();
    Links::open(sandbox.hub()).unwrap().set_mtu("cable2", 9000).unwrap();
    (pod, peer)
}

fn capturing(host: &Host, capture: &Capture) {
    let obstacle = capture::apply(&host.namespace, capture).unwrap();
    assert!(obstacle.is_none(), "{obstacle:?}");
    assert!(capture::stands(&host.namespace, capture).unwrap());
}

/// Whoever listens here echoes, and says first how large its own segments are.
fn echo(listener: TcpListener) {
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let mut stream = stream.unwrap();
            let size = SockRef::from(&stream).tcp_mss().unwrap();
            stream.write_all(&size.to_be_bytes()).unwrap();
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

fn proxy(host: &Host) {
    let options = ListenOptions {
        mark: Some(PROXY_MARK.value),
        transparent: Transparent::Mandatory,
        ..ListenOptions::default()
    };
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, OUTBOUND));
    let listener = host.run(|| listen(address, &options)).unwrap().socket;
    listener.set_nonblocking(false).unwrap();
    host.spawn(move || echo(listener));
}

fn application(host: &Host, port: u16) {
    let listener = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    host.spawn(move || echo(listener));
}

struct Call {
    stream: TcpStream,
    /// The listener's segments.
    theirs: u32,
}

impl Call {
    fn new(host: &Host, target: SocketAddr) -> Self {
        Self::over(host.run(|| TcpStream::connect_timeout(&target, LIMIT)).unwrap())
    }

    fn over(mut stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        Self { stream, theirs: u32::from_be_bytes(size) }
    }

    /// More than several segments, there and back.
    #[track_caller]
    fn carries(&mut self) {
        let sent: Vec<u8> = (0..200_000_u32).map(|index| index.to_be_bytes()[3]).collect();
        let mut writer = self.stream.try_clone().unwrap();
        let mut received = vec![0; sent.len()];
        std::thread::scope(|threads| {
            threads.spawn(|| writer.write_all(&sent).unwrap());
            self.stream.read_exact(&mut received).unwrap();
        });
        assert!(received == sent);
    }

    /// Ours after traffic, and theirs as they were at the start.
    fn sizes(&mut self) -> (u32, u32) {
        self.carries();
        (SockRef::from(&self.stream).tcp_mss().unwrap(), self.theirs)
    }
}

#[track_caller]
fn is_of_loopback(host: &Host, target: SocketAddr) {
    let (ours, theirs) = Call::new(host, target).sizes();
    assert!(ours > OF_LOOPBACK && theirs > OF_LOOPBACK, "{target}: {ours} {theirs}");
}

#[track_caller]
fn is_of_link(host: &Host, target: SocketAddr) {
    let (ours, theirs) = Call::new(host, target).sizes();
    assert!(ours <= OF_LINK && theirs <= OF_LINK, "{target}: {ours} {theirs}");
}

/// Routes of the table of calls and rules that lead to it, of both families.
fn usage(host: &Host) -> [(usize, usize); 2] {
    let mut links = Links::open(&host.namespace).unwrap();
    [Family::V4, Family::V6].map(|family| links.usage(CALLS_TABLE, family).unwrap())
}

const NOTHING: [(usize, usize); 2] = [(0, 0), (0, 0)];

fn both(host: &Host, port: u16) -> [SocketAddr; 2] {
    [(host.v4(), port).into(), (host.v6(), port).into()]
}

#[test]
fn what_ends_at_the_proxy_has_segments_of_loopback_in_either_direction() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        capturing(&pod, &Capture { ingress: true, ..Capture::default() });
        for target in both(&peer, 80) {
            is_of_link(&pod, target);
        }
        capturing(&pod, &Capture::default());
        for target in both(&peer, 80) {
            is_of_loopback(&pod, target);
        }
        assert_eq!(usage(&pod).map(|(_, rules)| rules), [1, 1]);
    });
}

/// Nothing but TCP: a datagram of that size would never get through.
#[test]
fn datagrams_are_cut_for_the_link() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        for target in both(&peer, 9) {
            let receiver = peer.run(|| UdpSocket::bind(target)).unwrap();
            receiver.set_read_timeout(Some(LIMIT)).unwrap();
            let any: IpAddr =
                if target.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let sender = pod.run(|| UdpSocket::bind((any, 0))).unwrap();
            sender.send_to(&[1; 8000], target).unwrap();
            let mut buffer = [0; 9000];
            assert_eq!(receiver.recv_from(&mut buffer).unwrap().0, 8000);
        }
    });
}

/// Probes reach applications, and answers go back, without the proxy. They cross the link.
#[test]
fn what_passes_the_proxy_by_has_segments_of_the_link() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        capturing(&pod, &Capture::default());
        application(&pod, 8080);
        application(&peer, 80);
        let usual = Capture::default();
        for (probe, target) in [
            (IpAddr::from(usual.probe_v4), SocketAddr::from((pod.v4(), 8080))),
            (usual.probe_v6.into(), (pod.v6(), 8080).into()),
        ] {
            let namespace = peer.namespace.try_clone().unwrap();
            let stream = Host::join(peer.spawn_async(move || async move {
                let options = DialOptions { source: Some(probe), ..DialOptions::default() };
                let dialing = dial(target, Some(&namespace), &options);
                tokio::time::timeout(LIMIT, dialing).await.unwrap().unwrap().stream.into_std().unwrap()
            }));
            stream.set_nonblocking(false).unwrap();
            let mut probing = Call::over(stream);
            probing.carries();
            assert!(probing.theirs <= OF_LINK, "{probe}: {}", probing.theirs);
            // An application that calls there is not redirected either.
            is_of_link(&pod, (probe, 80).into());
        }
        // The proxy's own.
        for target in both(&peer, 80) {
            let namespace = pod.namespace.try_clone().unwrap();
            let stream = Host::join(pod.spawn_async(move || async move {
                let options = DialOptions { mark: Some(PROXY_MARK.value), ..DialOptions::default() };
                let dialing = dial(target, Some(&namespace), &options);
                tokio::time::timeout(LIMIT, dialing).await.unwrap().unwrap().stream.into_std().unwrap()
            }));
            stream.set_nonblocking(false).unwrap();
            let (ours, _) = Call::over(stream).sizes();
            assert!(ours <= OF_LINK, "{target}: {ours}");
        }
        // Within the namespace nothing has changed.
        is_of_loopback(&pod, "127.0.0.1:8080".parse().unwrap());
        is_of_loopback(&pod, (pod.v4(), 8080).into());
        is_of_loopback(&pod, (pod.v6(), 8080).into());
    });
}

/// In ingress mode strangers talk to applications themselves.
#[test]
fn in_ingress_mode_everything_has_segments_of_the_link() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        application(&pod, 8080);
        capturing(&pod, &Capture::default());
        assert_ne!(usage(&pod), NOTHING);
        capturing(&pod, &Capture { ingress: true, ..Capture::default() });
        assert_eq!(usage(&pod), NOTHING);
        for target in both(&pod, 8080) {
            is_of_link(&peer, target);
        }
    });
}

/// A call that is open goes on while routes come and go under it.
#[test]
fn open_calls_survive_all_changes_and_grow_with_them() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        let without = Capture { ingress: true, ..Capture::default() };
        capturing(&pod, &without);
        let mut calls = both(&peer, 80).map(|target| Call::new(&pod, target));
        for call in &mut calls {
            assert!(call.sizes().0 <= OF_LINK);
        }
        capturing(&pod, &Capture::default());
        for call in &mut calls {
            call.carries();
            assert!(call.sizes().0 > OF_LOOPBACK);
        }
        capturing(&pod, &without);
        for call in &mut calls {
            call.carries();
            assert!(call.sizes().0 <= OF_LINK);
        }
    });
}

#[test]
fn removal_leaves_no_route_and_no_rule() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        application(&peer, 80);
        capturing(&pod, &Capture::default());
        assert_ne!(usage(&pod), NOTHING);
        // What is not captured any more must not stay.
        let only_v4 = Capture { ipv6: false, ..Capture::default() };
        capturing(&pod, &only_v4);
        assert_eq!(usage(&pod)[1], (0, 0));
        is_of_link(&pod, (peer.v6(), 80).into());
        for _ in 0..2 {
            capture::remove(&pod.namespace).unwrap();
            assert_eq!(usage(&pod), NOTHING);
        }
        for target in both(&peer, 80) {
            is_of_link(&pod, target);
        }
    });
}

/// Until they follow, calls by routes that were end at the proxy all the same.
#[test]
fn routes_of_calls_follow_the_main_table() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        proxy(&pod);
        capturing(&pod, &Capture::default());
        let before = usage(&pod);
        let namespace = pod.namespace.try_clone().unwrap();
        Host::join(pod.spawn_async(move || async move {
            let mut changes = RoutingChanges::open(&namespace).unwrap();
            for route in ["10.7.0.0/16", "fd07::/64"] {
                let mut links = Links::open(&namespace).unwrap();
                links.add_route(route.parse().unwrap(), LINK, None).unwrap();
                tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
            }
        }));
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        let targets = ["10.7.0.1:80", "[fd07::1]:80"].map(|target| target.parse::<SocketAddr>().unwrap());
        for target in targets {
            is_of_loopback(&pod, target);
        }
        assert!(capture::follow_routing(&pod.namespace, &Capture::default()).unwrap().is_none());
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
        assert_eq!(usage(&pod), before.map(|(routes, rules)| (routes + 1, rules)));
        for target in targets {
            is_of_loopback(&pod, target);
        }
        // Where nothing is captured nothing is made.
        capture::remove(&pod.namespace).unwrap();
        assert!(capture::follow_routing(&pod.namespace, &Capture::default()).unwrap().is_none());
        assert_eq!(usage(&pod), NOTHING);
    });
}

/// Somebody else's rule at our place: ours gives way, and redirection is the same.
#[test]
fn routing_of_others_is_left_alone() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        capturing(&pod, &Capture::default());
        let foreign = MarkRule { mark: 7, mask: 0xff, table: 7, priority: 32765 };
        let mut links = Links::open(&pod.namespace).unwrap();
        links.add_mark_rule(foreign, Family::V6).unwrap();
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        for attempt in [capture::follow_routing, capture::apply] {
            let obstacle = attempt(&pod.namespace, &Capture::default()).unwrap();
            assert!(matches!(obstacle, Some(Obstacle::Conflict(Conflict::Priority))), "{obstacle:?}");
            assert_eq!(usage(&pod), NOTHING);
            assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
            for target in both(&peer, 80) {
                is_of_link(&pod, target);
            }
        }
        assert!(links.has_mark_rule(foreign, Family::V6).unwrap());
        links.remove_mark_rule(foreign, Family::V6).unwrap();
        assert!(!capture::stands(&pod.namespace, &Capture::default()).unwrap());
        capturing(&pod, &Capture::default());
        is_of_loopback(&pod, (peer.v4(), 80).into());
    });
}

/// A router's table is not copied, and what there was is taken away.
#[test]
fn a_large_table_has_no_image() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        capturing(&pod, &Capture::default());
        let mut links = Links::open(&pod.namespace).unwrap();
        for index in 0..=255_u8 {
            let network = IpAddr::from([10, 9, index, 0]);
            links.add_route(ipnet::IpNet::new(network, 24).unwrap(), LINK, None).unwrap();
        }
        let obstacle = capture::follow_routing(&pod.namespace, &Capture::default()).unwrap();
        assert!(matches!(obstacle, Some(Obstacle::Conflict(Conflict::Large))), "{obstacle:?}");
        assert_eq!(usage(&pod), NOTHING);
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
    });
}

/// Somebody has connections tracked: a table of ours by another name.
fn track_connections(host: &Host) {
    let mut tables =
        capture::rules(&Capture { ingress: true, ..Capture::default() }, &capture::WayBack::ByConnection);
    tables.tables.retain(|table| table.name.ends_with("mangle"));
    tables.tables[0].name = "somebody-elses".to_owned();
    nftables::replace(&host.namespace, &tables, &[]).unwrap();
}

/// A connection that is older than the redirection and tracked goes on past the proxy, with segments of its link.
#[test]
fn connections_that_pass_the_proxy_by_are_waited_for() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        application(&peer, 80);
        track_connections(&pod);
        let mut old = Call::new(&pod, (peer.v4(), 80).into());
        old.carries();
        let obstacle = capture::apply(&pod.namespace, &Capture::default()).unwrap().unwrap();
        assert!(matches!(obstacle, Obstacle::Direct), "{obstacle}");
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
        assert_eq!(usage(&pod), NOTHING);
        assert!(old.sizes().0 <= OF_LINK);
        // New ones are redirected, with segments of the link.
        proxy(&pod);
        is_of_link(&pod, (peer.v6(), 80).into());
        drop(old);
        // The kernel forgets a connection a while after its end.
        let deadline = Instant::now() + Duration::from_secs(20);
        while capture::stands(&pod.namespace, &Capture::default()).unwrap() {
            assert!(Instant::now() < deadline, "its end is not noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
        capturing(&pod, &Capture::default());
        is_of_loopback(&pod, (peer.v4(), 80).into());
    });
}

/// Rules that were taken from under the routes of calls: what was opened past the proxy meanwhile is counted as well.
#[test]
fn connections_of_a_time_without_rules_are_waited_for() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        application(&peer, 80);
        track_connections(&pod);
        capturing(&pod, &Capture::default());
        nftables::remove(&pod.namespace, &capture::TABLES).unwrap();
        let _old = Call::new(&pod, (peer.v4(), 80).into());
        let obstacle = capture::apply(&pod.namespace, &Capture::default()).unwrap();
        assert!(matches!(obstacle, Some(Obstacle::Direct)), "{obstacle:?}");
        assert_eq!(usage(&pod), NOTHING);
    });
}

/// Who changes its routing without end does not keep who is told: what has come is told in parts.
#[test]
fn changes_are_told_while_there_are_more() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let namespace = pod.namespace.try_clone().unwrap();
        Host::join(pod.spawn_async(move || async move {
            let mut changes = RoutingChanges::open(&namespace).unwrap();
            let mut links = Links::open(&namespace).unwrap();
            for _ in 0..80 {
                links.add_local_table(77, Family::V4).unwrap();
                links.remove_local_table(77, Family::V4).unwrap();
            }
            for _ in 0..3 {
                tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
            }
            assert!(tokio::time::timeout(Duration::ZERO, changes.changed()).await.is_err());
        }));
    });
}

/// Routes without number in the main table: enrolling and withdrawing go on.
#[test]
fn very_many_routes_are_in_the_way_of_routes_of_calls_only() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let mut links = Links::open(&pod.namespace).unwrap();
        for index in 0..4200_u32 {
            let [.., high, low] = index.to_be_bytes();
            let network = IpAddr::from([10, 64 + (high >> 4), (high << 4) | (low >> 4), low << 4]);
            links.add_route(ipnet::IpNet::new(network, 28).unwrap(), LINK, None).unwrap();
        }
        let obstacle = capture::apply(&pod.namespace, &Capture::default()).unwrap();
        assert!(matches!(obstacle, Some(Obstacle::Conflict(Conflict::Large))), "{obstacle:?}");
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
        assert!(capture::remove(&pod.namespace).unwrap().is_none());
        assert!(nftables::table_names(&pod.namespace).unwrap().is_empty());
    });
}

/// Rules without number ahead of ours, which the list does not reach any more: the routes of calls go, and it is said.
#[test]
fn very_many_rules_are_in_the_way_of_routes_of_calls_only() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        // The other family's rule would be seen.
        let capture = Capture { ipv6: false, ..Capture::default() };
        capturing(&pod, &capture);
        let mut links = Links::open(&pod.namespace).unwrap();
        for mark in 0..4200 {
            let rule = MarkRule { mark, mask: u32::MAX, table: 7, priority: 1000 };
            links.add_mark_rule(rule, Family::V4).unwrap();
        }
        assert!(!capture::stands(&pod.namespace, &capture).unwrap());
        let obstacle = capture::follow_routing(&pod.namespace, &capture).unwrap();
        assert!(matches!(obstacle, Some(Obstacle::Routes(_))), "{obstacle:?}");
        assert!(capture::remove(&pod.namespace).unwrap().is_none());
        assert!(nftables::table_names(&pod.namespace).unwrap().is_empty());
    });
}

/// The kernel makes loopback first: it is not looked for.
#[test]
fn loopback_is_the_first_link() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let links = Links::open(&pod.namespace).unwrap().list().unwrap();
        assert!(links.contains(&("lo".to_owned(), 1)), "{links:?}");
    });
}

/// The gateway of a route is not reachable any more: that route is left to the main table, all others are copied, and it
/// follows when it can.
#[test]
fn a_route_that_is_refused_costs_its_own_calls_only() {
    sandboxed(|mut sandbox| {
        let (pod, peer) = pair(&mut sandbox);
        proxy(&pod);
        let mut links = Links::open(&pod.namespace).unwrap();
        let ways = ["10.8.0.0/24", "fd08::/64"].map(|way| way.parse().unwrap());
        let through = [("10.9.0.0/16", "10.8.0.1"), ("fd09::/64", "fd08::1")];
        let targets = ["10.9.0.1:80", "[fd09::1]:80"].map(|target| target.parse().unwrap());
        for (way, (destination, gateway)) in ways.into_iter().zip(through) {
            links.add_route(way, LINK, None).unwrap();
            links.add_route(destination.parse().unwrap(), LINK, Some(gateway.parse().unwrap())).unwrap();
            links.remove_route(way, LINK).unwrap();
        }
        for _ in 0..2 {
            let obstacle = capture::apply(&pod.namespace, &Capture::default()).unwrap();
            assert!(matches!(obstacle, Some(Obstacle::Partly(2))), "{obstacle:?}");
            assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
            is_of_loopback(&pod, (peer.v4(), 80).into());
            for target in targets {
                is_of_link(&pod, target);
            }
        }
        // Trying again changes nothing, so nobody is told of it.
        let namespace = pod.namespace.try_clone().unwrap();
        Host::join(pod.spawn_async(move || async move {
            let mut changes = RoutingChanges::open(&namespace).unwrap();
            capture::follow_routing(&namespace, &Capture::default()).unwrap();
            let told = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            assert!(told.is_err());
        }));
        for way in ways {
            links.add_route(way, LINK, None).unwrap();
        }
        assert!(capture::follow_routing(&pod.namespace, &Capture::default()).unwrap().is_none());
        for target in targets {
            is_of_loopback(&pod, target);
        }
        assert!(capture::stands(&pod.namespace, &Capture::default()).unwrap());
    });
}

/// Gives a link of the calling thread's namespace another name.
fn rename(name: &str, new: &str) {
    let octets = |name: &str| {
        let mut all = [0; libc::IFNAMSIZ];
        all.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed());
        all
    };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let mut request = libc::ifreq {
        ifr_name: octets(name),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_newname: octets(new) },
    };
    // SAFETY: SIOCSIFNAME reads one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFNAME, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// No list of links is asked for on the way out: a pod can keep one from being read, or from having what is looked for. Here
/// loopback has another name.
#[test]
fn links_that_cannot_be_found_keep_nobody_from_being_withdrawn() {
    sandboxed(|mut sandbox| {
        let (pod, _) = pair(&mut sandbox);
        let capture = Capture::default();
        capturing(&pod, &capture);
        assert_ne!(usage(&pod), NOTHING);
        pod.run(|| rename("lo", "lost"));
        assert!(Links::open(&pod.namespace).unwrap().list().unwrap().contains(&("lost".to_owned(), 1)));
        capture::remove(&pod.namespace).unwrap();
        assert!(nftables::table_names(&pod.namespace).unwrap().is_empty());
        assert_eq!(usage(&pod), NOTHING);
    });
}
