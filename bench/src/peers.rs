//! Who is measured, and how those that are not culvert are started: two processes each, one beside the client, one
//! beside the server, with two threads each.

mod envoy;
mod haproxy;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::certificates::Certificates;
use crate::processes::{self, Server};
use crate::world::{Pod, World};

/// Threads of each proxy process; the same number as culvert has traffic threads on two cores.
pub(crate) const N_THREADS: usize = 2;

/// A way from client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// No proxy.
    Direct,
    /// A pair of haproxy that forwards TCP. Every ratio is to this one.
    Haproxy,
    /// A pair of haproxy with mutual TLS between them.
    HaproxyMtls,
    /// A pair of Envoy: CONNECT over HTTP/2 in mutual TLS.
    Envoy,
    /// The same over the `h2` crate; see `tunnel.rs`.
    H2,
    /// The product.
    Culvert,
}

impl Peer {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 6] =
        [Self::Haproxy, Self::Direct, Self::HaproxyMtls, Self::Envoy, Self::H2, Self::Culvert];

    /// The same, as the command line names them.
    pub(crate) const NAMES: [&str; 6] = ["haproxy", "direct", "haproxy-mtls", "envoy", "h2", "culvert"];

    /// As the table's head says.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy TCP",
            Self::HaproxyMtls => "haproxy mTLS",
            Self::Envoy => "Envoy",
            Self::H2 => "h2 crate",
            Self::Culvert => "culvert",
        }
    }

    /// How many connections it takes at a time with the descriptors that a process may have here.
    pub(crate) fn most_connections(self) -> usize {
        match self {
            Self::Haproxy | Self::HaproxyMtls => {
                usize::try_from(haproxy::connections()).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    /// Ports of the near and of the far proxy.
    pub(crate) fn ports(self) -> (u16, u16) {
        let near = match self {
            Self::Direct | Self::Culvert => 7000,
            Self::Haproxy => 7100,
            Self::HaproxyMtls => 7200,
            Self::Envoy => 7300,
            Self::H2 => 7400,
        };
        (near, near + 1)
    }
}

/// Programs of the peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) envoy: Option<PathBuf>,
    pub(crate) wrk: Option<PathBuf>,
    pub(crate) perf: Option<PathBuf>,
}

impl Programs {
    /// Why a peer cannot be measured here.
    pub(crate) fn missing(&self, peer: Peer) -> Option<&'static str> {
        match peer {
            Peer::Haproxy | Peer::HaproxyMtls if self.haproxy.is_none() => Some("haproxy is not installed"),
            Peer::Envoy if self.envoy.is_none() => Some("Envoy is not installed (--envoy PATH)"),
            _ => None,
        }
    }

    /// Versions, for the report.
    pub(crate) async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for (program, argument) in [(&self.haproxy, "-v"), (&self.envoy, "--version"), (&self.wrk, "-v")] {
            let Some(program) = program else { continue };
            let mut command = Command::new(program);
            command.arg(argument).stdin(std::process::Stdio::null());
            let Ok(output) = command.output().await else { continue };
            let text = String::from_utf8_lossy(&output.stdout);
            versions
                .extend(text.lines().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned()));
        }
        versions
    }
}

/// A running pair.
#[derive(Debug)]
pub(crate) struct Pair {
    near: Server,
    far: Server,
}

impl Pair {
    /// Starts both and waits until a connection through them stands.
    pub(crate) async fn start(
        peer: Peer,
        programs: &Programs,
        world: &World,
        certificates: &Certificates,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let far = far(peer, programs, world, certificates, folder)?;
        let far = Server::start(&format!("{peer:?}-far"), far, folder)?;
        let near = near(peer, programs, world, certificates, folder)?;
        let near = Server::start(&format!("{peer:?}-near"), near, folder)?;
        let mut pair = Self { near, far };
        let (pod, to) = world.way(peer, false);
        let mut attempts = 0;
        loop {
            let command = world.bench_in(pod, ["load", "ping-pong", &to.to_string(), "--seconds", "0.01"])?;
            let Err(error) = processes::output("the first request", command, Duration::from_secs(10)).await
            else {
                return Ok(pair);
            };
            pair.still_runs()?;
            attempts += 1;
            if attempts == 40 {
                return Err(error).with_context(|| format!("{} does not forward", peer.title()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        vec![self.near.pid(), self.far.pid()]
    }

    pub(crate) async fn stop(self) {
        self.near.stop().await;
        self.far.stop().await;
    }

    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        self.near.still_runs()?;
        self.far.still_runs()
    }
}

fn near(
    peer: Peer,
    programs: &Programs,
    world: &World,
    certificates: &Certificates,
    folder: &Path,
) -> anyhow::Result<Command> {
    let (port, far) = peer.ports();
    let far = World::plain_server(far);
    match peer {
        Peer::Haproxy => {
            haproxy::command(world, Pod::PlainClient, programs, folder, &haproxy::plain(port, far))
        }
        Peer::HaproxyMtls => {
            let config = haproxy::near_tls(port, far, certificates);
            haproxy::command(world, Pod::PlainClient, programs, folder, &config)
        }
        Peer::Envoy => {
            let config = envoy::near(port, far, certificates);
            envoy::command(world, Pod::PlainClient, programs, folder, &config)
        }
        Peer::H2 => tunnel(
            world,
            Pod::PlainClient,
            "near",
            &format!("127.0.0.1:{port}"),
            &far.to_string(),
            certificates,
        ),
        Peer::Direct | Peer::Culvert => anyhow::bail!("{} is no pair", peer.title()),
    }
}

fn far(
    peer: Peer,
    programs: &Programs,
    world: &World,
    certificates: &Certificates,
    folder: &Path,
) -> anyhow::Result<Command> {
    let (_, port) = peer.ports();
    let server = World::local_server();
    match peer {
        Peer::Haproxy => {
            haproxy::command(world, Pod::PlainServer, programs, folder, &haproxy::plain(port, server))
        }
        Peer::HaproxyMtls => {
            let config = haproxy::far_tls(port, server, certificates);
            haproxy::command(world, Pod::PlainServer, programs, folder, &config)
        }
        Peer::Envoy => {
            let config = envoy::far(port, server, certificates);
            envoy::command(world, Pod::PlainServer, programs, folder, &config)
        }
        Peer::H2 => tunnel(
            world,
            Pod::PlainServer,
            "far",
            &format!("0.0.0.0:{port}"),
            &server.to_string(),
            certificates,
        ),
        Peer::Direct | Peer::Culvert => anyhow::bail!("{} is no pair", peer.title()),
    }
}

fn tunnel(
    world: &World,
    pod: Pod,
    role: &str,
    listen: &str,
    to: &str,
    certificates: &Certificates,
) -> anyhow::Result<Command> {
    let mut command = world.bench_in(pod, ["tunnel", role, listen, to])?;
    command.args([&certificates.root, &certificates.chain, &certificates.key]);
    Ok(command)
}
