//! Namespaces: a thread's visit, links between them, sockets made in them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::process::{Command, Stdio};
use std::time::Duration;

use culvert_net as net;
use kit::sandbox::{Host, sandboxed};
use net::NetNamespace;
use net::process::{Placement, place};
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

/// The way home is remembered between visits; it must not be remembered wrongly.
#[test]
fn a_thread_returns_to_where_it_was_and_not_to_where_it_once_was() {
    sandboxed(|sandbox| {
        let here = || NetNamespace::current().unwrap().id();
        let home = here();
        let (one, two) = (sandbox.island(), sandbox.island());
        for _ in 0..2 {
            let visited =
                one.run(|| (here(), two.run(here).unwrap(), here(), one.run(here).unwrap())).unwrap();
            assert_eq!(visited, (one.id(), two.id(), one.id(), one.id()));
            assert_eq!(here(), home);
        }
        let (moved, back) = std::thread::scope(|scope| {
            let walk = || {
                assert_eq!(one.run(here).unwrap(), one.id());
                two.enter().unwrap();
                (one.run(here).unwrap(), here())
            };
            scope.spawn(walk).join().unwrap()
        });
        assert_eq!((moved, back), (one.id(), two.id()));
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

#[test]
fn only_network_namespaces_pass_for_one() {
    sandboxed(|sandbox| {
        let open = |path: &str| NetNamespace::open(path).map(|namespace| namespace.id());
        let own = NetNamespace::current().unwrap().id();
        assert_eq!(open("/proc/thread-self/ns/net").unwrap(), own);
        for other in ["/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/user", "/"] {
            assert_eq!(open(other).unwrap_err().code(), "netns-not-a-network-namespace", "{other}");
        }
        assert_eq!(open("/nowhere").unwrap_err().code(), "netns-cannot-open");
        assert_ne!(sandbox.island().id(), sandbox.island().id());
    });
}

#[test]
fn a_child_lives_where_it_is_placed() {
    sandboxed(|mut sandbox| {
        let host = sandbox.host("a", &["10.0.0.1"]);
        let output = host.command("readlink").arg("/proc/self/ns/net").output().unwrap();
        let wanted = format!("net:[{}]", host.namespace.id().inode);
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), wanted);

        let folder = tempfile::tempdir().unwrap();
        let (shown, over) = (folder.path().join("shown"), folder.path().join("over"));
        std::fs::write(&shown, "nameserver 10.0.0.53").unwrap();
        std::fs::write(&over, "as it was").unwrap();
        let mut command = Command::new("cat");
        command.arg(&over);
        let files = vec![(shown, over.clone())];
        place(&mut command, Placement { files, ..Placement::default() }).unwrap();
        assert_eq!(command.output().unwrap().stdout, b"nameserver 10.0.0.53");
        assert_eq!(std::fs::read_to_string(&over).unwrap(), "as it was");
    });
}

#[test]
fn a_child_ends_with_the_thread_that_started_it() {
    sandboxed(|_sandbox| {
        let (mut pipe, child) = std::thread::spawn(|| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            place(&mut command, Placement { die_with_parent: true, ..Placement::default() }).unwrap();
            let mut child = command.spawn().unwrap();
            // Its input stays open: only the signal ends it.
            (child.stdout.take().unwrap(), child)
        })
        .join()
        .unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut pipe, &mut text).unwrap();
        let mut child = child;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    });
}
