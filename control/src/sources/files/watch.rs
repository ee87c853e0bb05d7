//! Notices that files may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{FileSourceConfig, is_manifest};

/// Editors and volume updates touch several files: wait until they are done, but not for ever.
const QUIET: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(1);
/// Half a file can be half a mesh: one that is being written is read when its writer closes it, or this much later.
const LONGEST_WRITE: Duration = Duration::from_secs(30);
/// Whatever a watch misses (network file systems, a link above the folder) is found this much later.
const RECHECK: Duration = Duration::from_secs(30);
/// Without a watch this is all there is.
const POLL: Duration = Duration::from_secs(2);

/// Announces that files may have changed.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Kept for its destructor, which ends the watch.
    watcher: Option<RecommendedWatcher>,
    /// Holds at most one announcement: a second one says nothing new and is dropped.
    changes: mpsc::Receiver<()>,
    writing: Writing,
}

/// Manifests that were changed and not closed since.
type Writing = Arc<Mutex<BTreeSet<PathBuf>>>;

impl Watch {
    pub(super) fn start(config: &FileSourceConfig) -> Self {
        let (announce, changes) = mpsc::channel(1);
        let writing = Writing::default();
        let watcher = watch(config, announce, Arc::clone(&writing))
            .inspect_err(|error| {
                tracing::warn!(folder = %config.folder.display(), %error, "folder cannot be watched and is read at intervals");
            })
            .ok();
        Self { watcher, changes, writing }
    }

    /// Waits until something may have changed and has been quiet for a moment. Cancel safe:
    /// an announcement that is taken and lost is made up for by the next recheck.
    pub(crate) async fn changed(&mut self) {
        let interval = if self.watcher.is_some() { RECHECK } else { POLL };
        match timeout(interval, self.changes.recv()).await {
            Ok(Some(())) => self.settle().await,
            Ok(None) => tokio::time::sleep(interval).await,
            Err(_) => self.settle().await,
        }
    }

    async fn settle(&mut self) {
        let begun = Instant::now();
        loop {
            let is_writing = !self.writing.lock().is_empty();
            let (quiet, patience) =
                if is_writing { (LONGEST_WRITE, LONGEST_WRITE) } else { (QUIET, PATIENCE) };
            let is_over = tokio::select! {
                // Both branches only wait; neither loses anything when dropped.
                more = timeout(quiet, self.changes.recv()) => !matches!(more, Ok(Some(()))),
                () = sleep_until(begun + patience) => true,
            };
            if is_over {
                if is_writing {
                    // Who still writes is heard again. Whose end was missed must not delay every later change.
                    self.writing.lock().clear();
                }
                return;
            }
        }
    }
}

fn watch(
    config: &FileSourceConfig,
    announce: mpsc::Sender<()>,
    writing: Writing,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_news(&event, &writing)) {
            // Full: a change is announced already.
            let _ = announce.try_send(());
        }
    })?;
    watcher.watch(&config.folder, RecursiveMode::Recursive)?;
    if let Some(folder) = config.mesh_config.as_deref().and_then(Path::parent) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Keeps the books of who writes; whether anything may have changed.
fn is_news(event: &Event, writing: &Mutex<BTreeSet<PathBuf>>) -> bool {
    let mut writing = writing.lock();
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => {
            writing.extend(event.paths.iter().filter(|path| is_manifest(path)).cloned());
            true
        }
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => {
            event.paths.iter().for_each(|path| _ = writing.remove(path));
            true
        }
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file cut short by its path, or a queue that ran over: changed, and never closed.
    #[tokio::test(start_paused = true)]
    async fn a_close_that_was_missed_delays_one_reading_only() {
        let (announce, changes) = mpsc::channel(1);
        let writing = Writing::default();
        writing.lock().insert("a.yaml".into());
        let mut watch = Watch { watcher: None, changes, writing };
        let mut delays = Vec::new();
        for _ in 0..2 {
            announce.try_send(()).expect("room");
            let begun = Instant::now();
            watch.changed().await;
            delays.push(begun.elapsed());
        }
        assert!(delays[0] >= LONGEST_WRITE && delays[1] < PATIENCE, "{delays:?}");
    }
}
