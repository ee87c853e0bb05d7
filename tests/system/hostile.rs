//! Garbage on every port of control and node: each is answered or closed, nothing else is disturbed.

use crate::lab::{self, Lab};
use crate::probe::Probe;

#[test]
fn garbage_on_every_port_disturbs_nothing() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let before = lab.processes();
    let long_header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let texts = ["\0\u{1}\u{2}garbage", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense", &long_header, ""];
    let nodes = [15000, 15020, 15021, 15008];
    for (member, ports) in [("control", &[15010, 15012, 15014, 8080][..]), ("ambient-worker", &nodes[..])] {
        for port in ports {
            for text in texts {
                let to = format!("127.0.0.1:{port}");
                let report = lab.probe(member, &Probe::Send { to, text: text.to_owned() }).report();
                assert_eq!(report["connected"], true, "{member}:{port}: {report}");
            }
        }
    }
    for port in [15001, 15006, 15008] {
        let to = format!("{}:{port}", lab.address("productpage"));
        lab.probe("legacy/old", &Probe::Send { to, text: "\0garbage".to_owned() }).report();
    }
    let answer = lab.get("sleep", "http://productpage:9080/");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    assert!(before.iter().all(|pid| lab::alive(*pid)), "every process lives on");
    let log = lab.log("control");
    assert!(!log.contains("panicked"), "{log}");
}
