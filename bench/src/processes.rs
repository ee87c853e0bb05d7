//! Processes: how they are started, what they cost according to `/proc`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// Ticks of `/proc/PID/stat` per second: part of Linux' interface to programs.
const TICKS: f64 = 100.0;

/// CPU time of all these processes until now, in user and kernel mode.
pub(crate) fn cpu_seconds(processes: &[u32]) -> anyhow::Result<f64> {
    processes.iter().map(|process| cpu_of(*process)).sum()
}

fn cpu_of(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} has ended"))?;
    ticks(&text)
        .map(|ticks| crate::load::count(ticks) / TICKS)
        .with_context(|| format!("/proc/{process}/stat is not as expected"))
}

/// `utime` plus `stime`; the name in parentheses may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Resident, with the pages of the program's file that it has touched.
    pub(crate) resident: u64,
    /// Resident and its own: heap and stacks.
    pub(crate) anonymous: u64,
    /// The most that was resident since [`reset_peak`].
    pub(crate) peak: u64,
}

pub(crate) fn memory(process: u32) -> anyhow::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} has ended"))?;
    Ok(Memory {
        resident: kilobytes(&text, "VmRSS:"),
        anonymous: kilobytes(&text, "RssAnon:"),
        peak: kilobytes(&text, "VmHWM:"),
    })
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// From now on the peak is counted anew.
pub(crate) fn reset_peak(process: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")
        .with_context(|| format!("resetting the peak memory of process {process}"))
}

/// Makes the program die with this process and see no input.
pub(crate) fn bind(mut command: std::process::Command) -> anyhow::Result<Command> {
    let placement = net::process::Placement { die_with_parent: true, ..Default::default() };
    net::process::place(&mut command, placement)?;
    command.stdin(Stdio::null());
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    Ok(command)
}

/// A program that serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Server {
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Kills it and waits for its end.
    pub(crate) async fn stop(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }

    /// Fails with its last words if it has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                anyhow::bail!("{} ended ({status}); its last words: {}", self.name, last_words(&self.log))
            }
        }
    }
}

/// The end of a log.
pub(crate) fn last_words(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Runs it to its end, within a limit, and gives what it printed.
pub(crate) async fn output(
    name: &str,
    mut command: Command,
    limit: std::time::Duration,
) -> anyhow::Result<String> {
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{name} did not end within {limit:?}"))?
        .with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str, path: Option<&str>) -> Option<std::path::PathBuf> {
    let folders = std::env::split_paths(OsStr::new(path.unwrap_or_default()));
    // Debian keeps servers where ordinary users do not look.
    folders
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a b) (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(kilobytes("VmHWM:\t  8 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), 12 * 1024);
    }
}
