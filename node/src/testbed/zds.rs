//! The hand-over of pods over real sockets, with its mistakes.

use std::sync::Arc;

use kit::fake_ca::FakeCa;
use kit::sandbox::sandboxed;

use super::*;

fn states(node: &Node) -> Vec<(String, String)> {
    node.list.dump().into_iter().map(|(uid, pod)| (uid, pod.state)).collect()
}

fn up(uid: &str) -> (String, String) {
    (uid.to_owned(), "Up".to_owned())
}

// A-IP-02, A-IP-08, A-IP-09, A-IP-11, A-IP-12, A-IP-15: reconcile by snapshot, keep, no-op, netns change.
#[test]
fn the_snapshot_decides_who_stays() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let mut b = Node::start("b", WORLD, &ca).await;
            let server = sandbox.host("server", &["10.1.0.2"]);
            let outside = sandbox.host("outside", &["10.1.0.3"]);
            assert_eq!(b.readiness.pending(), ["workload proxy manager"]);
            assert_eq!(b.add("1", "server", &server).await, "");
            assert_eq!(b.add("1", "server", &server).await, "");
            assert_eq!(b.add("2", "outside", &outside).await, "");
            assert_eq!(b.counted(&["proxies_started_total"]), 2);
            b.snapshot_sent().await;
            until("ready", || b.readiness.pending().is_empty()).await;
            assert_eq!(states(&b), [up("1"), up("2")]);

            // The next connection keeps the first and does not name the second.
            b.disconnect();
            b.accept().await;
            assert_eq!(b.readiness.pending(), ["workload proxy manager"]);
            assert_eq!(states(&b), [up("1"), up("2")]);
            assert_eq!(b.keep("1").await, "");
            assert_eq!(b.snapshot_sent().await, "");
            assert_eq!(states(&b), [up("1")]);

            // The same pod in another namespace is another instance.
            let other = sandbox.host("server-again", &["10.1.0.4"]);
            assert_eq!(b.add("1", "server", &other).await, "");
            assert_eq!(b.counted(&["proxies_started_total"]), 3);
            assert_eq!(b.counted(&["proxies_stopped_total"]), 2);
            let here = other.run(|| std::net::TcpStream::connect("10.1.0.4:15008"));
            assert!(here.is_ok());
            let gone = server.run(|| std::net::TcpStream::connect("10.1.0.2:15008"));
            assert!(gone.is_err());
        });
    });
}

// W71: a violation is told and ends the connection; the pods and the process go on.
#[test]
fn a_violation_harms_no_pod() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let mut b = Node::start("b", WORLD, &ca).await;
            let server = sandbox.host("server", &["10.1.0.2"]);
            b.add("1", "server", &server).await;
            b.snapshot_sent().await;
            for _ in 0..3 {
                let error = b.snapshot_sent().await;
                assert!(error.is_empty() || error.contains("zds-second-snapshot"), "{error}");
                if error.is_empty() {
                    continue;
                }
                b.accept().await;
                assert_eq!(states(&b), [up("1")]);
                assert_eq!(b.keep("1").await, "");
            }
            let there = server.run(|| std::net::TcpStream::connect("10.1.0.2:15008"));
            assert!(there.is_ok());
        });
    });
}

// A-IP-03, A-IP-11, A-IP-15: a pod that cannot start is pending and tried again until it can.
#[test]
fn a_pod_that_cannot_start_is_tried_again() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let b = Node::start("b", WORLD, &ca).await;
            let server = sandbox.host("server", &["10.1.0.2"]);
            let squatter = server.run(|| std::net::TcpListener::bind("0.0.0.0:15006")).unwrap();
            let error = b.add("1", "server", &server).await;
            assert!(error.starts_with("failure to start proxy : "), "{error}");
            assert!(error.contains("zds-start-failed"), "{error}");
            b.snapshot_sent().await;
            assert_eq!(b.readiness.pending(), ["workload proxy manager"]);
            assert_eq!(states(&b), [("1".to_owned(), "Pending".to_owned())]);
            assert_eq!(b.counted(&["workload_manager_pending_proxy_count"]), 1);
            drop(squatter);
            until("the retry", || b.readiness.pending().is_empty()).await;
            assert_eq!(states(&b), [up("1")]);
            assert_eq!(b.counted(&["workload_manager_pending_proxy_count"]), 0);
        });
    });
}

// A-IP-04, A-IP-05, A-IP-06, A-IP-07: what is pending leaves with its pod, or starts in another namespace.
#[test]
fn a_pending_pod_can_be_replaced_or_removed() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let b = Node::start("b", WORLD, &ca).await;
            let (server, other) =
                (sandbox.host("server", &["10.1.0.2"]), sandbox.host("other", &["10.1.0.4"]));
            let pending = || b.counted(&["workload_manager_pending_proxy_count"]);
            let _squatter = server.run(|| std::net::TcpListener::bind("0.0.0.0:15006")).unwrap();
            assert_ne!(b.add("1", "server", &server).await, "");
            assert_ne!(b.add("2", "server", &server).await, "");
            assert_eq!(pending(), 2);
            assert_eq!(b.add("1", "server", &other).await, "");
            assert_eq!(pending(), 1);
            // Before the snapshot, too.
            assert_eq!(b.delete("2").await, "");
            assert_eq!(pending(), 0);
            assert_eq!(states(&b), [up("1")]);
            b.snapshot_sent().await;
            until("ready", || b.readiness.pending().is_empty()).await;
            assert_eq!(b.delete("1").await, "");
            assert!(states(&b).is_empty());
            assert_eq!(b.add("1", "server", &other).await, "");
            assert_eq!(states(&b), [up("1")]);
            assert_eq!(b.counted(&["workload_manager_active_proxy_count"]), 1);
        });
    });
}
