//! Tasks with parents.
//!
//! A [`TaskGroup`] owns what is spawned through it. A child that panics, fails, or is essential and ends early makes
//! the group fail; whoever waits in [`TaskGroup::failed`] or [`TaskGroup::join`] learns which one and why. A group's
//! failure is also its parent group's. Cancelling a group drops the futures of all its tasks, children included.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Why a group failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} of {group} {cause}")]
pub struct TaskFailure {
    /// The group it was spawned in.
    pub group: &'static str,
    /// The task's name.
    pub task: &'static str,
    /// What happened.
    pub cause: FailureCause,
}

impl TaskFailure {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self.cause {
            FailureCause::Panicked => "task-panicked",
            FailureCause::EndedEarly => "task-ended-early",
            FailureCause::Failed(_) => "task-failed",
        }
    }
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    /// It panicked; the message is in the log.
    #[error("panicked")]
    Panicked,
    /// It was essential and ended before the group was cancelled.
    #[error("ended early")]
    EndedEarly,
    /// It returned this error.
    #[error("failed: {0}")]
    Failed(String),
}

/// Owner of tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskGroup {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    tracker: TaskTracker,
    cancelled: CancellationToken,
    failure: Mutex<Option<TaskFailure>>,
    changed: Notify,
    parent: Option<TaskGroup>,
    /// Tasks of this group and of all groups inside the same outermost one.
    alive: Arc<AtomicUsize>,
}

impl TaskGroup {
    /// A group without parent: a program has one.
    pub fn new(name: &'static str) -> Self {
        Self::with(name, CancellationToken::new(), None)
    }

    /// A group inside this one: cancelled with it, failing into it.
    pub fn child(&self, name: &'static str) -> Self {
        Self::with(name, self.shared.cancelled.child_token(), Some(self.clone()))
    }

    fn with(name: &'static str, cancelled: CancellationToken, parent: Option<Self>) -> Self {
        let (tracker, failure, changed) = (TaskTracker::new(), Mutex::new(None), Notify::new());
        let alive = parent.as_ref().map(|parent| Arc::clone(&parent.shared.alive)).unwrap_or_default();
        Self { shared: Arc::new(Shared { name, tracker, cancelled, failure, changed, parent, alive }) }
    }

    /// Spawns a task that may end at any time.
    pub fn spawn<F>(&self, task: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watched = self.watched(task, future);
        self.shared.tracker.spawn(watched).abort_handle()
    }

    /// Spawns a `!Send` task that may end at any time; needs a `LocalSet` around it.
    pub fn spawn_local<F>(&self, task: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + 'static,
    {
        let watched = self.watched(task, future);
        self.shared.tracker.spawn_local(watched).abort_handle()
    }

    /// Spawns a `!Send` task that whoever holds the handle ends, by aborting it: cancelling the group does not. There may
    /// be many of them, each small: the future keeps its [`Place`] in the group where it keeps the rest, and lets it go
    /// last of all as it is dropped. Needs a `LocalSet` around it.
    pub fn spawn_local_of_owner<F>(&self, task: &'static str, future: impl FnOnce(Place) -> F) -> AbortHandle
    where
        F: Future<Output = ()> + 'static,
    {
        let place = Place { _token: self.shared.tracker.token(), _watcher: self.watcher(task) };
        #[expect(clippy::disallowed_methods, reason = "the place makes it a task of this group")]
        tokio::task::spawn_local(future(place)).abort_handle()
    }

    /// Spawns a task whose error makes the group fail.
    pub fn spawn_fallible<F, E>(&self, task: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let group = self.clone();
        self.spawn(task, async move {
            if let Err(error) = future.await {
                group.fail(task, FailureCause::Failed(error.to_string()));
            }
        })
    }

    /// Spawns a task that must run until the group is cancelled: its end makes the group fail.
    pub fn spawn_essential<F>(&self, task: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let group = self.clone();
        self.spawn(task, async move {
            future.await;
            group.fail(task, FailureCause::EndedEarly);
        })
    }

    fn watched<F: Future<Output = ()>>(
        &self,
        task: &'static str,
        future: F,
    ) -> impl Future<Output = ()> + use<F> {
        let future = future.with_cancellation_token_owned(self.shared.cancelled.clone());
        Watched { future, _watcher: self.watcher(task) }
    }

    fn watcher(&self, task: &'static str) -> Watcher {
        self.shared.alive.fetch_add(1, Ordering::Relaxed);
        Watcher { group: self.clone(), task }
    }

    /// Records a failure (the first one counts) and tells the parents.
    pub fn fail(&self, task: &'static str, cause: FailureCause) {
        let failure = TaskFailure { group: self.shared.name, task, cause };
        let mut group = Some(self);
        while let Some(this) = group {
            this.shared.failure.lock().get_or_insert_with(|| failure.clone());
            this.shared.changed.notify_waiters();
            group = this.shared.parent.as_ref();
        }
    }

    /// The failure so far.
    pub fn failure(&self) -> Option<TaskFailure> {
        self.shared.failure.lock().clone()
    }

    /// Waits for the first failure.
    pub async fn failed(&self) -> TaskFailure {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(failure) = self.failure() {
                return failure;
            }
            changed.await;
        }
    }

    /// Drops the futures of all tasks, those of child groups too.
    pub fn cancel(&self) {
        self.shared.cancelled.cancel();
    }

    /// Resolves when the group is cancelled.
    pub async fn cancelled(&self) {
        self.shared.cancelled.cancelled().await;
    }

    /// How many tasks of this very group are running.
    pub fn n_running(&self) -> usize {
        self.shared.tracker.len()
    }

    /// How many tasks are running in the whole tree of groups that this one belongs to.
    pub fn n_alive(&self) -> usize {
        self.shared.alive.load(Ordering::Relaxed)
    }

    /// Waits until every task of this group has ended; the first failure, if any. Spawning after it is still allowed.
    pub async fn join(&self) -> Result<(), TaskFailure> {
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
        self.shared.tracker.reopen();
        self.failure().map_or(Ok(()), Err)
    }
}

pin_project! {
    /// A task with its watcher. An `async` block around the task would hold it twice: as it was given, and as it runs.
    struct Watched<F> {
        #[pin]
        future: F,
        _watcher: Watcher,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(context).map(|_| ())
    }
}

/// The place of one task in its group: while it lives the group takes the task for running, and a panic that drops it
/// for the task's.
#[derive(Debug)]
pub struct Place {
    _watcher: Watcher,
    _token: TaskTrackerToken,
}

/// Lives as long as a task; notices a panic and the end.
#[derive(Debug)]
struct Watcher {
    group: TaskGroup,
    task: &'static str,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.group.shared.alive.fetch_sub(1, Ordering::Relaxed);
        if thread::panicking() {
            self.group.fail(self.task, FailureCause::Panicked);
        }
    }
}

#[cfg(test)]
mod tests;
