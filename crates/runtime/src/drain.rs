//! Stopping in three stages, the same for the process, a server and one pod.
//!
//! 1. **Draining** begins: accept loops end, tunnels send GOAWAY ([`Drain::draining`]).
//! 2. Those who hold a [`Guard`] finish what they do.
//! 3. At the deadline what is left is **cut** ([`Drain::cut`]).
//!
//! Drains nest: a [`Drain::child`] starts and is cut with its parent, a child's guards hold the parent too, and a child
//! can be drained alone.
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long guards get to notice a cut.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// The watching side; handed down to everything that must stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    draining: CancellationToken,
    cut: CancellationToken,
    /// The guards of this drain.
    own: TaskTracker,
    /// Those of the parents, the nearest first.
    outer: Vec<TaskTracker>,
}

/// The starting side.
#[derive(Debug)]
pub struct Trigger {
    drain: Drain,
}

/// Held as long as a connection (or anything else worth finishing) lives.
#[derive(Debug)]
pub struct Guard {
    /// The drain's own and its parent's; few drains are nested deeper, so a guard has no memory of its own.
    _tokens: (TaskTrackerToken, Option<TaskTrackerToken>),
    _further: Option<Box<Self>>,
}

impl Guard {
    fn of(own: &TaskTracker, outer: &[TaskTracker]) -> Self {
        let (parent, outer) = outer.split_first().unzip();
        let further = outer.and_then(<[_]>::split_first);
        Self {
            _tokens: (own.token(), parent.map(TaskTracker::token)),
            _further: further.map(|(own, outer)| Box::new(Self::of(own, outer))),
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every guard was released in time.
    Drained,
    /// The deadline came first.
    Expired {
        /// Guards still held at the deadline.
        n_pending: usize,
    },
}

impl Drain {
    /// A drain without parent.
    pub fn new() -> (Trigger, Self) {
        let drain = Self {
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            own: TaskTracker::new(),
            outer: Vec::new(),
        };
        (Trigger { drain: drain.clone() }, drain)
    }

    /// A drain inside this one.
    pub fn child(&self) -> (Trigger, Self) {
        let outer = std::iter::once(&self.own).chain(&self.outer).cloned().collect();
        let (draining, cut) = (self.draining.child_token(), self.cut.child_token());
        let drain = Self { draining, cut, own: TaskTracker::new(), outer };
        (Trigger { drain: drain.clone() }, drain)
    }

    /// Resolves when draining begins: accept no more, tell peers.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves at the deadline: let go at once.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Whether the deadline has passed.
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Keeps this drain, and those around it, waiting until dropped.
    pub fn guard(&self) -> Guard {
        Guard::of(&self.own, &self.outer)
    }

    /// How many guards are held.
    pub fn n_guards(&self) -> usize {
        self.own.len()
    }

    async fn released(&self) {
        self.own.close();
        self.own.wait().await;
    }
}

impl Trigger {
    /// Begins draining, without waiting.
    pub fn start(&self) {
        self.drain.draining.cancel();
    }

    /// Begins draining, waits for the guards until the deadline, then cuts and gives them a moment to let go.
    /// With a zero deadline everything is cut at once.
    pub async fn drain(self, deadline: Duration) -> Outcome {
        self.start();
        if tokio::time::timeout(deadline, self.drain.released()).await.is_ok() {
            self.drain.cut.cancel();
            return Outcome::Drained;
        }
        let n_pending = self.drain.n_guards();
        self.drain.cut.cancel();
        let _ = tokio::time::timeout(CUT_GRACE, self.drain.released()).await;
        Outcome::Expired { n_pending }
    }

    /// The watching side.
    pub fn watch(&self) -> Drain {
        self.drain.clone()
    }
}

#[cfg(test)]
mod tests;
