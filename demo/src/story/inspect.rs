//! Steps that look: tables of the CLI, certificates, metrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::mesh::Mesh;
use crate::report::Step;

const COUNTERS: [&str; 4] = [
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_received_bytes_total",
    "istio_tcp_sent_bytes_total",
];

/// The workloads a node proxy knows.
pub(super) async fn workloads(mesh: &Mesh) -> anyhow::Result<Step> {
    let node = mesh.first_node()?;
    let table = mesh.zc(&["workloads", "--node", &node.name]).await?;
    let missing: Vec<&str> = mesh
        .world
        .pods
        .iter()
        .filter(|pod| {
            let protocol = if pod.captured { "HBONE" } else { "TCP" };
            !table.lines().any(|line| line.contains(&pod.name) && line.trim_end().ends_with(protocol))
        })
        .map(|pod| pod.name.as_str())
        .collect();
    Ok(Step {
        id: "workloads",
        title: format!("What the proxy on {} knows", node.name),
        command: format!("culvert zc workloads --node {}", node.name),
        output: table.lines().map(str::to_owned).collect(),
        ok: missing.is_empty(),
        problem: (!missing.is_empty())
            .then(|| format!("missing, or with the wrong protocol: {}", missing.join(", "))),
        facts: json!({"node": node.name, "rows": table.lines().count().saturating_sub(1)}),
    })
}

/// The certificates of a node.
pub(super) async fn certificates(mesh: &Mesh) -> anyhow::Result<Step> {
    let node = mesh.first_node()?;
    let table = mesh.zc(&["certificates", "--node", &node.name]).await?;
    let leaves: Vec<&str> =
        table.lines().filter(|line| line.contains("Leaf") && line.contains("true")).collect();
    let ours: Vec<&crate::world::Pod> =
        mesh.world.pods.iter().filter(|pod| pod.captured && pod.node == node.name).collect();
    let missing: Vec<String> = ours
        .iter()
        .map(|pod| format!("/ns/{}/sa/{}", pod.namespace, pod.service_account))
        .filter(|identity| {
            !leaves
                .iter()
                .any(|line| line.split_whitespace().next().is_some_and(|name| name.ends_with(identity)))
        })
        .collect();
    Ok(Step {
        id: "certificates",
        title: format!("The certificates of {}: one for each identity of its pods", node.name),
        command: format!("culvert zc certificates --node {}", node.name),
        output: table.lines().map(str::to_owned).collect(),
        ok: missing.is_empty() && !leaves.is_empty(),
        problem: (!missing.is_empty()).then(|| format!("no valid certificate for {}", missing.join(", "))),
        facts: json!({"node": node.name, "valid_leaves": leaves.len()}),
    })
}

/// The four counters of Istio's standard TCP metrics.
pub(super) async fn metrics(mesh: &Mesh) -> anyhow::Result<Step> {
    let node = mesh.first_node()?;
    let page = mesh.get_in(node, "http://127.0.0.1:15020/metrics").await?;
    let wanted = [
        "reporter=\"source\"",
        "source_canonical_service=\"sleep\"",
        "destination_service_name=\"productpage\"",
        "response_flags=\"-\"",
    ];
    let mut values: BTreeMap<&str, f64> = BTreeMap::new();
    let mut output = Vec::new();
    for name in COUNTERS {
        let line = page
            .lines()
            .find(|line| {
                line.starts_with(&format!("{name}{{")) && wanted.iter().all(|label| line.contains(label))
            })
            .with_context(|| format!("{name} from sleep to productpage is not on the metrics page"))?;
        let Some(value) = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) else {
            bail!("{line}: no number");
        };
        values.insert(name, value);
        output.push(format!("{name}{{{}}} {value}", wanted.join(",")));
    }
    let ok = values.values().all(|value| *value > 0.0);
    Ok(Step {
        id: "metrics",
        title: "Istio's four TCP counters on the client's node".to_owned(),
        command: format!("culvert demo exec {} -- curl localhost:15020/metrics", node.name),
        output,
        ok,
        problem: (!ok).then(|| "a counter that should have moved is zero".to_owned()),
        facts: json!(values),
    })
}
