//! Enrolling a namespace, withdrawing it, and taking up again what an earlier agent left.
//!
//! The order is what keeps traffic from slipping past the proxy. Enrolling: record, rules, proxy; from the moment the
//! rules stand, what the application sends is either carried by the proxy or refused. Withdrawing: rules, proxy, record;
//! so no packet is redirected to a proxy that has let go. An agent that stops leaves everything as it is.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use net::capture::{self, Obstacle};
use net::{NamespaceError, NetNamespace, NetlinkError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::enrolled::{Options, PodName, Record, Store, StoreError};
use crate::ledger::{Ledger, Message, Pod, Progress};
use crate::namespaces::{self, Found};
use crate::zds::{MESSAGE_LIMIT, encode};

#[cfg(test)]
mod tests;

/// For proxies to forget a withdrawn pod; one that does not answer loses its connection sooner.
const FORGETTING: Duration = Duration::from_secs(10);

/// The agent's state and what can be done with it.
#[derive(Debug)]
pub(crate) struct Enrollment {
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
    store: Store,
    /// Held while rules and record are brought into step; answers of proxies are awaited without it.
    step: tokio::sync::Mutex<()>,
    /// It is the same for all pods, so it is said once.
    settings_refused: AtomicBool,
}

/// What to enroll.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub netns: std::path::PathBuf,
    pub uid: String,
    pub pod: PodName,
    pub service_account: String,
    pub options: Options,
    /// How long to wait for the proxy.
    pub wait: Duration,
}

/// The namespace is not in the mesh (or not out of it), and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("this is the machine's or the agent's own network namespace: capturing it would cut both off")]
    HostNamespace,
    #[error("that namespace is enrolled already as {pod} (uid {uid}): withdraw it first")]
    Taken { pod: PodName, uid: String },
    #[error(
        "names of {length} bytes do not fit the {MESSAGE_LIMIT} bytes of a message to the proxy: use shorter ones"
    )]
    TooLong { length: usize },
    #[error("{0:?} is not the name of a network interface")]
    InvalidInterface(String),
    #[error("{0} must not be empty")]
    Empty(&'static str),
    #[error("the redirection rules cannot be put in place: {0}")]
    Rules(#[source] NetlinkError),
    #[error("the redirection rules cannot be removed: {0}")]
    Removal(#[source] NetlinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "no node proxy is connected to {socket} ({waited:?} waited): start `culvert node` or ztunnel with \
         INPOD_UDS={socket}"
    )]
    NoProxy { socket: String, waited: Duration },
    #[error("the node proxy did not answer within {0:?}: see its log")]
    NoAnswer(Duration),
    #[error("the node proxy could not start this pod: {0}")]
    Refused(String),
    #[error("withdrawn or enrolled again by somebody else in the meantime")]
    Superseded,
    #[error("nothing is enrolled as {0}: `culvert agent list` shows what is")]
    Unknown(String),
}

/// Where the routes of a pod's calls are after a look at its routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// As they should be, or not there.
    InStep,
    /// Some are missing that the kernel refuses now.
    Partly,
    /// Where they were.
    Failed,
}

impl EnrollError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Namespace(error) => error.code(),
            Self::HostNamespace => "agent-host-namespace",
            Self::Taken { .. } => "agent-namespace-taken",
            Self::TooLong { .. } => "agent-names-too-long",
            Self::InvalidInterface(_) => "agent-invalid-interface",
            Self::Empty(_) => "agent-empty-name",
            Self::Rules(_) => "agent-rules-refused",
            Self::Removal(_) => "agent-rules-not-removed",
            Self::Store(error) => error.code(),
            Self::NoProxy { .. } => "agent-no-proxy",
            Self::NoAnswer(_) => "agent-proxy-silent",
            Self::Refused(_) => "agent-proxy-refused",
            Self::Superseded => "agent-superseded",
            Self::Unknown(_) => "agent-unknown-pod",
        }
    }
}

impl Enrollment {
    pub(crate) fn new(store: Store) -> Self {
        let (changed, _) = watch::channel(());
        Self {
            ledger: Mutex::default(),
            changed,
            store,
            step: tokio::sync::Mutex::default(),
            settings_refused: AtomicBool::new(false),
        }
    }

    /// A look at the ledger, for one decision.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ledger and tells those who wait for [`Self::changes`].
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let result = change(&mut self.ledger());
        self.changed.send_replace(());
        result
    }

    /// Wakes after every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Puts a namespace into the mesh and returns when its rules stand and the proxy serves it. If that fails, a
    /// namespace that was not enrolled before is left as it was found.
    pub(crate) async fn enroll(&self, request: Request, socket: &str) -> Result<Record, EnrollError> {
        let wait = request.wait;
        let (record, generation, is_new) = self.begin(request).await?;
        match self.accepted(&record.uid, generation, wait, socket).await {
            Ok(()) => {
                tracing::info!(uid = record.uid, pod = %record.pod, "pod enrolled");
                Ok(record)
            }
            Err(error) => {
                tracing::warn!(uid = record.uid, pod = %record.pod, %error, "pod not enrolled");
                if is_new && !matches!(error, EnrollError::Superseded) {
                    self.undo(&record.uid, generation).await;
                }
                Err(error)
            }
        }
    }

    /// Record and rules.
    async fn begin(&self, request: Request) -> Result<(Record, u64, bool), EnrollError> {
        check(&request)?;
        let namespace = Arc::new(NetNamespace::open(&request.netns)?);
        if namespaces::is_hosts(&namespace) {
            return Err(EnrollError::HostNamespace);
        }
        let Request { netns, uid, pod, service_account, options, .. } = request;
        let id = namespace.id();
        let record = Record { uid, pod, service_account, netns, device: id.device, inode: id.inode, options };
        let length = add_length(&record);
        if length > MESSAGE_LIMIT {
            return Err(EnrollError::TooLong { length });
        }
        let _step = self.step.lock().await;
        let (taken, before) = {
            let ledger = self.ledger();
            let same = |pod: &&Pod| pod.record.namespace_id() == id && pod.record.uid != record.uid;
            (ledger.pods().find(same).map(|pod| pod.record.clone()), ledger.pod(&record.uid).cloned())
        };
        if let Some(taken) = taken {
            return Err(EnrollError::Taken { pod: taken.pod, uid: taken.uid });
        }
        let mut records = self.ledger().records();
        records.retain(|other| other.uid != record.uid);
        records.push(record.clone());
        self.store.save(records)?;
        match capture::apply(&namespace, &record.options.capture()) {
            Ok(obstacle) => self.tell(&record, obstacle),
            Err(error) => {
                // Rules are made together or not at all; routing may have come half way.
                if before.is_none()
                    && let Err(error) = remove(&record.uid, &namespace)
                {
                    tracing::error!(uid = record.uid, %error, "a pod that could not be enrolled keeps its rules");
                }
                self.store.save(self.ledger().records())?;
                return Err(EnrollError::Rules(error));
            }
        }
        // The uid has moved to another namespace: the one it had is left clean.
        if let Some(old) = before.as_ref().and_then(|pod| pod.namespace.as_ref())
            && old.id() != id
            && let Err(error) = remove(&record.uid, old)
        {
            tracing::warn!(uid = record.uid, %error, "the pod's former namespace keeps its rules");
        }
        let generation = self.change(|ledger| ledger.enroll(record.clone(), Some(namespace)));
        Ok((record, generation, before.is_none()))
    }

    async fn accepted(
        &self,
        uid: &str,
        generation: u64,
        wait: Duration,
        socket: &str,
    ) -> Result<(), EnrollError> {
        let deadline = Instant::now() + wait;
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let progress = self.ledger().progress(uid, generation);
            match progress {
                Progress::Accepted => return Ok(()),
                Progress::Gone => return Err(EnrollError::Superseded),
                _ => {}
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(match progress {
                    Progress::Refused(reason) => EnrollError::Refused(reason),
                    Progress::NoProxy => EnrollError::NoProxy { socket: socket.to_owned(), waited: wait },
                    _ => EnrollError::NoAnswer(wait),
                });
            }
        }
    }

    async fn undo(&self, uid: &str, generation: u64) {
        let _step = self.step.lock().await;
        let ours = self.ledger().pod(uid).filter(|pod| pod.generation == generation).cloned();
        if let Some(pod) = ours
            && let Err(error) = self.take_out(&pod)
        {
            tracing::error!(uid, %error, "a pod that could not be enrolled cannot be let go either");
        }
    }

    /// Takes a pod out of the mesh and returns when no proxy knows it any more.
    pub(crate) async fn withdraw(&self, uid: &str) -> Result<Record, EnrollError> {
        let record = {
            let _step = self.step.lock().await;
            let pod = self.ledger().pod(uid).cloned();
            let pod = pod.ok_or_else(|| EnrollError::Unknown(uid.to_owned()))?;
            self.take_out(&pod)?;
            pod.record
        };
        let deadline = Instant::now() + FORGETTING;
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let (forgotten, back) = {
                let ledger = self.ledger();
                (ledger.is_forgotten(uid), ledger.pod(uid).is_some())
            };
            if back {
                return Err(EnrollError::Superseded);
            }
            if forgotten {
                break;
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(EnrollError::NoAnswer(FORGETTING));
            }
        }
        tracing::info!(uid, pod = %record.pod, "pod withdrawn");
        Ok(record)
    }

    /// Rules, then ledger and record. If the rules cannot be removed the pod stays enrolled.
    fn take_out(&self, pod: &Pod) -> Result<(), EnrollError> {
        if let Some(namespace) = &pod.namespace {
            remove(&pod.record.uid, namespace).map_err(EnrollError::Removal)?;
        }
        self.change(|ledger| ledger.withdraw(&pod.record.uid));
        self.store.save(self.ledger().records())?;
        Ok(())
    }

    /// Takes up what an earlier agent left: namespaces that still live are opened again, their rules compared and put
    /// right where they differ; records of those that are gone are dropped.
    pub(crate) fn restore(&self) -> Result<(), StoreError> {
        for record in self.store.load()? {
            self.take_up(record);
        }
        self.store.save(self.ledger().records())
    }

    /// Tries again to find the namespaces that could not be told at the start.
    pub(crate) async fn look_again(&self) {
        let _step = self.step.lock().await;
        let missing: Vec<Record> = {
            let ledger = self.ledger();
            let missing = ledger.pods().filter(|pod| pod.namespace.is_none());
            missing.map(|pod| pod.record.clone()).collect()
        };
        if missing.is_empty() {
            return;
        }
        for record in missing {
            self.take_up(record);
        }
        if let Err(error) = self.store.save(self.ledger().records()) {
            tracing::error!(%error, "the enrolled set is not on disk");
        }
    }

    fn take_up(&self, record: Record) {
        let (uid, pod) = (record.uid.clone(), record.pod.clone());
        let namespace = match namespaces::find(&record.netns, record.namespace_id()) {
            Found::Open(namespace) => Some(Arc::new(namespace)),
            Found::Gone => {
                tracing::info!(uid, %pod, "pod dropped, its namespace is gone");
                self.change(|ledger| ledger.withdraw(&uid));
                return;
            }
            Found::Unknown(error) => {
                if self.ledger().pod(&uid).is_none() {
                    tracing::warn!(uid, %pod, %error, "pod kept, its namespace cannot be opened now");
                    self.change(|ledger| ledger.enroll(record, None));
                }
                return;
            }
        };
        if let Some(namespace) = &namespace
            && let Err(error) = self.repair(namespace, &record)
        {
            tracing::error!(uid, %pod, %error, "the redirection rules cannot be put right");
        }
        self.change(|ledger| ledger.enroll(record, namespace));
    }

    /// Brings the routes of a pod's calls into step with its namespace's, unless it has been enrolled anew or withdrawn.
    pub(crate) async fn follow_routing(&self, uid: &str, generation: u64, said: &mut String) -> Followed {
        let _step = self.step.lock().await;
        let pod = self.ledger().pod(uid).filter(|pod| pod.generation == generation).cloned();
        let Some(Pod { record, namespace: Some(namespace), .. }) = pod else { return Followed::InStep };
        let result = capture::follow_routing(&namespace, &record.options.capture());
        let followed = match &result {
            Ok(Some(Obstacle::Partly(_))) => Followed::Partly,
            Ok(_) => Followed::InStep,
            Err(_) => Followed::Failed,
        };
        let reason = match &result {
            Ok(obstacle) => obstacle.as_ref().map(ToString::to_string).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        // Looked at again and again, it is said once.
        if *said != reason {
            *said = reason;
            match result {
                Ok(obstacle) => self.tell(&record, obstacle),
                Err(error) => tracing::warn!(uid, %error, "the routing of a pod cannot be followed now"),
            }
        }
        followed
    }

    /// Withdraws everything, for an agent that will not come back.
    pub(crate) async fn withdraw_all(&self) {
        let uids: Vec<String> = self.ledger().pods().map(|pod| pod.record.uid.clone()).collect();
        for uid in uids {
            if let Err(error) = self.withdraw(&uid).await {
                tracing::error!(uid, %error, "pod not withdrawn");
            }
        }
    }

    /// Puts rules right only if they differ: counters and connections of those that stand are not touched.
    fn repair(&self, namespace: &NetNamespace, record: &Record) -> Result<(), NetlinkError> {
        let wanted = record.options.capture();
        // What cannot be read is written anew.
        if capture::stands(namespace, &wanted).unwrap_or(false) {
            tracing::info!(uid = record.uid, pod = %record.pod, "pod taken up, its rules stand");
            return Ok(());
        }
        self.tell(record, capture::apply(namespace, &wanted)?);
        tracing::warn!(uid = record.uid, pod = %record.pod, "pod taken up, its rules were put right");
        Ok(())
    }

    /// Says that a pod is captured in the more costly way.
    fn tell(&self, record: &Record, obstacle: Option<Obstacle>) {
        match obstacle {
            Some(Obstacle::Setting(refused)) if !self.settings_refused.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    error = %refused,
                    "answers of applications find back by connection tracking, which costs more"
                );
            }
            Some(Obstacle::Setting(_)) | None => {}
            Some(obstacle) => {
                let cost = cost(&obstacle);
                tracing::info!(uid = record.uid, pod = %record.pod, reason = %obstacle, "{cost}");
            }
        }
    }
}

/// What a pod does without because of it.
fn cost(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Setting(_) | Obstacle::Open(_) | Obstacle::Uncounted(_) => "connection tracking goes on",
        Obstacle::Partly(_) => "some calls have segments of the pod's link, which costs more",
        Obstacle::Direct | Obstacle::Untold(_) | Obstacle::Conflict(_) | Obstacle::Routes(_) => {
            "calls have segments of the pod's link, which costs more"
        }
    }
}

/// Takes the rules away, and says what is left without harm.
fn remove(uid: &str, namespace: &NetNamespace) -> Result<(), NetlinkError> {
    if let Some(error) = capture::remove(namespace)? {
        tracing::warn!(uid, %error, "routes that nobody looks up, or settings, are left in a pod");
    }
    Ok(())
}

fn check(request: &Request) -> Result<(), EnrollError> {
    if request.uid.is_empty() {
        return Err(EnrollError::Empty("the uid"));
    }
    if request.service_account.is_empty() {
        return Err(EnrollError::Empty("the service account"));
    }
    let valid = |name: &str| {
        (1..=15).contains(&name.len()) && !name.bytes().any(|byte| byte == b'/' || byte.is_ascii_whitespace())
    };
    match request.options.virtual_interfaces.iter().find(|name| !valid(name)) {
        Some(name) => Err(EnrollError::InvalidInterface(name.clone())),
        None => Ok(()),
    }
}

fn add_length(record: &Record) -> usize {
    encode(&Message::Add(Pod { record: record.clone(), namespace: None, generation: 0 })).len()
}
