//! The running mesh: control, agents, node proxies and pods as processes in namespaces.

mod start;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

pub(crate) use start::start;

use crate::fetch;
use crate::network::Place;
use crate::processes::{Process, Program, arguments};
use crate::register::{Member, Register};
use crate::world::{Pod, World};

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) world: World,
    /// The demo's own folder below the runtime folder.
    pub(crate) folder: PathBuf,
    pub(crate) control: Running,
    pub(crate) nodes: Vec<Running>,
    agents: Vec<Process>,
    pods: Vec<Running>,
}

/// A namespace with its main process.
#[derive(Debug)]
pub(crate) struct Running {
    /// Pod or node name, or `control`.
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    place: Place,
    process: Process,
}

impl Running {
    /// All that the process has printed.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// What one request brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: Option<u16>,
    pub(crate) body: Option<String>,
    pub(crate) error: Option<String>,
}

impl Reply {
    /// In one phrase.
    pub(crate) fn outcome(&self) -> String {
        match (self.status, &self.error) {
            (Some(status), _) => format!("HTTP {status}"),
            (None, Some(error)) => format!("no answer: {error}"),
            (None, None) => "no answer".to_owned(),
        }
    }
}

impl Mesh {
    /// The pod a person means.
    pub(crate) fn pod(&self, wanted: &str) -> anyhow::Result<&Pod> {
        self.world.pod(wanted).with_context(|| format!("the mesh has no pod called {wanted}"))
    }

    pub(crate) fn node(&self, name: &str) -> anyhow::Result<&Running> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the mesh has no node {name}"))
    }

    pub(crate) fn first_node(&self) -> anyhow::Result<&Running> {
        self.nodes.first().context("the mesh has no node")
    }

    /// Makes `times` requests from inside `pod`, where names resolve as they do for its application.
    pub(crate) async fn get(&self, pod: &Pod, url: &str, times: u32) -> anyhow::Result<Vec<Reply>> {
        let running = self
            .pods
            .iter()
            .find(|running| running.name == pod.name)
            .with_context(|| format!("{} does not run", pod.name))?;
        let program = Program {
            name: "fetch".to_owned(),
            namespace: running.place.namespace.try_clone()?,
            files: running.place.files.clone(),
            arguments: arguments(["demo", "fetch", "--json", "--times", &times.to_string(), url]),
            environment: Vec::new(),
        };
        let printed = program.output().await?;
        printed.lines().map(|line| serde_json::from_str(line).context("what fetch printed")).collect()
    }

    /// Gets a URL with an address from inside a node's or control's namespace.
    pub(crate) async fn get_in(&self, running: &Running, url: &str) -> anyhow::Result<String> {
        let fetched = fetch::get_in(&running.place.namespace, url).await?;
        if fetched.status != 200 {
            bail!("{url} on {} answered {}", running.name, fetched.status);
        }
        String::from_utf8(fetched.body).context("an answer in UTF-8")
    }

    /// Runs `culvert zc …` as a person beside the demo would, and gives what it prints.
    pub(crate) async fn zc(&self, words: &[&str]) -> anyhow::Result<String> {
        let demo = std::process::id().to_string();
        let runtime_folder = self.folder.parent().context("the demo's folder has no parent")?;
        let program = Program {
            name: "culvert zc".to_owned(),
            namespace: self.control.place.namespace.try_clone()?,
            files: Vec::new(),
            arguments: arguments(["zc"].iter().chain(words).copied().chain(["--demo", &demo])),
            environment: vec![("CULVERT_RUNTIME_DIR", runtime_folder.into())],
        };
        program.output().await
    }

    /// Starts again what has ended, as a DaemonSet or Deployment would; says what.
    pub(crate) fn revive(&mut self) -> anyhow::Result<Vec<String>> {
        let mut revived = Vec::new();
        let running = std::iter::once(&mut self.control).chain(&mut self.nodes).chain(&mut self.pods);
        for process in running.map(|running| &mut running.process).chain(&mut self.agents) {
            revived.extend(process.revive()?);
        }
        if !revived.is_empty() {
            self.register().write()?;
        }
        Ok(revived)
    }

    /// Ends everything: applications first, so that the proxies have nothing to drain.
    pub(crate) async fn stop(self) {
        let stop =
            |processes: Vec<Process>| futures::future::join_all(processes.into_iter().map(Process::stop));
        stop(self.pods.into_iter().map(|running| running.process).collect()).await;
        stop(self.agents).await;
        stop(self.nodes.into_iter().map(|running| running.process).collect()).await;
        self.control.process.stop().await;
    }

    /// What later commands need to know.
    fn register(&self) -> Register {
        let member = |running: &Running, also: Vec<String>| Member {
            name: running.name.clone(),
            also,
            pid: running.process.pid(),
            address: running.place.address,
            log: running.log.clone(),
        };
        let node = |running: &Running| {
            let proxy = self.world.nodes.iter().find(|node| node.name == running.name);
            let names = proxy.map(|node| vec![node.proxy.clone(), format!("{}.istio-system", node.proxy)]);
            member(running, names.unwrap_or_default())
        };
        let pod = |running: &Running| {
            let names = self.world.pods.iter().find(|pod| pod.name == running.name).map(|pod| {
                let mut names = vec![
                    format!("{}/{}", pod.namespace, pod.app),
                    format!("{}.{}", pod.name, pod.namespace),
                    format!("{}-{}", pod.app, pod.version),
                ];
                // `reviews` alone means the first of several replicas.
                names.insert(0, pod.app.clone());
                names
            });
            member(running, names.unwrap_or_default())
        };
        Register {
            pid: std::process::id(),
            folder: self.folder.clone(),
            agents: self.agents.iter().map(Process::pid).collect(),
            control: member(&self.control, vec!["istiod".to_owned()]),
            nodes: self.nodes.iter().map(node).collect(),
            pods: self.pods.iter().map(pod).collect(),
        }
    }
}
