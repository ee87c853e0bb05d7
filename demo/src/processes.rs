//! The demo's child processes: where they live, where they log, how they end.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use net::NetNamespace;
use net::process::{Placement, place};
use runtime::environment::Environment;
use tokio::process::{Child, Command};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A program to be started inside a namespace.
#[derive(Debug)]
pub(crate) struct Program {
    /// Name in messages.
    pub(crate) name: String,
    pub(crate) namespace: NetNamespace,
    /// Files shown over others: (file, path).
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) arguments: Vec<std::ffi::OsString>,
    /// The whole environment beside `PATH` and what concerns Rust's own logs.
    pub(crate) environment: Vec<(&'static str, std::ffi::OsString)>,
}

impl Program {
    /// The command that starts this very binary with the program's arguments.
    fn command(&self) -> anyhow::Result<Command> {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.args(&self.arguments).env_clear().stdin(Stdio::null());
        let inherited = Environment::of_process();
        for name in ["PATH", "RUST_BACKTRACE", "RUST_LOG"] {
            if let Some(value) = inherited.get(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let placement = Placement {
            namespace: Some(self.namespace.try_clone()?),
            files: self.files.clone(),
            die_with_parent: true,
        };
        place(&mut command, placement)?;
        Ok(Command::from(command))
    }

    /// Starts it; what it prints goes to `log`.
    pub(crate) fn start(self, log: PathBuf) -> anyhow::Result<Process> {
        let child = self.spawn(&log)?;
        Ok(Process { program: self, child, log })
    }

    fn spawn(&self, log: &Path) -> anyhow::Result<Child> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("creating {}", log.display()))?;
        self.command()?
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", self.name))
    }

    /// Runs it to its end and gives what it printed; a failure carries what it said.
    pub(crate) async fn output(&self) -> anyhow::Result<String> {
        let output = self.command()?.output().await.with_context(|| format!("starting {}", self.name))?;
        if !output.status.success() {
            bail!(
                "{} failed ({}): {}{}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", self.name))
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    child: Child,
    pub(crate) log: PathBuf,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Fails, with the end of its log, if it has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        bail!("{} ended ({status}); its last words:\n{}", self.program.name, last.join("\n"))
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Starts it again if it has ended, as a DaemonSet would; says so.
    pub(crate) fn revive(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = self.ended()? else { return Ok(None) };
        self.child = self.program.spawn(&self.log)?;
        Ok(Some(format!("{} ended ({status}) and was started again", self.program.name)))
    }

    /// Asks it to end, and ends it if it does not.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Arguments as they are passed on.
pub(crate) fn arguments<I: AsRef<OsStr>>(parts: impl IntoIterator<Item = I>) -> Vec<std::ffi::OsString> {
    parts.into_iter().map(|part| part.as_ref().to_owned()).collect()
}
