//! istioctl's recorded answers, from the recorded dumps (CO-11.6).
mod asking;

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Parser;

use serde_json::Value;

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/page");

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{PAGE}/{name}")).unwrap()
}

/// Without the first line: the command.
fn printed(name: &str) -> String {
    page(name).split_once('\n').unwrap().1.to_owned()
}

fn recorded_at() -> SystemTime {
    let stamp: jiff::Timestamp = page("recorded-at.txt").trim().parse().unwrap();
    stamp.into()
}

fn parsed(line: &str) -> Args {
    Args::try_parse_from(std::iter::once("zc").chain(line.split_whitespace())).unwrap()
}

fn target(dump: &str, folder: &str) -> target::Target {
    let dump = dump::Dump::parse(dump.as_bytes().to_vec()).unwrap();
    target::Target { dump, folder: Some(folder.into()), endpoint: None }
}

fn asked(line: &str, targets: Vec<target::Target>) -> anyhow::Result<String> {
    let args = parsed(line);
    let common = args.command.common();
    let targets = Targets(targets);
    let chosen = targets.choose(common.name.first().map(String::as_str), common.node.as_deref(), &args)?;
    commands::render(&args.command, &chosen, recorded_at())
}

fn node_1() -> target::Target {
    target(&page("config_dump-n1.json"), "ambient-worker")
}

fn both() -> Vec<target::Target> {
    vec![node_1(), target(&page("config_dump-n2.json"), "ambient-worker2")]
}

// CO-11.6-3
#[test]
fn tables_equal_the_recorded_ones_byte_for_byte() {
    for (line, name) in [
        ("workloads ztunnel-b6rz9.istio-system", "zc-workloads.txt"),
        ("workload", "zc-workloads-no-pod.txt"),
        ("services ztunnel-b6rz9.istio-system", "zc-services.txt"),
        ("pol ztunnel-b6rz9.istio-system", "zc-policies.txt"),
        ("certificates ztunnel-b6rz9.istio-system", "zc-certificates.txt"),
        ("cons ztunnel-b6rz9.istio-system", "zc-connections.txt"),
        ("all ztunnel-b6rz9.istio-system", "zc-all.txt"),
        ("w --workload-namespace nosuch", "zc-empty.txt"),
    ] {
        assert_eq!(asked(line, vec![node_1()]).unwrap(), printed(name), "{line}");
    }
}

fn sorted_lists(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sorted_lists);
            items.sort_by_key(Value::to_string);
        }
        Value::Object(map) => {
            map.values_mut().for_each(sorted_lists);
            map.sort_keys();
        }
        _ => {}
    }
}

// CO-11.6-5
#[test]
fn json_equals_the_recorded_one_value_for_value() {
    for (command, name) in [
        ("workloads", "zc-workloads.json"),
        ("services", "zc-services.json"),
        ("policies", "zc-policies.json"),
        ("certificates", "zc-certificates.json"),
        ("connections", "zc-connections.json"),
        ("all", "zc-all.json"),
    ] {
        let text = asked(&format!("{command} -o json"), vec![node_1()]).unwrap();
        let mut ours: Value = serde_json::from_str(&text).unwrap();
        let recorded = page(name);
        let mut theirs: Value = serde_json::from_str(&recorded).unwrap();
        // Lists are in random order there.
        sorted_lists(&mut ours);
        sorted_lists(&mut theirs);
        assert_eq!(ours, theirs, "{command}");
        if command != "workloads" {
            assert_eq!(text, recorded, "{command}");
        }
    }
}

#[test]
fn yaml_equals_the_recorded_one_byte_for_byte() {
    for (command, name) in [
        ("workloads", "zc-workloads.yaml"),
        ("services", "zc-services.yaml"),
        ("policies", "zc-policies.yaml"),
        ("certificates", "zc-certificates.yaml"),
        ("connections", "zc-connections.yaml"),
    ] {
        assert_eq!(asked(&format!("{command} -o yaml"), vec![node_1()]).unwrap(), page(name), "{command}");
    }
}

#[test]
fn a_node_answers_to_its_node_name_pod_name_and_both() {
    for line in ["certs ztunnel-wbdqx.istio-system", "certs ztunnel-wbdqx", "certs --node ambient-worker2"] {
        let table = asked(line, both()).unwrap();
        assert!(
            table.contains("ns/prod/sa/ledger") && !table.contains("ns/prod/sa/client"),
            "{line}\n{table}"
        );
    }
}

// CO-11.6-3
#[test]
fn a_workload_stands_for_the_proxy_of_its_node_and_filters() {
    let table = asked("cons reviews-v3-84969b8c8b-gp6k8.default", both()).unwrap();
    assert_eq!(table, printed("zc-connections.txt"));
    let table = asked("workload client-0.prod", both()).unwrap();
    assert_eq!(table.lines().count(), 2);
    assert!(table.contains("client-0"), "{table}");
    let certificates = asked("certs ledger-0 -n prod", both()).unwrap();
    assert!(certificates.contains("ns/prod/sa/ledger"), "{certificates}");
}

#[test]
fn several_nodes_are_merged_or_the_choice_is_listed() {
    assert_eq!(asked("workloads", both()).unwrap(), printed("zc-workloads.txt"));
    let table = asked("all", both()).unwrap();
    assert!(table.contains("ns/prod/sa/ledger") && table.contains("ns/prod/sa/client"), "{table}");
    let error = asked("certificates", both()).unwrap_err().to_string();
    let choices = "ztunnel-b6rz9.istio-system (--node ambient-worker), ztunnel-wbdqx.istio-system (--node ambient-worker2)";
    assert_eq!(error, format!("ztunnel pod name or --node must be set; choose one of: {choices}"));
    assert!(
        asked("certificates --node nowhere", both()).unwrap_err().to_string().starts_with("no pods found: ")
    );
}

// zc-no-such-pod.txt
#[test]
fn an_unknown_pod_is_told_with_the_choices() {
    let error = asked("certificates nosuch.istio-system", both()).unwrap_err().to_string();
    assert!(error.starts_with("failed to get pod nosuch.istio-system: "), "{error}");
    assert!(error.contains("choose one of: ztunnel-b6rz9.istio-system"), "{error}");
}

const SMALL: &str = r#"{
  "workloads": [
    {"uid": "u1", "name": "b", "namespace": "shop", "node": "n2", "workloadIps": ["10.0.0.2", "fd00::2"], "protocol": "HBONE",
     "status": "Healthy", "waypoint": {"destination": "shop/wp.shop.svc", "hboneMtlsPort": 15008}},
    {"uid": "u2", "name": "a", "namespace": "Shop", "node": "n1", "workloadIps": [], "hostname": "a.example.com",
     "protocol": "TCP", "status": "Unhealthy", "waypoint": {"destination": "net/10.9.9.9"}},
    {"uid": "u3", "name": "c", "namespace": "shop", "node": "N1", "workloadIps": ["fd00::3"], "protocol": "TCP",
     "waypoint": {"destination": "shop/none"}, "applicationTunnel": {"protocol": "PROXY", "port": 15088},
     "locality": {"region": "r", "zone": "", "subzone": "s"}, "network": "net", "nativeTunnel": true}
  ],
  "services": {"k": {"name": "wp", "namespace": "shop", "hostname": "wp.shop.svc", "vips": ["net/10.9.9.9", "/fd00::9"],
     "cidrVips": [{"cidr": "240.0.0.0/24", "network": "net"}], "ports": {"80": 1, "443": 2}, "canonical": true,
     "endpoints": {"u1": {"workloadUid": "u1", "port": {}}, "u2": {"workloadUid": "u2"}, "gone": {"workloadUid": "gone"}},
     "loadBalancer": {"mode": "Failover", "routingPreferences": ["Network"], "healthPolicy": "OnlyHealthy"}}},
  "certificates": [
    {"identity": "spiffe://td/ns/a/sa/a", "state": "Initializing", "certChain": [], "rootCerts": []},
    {"identity": "spiffe://td/ns/b/sa/b", "state": "Unavailable: signing failed", "certChain": [], "rootCerts": []},
    {"identity": "spiffe://td/ns/c/sa/c", "state": "Available", "rootCerts": [],
     "certChain": [{"serialNumber": "16", "validFrom": "2020-01-01T00:00:00Z", "expirationTime": "2021-01-01T00:00:00Z"},
                   {"serialNumber": "17", "validFrom": "", "expirationTime": ""},
                   {"serialNumber": "18", "validFrom": "2020-01-01T00:00:00Z", "expirationTime": "2099-01-01T00:00:00Z"}]}
  ],
  "workloadState": {
    "p1": {"state": "Up", "info": {"name": "b", "namespace": "shop", "serviceAccount": "sa"},
           "connections": {"inbound": [{"src": "[fd00::3]:999", "originalDst": null, "actualDst": "10.0.0.2:80", "protocol": "HBONE"}],
                           "outbound": [{"src": "10.0.0.2:1", "originalDst": "10.9.9.9:80", "actualDst": "192.0.2.1:80", "protocol": "TCP"}]}},
    "p2": {"state": "Pending", "info": {"name": "a", "namespace": "shop", "serviceAccount": "sa"}}
  }
}"#;

fn small(line: &str) -> String {
    asked(line, vec![target(SMALL, "n1")]).unwrap()
}

#[test]
fn workload_rows_show_hostnames_and_waypoints_of_every_kind() {
    assert_eq!(
        small("workload"),
        "NAMESPACE POD NAME ADDRESS          NODE WAYPOINT PROTOCOL\n\
         Shop      a        a.example.com    n1   wp       TCP\n\
         shop      b        10.0.0.2,fd00::2 n2   wp       HBONE\n\
         shop      c        fd00::3          N1   NA       TCP\n"
    );
    assert_eq!(small("w --workload-namespace SHOP --workload-node n1").lines().count(), 3);
    assert_eq!(small("w --address FD00::2").lines().count(), 2);
    let json: Value = serde_json::from_str(&small("w -o json --address fd00::3")).unwrap();
    assert_eq!(json[0]["applicationTunnel"], serde_json::json!({"protocol": "PROXY", "port": 15088}));
    assert_eq!(json[0]["locality"], serde_json::json!({"region": "r", "subzone": "s"}));
    assert_eq!(json[0]["waypoint"], serde_json::json!({"destination": "shop/none"}));
    assert!(json[0].get("nativeTunnel").is_none());
}

// CO-11.6-4
#[test]
fn service_json_keeps_ranges_as_text_and_counts_healthy_endpoints() {
    assert!(
        small("svc").contains("shop      wp           10.9.9.9,fd00::9 None     1/3\n"),
        "{}",
        small("svc")
    );
    let json: Value = serde_json::from_str(&small("svc -o json")).unwrap();
    assert_eq!(json[0]["cidrVips"], serde_json::json!(["net/240.0.0.0/24"]));
    assert_eq!(json[0]["canonical"], true);
    assert_eq!(json[0]["loadBalancer"]["mode"], "Failover");
}

#[test]
fn certificate_rows_cover_missing_expired_and_old_chains() {
    let table = small("cert");
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][1..], ["NA", "Initializing", "false", "NA", "NA", "NA"]);
    assert_eq!(rows[1][1..], ["NA", "Unavailable", "false", "NA", "NA", "NA"]);
    assert_eq!(rows[2][1..5], ["Leaf", "Available", "false", "10"]);
    assert_eq!(rows[3][1..], ["Intermediate", "Available", "false", "11", "NA", "NA"]);
    assert_eq!(rows[4][1..5], ["Root", "Available", "true", "12"]);
}

// CO-11.6-3, CO-11.6-5
#[test]
fn connections_show_names_directions_and_null_targets() {
    assert_eq!(
        small("cons"),
        "WORKLOAD DIRECTION LOCAL         REMOTE       REMOTE TARGET  PROTOCOL\n\
         b.shop   Inbound   b.shop:80     c.shop:999                  HBONE\n\
         b.shop   Outbound  b.shop:1      192.0.2.1:80 wp.shop.svc:80 TCP\n"
            .replace("b.shop:80    ", "b.shop:80")
            .replace("b.shop:1     ", "b.shop:1 ")
            .replace("LOCAL         REMOTE ", "LOCAL     REMOTE ")
    );
    assert_eq!(small("cons --direction inbound").lines().count(), 2);
    assert!(small("cons --raw").contains("[fd00::3]:999"));
    assert_eq!(small("cons --workload-namespace other").lines().count(), 1);
    let json: Value = serde_json::from_str(&small("cons -o json")).unwrap();
    assert_eq!(json[1]["connections"]["inbound"][0]["originalDst"], "");
    assert_eq!(json[0]["connections"], serde_json::json!({"inbound": [], "outbound": []}));
    assert_eq!(json[0]["info"]["trustDomain"], "");
}

#[test]
fn headers_stand_before_each_table() {
    let text = small("all --with-headers");
    assert!(text.starts_with("\n------ WORKLOAD INFO ------\n\nNAMESPACE"), "{text}");
    for title in ["SERVICE", "POLICY", "SECRET", "CONNECTIONS"] {
        assert!(text.contains(&format!("\n\n------ {title} INFO ------\n\n")), "{title}");
    }
}

#[test]
fn empty_results_are_empty_lists_and_missing_certificates_null() {
    let empty = || vec![target("{}", "n1")];
    assert_eq!(asked("w -o json", empty()).unwrap(), "[]\n");
    assert_eq!(asked("certs -o json", empty()).unwrap(), "null\n");
    assert_eq!(asked("certs -o json", vec![target(r#"{"certificates": []}"#, "n")]).unwrap(), "[]\n");
    assert_eq!(asked("w -o yaml", empty()).unwrap(), "[]\n\n");
    let error = asked("w -o wide", empty()).unwrap_err().to_string();
    assert_eq!(error, "output format \"wide\" not supported");
}

// CO-11.6-2
#[test]
fn bad_dumps_are_refused_with_a_reason() {
    let error = format!("{:#}", dump::Dump::parse(Vec::new()).unwrap_err());
    assert!(error.starts_with("error unmarshalling config dump response from ztunnel: EOF"), "{error}");
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let mistake = |line: &str| parsed(line).command.validate().unwrap_err().to_string();
    let several = "at most one of --file, --node, or pod name must be passed";
    assert_eq!(mistake("w a --node n"), several);
    assert_eq!(mistake("w -f x --node n"), several);
    assert_eq!(mistake("w --proxy-admin-port 0"), "port number 0 must be in the range 1..65535");
    assert_eq!(mistake("w --proxy-admin-port 70000"), "port number 70000 must be in the range 1..65535");
    assert_eq!(mistake("log --level info -r"), "--level cannot be combined with --reset");
    assert_eq!(mistake("o -o json"), "--output is not applicable for this command");
    assert!(parsed("w a b --node n").command.validate().is_ok());
}

#[test]
fn switches_may_have_a_value() {
    let is_raw = |line: &str| match parsed(line).command {
        Command::Connections(args) => args.raw,
        other => panic!("{}", other.name()),
    };
    assert!(is_raw("cons --raw") && is_raw("cons --raw=true"));
    assert!(!is_raw("cons") && !is_raw("cons --raw=false"));
    let Command::Connections(args) = parsed("cons --raw zt.ns").command else { panic!("connections") };
    assert_eq!((args.raw, args.common.name), (true, vec!["zt.ns".to_owned()]));
    assert!(parsed("log -r").command.validate().is_ok());
}

#[test]
fn places_are_found_in_order() {
    let place = |line: &str, variables: &[(&str, &str)]| {
        let environment: Environment = variables.iter().copied().collect();
        Place::of(&parsed(line), &environment)
    };
    let tcp = |address: &str| Place::Address(fetch::Endpoint::Tcp(address.into()));
    assert_eq!(place("w -f - --admin-address h:1", &[]).unwrap(), Place::File("-".into()));
    assert_eq!(place("w --admin-address h:1", &[]).unwrap(), tcp("h:1"));
    assert_eq!(place("w --admin-address h --proxy-admin-port 7", &[]).unwrap(), tcp("h:7"));
    assert_eq!(place("w --admin-address ::1", &[]).unwrap(), tcp("[::1]:15000"));
    let base: PathBuf = "/x".into();
    let sockets = Place::Sockets { base, demo: Some("5".into()) };
    assert_eq!(place("w --demo 5", &[("CULVERT_RUNTIME_DIR", "/x")]).unwrap(), sockets);
    // Scripts name a cluster also where none is asked; flags of the reference's client take a value.
    let scripted = "--context prod -c x --as me --as-uid 7 --as-group a --as-group b --kubeclient-timeout 5s";
    assert_eq!(place(&format!("w -f x {scripted}"), &[]).unwrap(), Place::File("x".into()));
    assert_eq!(place(&format!("{scripted} w --admin-address h:1"), &[]).unwrap(), tcp("h:1"));
    let error = place("w --context prod", &[]).unwrap_err().to_string();
    assert!(error.contains("--admin-address localhost:15000"), "{error}");
    let nowhere = Place::Sockets { base: "/nowhere".into(), demo: None };
    let error = nowhere.endpoints().unwrap_err().to_string();
    assert!(error.starts_with("no node proxy found: there is no admin socket in /nowhere."), "{error}");
}
