//! The world that is measured: `culvert demo` runs the real product on a mesh of the bench's own, in namespaces; the
//! other proxies run in two of its pods that are not in the mesh. So everyone crosses the same links.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::peers::Peer;
use crate::processes::{self, Server};

const MESH: &str = include_str!("../world/mesh.yaml");
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the server listens.
const SERVER_PORT: u16 = 7000;
/// Virtual addresses of the services in the mesh, and the address of the pod outside it.
const SERVER: [u8; 4] = [10, 96, 0, 42];
const NEAR_SERVER: [u8; 4] = [10, 96, 0, 41];
const PLAIN_SERVER: [u8; 4] = [10, 244, 2, 20];

/// The pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pod {
    Client,
    Server,
    Near,
    PlainClient,
    PlainServer,
}

impl Pod {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Near => "near",
            Self::PlainClient => "plain-client",
            Self::PlainServer => "plain-server",
        }
    }
}

/// What `culvert demo` says about itself.
#[derive(Debug, Deserialize)]
struct Facts {
    id: u32,
    folder: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Register {
    nodes: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    pid: u32,
}

/// The running mesh with its servers; all of it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct World {
    culvert: PathBuf,
    facts: Facts,
    demo: Child,
    log: PathBuf,
    /// The node proxies' processes.
    nodes: Vec<u32>,
    servers: Vec<Server>,
}

impl World {
    /// Starts the mesh and a server in each pod that serves.
    pub(crate) async fn start(culvert: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mesh = folder.join("mesh");
        std::fs::create_dir_all(&mesh)?;
        std::fs::write(mesh.join("mesh.yaml"), MESH)?;
        let log = folder.join("demo.log");
        let mut command = std::process::Command::new(culvert);
        command.args(["demo", "--only-mesh", "--json", "--config"]).arg(&mesh);
        let mut demo = processes::bind(command)?
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", culvert.display()))?;
        let facts = tokio::time::timeout(START_LIMIT, facts(&mut demo))
            .await
            .context("the mesh did not come up in time")?
            .with_context(|| format!("starting the mesh: {}", processes::last_words(&log)))?;
        let register = std::fs::read(facts.folder.join("demo.json")).context("the demo's register")?;
        let register: Register = serde_json::from_slice(&register).context("the demo's register")?;
        let nodes = register.nodes.iter().map(|node| node.pid).collect();
        let mut world = Self { culvert: culvert.to_owned(), facts, demo, log, nodes, servers: Vec::new() };
        for pod in [Pod::Server, Pod::Near, Pod::PlainServer] {
            let command = world.bench_in(pod, ["serve", &format!("0.0.0.0:{SERVER_PORT}")])?;
            world.servers.push(Server::start(&format!("server-{}", pod.name()), command, folder)?);
        }
        Ok(world)
    }

    /// A program inside a pod; it becomes the child itself.
    pub(crate) fn program_in(&self, pod: Pod, program: &Path) -> anyhow::Result<Command> {
        let mut command = std::process::Command::new(&self.culvert);
        let id = self.facts.id.to_string();
        command.args(["demo", "exec", "--demo", &id, pod.name(), "--"]).arg(program);
        processes::bind(command)
    }

    /// This very program inside a pod.
    pub(crate) fn bench_in<'a>(
        &self,
        pod: Pod,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Command> {
        let own = std::env::current_exe().context("finding this program")?;
        let mut command = self.program_in(pod, &own)?;
        command.args(arguments);
        Ok(command)
    }

    /// From where and to which address a load goes through `peer`.
    pub(crate) fn way(&self, peer: Peer, near: bool) -> (Pod, SocketAddr) {
        match peer {
            Peer::Culvert if near => (Pod::Client, (NEAR_SERVER, SERVER_PORT).into()),
            Peer::Culvert => (Pod::Client, (SERVER, SERVER_PORT).into()),
            Peer::Direct => (Pod::PlainClient, Self::plain_server(SERVER_PORT)),
            other => (Pod::PlainClient, ([127, 0, 0, 1], other.ports().0).into()),
        }
    }

    /// An address of the pod outside the mesh where the far proxies run.
    pub(crate) fn plain_server(port: u16) -> SocketAddr {
        (PLAIN_SERVER, port).into()
    }

    /// The server beside the far proxies.
    pub(crate) fn local_server() -> SocketAddr {
        ([127, 0, 0, 1], SERVER_PORT).into()
    }

    /// The node proxies.
    pub(crate) fn nodes(&self) -> &[u32] {
        &self.nodes
    }

    /// Fails if something has ended, or was started anew: then figures would mix two lives.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.demo.try_wait()? {
            anyhow::bail!("the mesh ended ({status}): {}", processes::last_words(&self.log));
        }
        for server in &mut self.servers {
            server.still_runs()?;
        }
        processes::cpu_seconds(&self.nodes).map(|_| ()).context("a node proxy ended while it was measured")
    }

    /// Asks the demo to end, so that it removes its folder; waits for it.
    pub(crate) async fn stop(mut self) {
        for server in self.servers.drain(..) {
            server.stop().await;
        }
        let pid = self.demo.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            // If it does not, dropping it kills it.
            let _ = tokio::time::timeout(Duration::from_secs(10), self.demo.wait()).await;
        }
    }
}

/// Reads the one JSON object that the demo prints when the mesh stands.
async fn facts(demo: &mut Child) -> anyhow::Result<Facts> {
    let mut out = demo.stdout.take().context("the demo's output")?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = out.read(&mut buffer).await?;
        anyhow::ensure!(n > 0, "it ended before the mesh stood");
        text.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if let Ok(facts) = serde_json::from_slice(&text) {
            // It prints no more; the pipe stays open as long as the demo lives.
            demo.stdout = Some(out);
            return Ok(facts);
        }
    }
}
