//! What is captured, what is not, and what each end logs and counts.

use serde_json::Value;

use crate::lab::{self, Lab};
use crate::probe::{Probe, Running};

const PORT: u16 = 7777;

/// Eleven bytes, answered by twenty-two.
const TEXT: &str = "hello world";

fn doubling(lab: &Lab, pod: &str) -> Running {
    let mut server = lab.probe(pod, &Probe::Double { port: PORT });
    assert_eq!(server.report()["listening"], PORT);
    server
}

fn send(lab: &Lab, from: &str, to: &str, port: u16) -> Value {
    let to = format!("{}:{port}", lab.address(to));
    lab.probe(from, &Probe::Send { to, text: TEXT.to_owned() }).report()
}

fn doubled(report: &Value) {
    assert_eq!(report["received"], "hello worldhello world", "{report}");
    assert_eq!(report["end"], "fin", "{report}");
}

/// The value of a counter with these labels on a node's page.
fn counter(lab: &Lab, node: &str, name: &str, labels: &[&str]) -> f64 {
    let page = lab.get(node, "http://127.0.0.1:15020/metrics");
    let page = String::from_utf8(page.stdout).unwrap();
    page.lines()
        .filter(|line| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn numbers(lab: &Lab, node: &str, labels: &[&str]) {
    // The last byte is counted before the line is written, the closing with it.
    for (name, wanted) in [
        ("istio_tcp_connections_opened_total", 1.0),
        ("istio_tcp_connections_closed_total", 1.0),
        ("istio_tcp_received_bytes_total", 11.0),
        ("istio_tcp_sent_bytes_total", 22.0),
    ] {
        lab::eventually(&format!("{name} of {node} with {labels:?} is {wanted}"), || {
            (counter(lab, node, name, labels) == wanted).then_some(())
        });
    }
}

// A-NS-01, A-NS-02, A-NS-03, A-NS-04, A-NS-06
#[test]
fn each_kind_of_pair_carries_bytes_and_is_counted_at_the_right_ends() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let (worker, worker2) = ("ambient-worker", "ambient-worker2");
    let _servers = ["details", "notsleep", "sleep", "default/plain"].map(|pod| doubling(&lab, pod));

    // Captured to captured: same node, then across nodes.
    for (server, node) in [("details", worker), ("notsleep", worker2)] {
        let report = send(&lab, "ratings", server, PORT);
        doubled(&report);
        let (source, target) = (
            "source_workload=\"ratings-v1-7c4bbf97bc-hc4cq\"",
            format!(
                "destination_principal=\"spiffe://cluster.local/ns/default/sa/{}\"",
                if server == "details" { "bookinfo-details" } else { server }
            ),
        );
        numbers(&lab, worker, &["reporter=\"source\"", source, &target]);
        numbers(&lab, node, &["reporter=\"destination\"", source, &target]);
        let address = lab.address(server);
        let outbound = lab.access_line(worker, |line| {
            line.contains(&format!("dst.hbone_addr={address}:{PORT}"))
                && line.contains("direction=\"outbound\"")
        });
        assert!(outbound.contains("bytes_sent=11 bytes_recv=22"), "{outbound}");
        assert!(outbound.contains(&format!("dst.addr={address}:15008")), "{outbound}");
        let inbound = lab.access_line(node, |line| {
            line.contains(&format!("dst.hbone_addr={address}:{PORT}"))
                && line.contains("direction=\"inbound\"")
        });
        assert!(inbound.contains("bytes_sent=22 bytes_recv=11"), "{inbound}");
        for line in [&outbound, &inbound] {
            assert!(
                line.contains("src.identity=\"spiffe://cluster.local/ns/default/sa/bookinfo-ratings\""),
                "{line}"
            );
            assert!(line.contains("dst.identity="), "{line}");
        }
    }

    // Captured to not captured: plain TCP, no identities.
    doubled(&send(&lab, "ratings", "default/plain", PORT));
    let line = lab.access_line(worker, |line| {
        line.contains(&format!("dst.addr={}:{PORT}", lab.address("default/plain")))
    });
    assert!(line.contains("bytes_sent=11 bytes_recv=22") && !line.contains("identity="), "{line}");

    // Not captured to captured: through 15006, no identity, and the application sees the caller's own address.
    doubled(&send(&lab, "default/plain", "sleep", PORT));
    let line = lab.access_line(worker, |line| {
        line.contains("direction=\"inbound\"")
            && line.contains(&format!("src.addr={}:", lab.address("default/plain")))
    });
    assert!(line.contains("bytes_sent=22 bytes_recv=11") && !line.contains("identity="), "{line}");
    numbers(
        &lab,
        worker,
        &[
            "reporter=\"destination\"",
            "source_workload=\"plain-6d4cf56db6-aaaaa\"",
            "connection_security_policy=\"unknown\"",
        ],
    );
}

// A-NS-16
#[test]
fn fifty_requests_to_a_service_reach_local_and_remote_endpoints() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let mut answered = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..50 {
        let answer = lab.get("sleep", "http://reviews:9080/");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        *answered.entry(answer["pod"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(answered.values().sum::<u32>(), 50, "each request reaches exactly one");
    assert_eq!(answered.len(), 3, "{answered:?}");
    let labels = [
        "reporter=\"source\"",
        "destination_service=\"reviews.default.svc.cluster.local\"",
        "destination_service_name=\"reviews\"",
        "destination_service_namespace=\"default\"",
        "source_canonical_service=\"sleep\"",
    ];
    let opened = counter(&lab, "ambient-worker", "istio_tcp_connections_opened_total", &labels);
    assert_eq!(opened, 50.0);
}

// A-NS-22, A-NS-23, A-NS-24, A-NS-25
#[test]
fn the_proxys_own_ports_give_nothing_away() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let garbage = |from: &str, to: String| {
        lab.probe(from, &Probe::Send { to, text: "garbage\r\n\r\n".to_owned() }).report()
    };
    let node = lab.address("ambient-worker2");

    lab::eventually("the proxy has a certificate of its own", || {
        let report = garbage("ambient-worker2", "127.0.0.1:15008".to_owned());
        report["received"].as_str().is_some_and(|answer| answer.starts_with('\u{15}')).then_some(())
    });
    // A captured client calls the proxy's pod.
    for port in [15001, 15006, 15008, 15080, 15000] {
        let report = garbage("sleep", format!("{node}:{port}"));
        assert_eq!(report["connected"], true, "{port}: {report}");
        // On 15008 the proxy's own TLS listener says decode_error, which is no answer to the request.
        let alert = if port == 15008 { "15030300020232" } else { "" };
        assert_eq!(report["hex"], alert, "{port}: {report}");
    }
    for port in [15020, 15021] {
        let report = garbage("sleep", format!("{node}:{port}"));
        assert!(report["received"].as_str().unwrap().starts_with("HTTP/1.1 400"), "{port}: {report}");
    }
    // What that is in the log (recording OB-21).
    for port in [15000, 15001, 15006, 15080] {
        let line =
            lab.access_line("ambient-worker", |line| line.contains(&format!(" dst.addr={node}:{port} ")));
        assert!(line.contains("\terror\taccess\tconnection complete\t"), "{line}");
        assert!(line.contains("direction=\"outbound\" bytes_sent=0 bytes_recv=0"), "{line}");
        assert!(line.contains("error=\"io error: Connection refused (os error 111)\""), "{line}");
        assert!(!line.contains("src.identity"), "{line}");
    }
    for port in [15008, 15020, 15021] {
        let line =
            lab.access_line("ambient-worker", |line| line.contains(&format!(" dst.addr={node}:{port} ")));
        assert!(line.contains("\tinfo\taccess\tconnection complete\t"), "{line}");
        assert!(line.contains("direction=\"outbound\" bytes_sent=11 bytes_recv="), "{line}");
    }
    let line = lab.access_line("ambient-worker2", |line| line.contains(&format!(" dst.addr={node}:15008 ")));
    assert!(line.contains("\twarn\taccess\tconnection failed\t"), "{line}");
    assert!(line.contains("direction=\"inbound\" error=\"tls handshake error: "), "{line}");

    // A captured client calls itself.
    for host in [lab.address("sleep"), "127.0.0.1".to_owned()] {
        for port in [15001, 15006, 15008] {
            let report = garbage("sleep", format!("{host}:{port}"));
            assert_eq!(report["connected"], true, "{host}:{port}: {report}");
            assert!(!report["received"].as_str().unwrap_or("").contains("200"), "{host}:{port}: {report}");
        }
        for port in [15080, 15000, 15020, 15021] {
            assert_eq!(garbage("sleep", format!("{host}:{port}"))["connected"], false, "{host}:{port}");
        }
    }
    // A client outside the mesh calls the proxy's pod.
    for port in [15001, 15006, 15080, 15000] {
        assert_eq!(garbage("legacy/old", format!("{node}:{port}"))["connected"], false, "{port}");
    }
    assert_eq!(garbage("legacy/old", format!("{node}:15008"))["connected"], true);
    for port in [15020, 15021] {
        let report = garbage("legacy/old", format!("{node}:{port}"));
        assert!(report["received"].as_str().unwrap().starts_with("HTTP/1.1 400"), "{port}: {report}");
    }
    // A client outside the mesh calls a captured pod.
    for port in [15001, 15006, 15008, 15080, 15000, 15020, 15021] {
        let report = garbage("legacy/old", format!("{}:{port}", lab.address("sleep")));
        assert_eq!(report["connected"], true, "{port}: {report}");
        assert!(!report["received"].as_str().unwrap_or("").contains("HTTP"), "{port}: {report}");
    }
    assert!(lab.get("sleep", "http://productpage:9080/").status.success(), "traffic goes on");
}

// A-NS-27
#[test]
fn a_node_holds_certificates_of_its_own_pods_only() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let certificates = lab.zc(&["certificates", "--node", "ambient-worker2"]);
    for here in ["default/sa/notsleep", "default/sa/bookinfo-reviews", "prod/sa/ledger"] {
        assert!(certificates.contains(here), "{here}: {certificates}");
    }
    for elsewhere in ["sa/sleep", "sa/bookinfo-details", "prod/sa/client", "legacy"] {
        assert!(!certificates.contains(elsewhere), "{elsewhere}: {certificates}");
    }
    // reviews v1 and v2 share one identity: one certificate.
    let leaves = certificates
        .lines()
        .filter(|line| line.contains("bookinfo-reviews") && line.contains("Leaf"))
        .count();
    assert_eq!(leaves, 1, "{certificates}");
}
