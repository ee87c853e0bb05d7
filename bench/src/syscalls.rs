//! System calls per operation, counted by `perf stat` while a load runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::load::{Outcome, count};
use crate::peers::Peer;
use crate::processes::{bind, output};
use crate::report::{Report, Single};
use crate::rows::Load;
use crate::say;
use crate::systems::Systems;

const LIMIT: Duration = Duration::from_secs(45);

/// Three loads on every system.
pub(crate) async fn count_all(
    systems: &Systems,
    perf: &Path,
    peers: &[Peer],
    seconds: f64,
    folder: &Path,
    report: &mut Report,
) {
    for (name, unit, load) in [
        ("system calls, bulk up, 1", "per MB", Load::Upload { streams: 1 }),
        ("system calls, bulk up, 64", "per MB", Load::Upload { streams: 64 }),
        ("system calls, ping-pong 64 B, 16", "per request", Load::PingPong { size: 64, connections: 16 }),
        ("system calls, connect + request, 16", "per connection", Load::Connect { connections: 16 }),
    ] {
        say(&format!("  {name}"));
        let mut values = BTreeMap::new();
        for peer in peers.iter().copied().filter(|peer| *peer != Peer::Direct) {
            match count_one(systems, perf, peer, load, seconds, folder).await {
                Ok(value) => {
                    values.insert(peer, value);
                }
                Err(error) => report.missing.push(format!("{name}, {}: {error:#}", peer.title())),
            }
        }
        report.singles.push(Single { name: name.to_owned(), unit, values, at_most: None });
    }
}

async fn count_one(
    systems: &Systems,
    perf: &Path,
    peer: Peer,
    load: Load,
    seconds: f64,
    folder: &Path,
) -> anyhow::Result<f64> {
    let counted = folder.join("perf");
    let inner = systems.load(peer, false, load, seconds)?;
    let mut command = std::process::Command::new(perf);
    let processes: Vec<String> = systems.processes(peer).iter().map(u32::to_string).collect();
    command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &processes.join(","), "-o"]);
    command.arg(&counted).arg("--").arg(inner.as_std().get_program()).args(inner.as_std().get_args());
    let printed = output("perf stat", bind(command)?, LIMIT).await?;
    let outcome: Outcome = serde_json::from_str(&printed).context("what the load printed")?;
    let text = std::fs::read_to_string(&counted)?;
    let n_calls = calls(&text).with_context(|| format!("perf counted nothing: {text:?}"))?;
    let amount = count(outcome.amount_in_all) / if load.is_bulk() { 1e6 } else { 1.0 };
    anyhow::ensure!(amount > 0.0, "nothing was transferred");
    Ok(count(n_calls) / amount)
}

/// The count in `perf stat -x,`.
fn calls(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_count_is_read() {
        let text = "# started on Tue\n\n4213,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(super::calls(text), Some(4213));
        assert_eq!(super::calls("<not supported>,,raw_syscalls:sys_enter"), None);
    }
}
