//! The page's steps come true, and every command of the page answers.

use serde_json::Value;

use crate::lab::{self, Lab, culvert};

const NODE: &str = "ambient-worker";

#[test]
fn every_step_of_the_page_comes_out_right() {
    if !lab::allowed() {
        return;
    }
    let output = culvert(&["demo", "--once", "--json"]).output().unwrap();
    let facts: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let failed: Vec<&Value> =
        facts["steps"].as_array().unwrap().iter().filter(|step| step["ok"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(output.status.success());
    let steps: Vec<&str> =
        facts["steps"].as_array().unwrap().iter().map(|step| step["id"].as_str().unwrap()).collect();
    assert_eq!(steps, ["workloads", "certificates", "hbone", "spread", "metrics", "strict", "denied"]);
    // Nothing is left behind.
    let folder = facts["folder"].as_str().unwrap();
    assert!(!std::path::Path::new(folder).exists(), "{folder} is still there");
}

#[test]
fn every_command_of_the_page_answers() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();

    let workloads = lab.zc(&["workloads", "--node", NODE]);
    assert!(workloads.lines().next().unwrap().starts_with("NAMESPACE"), "{workloads}");
    assert!(workloads.contains("sleep-7656cf8794-m9b5q") && workloads.contains("HBONE"), "{workloads}");
    let services = lab.zc(&["services", "--node", NODE]);
    assert!(services.contains("reviews") && services.contains("3/3"), "{services}");
    let policies = lab.zc(&["policies", "--node", NODE]);
    assert!(
        policies.contains("no-notsleep") && policies.contains("istio_converted_static_strict"),
        "{policies}"
    );
    let certificates = lab.zc(&["certificates", "sleep-7656cf8794-m9b5q.default"]);
    assert!(certificates.contains("/sa/sleep") && certificates.contains("Leaf"), "{certificates}");
    let connections = lab.zc(&["connections", "--node", NODE]);
    assert!(connections.starts_with("WORKLOAD"), "{connections}");
    let all: Value = serde_json::from_str(&lab.zc(&["all", "--node", NODE, "-o", "json"])).unwrap();
    assert!(all["workloads"].as_array().unwrap().len() > 10);
    let level = lab.zc(&["log", "ztunnel-b6rz9.istio-system", "--level", "access=debug,info"]);
    assert!(level.contains("current log level is") && level.contains("access=debug,info"), "{level}");

    let dump = lab.get(NODE, "http://localhost:15000/config_dump");
    let dump: Value = serde_json::from_slice(&dump.stdout).expect("the node's dump");
    assert_eq!(dump["workloadState"].as_object().unwrap().len(), 6, "captured pods of this node");
    let sync = lab.get("control", "http://localhost:15014/debug/syncz");
    let sync: Value = serde_json::from_slice(&sync.stdout).expect("syncz");
    assert!(sync.to_string().contains("ztunnel-b6rz9.istio-system"), "{sync}");
    let held =
        lab.get("control", "http://localhost:15014/debug/config_dump?proxyID=ztunnel-b6rz9.istio-system");
    let held: Value = serde_json::from_slice(&held.stdout).expect("control's dump of the node");
    assert!(held["configs"].as_array().unwrap().len() > 20, "{held}");

    // Two demos side by side do not disturb each other.
    let second = Lab::start();
    for (lab, name) in [(&lab, "first"), (&second, "second")] {
        let answer = lab.get("sleep", "http://productpage:9080/");
        assert!(answer.status.success(), "{name}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    let processes = second.processes();
    let demo = second.demo_pid();
    lab::signal(demo, lab::rustix_signal::KILL);
    lab::eventually("everything ends with a killed demo", || {
        (!processes.iter().any(|pid| lab::alive(*pid))).then_some(())
    });
    assert!(lab.get("sleep", "http://productpage:9080/").status.success(), "the first demo goes on");
}
