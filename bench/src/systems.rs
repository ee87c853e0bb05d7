//! All systems of one run, up and verified, and how a load is sent through one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::certificates::Certificates;
use crate::load::Outcome;
use crate::peers::{Pair, Peer, Programs};
use crate::processes::{self, cpu_seconds};
use crate::rows::Load;
use crate::world::World;
use crate::wrk;

/// Beyond its own length, a load may take so long; past that something hangs.
const LOAD_LIMIT: Duration = Duration::from_secs(45);

/// The mesh and the pairs.
#[derive(Debug)]
pub(crate) struct Systems {
    pub(crate) world: World,
    pairs: BTreeMap<Peer, Pair>,
    wrk: Option<PathBuf>,
}

impl Systems {
    /// Starts the mesh and those of `peers` whose program is there.
    pub(crate) async fn start(
        culvert: &Path,
        programs: &Programs,
        peers: &[Peer],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let world = World::start(culvert, folder).await?;
        let certificates = Certificates::make(folder)?;
        let mut pairs = BTreeMap::new();
        for peer in peers.iter().copied().filter(|peer| !matches!(peer, Peer::Direct | Peer::Culvert)) {
            pairs.insert(peer, Pair::start(peer, programs, &world, &certificates, folder).await?);
        }
        Ok(Self { world, pairs, wrk: programs.wrk.clone() })
    }

    /// 16 MiB through each of them, every byte compared.
    pub(crate) async fn verify(&self, peers: &[Peer]) -> anyhow::Result<()> {
        for peer in peers {
            let (pod, to) = self.world.way(*peer, false);
            let command = self.world.bench_in(pod, ["load", "verify", &to.to_string()])?;
            processes::output("the check of every byte", command, LOAD_LIMIT)
                .await
                .with_context(|| format!("verifying {}", peer.title()))?;
        }
        Ok(())
    }

    /// The proxies' processes of one system; none for the direct way.
    pub(crate) fn processes(&self, peer: Peer) -> Vec<u32> {
        match peer {
            Peer::Direct => Vec::new(),
            Peer::Culvert => self.world.nodes().to_vec(),
            pair => self.pairs.get(&pair).map(Pair::processes).unwrap_or_default(),
        }
    }

    /// Runs one load; a run with errors or wrong bytes is none.
    pub(crate) async fn run(
        &mut self,
        peer: Peer,
        near: bool,
        load: Load,
        seconds: f64,
    ) -> anyhow::Result<Outcome> {
        let outcome = match (load, &self.wrk) {
            (Load::Http { close, connections }, Some(_)) => {
                self.wrk(peer, close, connections, seconds).await?
            }
            _ => {
                let command = self.load(peer, near, load, seconds)?;
                let limit = LOAD_LIMIT + Duration::from_secs_f64(seconds.max(0.0));
                let printed = processes::output("the load", command, limit).await?;
                serde_json::from_str(&printed).context("what the load printed")?
            }
        };
        self.world.still_runs()?;
        if let Some(pair) = self.pairs.get_mut(&peer) {
            pair.still_runs()?;
        }
        let outcome: Outcome = outcome;
        anyhow::ensure!(
            outcome.errors == 0,
            "{} errors: {}",
            outcome.errors,
            outcome.first_error.as_deref().unwrap_or("unknown")
        );
        anyhow::ensure!(outcome.amount > 0, "nothing was transferred");
        Ok(outcome)
    }

    /// The command that puts `load` on `peer`.
    pub(crate) fn load(
        &self,
        peer: Peer,
        near: bool,
        load: Load,
        seconds: f64,
    ) -> anyhow::Result<tokio::process::Command> {
        let (pod, to) = self.world.way(peer, near);
        let mut arguments = vec!["load".to_owned()];
        let mut rest = load.arguments();
        arguments.push(rest.remove(0));
        arguments.push(to.to_string());
        arguments.append(&mut rest);
        arguments.extend(["--seconds".to_owned(), seconds.to_string()]);
        let processes: Vec<String> = self.processes(peer).iter().map(u32::to_string).collect();
        if !processes.is_empty() {
            arguments.extend(["--cpu-of".to_owned(), processes.join(",")]);
        }
        self.world.bench_in(pod, arguments.iter().map(String::as_str))
    }

    async fn wrk(
        &self,
        peer: Peer,
        close: bool,
        connections: usize,
        seconds: f64,
    ) -> anyhow::Result<Outcome> {
        let wrk = self.wrk.as_ref().context("wrk is not installed")?;
        let (pod, to) = self.world.way(peer, false);
        let mut command = self.world.program_in(pod, wrk)?;
        let whole_seconds = format!("{:.0}", seconds.round().max(1.0));
        command.args(["-t1", "--latency", "-c", &connections.to_string(), "-d", &whole_seconds]);
        if close {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{to}/"));
        let processes = self.processes(peer);
        let before = cpu_seconds(&processes)?;
        let printed = processes::output("wrk", command, LOAD_LIMIT).await?;
        let cpu_seconds = cpu_seconds(&processes)? - before;
        let outcome = wrk::parse(&printed).with_context(|| format!("wrk printed {printed:?}"))?;
        Ok(Outcome { cpu_seconds, ..outcome })
    }

    /// Ends everything; the mesh removes what it has made.
    pub(crate) async fn stop(self) {
        for pair in self.pairs.into_values() {
            pair.stop().await;
        }
        self.world.stop().await;
    }
}
