//! The page's steps against the running mesh, one after the other. Each step does what a person would do, and checks it.

mod evidence;
mod inspect;
mod traffic;

use serde_json::json;

use crate::mesh::Mesh;
use crate::report::{Report, Step};

/// A step: its number in the page's order is its place in [`STEPS`].
type Run = for<'mesh> fn(&'mesh Mesh) -> futures::future::BoxFuture<'mesh, anyhow::Result<Step>>;

const STEPS: &[(&str, Run)] = &[
    ("workloads", |mesh| Box::pin(inspect::workloads(mesh))),
    ("certificates", |mesh| Box::pin(inspect::certificates(mesh))),
    ("hbone", |mesh| Box::pin(traffic::hbone(mesh))),
    ("spread", |mesh| Box::pin(traffic::spread(mesh))),
    ("metrics", |mesh| Box::pin(inspect::metrics(mesh))),
    ("strict", |mesh| Box::pin(traffic::strict(mesh))),
    ("denied", |mesh| Box::pin(traffic::denied(mesh))),
];

/// Runs all steps and shows each as it ends.
pub(crate) async fn tell(mesh: &Mesh, report: Report) -> Vec<Step> {
    let mut told = Vec::with_capacity(STEPS.len());
    for (number, (id, run)) in STEPS.iter().enumerate() {
        let step = run(mesh).await.unwrap_or_else(|error| Step {
            id,
            title: format!("The step `{id}` could not be made"),
            command: String::new(),
            output: Vec::new(),
            ok: false,
            problem: Some(format!("{error:#}")),
            facts: json!({}),
        });
        report.step(number + 1, &step);
        told.push(step);
    }
    told
}

/// The first request that provably went through a tunnel: the moment from which the mesh is up.
pub(crate) async fn first_light(mesh: &Mesh) -> anyhow::Result<()> {
    traffic::prove_tunnel(mesh, 1).await.map(|_| ())
}
