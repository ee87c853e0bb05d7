//! Memory: idle connections, the peak of many bulk streams, what is given back after a burst.
//!
//! Of a pair the larger process counts. Resident memory includes the pages of the program's file that were touched.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::load::count;
use crate::peers::Peer;
use crate::processes::{Memory, memory, reset_peak};
use crate::report::{Report, Single};
use crate::rows::Load;
use crate::say;
use crate::systems::Systems;

const MIB: f64 = 1024.0 * 1024.0;
/// What the product may have: resident when idle, per idle connection, with 64 bulk streams, after a burst.
const IDLE_MIB: f64 = 6.0;
const PER_CONNECTION_KIB: f64 = 1.5;
const BULK_MIB: f64 = 16.0;
const AFTER_BURST: f64 = 1.2;
/// How long opening a step of idle connections may take.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Between the start or the last echo and the looks at the memory, and before a burst: whoever gives back what it does not
/// need gets the time for it, in every row.
const REST: Duration = Duration::from_secs(12);
/// Memory comes and goes with what a process does now and then, so it is looked at this often, and the mean is told.
const LOOKS: u8 = 10;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What each of these systems has in memory on average over some seconds; of a pair, by the larger one at each look.
async fn settled(systems: &Systems, peers: &[Peer]) -> BTreeMap<Peer, anyhow::Result<Memory>> {
    let mut sums: BTreeMap<Peer, anyhow::Result<Memory>> = BTreeMap::new();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK).await;
        }
        for peer in peers {
            let sum = sums.entry(*peer).or_insert_with(|| Ok(Memory::default()));
            match (&mut *sum, largest(systems, *peer)) {
                (Ok(sum), Ok(now)) => {
                    sum.resident += now.resident;
                    sum.anonymous += now.anonymous;
                    sum.peak = sum.peak.max(now.peak);
                }
                (Ok(_), Err(error)) => *sum = Err(error),
                (Err(_), _) => {}
            }
        }
    }
    for sum in sums.values_mut().flatten() {
        sum.resident /= u64::from(LOOKS);
        sum.anonymous /= u64::from(LOOKS);
    }
    sums
}

/// The same of one system.
async fn settled_one(systems: &Systems, peer: Peer) -> anyhow::Result<Memory> {
    settled(systems, &[peer]).await.remove(&peer).context("no system was looked at")?
}

/// The larger one of a system's processes.
fn largest(systems: &Systems, peer: Peer) -> anyhow::Result<Memory> {
    let mut largest = Memory::default();
    for process in systems.processes(peer) {
        let own = memory(process)?;
        largest.resident = largest.resident.max(own.resident);
        largest.anonymous = largest.anonymous.max(own.anonymous);
        largest.peak = largest.peak.max(own.peak);
    }
    Ok(largest)
}

fn mib(bytes: u64) -> f64 {
    count(bytes) / MIB
}

fn single(name: &str, unit: &'static str, at_most: Option<f64>) -> Single {
    Single { name: name.to_owned(), unit, values: BTreeMap::new(), at_most }
}

/// Idle memory of processes that have just started, then with more and more connections.
pub(crate) async fn idle(systems: &Systems, peers: &[Peer], steps: &[usize], report: &mut Report) {
    let mut rows = vec![
        single("idle, 0 connections", "MiB", Some(IDLE_MIB)),
        single("of that heap and stacks", "MiB", None),
    ];
    rows.extend(steps.iter().map(|step| {
        let most = IDLE_MIB + count(u64::try_from(*step).unwrap_or_default()) * PER_CONNECTION_KIB / 1024.0;
        single(&format!("idle, {step} connections"), "MiB", Some(most))
    }));
    rows.push(single("per idle connection", "KiB", Some(PER_CONNECTION_KIB)));
    for peer in peers.iter().copied().filter(|peer| *peer != Peer::Direct) {
        say(&format!("  idle: {}", peer.title()));
        match idle_of(systems, peer, steps).await {
            Ok(values) => {
                for (row, value) in rows.iter_mut().zip(values) {
                    match value {
                        Some(value) => drop(row.values.insert(peer, value)),
                        None => report.missing.push(format!(
                            "{}, {}: it needs more descriptors",
                            row.name,
                            peer.title()
                        )),
                    }
                }
            }
            Err(error) => report.failures.push(format!("idle, {}: {error:#}", peer.title())),
        }
    }
    report.singles.append(&mut rows);
}

/// The figures in the order of the rows; nothing where a step does not fit.
async fn idle_of(systems: &Systems, peer: Peer, steps: &[usize]) -> anyhow::Result<Vec<Option<f64>>> {
    tokio::time::sleep(REST).await;
    let start = settled_one(systems, peer).await?;
    let mut values = vec![Some(mib(start.resident)), Some(mib(start.anonymous))];
    let (pod, to) = systems.world.way(peer, false);
    // What fits is opened even where a step does not: it still tells the price of one connection.
    let fitting: Vec<usize> = steps.iter().map(|step| (*step).min(peer.most_connections())).collect();
    let list: Vec<String> = fitting.iter().map(usize::to_string).collect();
    let mut command =
        systems.world.bench_in(pod, ["load", "idle", &to.to_string(), "--steps", &list.join(",")])?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the load")?;
    let mut input = child.stdin.take().context("the load's input")?;
    let mut lines = BufReader::new(child.stdout.take().context("the load's output")?).lines();
    let mut seen = Vec::new();
    for (step, wanted) in fitting.iter().zip(steps) {
        let line = tokio::time::timeout(OPEN_LIMIT, lines.next_line())
            .await
            .with_context(|| format!("{step} connections were not open after {OPEN_LIMIT:?}"))??;
        anyhow::ensure!(line.is_some(), "{step} connections could not be opened");
        tokio::time::sleep(REST).await;
        let resident = settled_one(systems, peer).await?.resident;
        values.push((step == wanted).then(|| mib(resident)));
        seen.push((*step, resident));
        input.write_all(b"\n").await?;
    }
    child.wait().await?;
    if let [.., (fewer, less), (more, most)] = seen.as_slice() {
        let n = count(u64::try_from(more.saturating_sub(*fewer)).unwrap_or(1)).max(1.0);
        values.push(Some(count(most.saturating_sub(*less)) / 1024.0 / n));
    }
    Ok(values)
}

/// The peak with 64 bulk streams, then a burst of everything; what is left after `rest`.
pub(crate) async fn burst(systems: &mut Systems, peers: &[Peer], rest: Duration, report: &mut Report) {
    let mut peak = single("peak, 64 bulk streams", "MiB", Some(BULK_MIB));
    let name = format!("resident {} s after a burst", rest.as_secs());
    let mut after = single(&name, "× before", Some(AFTER_BURST));
    let mut before = BTreeMap::new();
    for peer in peers.iter().copied().filter(|peer| *peer != Peer::Direct) {
        say(&format!("  burst: {}", peer.title()));
        match burst_of(systems, peer).await {
            Ok((own_peak, start)) => {
                peak.values.insert(peer, own_peak);
                before.insert(peer, start);
            }
            Err(error) => report.failures.push(format!("burst, {}: {error:#}", peer.title())),
        }
    }
    say(&format!("  resting {} s", rest.as_secs()));
    tokio::time::sleep(rest).await;
    let looked_at: Vec<Peer> = before.keys().copied().collect();
    for (peer, now) in settled(systems, &looked_at).await {
        match (now, before.get(&peer)) {
            (Ok(now), Some(start)) => {
                after.values.insert(peer, mib(now.resident) / start);
            }
            (Ok(_), None) => {}
            (Err(error), _) => report.failures.push(format!("after the burst, {}: {error:#}", peer.title())),
        }
    }
    report.singles.extend([peak, after]);
}

async fn burst_of(systems: &mut Systems, peer: Peer) -> anyhow::Result<(f64, f64)> {
    tokio::time::sleep(REST).await;
    let start = mib(settled_one(systems, peer).await?.resident);
    for process in systems.processes(peer) {
        reset_peak(process)?;
    }
    systems.run(peer, false, Load::Upload { streams: 64 }, 1.0).await?;
    systems.run(peer, false, Load::Download { streams: 64 }, 1.0).await?;
    let peak = mib(largest(systems, peer)?.peak);
    systems.run(peer, false, Load::PingPong { size: 16_384, connections: 1000 }, 1.0).await?;
    Ok((peak, start))
}
