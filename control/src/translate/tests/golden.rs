//! Replays every recorded case through the file source and the translation.
//!
//! A step writes, replaces or removes one file per object, reloads, translates, and compares what
//! changed and what went with what the reference sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{data, intended, record_json};
use crate::sources::objects::ObjectRef;
use crate::sources::{FileSource, FileSourceConfig, Snapshot};
use crate::translate::{StatusCondition, Switches, translate};

/// What is in every cluster; it shows in the results only when it changes.
const API_SERVER: &str = "
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: https, port: 6443}]
";

type Named = BTreeMap<String, Value>;

/// One case while it runs.
struct Run {
    folder: tempfile::TempDir,
    source: FileSource,
    snapshot: Snapshot,
    switches: Switches,
    now: Timestamp,
    addresses: Named,
    authorizations: Named,
    conditions: BTreeMap<ObjectRef, Vec<StatusCondition>>,
    /// Names the recordings give to allocated addresses.
    allocated: BTreeMap<String, String>,
}

impl Run {
    fn start(case: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mesh = case.join("mesh.yaml");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let config = FileSourceConfig {
            folder: folder.path().to_owned(),
            mesh_config: mesh.exists().then_some(mesh),
            state: None,
            allocate_addresses: true,
        };
        fs::write(folder.path().join("api-server.yaml"), API_SERVER).expect("a file");
        let (source, snapshot) =
            FileSource::open(config, now).expect("the API server's service has no problems");
        let mut run = Self {
            folder,
            source,
            snapshot,
            switches: switches(case),
            now,
            addresses: Named::new(),
            authorizations: Named::new(),
            conditions: BTreeMap::new(),
            allocated: BTreeMap::new(),
        };
        run.compare();
        run
    }

    fn file(&self, object: &Value) -> PathBuf {
        self.folder.path().join(format!("{}.yaml", key(object).replace('/', "_").to_lowercase()))
    }

    /// Applies a step, and returns what a client would be sent.
    fn step(&mut self, file: &Path) -> Value {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = fs::read_to_string(file).expect("a step");
        let objects = manifests(&with_uids(&text));
        for mut object in objects {
            let path = self.file(&object);
            if name.ends_with("-delete.yaml") {
                fs::remove_file(path).expect("an object to delete");
                continue;
            }
            if name.ends_with("-terminate.yaml") {
                object = serde_saphyr::from_str(&fs::read_to_string(&path).expect("an object"))
                    .expect("a manifest");
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
            }
            object["metadata"]["uid"] = uid(&key(&object)).into();
            fs::write(path, serde_saphyr::to_string(&object).expect("a manifest")).expect("a file");
        }
        self.now = self.now.checked_add(SignedDuration::from_secs(10)).expect("time goes on");
        if let Some(snapshot) = self.source.reload(self.now) {
            self.snapshot = snapshot;
        }
        self.compare()
    }

    fn compare(&mut self) -> Value {
        let records = translate(&self.snapshot.objects, &self.snapshot.mesh, &self.switches);
        let mut addresses: Named = records
            .addresses
            .iter()
            .map(|(name, record)| (name.clone(), record_json::address(record)))
            .collect();
        self.name_allocated(&mut addresses);
        let authorizations: Named = records
            .authorizations
            .iter()
            .map(|(name, record)| (name.clone(), record_json::authorization(record)))
            .collect();
        let problems = self.snapshot.problems.iter();
        let mut refused: Vec<String> =
            problems.filter_map(|p| Some(p.object.as_ref()?.to_string())).collect();
        refused.sort();
        let mut step = Map::new();
        step.insert("address".to_owned(), difference(&self.addresses, &addresses));
        step.insert("authorization".to_owned(), difference(&self.authorizations, &authorizations));
        step.insert("refused".to_owned(), refused.into());
        self.conditions = records.conditions;
        self.addresses = addresses;
        self.authorizations = authorizations;
        Value::Object(step)
    }

    /// Numbers allocated addresses in the order in which they show up.
    fn name_allocated(&mut self, addresses: &mut Named) {
        for record in addresses.values_mut() {
            let Some(list) = record.pointer_mut("/service/addresses").and_then(Value::as_array_mut) else {
                continue;
            };
            for address in list {
                let text = address["address"].as_str().expect("an address").to_owned();
                let family = match (text.starts_with("240.240."), text.starts_with("2001:2::")) {
                    (true, _) => "v4",
                    (_, true) => "v6",
                    _ => continue,
                };
                let n = self.allocated.values().filter(|name| name.contains(family)).count() + 1;
                let name = self.allocated.entry(text).or_insert_with(|| format!("auto-{family}-{n}"));
                address["address"] = name.clone().into();
            }
        }
    }
}

fn manifests(text: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(text, options).expect("manifests")
}

/// `Kind/namespace/name` as the recordings name objects.
fn key(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").expect("a kind");
    let name = text("/metadata/name").expect("a name");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// A UID that follows from the object's name.
fn uid(key: &str) -> String {
    format!(
        "00000000-1111-2222-3333-{:012x}",
        xxhash_rust::xxh64::xxh64(key.as_bytes(), 0) & 0xffff_ffff_ffff
    )
}

fn with_uids(text: &str) -> String {
    let mut parts = text.split("${uid:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut done, part| {
        let (key, rest) = part.split_once('}').expect("a closed reference");
        done.push_str(&uid(key));
        done.push_str(rest);
        done
    })
}

fn difference(before: &Named, after: &Named) -> Value {
    let changed: Map<String, Value> = after
        .iter()
        .filter(|(name, record)| before.get(*name) != Some(record))
        .map(|(name, record)| (name.clone(), record.clone()))
        .collect();
    let removed: Vec<Value> =
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| name.clone().into()).collect();
    serde_json::json!({ "changed": changed, "removed": removed })
}

/// The part of a recorded step that is the contract, in the form of [`Run::step`].
fn expected(step: &Value) -> Value {
    let part = |name: &str| {
        let get =
            |key: &str, default| step.get(name).and_then(|part| part.get(key)).cloned().unwrap_or(default);
        serde_json::json!({
            "changed": get("changed", Value::Object(Map::new())),
            "removed": get("removed", Value::Array(Vec::new())),
        })
    };
    let refused = step.get("refused_by_api_server").and_then(Value::as_object);
    let refused: Vec<&String> = refused.into_iter().flat_map(Map::keys).collect();
    serde_json::json!({ "address": part("address"), "authorization": part("authorization"), "refused": refused })
}

fn switches(case: &Path) -> Switches {
    let mut switches = Switches::default();
    for line in fs::read_to_string(case.join("env")).unwrap_or_default().lines() {
        match line {
            "PILOT_AUTO_ALLOW_WAYPOINT_POLICY=true" => switches.allow_waypoints = true,
            "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true" => switches.dry_run_policies = true,
            other => panic!("unknown switch {other}"),
        }
    }
    switches
}

/// `input.yaml` and the numbered steps.
fn steps(case: &Path) -> Vec<PathBuf> {
    let mut numbered: Vec<(u32, PathBuf)> = fs::read_dir(case)
        .expect("a case")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter_map(|path| {
            let stem = path.file_stem()?.to_str()?;
            let number = if stem == "input" { 1 } else { stem.split('-').next()?.parse().ok()? };
            Some((number, path))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}

/// A recorded step lists the statuses that differ from the step before; `{}` is one that is gone.
fn remember_status(step: &Value, status: &mut Named) {
    let objects = step.get("status").and_then(Value::as_object).into_iter().flatten();
    // The status of gateways belongs to those who run them.
    for (object, recorded) in objects.filter(|(object, _)| !object.starts_with("Gateway/")) {
        match recorded.get("conditions") {
            Some(conditions) => drop(status.insert(object.clone(), conditions.clone())),
            None => drop(status.remove(object)),
        }
    }
}

/// Type, status and reason are the contract, and the names a message mentions; its wording is free.
fn compare_status(
    step: &str,
    recorded: &Named,
    computed: &BTreeMap<ObjectRef, Vec<StatusCondition>>,
    failures: &mut Vec<String>,
) {
    let triple = |condition: &StatusCondition| {
        format!("{} {} {}", condition.kind, if condition.status { "True" } else { "False" }, condition.reason)
    };
    let ours: BTreeMap<String, Vec<String>> = computed
        .iter()
        .filter(|(object, _)| object.to_string() != intended::DRY_RUN_WITHOUT_STATUS)
        .map(|(object, conditions)| {
            let mut triples: Vec<String> = conditions.iter().map(triple).collect();
            triples.sort();
            (object.to_string(), triples)
        })
        .collect();
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let theirs: BTreeMap<String, Vec<String>> = recorded
        .iter()
        .map(|(object, conditions)| {
            let conditions = conditions.as_array().expect("conditions").iter();
            let mut triples: Vec<String> = conditions
                .map(|c| format!("{} {} {}", text(c, "type"), text(c, "status"), text(c, "reason")))
                .collect();
            triples.sort();
            (object.clone(), triples)
        })
        .collect();
    if ours != theirs {
        let differ = |(object, triples): &(&String, &Vec<String>)| theirs.get(*object) != Some(*triples);
        let ours: Vec<_> = ours.iter().filter(differ).collect();
        let missing: Vec<_> =
            theirs.keys().filter(|object| !computed.keys().any(|o| o.to_string() == **object)).collect();
        failures.push(format!("{step} status: computed {ours:?}, missing {missing:?}, recorded {theirs:?}"));
    }
    for (object, conditions) in recorded {
        let messages: Vec<&str> = computed
            .iter()
            .filter(|(name, _)| name.to_string() == *object)
            .flat_map(|(_, conditions)| conditions.iter().map(|condition| condition.message.as_str()))
            .collect();
        let names =
            conditions.as_array().into_iter().flatten().filter_map(|condition| condition.get("names"));
        for name in names.filter_map(Value::as_array).flatten().filter_map(Value::as_str) {
            if !messages.iter().any(|message| message.contains(name)) {
                failures.push(format!("{step} status of {object}: {name} is not mentioned in {messages:?}"));
            }
        }
    }
}

/// Says where two values differ, in few lines.
fn explain(path: &str, expected: &Value, actual: &Value, out: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                explain(
                    &format!("{path} {key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    out,
                );
            }
        }
        _ if expected == actual => {}
        _ => out.push(format!("{path}: expected {expected}, got {actual}")),
    }
}

/// CP-B-01 to B-09, C-01 to C-12, D-01 to D-15, E-01 to E-35 as far as the recorded cases show them.
#[test]
fn every_recorded_case_gives_the_recorded_records() {
    let mut failures = Vec::new();
    let mut n_cases = 0;
    let mut cases: Vec<PathBuf> =
        fs::read_dir(data("translation")).expect("cases").map(|e| e.expect("case").path()).collect();
    cases.sort();
    for case in cases.iter().filter(|path| path.is_dir()) {
        n_cases += 1;
        let name = case.file_name().and_then(|name| name.to_str()).expect("a name");
        let recorded = fs::read_to_string(case.join("expected.json")).expect("a recording");
        let recorded: Value = serde_json::from_str(&recorded).expect("JSON");
        let recorded = recorded["steps"].as_array().expect("steps");
        let steps = steps(case);
        assert_eq!(steps.len(), recorded.len(), "{name}");
        let mut run = Run::start(case);
        let mut status = Named::new();
        for (i, (file, recorded)) in steps.iter().zip(recorded).enumerate() {
            let mut expected = expected(recorded);
            intended::differences(name, i + 1, &mut expected);
            let actual = run.step(file);
            explain(&format!("{name} step {}", i + 1), &expected, &actual, &mut failures);
            remember_status(recorded, &mut status);
            if !intended::REPORTS_INVALID_VALUES.contains(&name) {
                compare_status(&format!("{name} step {}", i + 1), &status, &run.conditions, &mut failures);
            }
        }
    }
    assert!(n_cases >= 49, "only {n_cases} cases found");
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}
