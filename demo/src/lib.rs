//! PROGRAM: a whole mesh on one machine (`culvert demo`).
//!
//! Starts the other programs as processes in namespaces of their own, walks through Istio's page "Troubleshoot
//! connectivity issues with ztunnel", and leaves nothing behind. It links none of them: what it shows is what they do.
//!
//! Start reading at [`run`], then `mesh/start.rs` (how the mesh comes up) and `story.rs` (the steps).
//! Invariants: every process dies with the demo, however it ends; every namespace is unnamed and held by descriptors.

mod app;
mod args;
mod exec;
mod fetch;
mod mesh;
mod network;
mod processes;
mod register;
mod report;
mod story;
mod world;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use runtime::environment::Environment;
use runtime::folders::Folder;
use serde_json::json;

use crate::args::{Cli, Command, ExecArgs, FetchArgs, GetArgs, LogsArgs, RunArgs};
use crate::mesh::{Mesh, Reply};
use crate::register::Register;
use crate::report::{Report, Style};
use crate::world::World;

/// The mesh that is shown without `--config`: `examples/bookinfo`, compiled in.
const BOOKINFO: &[(&str, &str)] = &[
    ("bookinfo.yaml", include_str!("../../examples/bookinfo/bookinfo.yaml")),
    ("clients.yaml", include_str!("../../examples/bookinfo/clients.yaml")),
    ("cluster.yaml", include_str!("../../examples/bookinfo/cluster.yaml")),
    ("external.yaml", include_str!("../../examples/bookinfo/external.yaml")),
    ("policies.yaml", include_str!("../../examples/bookinfo/policies.yaml")),
    ("prod.yaml", include_str!("../../examples/bookinfo/prod.yaml")),
];

/// Runs the demo with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(std::iter::once(OsString::from("culvert demo")).chain(args));
    let result = match cli.command {
        None => run_mesh(&cli.run),
        Some(Command::App(args)) => on_runtime(app::serve(args)).map(|()| ExitCode::SUCCESS),
        Some(Command::Fetch(args)) => on_runtime(fetch_here(args)),
        Some(Command::Exec(args)) => exec_in(&args),
        Some(Command::Get(args)) => get_from(args),
        Some(Command::Logs(args)) => logs(&args),
        Some(Command::List) => list(),
    };
    result.unwrap_or_else(|error| {
        // Nothing is left to report to when standard error is closed.
        let _ = writeln!(std::io::stderr(), "culvert demo: {error:#}");
        ExitCode::FAILURE
    })
}

/// The runtime folder, in which each demo has one of its own. To be asked before this process isolates itself.
fn runtime_folder() -> PathBuf {
    runtime::folders::default_base(&Environment::of_process())
}

fn on_runtime<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    runtime.block_on(task)
}

fn run_mesh(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let started = runtime::clock::monotonic();
    let report = Report::new(Style::of_stdout(args.json));
    let folder = OwnFolder::create()?;
    // Inside its own namespaces this process is root, and its first network namespace joins all others.
    net::process::isolate().map_err(|error| {
        let code = error.code();
        anyhow::Error::new(error).context(format!("the demo needs namespaces of its own ({code})"))
    })?;
    let code = on_runtime(async {
        let mesh_folder = folder.mesh(args.config.as_deref())?;
        let world = World::read(&mesh_folder)?;
        report.headline("Starting a two-node mesh");
        let stop = stop_requested()?;
        tokio::pin!(stop);
        let mut mesh = tokio::select! {
            // A start that is interrupted is dropped: every process it made dies with it.
            started = mesh::start(world, &mesh_folder, &folder.path, report) => started?,
            () = &mut stop => return Ok(ExitCode::FAILURE),
        };
        if args.only_mesh {
            report.facts(&json!({"ok": true, "id": std::process::id(), "folder": folder.path}));
            report.text(&next_commands(&mesh));
            stay(&mut mesh, report, &mut stop).await?;
            mesh.stop().await;
            return Ok(ExitCode::SUCCESS);
        }
        story::first_light(&mesh).await.context("the first request through the tunnel")?;
        let first_light = started.elapsed();
        report.progress(&format!(
            "first request through HBONE proven {:.2} s after the start",
            first_light.as_secs_f64()
        ));
        let steps = tokio::select! {
            steps = story::tell(&mesh, report) => steps,
            () = &mut stop => { mesh.stop().await; return Ok(ExitCode::FAILURE); }
        };
        let all_right = steps.iter().all(|step| step.ok);
        report.facts(&json!({
            "ok": all_right,
            "id": std::process::id(),
            "seconds_to_first_hbone_request": first_light.as_secs_f64(),
            "folder": folder.path,
            "steps": steps,
        }));
        if !args.once {
            report.text(&next_commands(&mesh));
            stay(&mut mesh, report, &mut stop).await?;
        }
        mesh.stop().await;
        Ok(if all_right || !args.once { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    drop(folder);
    code
}

/// Stays up until asked to stop; what ends by itself is started again, as in a cluster.
async fn stay(
    mesh: &mut Mesh,
    report: Report,
    stop: &mut (impl Future<Output = ()> + Unpin),
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = &mut *stop => return Ok(()),
            _ = look.tick() => mesh.revive()?.iter().for_each(|line| report.progress(line)),
        }
    }
}

/// Ends with the first SIGINT, SIGTERM or SIGHUP.
fn stop_requested() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn next_commands(mesh: &Mesh) -> String {
    let node = mesh.nodes.first().map_or("NODE", |node| node.name.as_str());
    format!(
        "\nThe mesh stays up until Ctrl-C. In another terminal:\n\
         \x20 culvert zc all --node {node}                                    what a proxy knows\n\
         \x20 culvert zc workloads|services|policies|certificates|connections --node {node}\n\
         \x20 culvert zc log --level access=debug,info                        a proxy's log level\n\
         \x20 culvert demo exec sleep -- curl http://productpage:9080/        (or: culvert demo get http://productpage:9080/)\n\
         \x20 culvert demo exec prod/client -- curl http://ledger.prod/       allowed by policy\n\
         \x20 culvert demo logs {node}                                        a proxy's log\n\
         \x20 culvert demo exec {node} -- curl localhost:15000/config_dump\n\
         \x20 culvert demo exec control -- curl localhost:15014/debug/syncz\n\
         The mesh is the YAML in {}: edit it and watch.",
        mesh.folder.join("mesh").display()
    )
}

/// The demo's folder `D/demo-PID`; gone when dropped.
#[derive(Debug)]
struct OwnFolder {
    folder: Option<Folder>,
    path: PathBuf,
}

impl OwnFolder {
    fn create() -> anyhow::Result<Self> {
        let base = runtime_folder();
        runtime::folders::remove_stale(&base, "demo-");
        let folder = Folder::open(base.join(format!("demo-{}", std::process::id())))?;
        Ok(Self { path: folder.path().to_owned(), folder: Some(folder) })
    }

    /// The mesh's YAML: a copy of one's own, to be edited while the demo runs.
    fn mesh(&self, given: Option<&Path>) -> anyhow::Result<PathBuf> {
        let folder = self.path.join("mesh");
        std::fs::create_dir_all(&folder)?;
        match given {
            None => {
                for (name, text) in BOOKINFO {
                    std::fs::write(folder.join(name), text)?;
                }
            }
            Some(given) => {
                let entries =
                    std::fs::read_dir(given).with_context(|| format!("reading {}", given.display()))?;
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_file() {
                        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
                    }
                }
            }
        }
        Ok(folder)
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed as stale by the next demo.
        let _ = self.folder.take().map(Folder::remove);
    }
}

async fn fetch_here(args: FetchArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for _ in 0..args.times {
        let fetched = fetch::get(&args.url).await;
        if args.json {
            let reply = match fetched {
                Ok(fetched) => Reply {
                    status: Some(fetched.status),
                    body: Some(String::from_utf8_lossy(&fetched.body).into_owned()),
                    error: None,
                },
                Err(error) => Reply { status: None, body: None, error: Some(format!("{error:#}")) },
            };
            writeln!(out, "{}", serde_json::to_string(&reply)?)?;
        } else {
            let fetched = fetched?;
            out.write_all(&fetched.body)?;
            if fetched.status >= 400 {
                anyhow::bail!("HTTP {}", fetched.status);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec_in(args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let demo = Register::choose(&runtime_folder(), args.which.demo)?;
    let member = demo.member(&args.target)?;
    Err(exec::exec(member.pid, &args.program))
}

fn get_from(args: GetArgs) -> anyhow::Result<ExitCode> {
    let demo = Register::choose(&runtime_folder(), args.which.demo)?;
    let member = demo.member(&args.from)?;
    let binary = std::env::current_exe().context("finding this program")?;
    let program = [binary.into(), "demo".into(), "fetch".into(), OsString::from(args.url)];
    Err(exec::exec(member.pid, &program))
}

fn logs(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let demo = Register::choose(&runtime_folder(), args.which.demo)?;
    let members = match &args.node {
        Some(node) => vec![demo.member(node)?],
        None => demo.nodes.iter().collect(),
    };
    let mut out = std::io::stdout();
    for member in members {
        let log = std::fs::read(&member.log).with_context(|| format!("reading {}", member.log.display()))?;
        out.write_all(&log)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let running = Register::running(&runtime_folder());
    if running.is_empty() {
        writeln!(out, "no demo runs here")?;
    }
    for demo in running {
        writeln!(out, "demo {} in {}", demo.pid, demo.folder.display())?;
        for member in std::iter::once(&demo.control).chain(&demo.nodes).chain(&demo.pods) {
            writeln!(out, "  {:40} {:15} process {}", member.name, member.address, member.pid)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_example_is_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bookinfo");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        let here: BTreeSet<String> = super::BOOKINFO.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(here, there);
    }
}
