//! The pods of this node: handed over by the node agent, started on every traffic thread, stopped
//! when they leave (data-path 9.2).
//!
//! A pod that cannot be started is pending and tried again. A message that breaks the protocol is
//! answered and ends the connection, not the pods: they go on as they are and the next connection
//! names them again.

mod bound;
mod instance;
mod list;
mod netns;
pub(crate) mod proxy;
mod seats;
mod zds;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use net::NetNamespace;
use runtime::health::ReadinessTask;
use state::Pod;
use tokio::time::Instant;

pub(crate) use bound::Bound;
pub(crate) use instance::{DnsParts, Environment, Instance};
pub(crate) use list::PodList;
pub(crate) use netns::StartError;
pub(crate) use seats::Loads;
use zds::{Connection, ConnectionLost, Incoming, Request};

/// Pending pods are tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// First and longest wait between attempts to reach the agent.
const CONNECT_WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(15));
/// First and longest wait after an announcement that failed.
const ANNOUNCE_WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(15));

/// The pods of this node.
#[derive(Debug)]
pub(crate) struct Pods {
    environment: Environment,
    ready: ReadinessTask,
    running: HashMap<String, Instance>,
    pending: HashMap<String, Pending>,
    retry_at: Option<Instant>,
    /// The snapshot of the present connection has been processed.
    synced: bool,
}

/// How a connection to the agent ended.
#[derive(Clone, Copy, Debug)]
enum Parting {
    /// The agent went away.
    Closed,
    /// It broke the protocol, and we went away.
    Broken,
}

impl Parting {
    /// How long to wait for the next connection after one that had (or had not) sent its snapshot; `last` is the
    /// wait before.
    fn pause(self, synced: bool, last: Duration) -> Duration {
        match self {
            // An agent that worked and was restarted: the next one is not kept waiting.
            Self::Closed if synced => CONNECT_WAIT.0,
            Self::Closed | Self::Broken => (last * 2).min(CONNECT_WAIT.1),
        }
    }
}

/// A pod that could not be started.
#[derive(Debug)]
struct Pending {
    pod: Pod,
    netns: NetNamespace,
}

impl Pods {
    pub(crate) fn new(environment: Environment, ready: ReadinessTask) -> Self {
        // Shown from the start on.
        environment.metrics.active.set(0);
        environment.metrics.pending.set(0);
        Self {
            environment,
            ready,
            running: HashMap::new(),
            pending: HashMap::new(),
            retry_at: None,
            synced: false,
        }
    }

    /// Follows the agent at `path` until the process drains, then drains every pod.
    pub(crate) async fn run(mut self, path: PathBuf) {
        let drain = self.environment.drain.clone();
        tokio::select! {
            biased;
            () = drain.draining() => {
                tracing::info!(target: "ztunnel::inpod::protocol", "workload proxy manager: drain requested");
                tracing::info!(target: "ztunnel::inpod::workloadmanager", "drain requested");
            }
            () = self.follow(&path) => {}
        }
        let deadline = self.environment.settings.drain_deadline;
        let pods = self.running.drain().map(|(_, instance)| instance.drain(deadline));
        futures::future::join_all(pods).await;
    }

    async fn follow(&mut self, path: &Path) {
        let mut wait = CONNECT_WAIT.0;
        loop {
            let connection = connect(path).await;
            tracing::info!(target: "ztunnel::inpod::workloadmanager", "handling new stream");
            self.pending.clear();
            self.show_pending();
            self.synced = false;
            let parting = self.serve(connection).await;
            self.ready.pending_again();
            wait = parting.pause(self.synced, wait);
            tracing::debug!(target: "ztunnel::inpod::workloadmanager", ?parting, "reconnecting to the node agent in {wait:?}");
            tokio::time::sleep(wait).await;
        }
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, mut connection: Connection) -> Parting {
        loop {
            let retry = async {
                match self.retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Both are cancel-safe.
            let incoming = tokio::select! {
                biased;
                incoming = connection.next() => incoming,
                () = retry => {
                    self.retry().await;
                    continue;
                }
            };
            let outcome = match incoming {
                Ok(Incoming::Request(request)) => self.handle(request, &connection).await,
                Ok(Incoming::Broken(broken)) => {
                    let code = broken.code();
                    tracing::error!(target: "ztunnel::inpod::workloadmanager", code, error = %broken, "the node agent broke the protocol");
                    // The reason is told if the agent still listens; the connection ends anyhow.
                    let _ = connection.acknowledge(Err(broken.refusal())).await;
                    return Parting::Broken;
                }
                Err(ConnectionLost::Closed) => {
                    tracing::info!(target: "ztunnel::inpod::workloadmanager", "process stream ended with eof");
                    return Parting::Closed;
                }
                Err(lost) => {
                    tracing::warn!(target: "ztunnel::inpod::workloadmanager", error = %lost, "process stream ended");
                    return Parting::Closed;
                }
            };
            if let Err(error) = connection.acknowledge(outcome).await {
                tracing::warn!(target: "ztunnel::inpod::workloadmanager", %error, "failed to answer the node agent");
                return Parting::Closed;
            }
        }
    }

    async fn handle(&mut self, request: Request, connection: &Connection) -> Result<(), String> {
        match request {
            Request::Add { uid, pod, netns } => self.add(uid, pod, netns).await,
            Request::Keep { uid } => {
                tracing::info!(target: "ztunnel::inpod::statemanager", uid, "pod keep received. will not delete it when snapshot is sent");
                Ok(())
            }
            Request::Delete { uid } => {
                tracing::info!(target: "ztunnel::inpod::statemanager", uid, "pod delete request, shutting down proxy");
                self.forget_pending(&uid);
                // Before the snapshot, what is not named again is removed at its end.
                if self.synced {
                    self.stop(&uid).await;
                }
                Ok(())
            }
            Request::SnapshotSent => {
                tracing::info!(target: "ztunnel::inpod::statemanager", "received snapshot sent");
                let named = connection.named();
                let gone: Vec<String> =
                    self.running.keys().filter(|uid| !named.contains(*uid)).cloned().collect();
                for uid in gone {
                    tracing::info!(target: "ztunnel::inpod::statemanager", uid, "pod is not in the snapshot, shutting down proxy");
                    self.stop(&uid).await;
                }
                self.synced = true;
                self.report();
                Ok(())
            }
        }
    }

    async fn add(&mut self, uid: String, pod: Pod, netns: NetNamespace) -> Result<(), String> {
        self.forget_pending(&uid);
        if let Some(running) = self.running.get(&uid) {
            if running.netns() == Some(netns.id()) {
                return Ok(());
            }
            // Shutting it down first: two instances of one pod would be listed as one.
            self.stop(&uid).await;
        }
        let started = self.start(&uid, &pod, &netns).await;
        if let Err(reason) = &started {
            tracing::warn!(target: "ztunnel::inpod::statemanager", uid, reason, "failed to start the pod's proxy, will retry");
            self.environment.list.pending(&uid, &pod);
            self.pending.insert(uid, Pending { pod, netns });
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
            self.ready.pending_again();
        }
        self.show_pending();
        self.report();
        started
    }

    async fn start(&mut self, uid: &str, pod: &Pod, netns: &NetNamespace) -> Result<(), String> {
        let (name, namespace) = (&*pod.name, &*pod.namespace);
        tracing::info!(target: "ztunnel::inpod::statemanager", uid, name, namespace, "pod received, starting proxy");
        let failed = |error: StartError| {
            format!("failure to start proxy : {error} (zds-start-failed: {})", error.code())
        };
        let netns = netns.try_clone().map_err(|error| failed(error.into()))?;
        let instance = Instance::start(&self.environment, uid, pod.clone(), netns).await;
        self.running.insert(uid.to_owned(), instance.map_err(failed)?);
        self.environment.metrics.started.inc();
        self.show_running();
        Ok(())
    }

    async fn retry(&mut self) {
        self.retry_at = None;
        for (uid, Pending { pod, netns }) in std::mem::take(&mut self.pending) {
            // What fails again is pending again.
            let _ = self.add(uid, pod, netns).await;
        }
        self.show_pending();
    }

    async fn stop(&mut self, uid: &str) {
        if let Some(instance) = self.running.remove(uid) {
            instance.cut().await;
            self.environment.metrics.stopped.inc();
            self.show_running();
        }
    }

    fn forget_pending(&mut self, uid: &str) {
        if self.pending.remove(uid).is_some() {
            self.environment.list.remove(uid);
            self.show_pending();
            self.report();
        }
    }

    /// Ready once the snapshot is processed and every pod of it runs.
    fn report(&self) {
        if self.synced && self.pending.is_empty() {
            self.ready.done();
        }
    }

    fn show_running(&self) {
        let n = i64::try_from(self.running.len()).unwrap_or(i64::MAX);
        self.environment.metrics.active.set(n);
    }

    fn show_pending(&self) {
        let n = i64::try_from(self.pending.len()).unwrap_or(i64::MAX);
        self.environment.metrics.pending.set(n);
    }
}

/// Connects and announces, for as long as it takes.
async fn connect(path: &Path) -> Connection {
    let (mut wait, mut announce_wait) = (CONNECT_WAIT.0, ANNOUNCE_WAIT.0);
    loop {
        let stream = match Connection::connect(path).await {
            Ok(stream) => stream,
            Err(error) => {
                let path = path.display();
                tracing::warn!(target: "ztunnel::inpod::workloadmanager", "failed to connect to the Istio CNI node agent over {path}, is the node agent running? details: {error}, retrying in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(CONNECT_WAIT.1);
                continue;
            }
        };
        match Connection::announce(stream).await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::error!(target: "ztunnel::inpod::workloadmanager", %error, "node agent announcement failed");
                let jitter = rand::random_range(0.8..=1.2);
                tokio::time::sleep(announce_wait.mul_f64(jitter)).await;
                announce_wait = (announce_wait * 2).min(ANNOUNCE_WAIT.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_misbehaves_is_asked_less_and_less_often() {
        let pauses = |parting: Parting, synced| {
            let next = move |last: &Duration| Some(parting.pause(synced, *last));
            std::iter::successors(Some(CONNECT_WAIT.0), next).take(12).map(|wait| wait.as_millis())
        };
        let growing = [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 15_000, 15_000];
        assert!(pauses(Parting::Broken, true).eq(growing));
        assert!(pauses(Parting::Broken, false).eq(growing));
        assert!(pauses(Parting::Closed, false).eq(growing), "broken off before the snapshot");
        assert!(pauses(Parting::Closed, true).all(|wait| wait == 20), "restarted");
    }
}
