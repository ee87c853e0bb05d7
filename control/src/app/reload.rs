//! Takes over what changes in the source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use runtime::clock::Clock;
use runtime::drain::Drain;
use tokio::sync::watch;

use super::timestamp;
use crate::catalog::Catalog;
use crate::debug::SourceState;
use crate::metrics::Metrics;
use crate::sources::files::Watch;
use crate::sources::{FileSource, Problem, Snapshot};
use crate::translate::{Records, Switches, translate};

/// Reads the source again when it changes, and publishes what comes of it.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) source: FileSource,
    /// Started before the world is served, so that no change falls between.
    pub(super) watch: Watch,
    pub(super) switches: Switches,
    /// The authority's, which takes up another only when it is started again: records name no other meanwhile.
    pub(super) trust_domain: String,
    /// Dropping it ends every stream.
    pub(super) worlds: watch::Sender<Arc<Catalog>>,
    pub(super) state: Arc<Mutex<SourceState>>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
}

/// What reading and translating gave, off the runtime's threads.
struct Reloaded {
    snapshot: Snapshot,
    records: Records,
    /// The trust domain that the source asks for.
    wanted: String,
}

impl Reloader {
    /// Until draining begins. Between two pushes there is at least `quiet`; the first of a series goes at once.
    pub(super) async fn run(self, quiet: Duration, drain: Drain) {
        let Self { source, mut watch, switches, trust_domain, worlds, state, metrics, clock } = self;
        let source = Arc::new(Mutex::new(source));
        let switches = Arc::new(switches);
        let mut wanted = trust_domain.clone();
        let mut is_first = true;
        loop {
            // The first time at once: something may have changed between reading and watching.
            if !std::mem::take(&mut is_first) {
                // Both are cancel safe; a change that is lost here does not matter any more.
                tokio::select! {
                    biased;
                    () = drain.draining() => return,
                    () = watch.changed() => {}
                }
            }
            let started = tokio::time::Instant::now();
            let now = timestamp(&clock);
            let (reading, switches, in_use) =
                (Arc::clone(&source), Arc::clone(&switches), trust_domain.clone());
            let reloaded =
                tokio::task::spawn_blocking(move || read(&mut reading.lock(), &switches, in_use, now)).await;
            let reloaded = match reloaded {
                Ok(Some(reloaded)) => reloaded,
                Ok(None) => continue,
                Err(error) => {
                    // One object that we cannot cope with must not take the mesh down.
                    tracing::error!(target: "control", code = "control-reload-failed", %error, "keeping the last good state");
                    continue;
                }
            };
            metrics.reloaded(reloaded.snapshot.problems.len(), clock.wall());
            {
                let mut state = state.lock();
                log_problems(&state.problems, &reloaded.snapshot.problems);
                if wanted != reloaded.wanted {
                    wanted.clone_from(&reloaded.wanted);
                    tracing::warn!(
                        target: "control", wanted, in_use = trust_domain, "another trust domain is taken up at the next start"
                    );
                }
                log_ignored(&state.ignored_kinds, &reloaded.snapshot.ignored_kinds);
                let Snapshot { problems, mesh, ignored_kinds, .. } = reloaded.snapshot;
                *state = SourceState { problems, mesh, ignored_kinds };
            }
            log_remarks(&reloaded.records);
            let next = Arc::new(worlds.borrow().next(Arc::new(reloaded.records), now));
            let changes = next.changes().map_or(0, |changes| changes.by_type.values().map(Vec::len).sum());
            // Published even without changes to records: who runs where may have changed.
            worlds.send_replace(next);
            if changes > 0 {
                metrics.published(started.elapsed());
                tracing::info!(target: "control", changes, took = ?started.elapsed(), "the mesh has changed");
            }
            tokio::select! {
                biased;
                () = drain.draining() => return,
                () = tokio::time::sleep(quiet) => {}
            }
        }
    }
}

fn read(
    source: &mut FileSource,
    switches: &Switches,
    trust_domain: String,
    now: Timestamp,
) -> Option<Reloaded> {
    let mut snapshot = source.reload(now)?;
    let wanted = std::mem::replace(&mut snapshot.mesh.trust_domain, trust_domain);
    let records = translate(&snapshot.objects, &snapshot.mesh, switches);
    Some(Reloaded { snapshot, records, wanted })
}

/// Each problem once, when it appears, and once when it is gone.
fn log_problems(before: &[Problem], after: &[Problem]) {
    for problem in after.iter().filter(|problem| !before.contains(problem)) {
        tracing::error!(target: "control", code = problem.code(), %problem, "refused; the last good version stays in use");
    }
    if after.is_empty() && !before.is_empty() {
        tracing::info!(target: "control", "the source has no problems any more");
    }
}

/// Each kind that means nothing here, when it appears: a misspelt one would otherwise go without a word.
pub(super) fn log_ignored(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) {
    for (kind, n_objects) in after.iter().filter(|(kind, _)| !before.contains_key(*kind)) {
        tracing::info!(
            target: "control", code = "source-ignored-kind", kind, n_objects, "objects of this kind mean nothing here"
        );
    }
}

/// What has no effect, and why.
pub(super) fn log_remarks(records: &Records) {
    for remark in &records.remarks {
        tracing::warn!(target: "control", code = remark.code, object = %remark.object, "{}", remark.message);
    }
}
