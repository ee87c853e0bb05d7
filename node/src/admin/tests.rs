//! Recorded exchanges with the admin and readiness servers (hbone/AD-*), replayed.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime::http::whole_text;
use runtime::logging::Settings;
use runtime::signals::Signals;
use serde_json::Value;
use wire::dump::{Connection, Connections, PodState, WorkloadInfo};

use super::*;
use crate::config::Inputs;

const LIMIT: Duration = Duration::from_secs(10);

struct Fixed(Current);

impl Sources for Fixed {
    async fn current(&self) -> Current {
        self.0.clone()
    }
}

fn recording(name: &str) -> Value {
    let path = format!("{}/../tests/data/hbone/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn page_dump() -> ConfigDump {
    ConfigDump::parse(include_bytes!("../../../tests/data/page/config_dump-n1.json")).unwrap()
}

fn config(variables: &[(&str, &str)]) -> Config {
    let inputs = Inputs {
        environment: variables.iter().copied().collect(),
        mesh_file: None,
        resolv_conf: "nameserver 10.255.255.53\n".into(),
        n_cpus: 2,
        ipv6_loopback: true,
        arguments: "proxy ztunnel".into(),
    };
    Config::load(&inputs).unwrap()
}

fn admin_of(current: Current) -> Admin<Fixed> {
    let settings = Settings { base: "hickory_server::server=off", ..Settings::default() };
    let (logging, subscriber) = Logging::build(settings, std::io::sink()).unwrap();
    // Filters change as long as somebody is subscribed.
    std::mem::forget(subscriber);
    let variables = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("NODE_NAME", "ambient-worker"),
        ("POD_NAME", "ztunnel-b6rz9"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ztunnel"),
    ];
    Admin::new(Fixed(current), &config(&variables), logging, StopHandle::default())
}

/// What the recorded node knew.
fn admin() -> Admin<Fixed> {
    let dump = page_dump();
    admin_of(Current {
        certificates: dump.certificates,
        workloads: dump.workloads,
        services: dump.services,
        policies: dump.policies,
        staged_services: dump.staged_services,
        static_config: dump.static_config,
        pods: dump.workload_state,
    })
}

async fn ask(admin: &Admin<Fixed>, method: &str, target: &str) -> Answer {
    let uri = target.parse().unwrap_or_else(|_| "/%2F".parse().unwrap());
    admin.answer(&method.parse().unwrap(), &uri).await
}

fn content_type(answer: &Answer) -> &str {
    answer.headers().get(http::header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap())
}

/// Status, type and first lines of every recorded request.
#[tokio::test]
async fn methods_and_paths_answer_as_recorded() {
    let admin = admin();
    for (request, expected) in recording("AD-01")["observed"].as_object().unwrap() {
        let (method, target) = request.split_once(' ').unwrap();
        let answer = ask(&admin, method, target).await;
        assert_eq!(answer.status().as_u16(), expected["status"], "{request}");
        assert_eq!(
            content_type(&answer),
            expected["headers"]["content-type"].as_str().unwrap_or(""),
            "{request}"
        );
        // HEAD's body is left out by the server.
        if method != "HEAD" {
            let text = whole_text(&answer);
            let lines: Vec<&str> = text.lines().take(2).collect();
            let recorded: Vec<&str> =
                expected["body"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
            assert_eq!(lines, recorded, "{request}");
        }
    }
}

// hbone/AD-02, CO-11.5-6
#[tokio::test]
async fn quitquitquit_takes_post_alone_and_stops() {
    let mut signals = Signals::install().unwrap();
    let mut admin = admin();
    admin.stop = signals.handle();
    for (method, expected) in recording("AD-02")["observed"].as_object().unwrap() {
        let answer = ask(&admin, method, "/quitquitquit").await;
        assert_eq!(answer.status().as_u16(), expected["status"], "{method}");
        assert_eq!(whole_text(&answer), "");
    }
    let answer = ask(&admin, "POST", "/quitquitquit").await;
    assert_eq!((content_type(&answer), whole_text(&answer).as_str()), ("text/plain", "shutdown now\n"));
    let cause = tokio::time::timeout(LIMIT, signals.stop_requested()).await.unwrap();
    assert_eq!(cause, runtime::signals::StopCause::Explicit);
}

// hbone/AD-03, A-MI-12, CO-11.5-3. The documented `module:level` form is taken here (12.1 #14).
#[tokio::test]
async fn logging_forms_answer_as_recorded() {
    let admin = admin();
    let observed = &recording("AD-03")["observed"];
    for reply in observed["replies"].as_array().unwrap() {
        let (query, status) = (reply[0].as_str().unwrap(), reply[1].as_u64().unwrap());
        if query.contains("proxy:debug") {
            continue;
        }
        let target = format!("/logging{query}").replace('[', "%5B").replace(']', "%5D");
        let target = target.replace('{', "%7B").replace('}', "%7D");
        let answer = ask(&admin, "POST", &target).await;
        assert_eq!(u64::from(answer.status().as_u16()), status, "{query}");
        assert_eq!(content_type(&answer), "text/plain");
        let text = whole_text(&answer);
        assert_eq!(text.lines().next(), reply[3].as_str(), "{query}");
        assert_eq!(text.contains("usage: POST /logging"), status == 400, "{query}");
    }
    let answer = ask(&admin, "GET", "/logging").await;
    let text = whole_text(&answer);
    let lines: Vec<&str> = text.lines().collect();
    let recorded: Vec<&str> =
        observed["get_body"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!((lines, text.len()), (recorded, 338));
}

#[tokio::test]
async fn documented_module_form_of_logging_works() {
    let admin = admin();
    let answer = ask(&admin, "POST", "/logging?level=access:debug,ztunnel::proxy:trace").await;
    let expected = "current log level is hickory_server::server=off,ztunnel::proxy=trace,access=debug,info\n";
    assert_eq!(whole_text(&answer), expected);
}

fn leaf_types(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                leaf_types(item, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(items) => {
            found.insert(format!("{path}[]"), "list");
            for item in items {
                leaf_types(item, &format!("{path}[]"), found);
            }
        }
        other => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                _ => "text",
            };
            found.insert(path.to_owned(), kind);
        }
    }
}

/// Paths and types of all leaves as the recording tells them; the keys of each object must be sorted.
fn shape(value: &Value, path: &str, leaves: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Object(map) => {
            assert!(map.keys().is_sorted(), "{path}");
            if map.is_empty() {
                leaves.insert(format!("{path}{{}}"));
            }
            // Names that stand for keys.
            let is_table =
                path.ends_with(".endpoints") || path.ends_with(".ports") || path == "workloadState";
            for (key, item) in map {
                let key = if is_table { "*" } else { key.as_str() };
                let inner = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                shape(item, &inner, leaves);
            }
            return;
        }
        Value::Array(items) => {
            if items.is_empty() {
                leaves.insert(format!("{path}[]"));
            }
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), leaves));
            return;
        }
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
    };
    leaves.insert(format!("{path}:{kind}"));
}

// hbone/AD-05
#[tokio::test]
async fn dump_has_the_recorded_shape() {
    let text = whole_text(&ask(&admin(), "GET", "/config_dump").await);
    let dump: Value = serde_json::from_str(&text).unwrap();
    let recorded = &recording("AD-05")["observed"];
    let top: Vec<_> = dump.as_object().unwrap().keys().collect();
    assert_eq!(serde_json::json!(top), recorded["top"]);
    assert_eq!(serde_json::to_string_pretty(&dump).unwrap(), text.trim_end());
    let mut ours = BTreeSet::new();
    shape(&dump, "", &mut ours);
    let theirs = recorded["leaves"].as_array().unwrap().iter().map(|leaf| leaf.as_str().unwrap().to_owned());
    // The worlds are two: there a service had no endpoints, here a connection is open.
    let theirs: BTreeSet<_> = theirs.filter(|leaf| leaf != "services[].endpoints{}").collect();
    ours.retain(|leaf| !leaf.starts_with("workloadState.*.connections.outbound[]."));
    assert_eq!(ours, theirs);
}

// CO-11.5-2: all keys of the dump of the page with their types, in its order and indentation.
#[tokio::test]
async fn dump_has_the_recorded_keys_and_types() {
    let answer = ask(&admin(), "GET", "/config_dump").await;
    assert_eq!(content_type(&answer), "application/json");
    let text = whole_text(&answer);
    let recorded_text = include_str!("../../../tests/data/page/config_dump-n1.json");
    let (ours, recorded): (Value, Value) =
        (serde_json::from_str(&text).unwrap(), serde_json::from_str(recorded_text).unwrap());
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&recorded));
    for key in keys(&recorded) {
        let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
        leaf_types(&ours[&key], &key, &mut here);
        leaf_types(&recorded[&key], &key, &mut there);
        assert_eq!(here, there, "{key}");
        if !["config", "version"].contains(&key.as_str()) {
            assert_eq!(ours[&key], recorded[&key], "{key}");
        }
    }
    assert!(text.starts_with("{\n  \"certificates\": [\n    {\n      \"certChain\": ["), "{}", &text[..80]);
}

// CO-11.5-4
#[tokio::test]
async fn pods_are_shown_pending_up_and_gone() {
    let info = WorkloadInfo {
        name: "cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        ..WorkloadInfo::default()
    };
    let pending = PodState { state: "Pending".into(), connections: None, info: Some(info.clone()) };
    let connection = Connection {
        src: "10.1.0.9:40122".into(),
        original_dst: None,
        actual_dst: "10.1.0.7:8080".into(),
        protocol: "HBONE".into(),
    };
    let connections = Connections { inbound: vec![connection], outbound: Vec::new() };
    let up = PodState { state: "Up".into(), connections: Some(connections), info: Some(info) };
    let pods = BTreeMap::from([("u1".to_owned(), pending), ("u2".to_owned(), up)]);
    let shown = async |pods| -> Value {
        let admin = admin_of(Current { pods, ..Current::default() });
        serde_json::from_str(&whole_text(&ask(&admin, "GET", "/config_dump").await)).unwrap()
    };
    let dump = shown(Some(pods)).await;
    let info = serde_json::json!({"name": "cart-0", "namespace": "shop", "serviceAccount": "cart"});
    assert_eq!(dump["workloadState"]["u1"], serde_json::json!({"info": info, "state": "Pending"}));
    let inbound = serde_json::json!([{"actualDst": "10.1.0.7:8080", "originalDst": null, "protocol": "HBONE", "src": "10.1.0.9:40122"}]);
    assert_eq!(
        dump["workloadState"]["u2"]["connections"],
        serde_json::json!({"inbound": inbound, "outbound": []})
    );
    assert_eq!(shown(Some(BTreeMap::new())).await["workloadState"], serde_json::json!({}));
    assert!(shown(None).await.get("workloadState").is_none(), "dedicated mode has no pods");
}

// CO-6.2
#[tokio::test]
async fn profiles_check_their_parameters() {
    let admin = admin();
    let answers = [
        ("/debug/pprof/profile?seconds=0", 400, "invalid seconds value; expected 1-300\n"),
        ("/debug/pprof/profile?seconds=x", 400, "invalid seconds value; expected 1-300\n"),
        ("/debug/pprof/profile?seconds=1&frequency=1001", 400, "invalid frequency value; expected 1-1000\n"),
        ("/debug/pprof/heap", 500, "heap profiling is not enabled"),
        ("/debug/pprof/heap/profiling", 500, "jemalloc profiling is not enabled"),
        (
            "/debug/pprof/heap/profiling?activate=maybe",
            400,
            "invalid activate value \"maybe\"; expected true or false\n",
        ),
    ];
    for (target, status, text) in answers {
        let answer = ask(&admin, "GET", target).await;
        assert_eq!((answer.status().as_u16(), whole_text(&answer).as_str()), (status, text), "{target}");
    }
    let answer =
        tokio::time::timeout(LIMIT, ask(&admin, "GET", "/debug/pprof/profile?seconds=1")).await.unwrap();
    assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, ""));
    assert!(!answer.body().bytes().is_empty());
}

// hbone/AD-10
#[test]
fn readiness_answers_as_recorded() {
    let ready = Readiness::new();
    for (request, expected) in recording("AD-10")["observed"].as_object().unwrap() {
        let (method, target) = request.split_once(' ').unwrap();
        let uri: Uri = target.parse().unwrap();
        let answer = ready.answer(&method.parse().unwrap(), uri.path());
        assert_eq!(answer.status().as_u16(), expected["status"], "{request}");
        assert_eq!(
            content_type(&answer),
            expected["headers"]["content-type"].as_str().unwrap_or(""),
            "{request}"
        );
        let text = whole_text(&answer);
        let recorded = expected["body"].as_array().unwrap().first().and_then(Value::as_str);
        assert_eq!(text.lines().next(), recorded, "{request}");
    }
}

// CO-11.5-6: a bind conflict fails the start. The local socket serves the same dump.
#[tokio::test]
async fn servers_bind_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let runtime_folder = folder.path().to_str().unwrap();
    let mut config = config(&[("NODE_NAME", "n1"), ("CULVERT_RUNTIME_DIR", runtime_folder)]);
    config.listen.admin.port = 0;
    config.listen.admin.ipv6 = false;
    config.listen.stats = "127.0.0.1:0".parse().unwrap();
    config.listen.readiness = "127.0.0.1:0".parse().unwrap();
    let servers = Servers::bind(&config).await.unwrap();
    let mut conflicting = config.clone();
    conflicting.listen.stats = servers.stats_address().parse().unwrap();
    assert_eq!(Servers::bind(&conflicting).await.unwrap_err().component, "stats");

    let addresses: Vec<String> = servers.admin_addresses().map(str::to_owned).collect();
    let socket = folder.path().join("n1/admin.sock");
    assert_eq!(addresses[1], socket.to_str().unwrap());
    let (trigger, drain) = Drain::new();
    let tasks = TaskGroup::new("test");
    servers.serve(admin(), || "# EOF\n".into(), Readiness::new(), &tasks, &drain);
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut answer = String::new();
    let asked = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(b"GET /config_dump HTTP/1.0\r\n\r\n").await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(ConfigDump::parse(body.as_bytes()).unwrap().workloads, page_dump().workloads);
    trigger.drain(LIMIT).await;
    tokio::time::timeout(LIMIT, tasks.join()).await.unwrap().unwrap();
}
