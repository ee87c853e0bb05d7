//! Notices that files may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::FileSourceConfig;

/// Editors and volume updates touch several files: wait until they are done, but not for ever.
const QUIET: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(1);
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
}

impl Watch {
    pub(super) fn start(config: &FileSourceConfig) -> Self {
        let (announce, changes) = mpsc::channel(1);
        let watcher = watch(config, announce)
            .inspect_err(|error| {
                tracing::warn!(folder = %config.folder.display(), %error, "folder cannot be watched and is read at intervals");
            })
            .ok();
        Self { watcher, changes }
    }

    /// Waits until something may have changed and has been quiet for a moment. Cancel safe:
    /// an announcement that is taken and lost is made up for by the next recheck.
    pub(crate) async fn changed(&mut self) {
        let interval = if self.watcher.is_some() { RECHECK } else { POLL };
        match timeout(interval, self.changes.recv()).await {
            Ok(Some(())) => self.settle().await,
            Ok(None) => tokio::time::sleep(interval).await,
            Err(_) => {}
        }
    }

    async fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                // Both branches only wait; neither loses anything when dropped.
                more = timeout(QUIET, self.changes.recv()) => {
                    if !matches!(more, Ok(Some(()))) {
                        return;
                    }
                }
                () = sleep_until(deadline) => return,
            }
        }
    }
}

fn watch(config: &FileSourceConfig, announce: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_)));
        if relevant {
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
