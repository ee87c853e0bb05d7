//! Asking for one key and waiting until its answer has been applied.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Demands that may queue; when full, the asking side waits within its own limit.
const QUEUE: usize = 100;
/// Waiters held at once; past this a demand is refused.
const WAITERS: usize = 16_384;
/// How long to wait again for a key this stream has already called absent.
const REPEATED: Duration = Duration::from_millis(250);

/// What became of a demanded key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It exists and has been applied (or refused, in which case it is still not there).
    Present,
    /// The server says it does not exist.
    Absent,
}

/// Why a demand has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DemandError {
    /// No answer within the limit.
    #[error("no answer to an on-demand lookup within the limit")]
    TimedOut,
    /// Too many lookups wait, or the client has stopped.
    #[error("on-demand lookup refused: the discovery client is overloaded or stopped")]
    Refused,
}

impl DemandError {
    /// A stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TimedOut => "xds-demand-timeout",
            Self::Refused => "xds-demand-refused",
        }
    }
}

/// Asks for keys, from any thread.
#[derive(Clone, Debug)]
pub struct Demand {
    queue: mpsc::Sender<Asked>,
}

/// Where the client takes demands from.
#[derive(Debug)]
pub struct Demands {
    queue: mpsc::Receiver<Asked>,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) waiter: Waiter,
}

#[derive(Debug)]
pub(super) struct Waiter {
    deadline: Instant,
    done: oneshot::Sender<Answer>,
}

/// The two ends of the demand queue.
#[must_use]
pub fn demands() -> (Demand, Demands) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Demand { queue: sender }, Demands { queue: receiver })
}

impl Demand {
    /// Asks for `key` and returns once its answer has been applied.
    ///
    /// # Errors
    /// When no answer comes within `limit`, or the client cannot take the demand.
    pub async fn wait(&self, key: &str, limit: Duration) -> Result<Answer, DemandError> {
        let deadline = Instant::now() + limit;
        let (done, answer) = oneshot::channel();
        let asked = Asked { key: key.to_owned(), waiter: Waiter { deadline, done } };
        match timeout_at(deadline, self.queue.send(asked)).await {
            Ok(Ok(())) => {}
            Ok(Err(_stopped)) => return Err(DemandError::Refused),
            Err(_elapsed) => return Err(DemandError::TimedOut),
        }
        match timeout_at(deadline, answer).await {
            // Both sides watch the same deadline; whoever is first lets go.
            Ok(Err(_dropped)) if Instant::now() >= deadline => Err(DemandError::TimedOut),
            Ok(answer) => answer.map_err(|_dropped| DemandError::Refused),
            Err(_elapsed) => Err(DemandError::TimedOut),
        }
    }
}

impl Demands {
    pub(super) async fn next(&mut self) -> Option<Asked> {
        self.queue.recv().await
    }
}

/// Who waits for which key, and until when.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_key: HashMap<String, Vec<Waiter>>,
    deadlines: BTreeSet<(Instant, String)>,
    count: usize,
}

impl Waiting {
    /// Adds a waiter; `false` when there are too many or it has already given up.
    pub(super) fn add(&mut self, asked: Asked, known_absent: bool) -> bool {
        let Asked { key, mut waiter } = asked;
        if self.count >= WAITERS || waiter.done.is_closed() {
            return false;
        }
        if known_absent {
            waiter.deadline = waiter.deadline.min(Instant::now() + REPEATED);
        }
        self.deadlines.insert((waiter.deadline, key.clone()));
        self.by_key.entry(key).or_default().push(waiter);
        self.count += 1;
        true
    }

    /// Wakes everybody who waits for `key`.
    pub(super) fn wake(&mut self, key: &str, answer: Answer) {
        for waiter in self.by_key.remove(key).unwrap_or_default() {
            self.count -= 1;
            self.deadlines.remove(&(waiter.deadline, key.to_owned()));
            // The waiter may have given up meanwhile.
            _ = waiter.done.send(answer);
        }
    }

    /// The next moment at which somebody's patience ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Lets go of everybody whose time is up; gives the keys nobody waits for any more.
    pub(super) fn expire(&mut self, now: Instant, known_absent: impl Fn(&str) -> bool) -> Vec<String> {
        let mut abandoned = Vec::new();
        while let Some((_, key)) = self.deadlines.pop_first_if(|(deadline, _)| *deadline <= now) {
            let Some(waiters) = self.by_key.get_mut(&key) else { continue };
            let (late, patient): (Vec<_>, Vec<_>) =
                std::mem::take(waiters).into_iter().partition(|waiter| waiter.deadline <= now);
            *waiters = patient;
            self.count -= late.len();
            if known_absent(&key) {
                for waiter in late {
                    _ = waiter.done.send(Answer::Absent);
                }
            }
            if self.by_key.get(&key).is_some_and(Vec::is_empty) {
                self.by_key.remove(&key);
                abandoned.push(key);
            }
        }
        abandoned
    }
}

/// `BTreeSet::pop_first` with a condition.
trait PopFirstIf<T> {
    fn pop_first_if(&mut self, condition: impl Fn(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, condition: impl Fn(&T) -> bool) -> Option<T> {
        if self.first().is_some_and(condition) { self.pop_first() } else { None }
    }
}
