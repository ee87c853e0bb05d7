//! What holds for any objects.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use wire::security::{Match, Rule};
use wire::workload::{Workload, address};

use crate::sources::objects::{Name, Objects};
use crate::sources::{File, Folder, Snapshot};
use crate::translate::{Records, Switches, translate};

fn load(documents: &[String]) -> Snapshot {
    let file = File { path: "all.yaml".into(), content: Ok(documents.join("---\n").into_bytes()) };
    let snapshot = Folder::default().apply(vec![file], None, Timestamp::UNIX_EPOCH);
    assert_eq!(snapshot.problems, [], "{}", documents.join("---\n"));
    snapshot
}

fn records(documents: &[String]) -> Records {
    let snapshot = load(documents);
    translate(&snapshot.objects, &snapshot.mesh, &Switches::default())
}

fn pod(namespace: &str, name: &str, app: &str, number: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}\n\
         spec: {{nodeName: n{}, containers: [{{name: a, ports: [{{name: web, containerPort: 8080}}]}}]}}\n\
         status: {{phase: Running, podIP: 10.{}.{}.{}, conditions: [{{type: Ready, status: 'True'}}]}}\n",
        number % 3,
        number >> 16 & 0xff,
        number >> 8 & 0xff,
        number & 0xff,
    )
}

/// One object of a small world, of a kind that `kind` chooses; `created` is its age in seconds.
fn manifest(index: usize, kind: u8, namespace: u8, app: u8, created: u16) -> String {
    let (namespace, app) =
        (["a", "b", "istio-system"][usize::from(namespace % 3)], ["x", "y", "z"][usize::from(app % 3)]);
    let stamp = Timestamp::from_second(i64::from(created)).expect("a time");
    let meta = format!(
        "metadata: {{name: o{index}, namespace: {namespace}, creationTimestamp: '{stamp}', labels: {{app: {app}}}}}"
    );
    let mode = ["STRICT", "PERMISSIVE", "DISABLE", "UNSET"][index % 4];
    match kind % 7 {
        0 => pod(namespace, &format!("o{index}"), app, index),
        1 => format!(
            "apiVersion: v1\nkind: Service\n{meta}\nspec: {{clusterIP: 10.96.0.{}, selector: {{app: {app}}}, ports: [{{port: 80, targetPort: web}}]}}\n",
            index % 250 + 1
        ),
        2 => format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n{meta}\nspec: {{hosts: [{app}.example, all.example], resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{{address: 192.0.2.{}}}]}}\n",
            index % 250 + 1
        ),
        3 => format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n{meta}\nspec: {{address: 192.0.2.{}, labels: {{app: {app}}}}}\n",
            index % 250 + 1
        ),
        4 => format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{meta}\nspec: {{selector: {{matchLabels: {{app: {app}}}}}, rules: [{{}}]}}\n"
        ),
        5 => format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{meta}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        ),
        _ => format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{meta}\nspec: {{selector: {{matchLabels: {{app: {app}}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {{80: {{mode: {}}}, 90: {{mode: {}}}}}}}\n",
            ["STRICT", "PERMISSIVE", "DISABLE", "UNSET"][index / 4 % 4],
            ["PERMISSIVE", "UNSET", "STRICT", "DISABLE"][index / 2 % 4],
        ),
    }
}

fn world() -> impl Strategy<Value = Vec<String>> {
    // Few distinct ages, so that ties happen.
    let object = (any::<u8>(), any::<u8>(), any::<u8>(), 0_u16..4);
    proptest::collection::vec(object, 1..30).prop_map(|objects| {
        let objects = objects.into_iter().enumerate();
        objects
            .map(|(i, (kind, namespace, app, created))| manifest(i, kind, namespace, app, created))
            .collect()
    })
}

fn workloads(records: &Records) -> impl Iterator<Item = &Workload> {
    records.addresses.values().filter_map(|record| match &record.r#type {
        Some(address::Type::Workload(workload)) => Some(workload),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_objects_means_nothing(shuffled in world().prop_flat_map(|w| (Just(w.clone()), Just(w).prop_shuffle()))) {
        let (sorted, shuffled) = (records(&shuffled.0), records(&shuffled.1));
        prop_assert_eq!(sorted.addresses, shuffled.addresses);
        prop_assert_eq!(sorted.authorizations, shuffled.authorizations);
        prop_assert_eq!(sorted.conditions, shuffled.conditions);
    }

    /// Weakness 14: a client skips unknown names, so a name of nothing leaves the workload open.
    #[test]
    fn workloads_name_only_policies_that_exist(documents in world()) {
        let records = records(&documents);
        for workload in workloads(&records) {
            for key in &workload.authorization_policies {
                prop_assert!(records.authorizations.contains_key(key), "{} names {key}", workload.uid);
            }
        }
    }

    /// What a workload must refuse without an identity follows from the modes, whatever the policies look like.
    #[test]
    fn peer_authentication_refuses_exactly_what_the_modes_say(
        mesh in 0_usize..5, namespace in 0_usize..5, own in 0_usize..4, at_80 in 0_usize..4, at_90 in 0_usize..4,
    ) {
        const MODES: [&str; 5] = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT", "absent"];
        let object = |namespace: &str, mode: usize| (MODES[mode] != "absent").then(|| format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: d, namespace: {namespace}}}\nspec: {{mtls: {{mode: {}}}}}\n", MODES[mode]));
        let mut documents = vec![pod("a", "p", "x", 1)];
        documents.extend(object("istio-system", mesh));
        documents.extend(object("a", namespace));
        documents.push(format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: w, namespace: a}}\nspec: {{selector: {{matchLabels: {{app: x}}}}, mtls: {{mode: {}}}, portLevelMtls: {{80: {{mode: {}}}, 90: {{mode: {}}}}}}}\n",
            MODES[own], MODES[at_80], MODES[at_90]));
        let records = records(&documents);
        let workload = workloads(&records).next().expect("the pod");
        let refuses = |port: u32| {
            let named = workload.authorization_policies.iter().filter_map(|key| records.authorizations.get(key));
            named.flat_map(|policy| &policy.rules).any(|rule| refuses_anonymous(rule, port))
        };
        let parent = inherit(&[MODES[namespace], MODES[mesh]]);
        let workload_mode = inherit(&[MODES[own], parent]);
        // As recorded, only-DISABLE exceptions below a strict parent have no effect.
        let has_permissive = [at_80, at_90].iter().any(|mode| MODES[*mode] == "PERMISSIVE");
        let stays_strict = MODES[own] == "UNSET" && parent == "STRICT" && !has_permissive;
        for (port, mode) in [(80, MODES[at_80]), (90, MODES[at_90]), (70, "UNSET")] {
            let strict = stays_strict || inherit(&[mode, workload_mode]) == "STRICT";
            prop_assert_eq!(refuses(port), strict, "port {} in {:#?}", port, documents);
        }
    }
}

/// The first mode that is set.
fn inherit(modes: &[&'static str]) -> &'static str {
    modes.iter().copied().find(|mode| !matches!(*mode, "UNSET" | "absent")).unwrap_or("PERMISSIVE")
}

/// Does a rule of a DENY match a connection without identity to this port?
fn refuses_anonymous(rule: &Rule, port: u32) -> bool {
    let holds = |m: &Match| {
        let ports = m.destination_ports.is_empty() || m.destination_ports.contains(&port);
        // Without identity, "not any principal" holds.
        ports && !m.not_destination_ports.contains(&port)
    };
    rule.clauses.iter().all(|clause| clause.matches.iter().any(holds))
}

/// Discovery selectors: namespaces enter and leave.
#[test]
fn discovery_selectors_choose_namespaces() {
    let documents = [
        pod("a", "p", "x", 1),
        pod("b", "p", "x", 2),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {mesh: 'on'}}\n".to_owned(),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'discoverySelectors: [{matchLabels: {mesh: on}}]'}\n".to_owned(),
    ];
    let names: Vec<String> = records(&documents).addresses.into_keys().collect();
    assert_eq!(names, ["Kubernetes//Pod/a/p"]);
}

/// CP-A-02
#[test]
fn without_cluster_the_uid_begins_with_slashes() {
    let snapshot = load(&[pod("a", "p", "x", 1)]);
    let switches = Switches { cluster_id: String::new(), ..Switches::default() };
    let records = translate(&snapshot.objects, &snapshot.mesh, &switches);
    assert_eq!(records.addresses.keys().collect::<Vec<_>>(), ["//Pod/a/p"]);
}

/// CP-D-01
#[test]
fn objects_of_another_revision_are_not_used() {
    let policy = |name: &str, labels: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: a, labels: {labels}}}\nspec: {{}}\n"
        )
    };
    let documents = [
        policy("none", "{}"),
        policy("ours", "{istio.io/rev: default}"),
        policy("theirs", "{istio.io/rev: canary}"),
    ];
    let keys: Vec<String> = records(&documents).authorizations.into_keys().collect();
    assert_eq!(keys, ["a/none", "a/ours"]);
}

/// The node authorizer's view: control-plane 1.6.
#[test]
fn the_pod_index_has_all_pods_that_did_not_fail() {
    let failed = pod("a", "failed", "x", 1).replace("phase: Running", "phase: Failed");
    let done = pod("a", "done", "x", 2).replace("phase: Running", "phase: Succeeded");
    let pods = records(&[failed, done]).pods;
    assert!(pods.runs_on("a", "default", "n2"));
    assert!(!pods.runs_on("a", "default", "n1"));
    assert!(pods.pod("a", "failed").is_none());
    assert_eq!(pods.pod("a", "done").map(|pod| pod.node.as_str()), Some("n2"));
}

/// Many pods with many services stay far from quadratic; the bound is loose for unoptimised builds.
#[test]
fn ten_thousand_pods_are_translated_quickly() {
    let mut text = String::new();
    for i in 0..200 {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{i}, namespace: a}}\nspec: {{selector: {{app: x{i}}}, clusterIP: 10.96.1.{i}, ports: [{{port: 80}}]}}\n---\n"
        );
        text.write_str(&service).expect("text");
    }
    text.push_str(&pod("a", "p", "x0", 1));
    let snapshot = load(&[text]);
    let template = snapshot.objects.pods.values().next().expect("a pod").clone();
    let mut objects: Objects = snapshot.objects.clone();
    objects.pods = (0..10_000)
        .map(|i| {
            let mut pod = (*template).clone();
            pod.metadata.name = format!("p{i}");
            pod.metadata.labels = BTreeMap::from([("app".to_owned(), format!("x{}", i % 200))]);
            (Name::new("a", &pod.metadata.name), Arc::new(pod))
        })
        .collect();
    #[expect(clippy::disallowed_methods, reason = "a test measures")]
    let start = std::time::Instant::now();
    let records = translate(&objects, &snapshot.mesh, &Switches::default());
    let elapsed = start.elapsed();
    assert_eq!(records.addresses.len(), 10_200);
    println!("10000 pods, 200 services: {elapsed:?}");
    assert!(elapsed < std::time::Duration::from_secs(10), "{elapsed:?}");
}
