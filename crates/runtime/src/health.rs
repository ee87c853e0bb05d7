//! Readiness: named tasks that must be done before the program is ready.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::clock;
use crate::http::{self, Answer};

/// Set of tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    started: Instant,
    /// Name → how many tasks of that name are pending.
    pending: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nothing is pending.
    pub fn new() -> Self {
        Self { started: clock::monotonic(), pending: Arc::default() }
    }

    /// Adds a task; the program is not ready until it is done.
    pub fn register(&self, name: &'static str) -> ReadinessTask {
        *self.pending.lock().entry(name).or_default() += 1;
        ReadinessTask { name, readiness: self.clone(), pending: Mutex::new(true) }
    }

    /// Names of pending tasks, sorted.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.lock().keys().copied().collect()
    }

    /// The answer of a readiness server: `GET /healthz/ready`.
    pub fn answer(&self, method: &::http::Method, path: &str) -> Answer {
        if path != "/healthz/ready" {
            return http::not_found();
        }
        if method != ::http::Method::GET {
            return http::method_not_allowed();
        }
        let pending = self.pending();
        if pending.is_empty() {
            http::text(::http::StatusCode::OK, "ready\n")
        } else {
            let body = format!("not ready, pending: {}\n", pending.join(", "));
            http::text(::http::StatusCode::INTERNAL_SERVER_ERROR, body)
        }
    }
}

/// One task; dropping it does not finish it.
#[derive(Debug)]
pub struct ReadinessTask {
    name: &'static str,
    readiness: Readiness,
    pending: Mutex<bool>,
}

impl ReadinessTask {
    /// The task is done.
    pub fn done(&self) {
        if !std::mem::replace(&mut *self.pending.lock(), false) {
            return;
        }
        let mut pending = self.readiness.pending.lock();
        if let Some(n) = pending.get_mut(self.name) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                pending.remove(self.name);
            }
        }
        let left = pending.len();
        drop(pending);
        let after = clock::monotonic() - self.readiness.started;
        let name = self.name;
        if left == 0 {
            tracing::info!(target: "ztunnel::readiness", "Task '{name}' complete ({after:?}), marking server ready");
        } else {
            tracing::info!(target: "ztunnel::readiness", "Task '{name}' complete ({after:?}), still awaiting {left} tasks");
        }
    }

    /// The task is pending again.
    pub fn pending_again(&self) {
        if !std::mem::replace(&mut *self.pending.lock(), true) {
            *self.readiness.pending.lock().entry(self.name).or_default() += 1;
            tracing::info!(target: "ztunnel::readiness", task = self.name, "task is pending again");
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::{Method, StatusCode};

    use super::*;

    // CO-6.6
    #[test]
    fn answer_lists_pending_tasks_sorted_until_all_are_done() {
        let readiness = Readiness::new();
        let state = readiness.register("state manager");
        let pods = readiness.register("workload proxy manager");
        let answer = readiness.answer(&Method::GET, "/healthz/ready");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(http::whole_text(&answer), "not ready, pending: state manager, workload proxy manager\n");
        pods.done();
        state.done();
        state.done();
        let answer = readiness.answer(&Method::GET, "/healthz/ready");
        assert_eq!((answer.status(), http::whole_text(&answer).as_str()), (StatusCode::OK, "ready\n"));
        pods.pending_again();
        assert_eq!(readiness.pending(), ["workload proxy manager"]);
        assert_eq!(
            readiness.answer(&Method::POST, "/healthz/ready").status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(readiness.answer(&Method::GET, "/healthz/ready/").status(), StatusCode::NOT_FOUND);
    }
}
