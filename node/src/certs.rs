//! Keeps certificates fresh: one per identity of this node, fetched once, renewed at half-life.
//!
//! [`CertificateManager`] is the handle, usable from any thread. [`Worker::run`] does the fetching and
//! lives on the control thread. What is fetched next is decided in `table.rs`, without I/O.
//!
//! Contract: control-and-operations 4.2, 4.4, 4.5.
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use identity::{SpiffeId, TlsOptions, WorkloadCertificate};
use parking_lot::Mutex;
use runtime::clock::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

mod client;
mod error;
mod table;

pub(crate) mod channel;
pub(crate) mod join;
pub(crate) mod revocations;

pub(crate) use client::CaClient;
pub(crate) use error::CertificateError;
pub(crate) use table::{CertificateState, Priority};

use channel::ControlConfig;
use table::{Outcome, Table};

/// What the certificate part needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// How to reach the CA (`CA_ADDRESS`, `CA_ROOT_CA`, `ALT_CA_HOSTNAME`, `AUTH_TOKEN`, `CA_HEADER_*`).
    pub ca: ControlConfig,
    /// Lifetime asked for (`SECRET_TTL`).
    pub secret_ttl: Duration,
    /// TLS of the mesh (`TLS12_ENABLED`, `COMPLIANCE_POLICY`).
    pub tls: TlsOptions,
    /// Whether certificates of others are asked for: shared mode. A dedicated proxy asks for its own,
    /// without metadata, and takes what it gets.
    pub impersonate: bool,
    /// Limits of the manager.
    pub limits: Limits,
}

/// Limits of the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Simultaneous requests to the CA.
    pub concurrency: usize,
    /// How long a connection waits for the first certificate of an identity.
    pub first_wait: Duration,
    /// How long one request to the CA may take, connecting included.
    pub call_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 8, first_wait: Duration::from_secs(10), call_deadline: Duration::from_secs(10) }
    }
}

/// Who signs: the CA client, or a test.
pub(crate) trait Issuer: Send + Sync + 'static {
    /// Waits until asking can succeed: a node that joins has to prove itself first.
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Asks for a certificate of `id`.
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, CertificateError>>;
}

/// One identity and its state, for the dump.
#[derive(Debug, Clone)]
pub(crate) struct ManagedCertificate {
    pub identity: SpiffeId,
    pub state: CertificateState,
}

/// The certificates of this node. Cheap to clone; the last clone's drop ends the worker.
#[derive(Debug, Clone)]
pub(crate) struct CertificateManager {
    shared: Arc<Shared>,
    _open: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
    limits: Limits,
}

/// The task behind a [`CertificateManager`].
pub(crate) struct Worker {
    shared: Arc<Shared>,
    issuer: Arc<dyn Issuer>,
    clock: Clock,
    open: watch::Receiver<()>,
}

impl CertificateManager {
    /// A manager and its worker; nothing is fetched until [`Worker::run`] is polled.
    pub(crate) fn new(issuer: Arc<dyn Issuer>, limits: Limits, clock: Clock) -> (Self, Worker) {
        let shared = Arc::new(Shared { table: Mutex::default(), changed: Notify::new(), limits });
        let (opened, open) = watch::channel(());
        let worker = Worker { shared: shared.clone(), issuer, clock, open };
        (Self { shared, _open: Arc::new(opened) }, worker)
    }

    /// The certificate of `id`: at once when there is one, or when the last attempt failed; after the
    /// first fetch otherwise, within the limit. Access lines put `identity error: ` before the error.
    pub(crate) async fn certificate(
        &self,
        id: &SpiffeId,
        priority: Priority,
    ) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        let mut state = {
            let mut table = self.shared.table.lock();
            if let Some(certificate) = table.available(id) {
                return Ok(certificate);
            }
            table.want(id, priority, Instant::now())
        };
        self.shared.changed.notify_one();
        let settled = state.wait_for(|state| !matches!(state, CertificateState::Initializing));
        match tokio::time::timeout(self.shared.limits.first_wait, settled).await {
            Ok(Ok(state)) => state.result(),
            Ok(Err(_)) => Err(CertificateError::Forgotten),
            Err(_) => {
                Err(CertificateError::FirstWait { id: id.clone(), limit: self.shared.limits.first_wait })
            }
        }
    }

    /// Fetches ahead of use: the identities of workloads of this node, as soon as they are known.
    pub(crate) fn prefetch(&self, ids: impl IntoIterator<Item = SpiffeId>) {
        let mut table = self.shared.table.lock();
        for id in ids {
            table.expect(&id, Instant::now());
        }
        drop(table);
        self.shared.changed.notify_one();
    }

    /// Drops an identity that no workload of this node has any more; kept while a [`Hold`] remains.
    pub(crate) fn forget(&self, id: &SpiffeId) {
        self.shared.table.lock().forget(id);
    }

    /// Keeps an identity for as long as a pod's listeners present it.
    pub(crate) fn hold(&self, id: &SpiffeId) -> Hold {
        self.shared.table.lock().hold(id, Instant::now());
        self.shared.changed.notify_one();
        Hold { shared: self.shared.clone(), id: id.clone() }
    }

    /// All identities with their states, by name.
    pub(crate) fn certificates(&self) -> Vec<ManagedCertificate> {
        self.shared.table.lock().states()
    }
}

/// An identity in use by a pod; see [`CertificateManager::hold`].
#[derive(Debug)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
    id: SpiffeId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.table.lock().release(&self.id);
    }
}

impl Worker {
    /// Waits for the issuer, then fetches what is due until every handle is gone, then waits for what is under way.
    pub(crate) async fn run(mut self) {
        let issuer = self.issuer.clone();
        tokio::select! {
            biased;
            _ = self.open.changed() => return,
            () = issuer.ready() => {}
        }
        let mut running = FuturesUnordered::new();
        loop {
            let next = loop {
                if running.len() >= self.shared.limits.concurrency {
                    break None;
                }
                let due = self.shared.table.lock().take_due(Instant::now());
                match due {
                    Ok(ticket) => running.push(self.fetch(ticket)),
                    Err(next) => break next,
                }
            };
            let pause = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // All four are cancel-safe; a finished fetch goes first so that its place is free.
            tokio::select! {
                biased;
                Some((ticket, outcome)) = running.next() => self.settle(&ticket, outcome),
                _ = self.open.changed() => break,
                () = self.shared.changed.notified() => {}
                () = pause => {}
            }
        }
        while let Some((ticket, outcome)) = running.next().await {
            self.settle(&ticket, outcome);
        }
    }

    fn fetch(&self, ticket: table::Ticket) -> BoxFuture<'static, (table::Ticket, Outcome)> {
        let (issuer, deadline) = (self.issuer.clone(), self.shared.limits.call_deadline);
        Box::pin(async move {
            let outcome = match tokio::time::timeout(deadline, issuer.issue(&ticket.id)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(CertificateError::CallDeadline { id: ticket.id.clone(), limit: deadline }),
            };
            (ticket, outcome)
        })
    }

    fn settle(&self, ticket: &table::Ticket, outcome: Outcome) {
        let jitter = rand::random_range(-1.0..=1.0);
        self.shared.table.lock().settle(ticket, outcome, Instant::now(), self.clock.wall(), jitter);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
