//! Sockets in a pod's namespace. A-IP-13
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::net::SocketAddr;
use std::time::Duration;

use culvert_net as net;
use kit::sandbox::{Host, sandboxed};
use net::socket::{
    DialOptions, Dialer, ListenOptions, Transparent, UdpOptions, bind_udp, can_mark, dial, listen,
};
use socket2::SockRef;

const MARK: u32 = 1337;

#[test]
fn marks_and_port_sharing_are_as_configured_and_dialled_sockets_never_share() {
    sandboxed(|mut sandbox| {
        let pod = sandbox.host("pod", &["10.0.0.1", "fd00::1"]);
        pod.run(|| can_mark(MARK)).unwrap();
        for reuse_port in [true, false] {
            let options = ListenOptions {
                mark: Some(MARK),
                reuse_port,
                transparent: Transparent::BestEffort,
                ..ListenOptions::default()
            };
            let wildcard: SocketAddr = "[::]:0".parse().unwrap();
            let listener = pod.run(|| listen(wildcard, &options)).unwrap();
            assert!(listener.transparent);
            let socket = SockRef::from(&listener.socket);
            assert_eq!(socket.mark().unwrap(), MARK);
            assert_eq!(socket.reuse_port().unwrap(), reuse_port);
            assert!(socket.ip_transparent_v4().unwrap());
            let udp = pod.run(|| bind_udp(wildcard, &UdpOptions { mark: Some(MARK), reuse_port })).unwrap();
            assert_eq!(SockRef::from(&udp).mark().unwrap(), MARK);
            assert_eq!(SockRef::from(&udp).reuse_port().unwrap(), reuse_port);

            let port = listener.socket.local_addr().unwrap().port();
            let namespace = pod.namespace.try_clone().unwrap();
            // Dialled from outside the namespace: the socket is made inside.
            let dialled = sandbox_runtime().block_on(async {
                let options = DialOptions { mark: Some(MARK), ..DialOptions::default() };
                dial(([10, 0, 0, 1], port).into(), Some(&namespace), &options).await.unwrap()
            });
            let socket = SockRef::from(&dialled.stream);
            assert_eq!(socket.mark().unwrap(), MARK);
            assert!(!socket.reuse_port().unwrap() && !socket.ip_transparent_v4().unwrap());
            assert_eq!(dialled.stream.local_addr().unwrap().ip(), pod.v4());
        }
    });
}

/// Sockets are made ahead, the more the more are wanted, up to a bound, and each is the pod's and has the options.
#[test]
fn a_dialer_makes_sockets_ahead_in_its_namespace() {
    sandboxed(|mut sandbox| {
        let pod = sandbox.host("pod", &["10.0.0.1", "fd00::1"]);
        let wildcard: SocketAddr = "[::]:0".parse().unwrap();
        let listener = pod.run(|| listen(wildcard, &ListenOptions::default())).unwrap();
        let port = listener.socket.local_addr().unwrap().port();
        let namespace = std::sync::Arc::new(pod.namespace.try_clone().unwrap());
        let options = DialOptions { mark: Some(MARK), ..DialOptions::default() };
        let dialer = Dialer::new(Some(namespace), options);
        sandbox_runtime().block_on(async {
            let mut connections = Vec::new();
            let mut ready = Vec::new();
            for _ in 0..16 {
                // Only the pod itself can be reached by its loopback address.
                let dialed = dialer.dial(([127, 0, 0, 1], port).into(), None).await.unwrap();
                assert_eq!(SockRef::from(&dialed.stream).mark().unwrap(), MARK);
                connections.push(dialed);
                ready.push(dialer.n_ready());
            }
            // Visits make one, two, four, eight and eight.
            assert_eq!(ready, [0, 1, 0, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7]);
            let v6 =
                dialer.dial(("::1".parse::<std::net::IpAddr>().unwrap(), port).into(), None).await.unwrap();
            assert!(v6.stream.local_addr().unwrap().is_ipv6());
            dialer.let_idle_go();
            assert_eq!(dialer.n_ready(), 7, "they were in use until now");
            dialer.let_idle_go();
            assert_eq!(dialer.n_ready(), 0);
            dialer.dial(([127, 0, 0, 1], port).into(), None).await.unwrap();
            assert_eq!(dialer.n_ready(), 0, "one dial after a rest makes one");
        });
    });
}

/// A busy client has more connections through a proxy than there are ports: each needs to be unique with its target only.
#[test]
fn a_source_has_all_ports_for_each_target() {
    sandboxed(|mut sandbox| {
        let pod = sandbox.host("pod", &["10.0.0.1", "10.0.0.2"]);
        let anywhere: SocketAddr = "10.0.0.1:0".parse().unwrap();
        let listeners = [0, 1].map(|_| pod.run(|| listen(anywhere, &ListenOptions::default())).unwrap());
        pod.run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003")).unwrap();
        let source: std::net::IpAddr = "10.0.0.2".parse().unwrap();
        let options = DialOptions { source: Some(source), ..DialOptions::default() };
        sandbox_runtime().block_on(async {
            let mut open = Vec::new();
            for listener in &listeners {
                for _ in 0..4 {
                    let target = listener.socket.local_addr().unwrap();
                    let dialled = dial(target, Some(&pod.namespace), &options).await.unwrap();
                    assert!(dialled.fallback.is_none(), "{:?}", dialled.fallback);
                    assert_eq!(dialled.stream.local_addr().unwrap().ip(), source);
                    open.push(dialled.stream);
                }
            }
        });
    });
}

/// The connection is made all the same, and says so.
#[test]
fn a_source_that_cannot_be_used_is_reported() {
    sandboxed(|mut sandbox| {
        let pod = sandbox.host("pod", &["10.0.0.1"]);
        let listener = pod.run(|| listen("10.0.0.1:0".parse().unwrap(), &ListenOptions::default())).unwrap();
        let target = listener.socket.local_addr().unwrap();
        let fallback = |source: &'static str, privileged: bool| {
            Host::join(pod.spawn_async(move || async move {
                if !privileged {
                    drop_capabilities();
                }
                let options = DialOptions { source: Some(source.parse().unwrap()), ..DialOptions::default() };
                let dialing = dial(target, None, &options);
                let dialled = tokio::time::timeout(Duration::from_secs(5), dialing).await.unwrap().unwrap();
                dialled.fallback.map(|fallback| fallback.to_string()).unwrap_or_default()
            }))
        };
        assert_eq!(
            fallback("10.9.9.9", false),
            "failed to set freebind: Operation not permitted (os error 1)"
        );
        assert_eq!(
            fallback("fd00::9", true),
            "failed to bind local addr: the target is of the other address family"
        );
        // The target's own address needs no bind, so nothing can fail.
        assert_eq!(fallback("10.0.0.1", false), "");
        assert_eq!(fallback("::ffff:10.0.0.1", false), "");
    });
}

#[test]
fn without_privileges_a_mark_is_refused_and_transparency_is_best_effort() {
    sandboxed(|_sandbox| {
        drop_capabilities();
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let with = |transparent, mark| {
            listen(address, &ListenOptions { transparent, mark, ..ListenOptions::default() })
        };
        assert!(!with(Transparent::BestEffort, None).unwrap().transparent);
        assert!(!with(Transparent::Never, None).unwrap().transparent);
        assert_eq!(with(Transparent::Mandatory, None).unwrap_err().code(), "socket-not-permitted");
        assert_eq!(with(Transparent::Never, Some(MARK)).unwrap_err().code(), "socket-not-permitted");
        assert!(can_mark(MARK).is_err());
    });
}

/// Of the calling thread only.
fn drop_capabilities() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
}

fn sandbox_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
