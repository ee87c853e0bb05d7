//! Namespaces: a thread's visit, links between them, sockets made in them.
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::time::Duration;

use culvert_net as net;
use kit::sandbox::{Host, sandboxed};
use net::NetNamespace;
use net::socket::{DialOptions, ListenOptions, dial, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A-IP-14
#[test]
fn code_runs_inside_and_the_thread_returns() {
    sandboxed(|sandbox| {
        let home = NetNamespace::current().unwrap().id();
        let other = sandbox.island();
        let inside = other.run(|| NetNamespace::current().unwrap().id()).unwrap();
        assert_eq!(inside, other.id());
        assert_ne!(inside, home);
        assert_eq!(NetNamespace::current().unwrap().id(), home);

        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.run(|| panic!("within the visit")).unwrap();
        }));
        assert!(panicked.is_err());
        assert_eq!(NetNamespace::current().unwrap().id(), home, "the thread returns from a panic too");
    });
}

#[test]
fn hosts_reach_each_other_over_both_families() {
    sandboxed(|mut sandbox| {
        let a = sandbox.host("a", &["10.0.0.1", "fd00::1"]);
        let b = sandbox.host("b", &["10.0.9.2", "fd00:9::2"]);
        for target in [b.v4(), b.v6()] {
            let listener = b.run(|| listen((target, 0).into(), &ListenOptions::default())).unwrap();
            let port = listener.socket.local_addr().unwrap().port();
            let server = b.spawn_async(move || async move {
                let listener = listener.into_tokio().unwrap();
                let (mut stream, peer) = listener.accept().await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                peer
            });
            let client = a.spawn_async(move || async move {
                let options = DialOptions::default();
                let dialing = dial((target, port).into(), None, &options);
                let mut dialed =
                    tokio::time::timeout(Duration::from_secs(5), dialing).await.unwrap().unwrap();
                let mut text = String::new();
                dialed.stream.read_to_string(&mut text).await.unwrap();
                text
            });
            assert_eq!(Host::join(client), "hello");
            assert!(a.addresses.contains(&Host::join(server).ip()));
        }
    });
}
