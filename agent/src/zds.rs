//! The hand-over of pods to node proxies (data-path 9.1, 9.3; control-plane 8.3): we listen, proxies connect.
//!
//! Per connection: hello; a snapshot of all pods; then differences, one message at a time, each acknowledged. What to
//! say comes from the [`Ledger`](crate::ledger::Ledger). A proxy that breaks the protocol or does not answer in time
//! loses its connection and gets a new snapshot when it comes back.
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use net::seqpacket::{Listener, ReceiveError, Stream};
use prost::Message as _;
use runtime::clock::monotonic;
use runtime::tasks::TaskGroup;
use runtime::throttle::Throttle;
use tokio::time::{Instant, timeout};
use wire::workload::zds;

use crate::enrollment::Enrollment;
use crate::ledger::{ConnectionId, Message, RETRY};

#[cfg(test)]
pub(crate) mod tests;

/// Longest message of the protocol.
pub(crate) const MESSAGE_LIMIT: usize = 1024;
/// For a message to be written, and for its answer to come.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections accepted per second.
const ACCEPTS_PER_SECOND: usize = 5;
/// Proxies that may be connected at once; two in a rolling upgrade.
const CONNECTION_LIMIT: usize = 16;
/// Connections that are not taken are told at most this often, by kind.
const REPORTS: Duration = Duration::from_secs(10);

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("another agent serves {}: stop it, or choose another --zds-socket", path.display())]
    InUse { path: PathBuf },
    #[error("cannot listen at {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

impl ServeError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "agent-zds-in-use",
            Self::Listen { .. } => "agent-zds-cannot-listen",
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the proxy closed the connection")]
    Closed,
    #[error("no {0} within {DEADLINE:?}")]
    Late(&'static str),
    #[error("unexpected data from the proxy")]
    Unexpected,
    #[error("unreadable {0} from the proxy")]
    Unreadable(&'static str),
    #[error("the proxy speaks version {0}, not 1")]
    Version(i32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Listens, in place of an agent that is no more.
pub(crate) async fn listen(path: &Path) -> Result<Listener, ServeError> {
    let failed = |source| ServeError::Listen { path: path.to_owned(), source };
    if Stream::connect(path).await.is_ok() {
        return Err(ServeError::InUse { path: path.to_owned() });
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    Listener::bind(path).map_err(failed)
}

/// Accepts proxies for as long as the agent lives.
pub(crate) async fn serve(listener: Listener, enrollment: Arc<Enrollment>, tasks: TaskGroup) {
    let mut recent: VecDeque<Instant> = VecDeque::new();
    let (mut refusals, mut failures) = (Throttle::new(REPORTS), Throttle::new(REPORTS));
    loop {
        if recent.len() >= ACCEPTS_PER_SECOND
            && let Some(oldest) = recent.pop_front()
        {
            tokio::time::sleep_until(oldest + Duration::from_secs(1)).await;
        }
        match listener.accept().await {
            Ok(stream) if enrollment.ledger().n_proxies() < CONNECTION_LIMIT => {
                let enrollment = Arc::clone(&enrollment);
                tasks.spawn("zds connection", async move { converse(&stream, &enrollment).await });
            }
            Ok(_) => {
                if let Some(unreported) = refusals.report(monotonic()) {
                    tracing::warn!(limit = CONNECTION_LIMIT, unreported, "too many proxies are connected");
                }
            }
            Err(error) => {
                if let Some(unreported) = failures.report(monotonic()) {
                    tracing::warn!(%error, unreported, "cannot accept a proxy");
                }
            }
        }
        recent.push_back(Instant::now());
    }
}

async fn converse(stream: &Stream, enrollment: &Enrollment) {
    if let Err(reason) = hello(stream).await {
        tracing::warn!(%reason, "a proxy did not introduce itself");
        return;
    }
    let registered = Registered::new(enrollment);
    tracing::info!(connection = registered.id, "proxy connected");
    let Err(reason) = tell(stream, enrollment, registered.id).await;
    match reason {
        Ended::Closed => tracing::info!(connection = registered.id, "proxy disconnected"),
        reason => tracing::warn!(connection = registered.id, %reason, "connection to the proxy ended"),
    }
}

/// In the ledger for exactly as long as the connection lives, however it ends.
struct Registered<'a> {
    enrollment: &'a Enrollment,
    id: ConnectionId,
}

impl<'a> Registered<'a> {
    fn new(enrollment: &'a Enrollment) -> Self {
        Self { enrollment, id: enrollment.change(crate::ledger::Ledger::connect) }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.enrollment.change(|ledger| ledger.disconnect(self.id));
    }
}

async fn hello(stream: &Stream) -> Result<(), Ended> {
    let bytes = answer(stream, "hello").await?;
    let hello = zds::ZdsHello::decode(bytes.as_slice()).map_err(|_| Ended::Unreadable("hello"))?;
    if hello.version == i32::from(zds::Version::V1) { Ok(()) } else { Err(Ended::Version(hello.version)) }
}

async fn tell(
    stream: &Stream,
    enrollment: &Enrollment,
    connection: ConnectionId,
) -> Result<std::convert::Infallible, Ended> {
    let mut changes = enrollment.changes();
    let mut nothing = [0; 1];
    loop {
        changes.mark_unchanged();
        let next = enrollment.ledger().next(connection, Instant::now());
        let Some(message) = next else {
            // Nothing to say: until something changes, it is time to try again, or the proxy goes.
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
                received = stream.receive(&mut nothing) => return Err(match received {
                    Err(ReceiveError::Closed) => Ended::Closed,
                    Err(ReceiveError::Io(error)) => Ended::Io(error),
                    _ => Ended::Unexpected,
                }),
            }
            continue;
        };
        let refusal = exchange(stream, &message).await?;
        if let Some(reason) = &refusal {
            tracing::warn!(connection, ?message, reason, "the proxy refused");
        }
        enrollment.change(|ledger| {
            ledger.answered(connection, &message, refusal.as_deref(), Instant::now());
        });
    }
}

/// Sends a message and waits for its acknowledgement: the error in it, if any.
async fn exchange(stream: &Stream, message: &Message) -> Result<Option<String>, Ended> {
    let request = encode(message);
    let descriptor = match message {
        Message::Add(pod) => pod.namespace.as_ref().map(|namespace| namespace.as_fd()),
        _ => None,
    };
    let sending = stream.send(&request, descriptor);
    timeout(DEADLINE, sending).await.map_err(|_| Ended::Late("room for a message"))??;
    let bytes = answer(stream, "acknowledgement").await?;
    let response = zds::WorkloadResponse::decode(bytes.as_slice());
    let Ok(Some(zds::workload_response::Payload::Ack(ack))) = response.map(|response| response.payload)
    else {
        return Err(Ended::Unreadable("acknowledgement"));
    };
    Ok(Some(ack.error).filter(|error| !error.is_empty()))
}

async fn answer(stream: &Stream, what: &'static str) -> Result<Vec<u8>, Ended> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    match timeout(DEADLINE, stream.receive(&mut buffer)).await {
        Err(_) => Err(Ended::Late(what)),
        Ok(Ok(packet)) if packet.descriptor.is_some() => Err(Ended::Unexpected),
        Ok(Ok(packet)) => {
            buffer.truncate(packet.length);
            Ok(buffer)
        }
        Ok(Err(ReceiveError::Closed)) => Err(Ended::Closed),
        Ok(Err(ReceiveError::Io(error))) => Err(Ended::Io(error)),
        Ok(Err(ReceiveError::Truncated(_) | ReceiveError::TooManyDescriptors)) => {
            Err(Ended::Unreadable(what))
        }
    }
}

/// The message as it goes over the wire.
pub(crate) fn encode(message: &Message) -> Vec<u8> {
    use zds::workload_request::Payload;
    let payload = match message {
        Message::Add(pod) => Payload::Add(zds::AddWorkload {
            uid: pod.record.uid.clone(),
            workload_info: Some(zds::WorkloadInfo {
                name: pod.record.pod.name.clone(),
                namespace: pod.record.pod.namespace.clone(),
                service_account: pod.record.service_account.clone(),
            }),
        }),
        Message::Keep { uid } => Payload::Keep(zds::KeepWorkload { uid: uid.clone() }),
        Message::Delete { uid } => Payload::Del(zds::DelWorkload { uid: uid.clone() }),
        Message::SnapshotSent => Payload::SnapshotSent(zds::SnapshotSent {}),
    };
    zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}
