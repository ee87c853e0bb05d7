//! Policy on new connections, and on those that are open when it changes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use kit::echo::{Application, connect, exchange};
use kit::fake_ca::FakeCa;
use kit::sandbox::sandboxed;

use super::*;

const DENY: &str = r#"
policies:
- {name: deny, namespace: ns, scope: Namespace, action: Deny, dryRun: false,
   rules: [[[{destinationPorts: [8080]}]]]}
"#;

/// A policy with a selector, which a workload may name.
const SELECTED: &str = r#"
policies:
- {name: selected, namespace: ns, scope: WorkloadSelector, action: Allow, dryRun: false, rules: []}
"#;

// OB-27; the same whether the client's bytes wait for the answer or go ahead of it (the second time on a tunnel).
#[test]
fn a_denied_connection_is_401_with_the_policys_name() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let a = Node::start("a", WORLD, &ca).await;
            let b = Node::start("b", &format!("{WORLD}{DENY}"), &ca).await;
            let (client, server) =
                (sandbox.host("client", &["10.1.0.1"]), sandbox.host("server", &["10.1.0.2"]));
            a.enrol(&client).await;
            b.enrol(&server).await;
            const TIMES: usize = 8;
            for _ in 0..TIMES {
                let answer = inside(&client, || exchange(address("10.1.0.2:8080"), b"x")).await;
                assert!(answer.map_or(true, |answer| answer.is_empty()));
            }
            let reason = "error=\"connection closed due to policy rejection: explicitly denied by: \
                          ns/deny\" code=\"policy-explicit-deny\"";
            b.line(&["error\taccess\tconnection complete", "inbound", reason]).await;
            let status = "error=\"http status: 401 Unauthorized\" code=\"hbone-connect-denied\"";
            a.line(&["error\taccess\tconnection complete", "outbound", status]).await;
            let complete = |node: &Node, end: &str| {
                let text = node.text();
                let lines = text.lines().filter(|line| line.contains("bytes_sent=0 bytes_recv=0"));
                lines.filter(|line| line.contains(end)).count()
            };
            until("every line", || complete(&a, status) + complete(&b, reason) == 2 * TIMES).await;
            let failed = |node: &Node, flag| node.counted(&["istio_tcp_connections_failed_total", flag]);
            assert_eq!(failed(&b, "response_flags=\"DENY\""), TIMES as u64);
            assert_eq!(failed(&a, "response_flags=\"CONNECT\""), TIMES as u64);
            assert_eq!(a.counted(&["istio_tcp_sent_bytes"]) + a.counted(&["istio_tcp_received_bytes"]), 0);
        });
    });
}

/// Connects and proves that the connection works.
fn greet(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(to)?;
    stream.write_all(b"hi")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(stream)
}

/// Whether the connection has been cut, and does not look complete: neither side has ended it.
fn is_cut(mut stream: TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Whether the connection still works.
fn still_works(mut stream: TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"yo").and_then(|()| stream.read_exact(&mut answer)).is_ok()
        && stream.shutdown(Shutdown::Both).is_ok()
}

/// Opens tunnels and plaintext to two ports, changes the world, and sees port 8080 cut.
fn cuts(before: &'static str, after: &'static str) -> impl AsyncFnOnce(&mut kit::sandbox::Sandbox) {
    async move |sandbox| {
        let ca = Arc::new(FakeCa::new());
        let (before, after) = (format!("{WORLD}{before}"), after.to_owned());
        let (a, b) = (Node::start("a", &before, &ca).await, Node::start("b", &before, &ca).await);
        let client = sandbox.host("client", &["10.1.0.1"]);
        let server = sandbox.host("server", &["10.1.0.2"]);
        let outside = sandbox.host("outside", &["10.1.0.3"]);
        a.enrol(&client).await;
        b.enrol(&server).await;
        let _applications = ["10.1.0.2:8080", "10.1.0.2:8081"]
            .map(|at| server.run(|| Application::doubling(address(at))).unwrap());
        let tunnel = inside(&client, || greet(address("10.1.0.2:8080"))).await.unwrap();
        let plain = inside(&outside, || greet(address("10.1.0.2:8080"))).await.unwrap();
        let other = inside(&client, || greet(address("10.1.0.2:8081"))).await.unwrap();
        let listed = || b.list.dump()["server"].connections.clone().unwrap().inbound.len();
        assert_eq!(listed(), 3);

        (b.change)(&after);
        assert!(inside(&client, move || is_cut(tunnel)).await);
        assert!(inside(&outside, move || is_cut(plain)).await);
        let reason = "error=\"connection closed due to policy change\" code=\"policy-changed\"";
        b.line(&["error\taccess", "dst.hbone_addr=10.1.0.2:8080", reason]).await;
        b.line(&["error\taccess", "dst.addr=10.1.0.2:8080", reason]).await;
        if after.contains("destinationPorts") {
            assert!(inside(&client, move || still_works(other)).await);
        }
        assert!(b.counted(&["connections_failed", "reporter=\"destination\"", "DENY"]) >= 2);
    }
}

// PO-20, A-NS: a new policy cuts what it denies, promptly, and other streams go on.
#[test]
fn policy_change_closes_open_connections() {
    sandboxed(|mut sandbox| {
        let after: &'static str = Box::leak(format!("{WORLD}{DENY}").into_boxed_str());
        run(async { cuts("", after)(&mut sandbox).await });
    });
}

/// The world in which the server's workload names the policy `SELECTED`.
fn selecting() -> String {
    WORLD.replace(
        "services: {\"ns/server.ns.svc.cluster.local\": {80: 8080}}",
        "services: {}, authorizationPolicies: [ns/selected]",
    )
}

// W15: the policy was there all the time; only the workload changed, and names it now.
#[test]
fn workload_change_closes_open_connections() {
    sandboxed(|mut sandbox| {
        let world = selecting();
        let after: &'static str = Box::leak(format!("{world}{SELECTED}").into_boxed_str());
        run(async { cuts(SELECTED, after)(&mut sandbox).await });
    });
}

// W14: a workload names a policy that arrives a moment later.
#[test]
fn a_connection_waits_for_a_policy_that_is_on_its_way() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = selecting();
            let b = Node::start("b", &world, &ca).await;
            let server = sandbox.host("server", &["10.1.0.2"]);
            let outside = sandbox.host("outside", &["10.1.0.3"]);
            b.enrol(&server).await;
            let _application = server.run(|| Application::doubling(address("10.1.0.2:8080")));
            let client = outside.spawn(|| exchange(address("10.1.0.2:8080"), b"x"));
            until("the connection waits", || {
                !b.list.dump()["server"].connections.clone().unwrap().inbound.is_empty()
            })
            .await;
            (b.change)(&format!("{world}{SELECTED}"));
            until("the client is told", || client.is_finished()).await;
            let answer = Host::join(client);
            assert!(answer.map_or(true, |answer| answer.is_empty()));
            b.line(&["code=\"policy-no-allow-match\""]).await;
        });
    });
}

/// Who was let through because a policy did not come in time is no precedent: once it has been known, it is waited for again.
#[test]
fn a_policy_that_came_and_went_is_waited_for_again() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = selecting();
            // Each thread knows by itself what it has given up.
            let b = Node::start_with("b", &world, &ca, &[("ZTUNNEL_WORKER_THREADS", "1")]).await;
            let server = sandbox.host("server", &["10.1.0.2"]);
            let outside = sandbox.host("outside", &["10.1.0.3"]);
            b.enrol(&server).await;
            let _application = server.run(|| Application::doubling(address("10.1.0.2:8080"))).unwrap();
            let is_let_through = || async {
                let answer = inside(&outside, || exchange(address("10.1.0.2:8080"), b"x")).await;
                answer.is_ok_and(|answer| answer == b"xx")
            };
            assert!(is_let_through().await, "after a second");
            (b.change)(&format!("{world}{SELECTED}"));
            limited(async { while is_let_through().await {} }).await;
            (b.change)(&world);
            let waited = limited(async {
                loop {
                    let begin = tokio::time::Instant::now();
                    if is_let_through().await {
                        break begin.elapsed();
                    }
                }
            })
            .await;
            assert!(waited >= Duration::from_secs(1), "{waited:?}");
        });
    });
}
