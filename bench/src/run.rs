//! The whole run, top down: programs → memory (fresh processes) → system calls → repetitions → table.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use runtime::clock::monotonic;
use runtime::environment::Environment;
use runtime::folders::{self, Folder};

use crate::args::RunArgs;
use crate::peers::{Peer, Programs};
use crate::report::{Report, Sample, Timed};
use crate::rows::{self, Row};
use crate::systems::Systems;
use crate::table::{self, Table};
use crate::{memory, processes, say, syscalls};

/// Descriptors for 10,000 connections through a proxy, where the machine allows it.
const DESCRIPTORS: u64 = 200_000;
/// Around the measured part of each run (start of the load, connections, warm-up, end), until it is known.
const AROUND_A_RUN: f64 = 0.6;
/// What is left of the time is not planned to the last second.
const PLANNED: f64 = 0.95;

/// Runs the bench.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = monotonic();
    let environment = Environment::of_process();
    let culvert = match &args.culvert {
        Some(path) => path.canonicalize().with_context(|| format!("no culvert at {}", path.display()))?,
        None => build()?,
    };
    let programs = programs(args, &environment);
    raise_descriptor_limit();
    let base = folders::default_base(&environment);
    folders::remove_stale(&base, "bench-");
    let folder = Folder::open(base.join(format!("bench-{}", std::process::id())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let mut report = Report::default();
        let mut bench = Bench { args, culvert: &culvert, programs: &programs, folder: folder.path(), begun };
        tokio::select! {
            result = bench.measure(&mut report) => result?,
            // What was started dies with the future that is dropped here; what was seen is still shown.
            () = stop_requested() => report.failures.push("interrupted".to_owned()),
        }
        anyhow::Ok(report)
    });
    // A leftover would be removed as stale by the next run.
    let _ = folder.remove();
    let report = report?;
    show(args, &report)?;
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the product next to the bench.
fn build() -> anyhow::Result<PathBuf> {
    say("building culvert (release)");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--package", "culvert"])
        .current_dir(root)
        .status()
        .context("running cargo; say --culvert PATH to measure one that is built")?;
    anyhow::ensure!(status.success(), "cargo could not build culvert");
    let own = std::env::current_exe().context("finding this program")?;
    let target = own.ancestors().nth(2).context("this program is not in cargo's target folder")?;
    target.join("release/culvert").canonicalize().context("culvert is not where cargo puts it")
}

fn programs(args: &RunArgs, environment: &Environment) -> Programs {
    let path = environment.get("PATH");
    let find = |given: Option<PathBuf>, name: &str| given.or_else(|| processes::find(name, path));
    Programs {
        haproxy: find(args.haproxy.clone(), "haproxy"),
        envoy: find(
            args.envoy.clone().or_else(|| environment.get("CULVERT_ENVOY").map(PathBuf::from)),
            "envoy",
        ),
        wrk: if args.no_wrk { None } else { find(None, "wrk") },
        perf: find(None, "perf"),
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        // The hard limit has to do; what does not fit is named in the report.
        let _ = runtime::limits::raise_descriptor_limit();
    }
}

async fn stop_requested() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

struct Bench<'a> {
    args: &'a RunArgs,
    culvert: &'a Path,
    programs: &'a Programs,
    folder: &'a Path,
    begun: Instant,
}

impl Bench<'_> {
    async fn measure(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let peers = self.peers(report);
        report.facts = facts(self.programs).await;
        let quick = self.args.quick;
        let rows = &self.args.rows;
        let single = |name: &str| {
            !self.args.only_timed && (rows.is_empty() || rows.iter().any(|part| part.starts_with(name)))
        };
        if single("idle") {
            say("idle memory, fresh processes");
            let systems = self.start(&peers).await?;
            let steps: &[usize] = if quick { &[100, 1000] } else { &[1000, 10_000] };
            memory::idle(&systems, &peers, steps, report).await;
            systems.stop().await;
        }
        say("starting everything anew");
        let mut systems = self.start(&peers).await?;
        systems.verify(&peers).await?;
        say("16 MiB went through each system and back unharmed");
        if single("peak") || single("resident") {
            let rest = Duration::from_secs(if quick { 5 } else { 60 });
            memory::burst(&mut systems, &peers, rest, report).await;
        }
        if single("system calls") {
            match &self.programs.perf {
                Some(perf) => {
                    syscalls::count_all(&systems, perf, &peers, 0.4, self.folder, report).await;
                }
                None => report.missing.push("system calls: perf is not installed".to_owned()),
            }
        }
        self.repeat(&mut systems, &peers, report).await?;
        systems.stop().await;
        Ok(())
    }

    fn peers(&self, report: &mut Report) -> Vec<Peer> {
        // The reference is first in each row, the product last, and what is between them takes turns.
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for peer in Peer::ALL.into_iter().filter(|peer| self.args.peers.contains(peer)) {
            match self.programs.missing(peer) {
                None => there.push(peer),
                Some(why) => missing.push(format!("{}: {why}", peer.title())),
            }
        }
        report.missing.extend(missing);
        if self.programs.wrk.is_none() {
            report
                .missing
                .push("wrk: not installed, the HTTP rows are driven by the bench's own loop".to_owned());
        }
        there
    }

    async fn start(&self, peers: &[Peer]) -> anyhow::Result<Systems> {
        Systems::start(self.culvert, self.programs, peers, self.folder).await
    }

    /// Every row on every system, again and again.
    async fn repeat(
        &mut self,
        systems: &mut Systems,
        peers: &[Peer],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let rows: Vec<Row> =
            rows::all().into_iter().filter(|row| rows::is_meant(&row.name, &self.args.rows)).collect();
        let n_runs: usize = rows.iter().map(|row| runners(row, peers).len()).sum();
        let repetitions = if self.args.quick { 1 } else { self.args.repetitions.max(1) };
        report.timed =
            rows.into_iter().map(|row| Timed { row, runs: std::collections::BTreeMap::new() }).collect();
        let mut around = AROUND_A_RUN;
        for repetition in 0..repetitions {
            let since = monotonic();
            if repetition > 0 && since - self.begun > self.budget() {
                report.missing.push(format!("only {repetition} repetitions: the time was used up"));
                break;
            }
            let seconds = self.seconds(n_runs * (repetitions - repetition), around);
            say(&format!("repetition {} of {repetitions}, {seconds:.2} s a run", repetition + 1));
            for place in 0..report.timed.len() {
                let Some(row) = report.timed.get(place).map(|timed| timed.row.clone()) else { continue };
                let mut runners = runners(&row, peers);
                // Nobody is always measured right after the same one.
                let n = runners.len().max(1);
                runners.rotate_left(repetition % n);
                let mut line = String::new();
                for peer in runners {
                    let sample = match systems.run(peer, row.near, row.load, seconds).await {
                        Ok(outcome) => Some(Sample::of(&outcome, row.load)),
                        Err(error) => {
                            let failure = format!("{}, {}: {error:#}", row.name, peer.title());
                            say(&format!("  FAILED {failure}"));
                            report.failures.push(failure);
                            None
                        }
                    };
                    let shown =
                        sample.map_or_else(|| "failed".to_owned(), |sample| format!("{:.2}", sample.rate));
                    line.push_str(&format!("  {} {shown}", peer.title()));
                    if let Some(timed) = report.timed.get_mut(place) {
                        timed.runs.entry(peer).or_default().push(sample);
                    }
                }
                say(&format!("  {:28}{line}", row.name));
            }
            report.facts.push(format!("repetition {}: {n_runs} runs, {seconds:.2} s each", repetition + 1));
            around = (monotonic() - since).as_secs_f64() / count(n_runs) - seconds;
            // What has been measured is not lost if the rest is.
            save(self.args, report)?;
        }
        Ok(())
    }

    fn budget(&self) -> Duration {
        Duration::try_from_secs_f64(self.args.budget * 60.0).unwrap_or(Duration::MAX)
    }

    /// How long one of the runs that are left may measure.
    fn seconds(&self, n_runs: usize, around: f64) -> f64 {
        if let Some(seconds) = self.args.seconds {
            return seconds.clamp(0.1, 60.0);
        }
        if self.args.quick {
            return 0.4;
        }
        let left = self.budget().saturating_sub(monotonic() - self.begun).as_secs_f64();
        (left * PLANNED / count(n_runs) - around).clamp(0.3, 3.0)
    }
}

fn count(n: usize) -> f64 {
    crate::load::count(u64::try_from(n.max(1)).unwrap_or(u64::MAX))
}

/// Who runs a row.
fn runners(row: &Row, peers: &[Peer]) -> Vec<Peer> {
    peers.iter().copied().filter(|peer| !row.near || *peer == Peer::Culvert).collect()
}

/// The machine and the versions.
async fn facts(programs: &Programs) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let n_cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut facts = vec![format!(
        "{n_cores} cores, {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim()
    )];
    facts.extend(programs.versions().await);
    facts
}

fn save(args: &RunArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&table::json(report))?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(file) = &args.markdown {
        std::fs::write(file, Table::of(report).markdown())
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn show(args: &RunArgs, report: &Report) -> anyhow::Result<()> {
    save(args, report)?;
    let mut out = std::io::stdout();
    write!(out, "{}", Table::of(report).text())?;
    for fact in &report.facts {
        writeln!(out, "{fact}")?;
    }
    for missing in &report.missing {
        writeln!(out, "not measured: {missing}")?;
    }
    for failure in &report.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    Ok(())
}
