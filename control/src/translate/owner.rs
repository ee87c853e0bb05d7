//! The name of the workload a pod belongs to (control-plane 3.5), and the names canonical labels give.

use std::collections::BTreeMap;

use crate::sources::objects::Metadata;

pub(super) const WORKLOAD_NAME: &str = "service.istio.io/workload-name";

/// Deployment, CronJob, StatefulSet … behind a pod, from its owner references.
pub(super) fn workload_name(meta: &Metadata) -> String {
    if let Some(name) = meta.label(WORKLOAD_NAME) {
        return name.to_owned();
    }
    let owner = meta.owner_references.iter().find(|owner| owner.controller);
    let Some(owner) = owner.filter(|_| !meta.generate_name.is_empty()) else { return meta.name.clone() };
    let without_hash = |label| {
        let hash = meta.label(label).filter(|hash| !hash.is_empty())?;
        owner.name.strip_suffix(hash)?.strip_suffix('-')
    };
    let name = match owner.kind.as_str() {
        "ReplicaSet" => {
            without_hash("pod-template-hash").or_else(|| without_hash("rollouts-pod-template-hash"))
        }
        "ReplicationController" => meta.label("deploymentconfig").filter(|name| !name.is_empty()),
        "Job" => cron_job(&owner.name),
        _ => None,
    };
    name.unwrap_or(&owner.name).to_owned()
}

/// A job made by a CronJob ends in its time, in minutes or seconds.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

/// Canonical name and revision; a label that is there but empty counts.
pub(super) fn canonical(labels: &BTreeMap<String, String>, workload_name: &str) -> (String, String) {
    let first = |keys: [&str; 3]| keys.into_iter().find_map(|key| labels.get(key));
    let name = first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    (
        name.map_or(workload_name, String::as_str).to_owned(),
        revision.map_or("latest", String::as_str).to_owned(),
    )
}
