//! An answer that nobody waits for yet shares its record with what the application says first.

use std::time::{Duration, Instant};

use super::{State, now};
use crate::core::Core;

/// How long an answer waits for what the application says first.
const HOLD: Duration = Duration::from_millis(1);

/// Output that nobody waits for yet: it leaves with what comes next, or after a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    /// Octets of output. When there are more, all of them leave.
    length: usize,
    until: Instant,
}

impl State {
    /// Has the answer that `answer` puts into the output wait for what the application says first, if nothing else is in
    /// the output that should leave at once.
    pub(crate) fn hold(&mut self, answer: impl FnOnce(&mut Core)) {
        let before = self.core.output().len();
        let pause = self.pause.filter(|pause| pause.length == before);
        answer(&mut self.core);
        if before == 0 || pause.is_some() {
            let until = pause.map_or_else(|| now() + HOLD, |pause| pause.until);
            self.pause = Some(Pause { length: self.core.output().len(), until });
        }
        self.kick();
    }

    /// The output waits for company.
    pub(crate) fn is_held(&mut self) -> bool {
        let length = self.core.output().len();
        // A batch is company.
        self.batch.is_none()
            && self.ended.is_none()
            && self.pause.is_some_and(|pause| pause.length == length && now() < pause.until)
    }

    /// Time has passed; `true` if that ends the wait.
    pub(crate) fn release_held(&mut self, now: Instant) -> bool {
        self.pause.take_if(|pause| pause.until <= now).is_some()
    }

    /// When it stops to wait.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.pause.map(|pause| pause.until)
    }
}
