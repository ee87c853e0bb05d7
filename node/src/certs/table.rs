//! Which identities there are, in which state, and what to fetch next. No I/O.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Renewal, SpiffeId, WorkloadCertificate};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{CertificateError, ManagedCertificate};

/// Why a certificate is wanted; the greater is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Renewal of one we have.
    Background,
    /// A workload of this node that may speak soon.
    Warmup,
    /// A connection waits.
    RealTime,
}

/// The state of one identity.
#[derive(Debug, Clone)]
pub(crate) enum CertificateState {
    /// The first fetch has not ended.
    Initializing,
    /// A certificate to use.
    Available(Arc<WorkloadCertificate>),
    /// The last attempt failed and there is no valid certificate.
    Unavailable(CertificateError),
}

impl CertificateState {
    pub(super) fn result(&self) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        match self {
            Self::Available(certificate) => Ok(certificate.clone()),
            Self::Unavailable(error) => Err(error.clone()),
            Self::Initializing => Err(CertificateError::Forgotten),
        }
    }
}

pub(super) type Outcome = Result<WorkloadCertificate, CertificateError>;

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Ticket {
    pub id: SpiffeId,
    entry: u64,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<SpiffeId, Entry>,
    made: u64,
}

#[derive(Debug)]
struct Entry {
    /// Tells this entry from a later one of the same name, and orders equals.
    number: u64,
    state: watch::Sender<CertificateState>,
    priority: Priority,
    due: Instant,
    fetching: bool,
    renewal: Renewal,
    /// A workload of this node has it.
    expected: bool,
    /// Pods whose listeners present it.
    holds: usize,
}

impl Table {
    pub(super) fn available(&self, id: &SpiffeId) -> Option<Arc<WorkloadCertificate>> {
        match &*self.entries.get(id)?.state.borrow() {
            CertificateState::Available(certificate) => Some(certificate.clone()),
            _ => None,
        }
    }

    /// Notes that `id` is wanted; a first fetch that still waits can only gain priority.
    pub(super) fn want(
        &mut self,
        id: &SpiffeId,
        priority: Priority,
        now: Instant,
    ) -> watch::Receiver<CertificateState> {
        self.entry(id, priority, now).state.subscribe()
    }

    pub(super) fn expect(&mut self, id: &SpiffeId, now: Instant) {
        self.entry(id, Priority::Warmup, now).expected = true;
    }

    pub(super) fn hold(&mut self, id: &SpiffeId, now: Instant) {
        self.entry(id, Priority::Warmup, now).holds += 1;
    }

    fn entry(&mut self, id: &SpiffeId, priority: Priority, now: Instant) -> &mut Entry {
        let made = &mut self.made;
        let entry = self.entries.entry(id.clone()).or_insert_with(|| {
            *made += 1;
            Entry {
                number: *made,
                state: watch::Sender::new(CertificateState::Initializing),
                priority,
                due: now,
                fetching: false,
                renewal: Renewal::new(),
                expected: false,
                holds: 0,
            }
        });
        if !entry.fetching && matches!(*entry.state.borrow(), CertificateState::Initializing) {
            entry.priority = entry.priority.max(priority);
        }
        entry
    }

    pub(super) fn forget(&mut self, id: &SpiffeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.expected = false;
            if entry.holds == 0 {
                self.entries.remove(id);
            }
        }
    }

    pub(super) fn release(&mut self, id: &SpiffeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.holds = entry.holds.saturating_sub(1);
            if entry.holds == 0 && !entry.expected {
                self.entries.remove(id);
            }
        }
    }

    pub(super) fn states(&self) -> Vec<ManagedCertificate> {
        let mut states: Vec<_> = self
            .entries
            .iter()
            .map(|(id, entry)| ManagedCertificate {
                identity: id.clone(),
                state: entry.state.borrow().clone(),
            })
            .collect();
        states.sort_by(|a, b| a.identity.cmp(&b.identity));
        states
    }

    /// Takes the next fetch that is due, or says when one will be.
    pub(super) fn take_due(&mut self, now: Instant) -> Result<Ticket, Option<Instant>> {
        let waiting = || self.entries.iter().filter(|(_, entry)| !entry.fetching);
        let first = waiting()
            .filter(|(_, entry)| entry.due <= now)
            .min_by_key(|(_, entry)| (std::cmp::Reverse(entry.priority), entry.due, entry.number))
            .map(|(id, _)| id.clone());
        let Some(id) = first else {
            return Err(waiting().map(|(_, entry)| entry.due).min());
        };
        let Some(entry) = self.entries.get_mut(&id) else { return Err(None) };
        entry.fetching = true;
        Ok(Ticket { entry: entry.number, id })
    }

    /// Takes in the end of a fetch; dropped when the identity was forgotten meanwhile.
    pub(super) fn settle(
        &mut self,
        ticket: &Ticket,
        outcome: Outcome,
        now: Instant,
        wall: SystemTime,
        jitter: f64,
    ) {
        let Some(entry) = self.entries.get_mut(&ticket.id).filter(|entry| entry.number == ticket.entry)
        else {
            return;
        };
        entry.fetching = false;
        entry.priority = Priority::Background;
        match outcome {
            Ok(certificate) => {
                entry.renewal = Renewal::new();
                entry.due = now + until(certificate.refresh_at(wall), wall);
                entry.state.send_replace(CertificateState::Available(Arc::new(certificate)));
            }
            Err(error) => entry.failed(error, now, wall, jitter),
        }
    }
}

impl Entry {
    fn failed(&mut self, error: CertificateError, now: Instant, wall: SystemTime, jitter: f64) {
        let retry_in = self.renewal.failed(jitter);
        let valid = match &*self.state.borrow() {
            CertificateState::Available(held) if !held.is_expired(wall) => Some(held.not_after()),
            _ => None,
        };
        if let Some(expiry) = valid {
            let next = retry_in.min(until(expiry, wall));
            self.due = now + next;
            tracing::info!(
                code = error.code(),
                "certificate renewal failed ({error}); retaining existing valid certificate until {expiry}; next retry at {next}",
                expiry = runtime_time(expiry),
                next = runtime_time(wall + next),
            );
        } else {
            self.due = now + retry_in;
            tracing::warn!(
                code = error.code(),
                "certificate fetch failed ({error}) and no valid existing certificate; will retry in {retry_in:?}"
            );
            self.state.send_replace(CertificateState::Unavailable(error));
        }
    }
}

fn until(then: SystemTime, now: SystemTime) -> Duration {
    // A century is as good as never, and a sum that cannot overflow.
    then.duration_since(now).unwrap_or_default().min(Duration::from_secs(100 * 365 * 86_400))
}

fn runtime_time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| format!("{time:?}"), |time| time.to_string())
}
