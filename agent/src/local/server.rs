//! Serving the agent's own socket.
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::monotonic;
use runtime::tasks::TaskGroup;
use runtime::throttle::Throttle;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{LINE_LIMIT, Listed, Request, Response, State};
use crate::enrollment::{EnrollError, Enrollment};
use crate::ledger::{Pod, Progress};

/// Requests served at once; more wait in the socket's queue.
const REQUEST_LIMIT: usize = 64;
/// For a request to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failures to accept are told at most this often.
const REPORTS: Duration = Duration::from_secs(10);
/// Nobody waits longer for a proxy.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Listens in place of an agent that is no more. The caller holds the folder's lock.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves requests for as long as the agent lives. `zds` is the proxies' socket, for messages.
pub(crate) async fn serve(
    listener: UnixListener,
    enrollment: Arc<Enrollment>,
    zds: PathBuf,
    tasks: TaskGroup,
) {
    let places = Arc::new(Semaphore::new(REQUEST_LIMIT));
    let zds: Arc<str> = zds.display().to_string().into();
    let mut failures = Throttle::new(REPORTS);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (enrollment, zds) = (Arc::clone(&enrollment), Arc::clone(&zds));
                tasks.spawn("agent request", async move {
                    if let Err(error) = answer(stream, &enrollment, &zds).await {
                        tracing::debug!(%error, "request not answered");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                if let Some(unreported) = failures.report(monotonic()) {
                    tracing::warn!(%error, unreported, "cannot accept a request");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, enrollment: &Enrollment, zds: &str) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LINE_LIMIT));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await.map_err(io::Error::other)??;
    let response = match serde_json::from_str(&line) {
        Ok(request) => respond(request, enrollment, zds).await,
        Err(error) => Response::Error {
            code: "agent-invalid-request".to_owned(),
            message: format!("the request is not understood: {error}"),
        },
    };
    let mut bytes = serde_json::to_vec(&response)?;
    bytes.push(b'\n');
    tokio::time::timeout(PATIENCE, writer.write_all(&bytes)).await.map_err(io::Error::other)?
}

async fn respond(request: Request, enrollment: &Enrollment, zds: &str) -> Response {
    let done = match request {
        Request::List => Ok(list(enrollment)),
        Request::Withdraw { uid } => enrollment
            .withdraw(&uid)
            .await
            .map(|record| vec![Listed { record, state: State::Withdrawn, reason: None }]),
        Request::Enroll(enroll) => {
            let request = crate::enrollment::Request {
                netns: enroll.netns,
                uid: enroll.uid,
                pod: enroll.pod,
                service_account: enroll.service_account,
                options: enroll.options,
                wait: Duration::from_secs(enroll.wait_seconds).min(LONGEST_WAIT),
            };
            let enrolled = enrollment.enroll(request, zds).await;
            enrolled.map(|record| vec![Listed { record, state: State::Enabled, reason: None }])
        }
    };
    done.map_or_else(|error| refusal(&error), Response::Ok)
}

fn refusal(error: &EnrollError) -> Response {
    Response::Error { code: error.code().to_owned(), message: error.to_string() }
}

fn list(enrollment: &Enrollment) -> Vec<Listed> {
    let ledger = enrollment.ledger();
    let listed = ledger.pods().map(|Pod { record, namespace, generation }| {
        let (state, reason) = match ledger.progress(&record.uid, *generation) {
            Progress::Accepted => (State::Enabled, None),
            _ if namespace.is_none() => (State::Pending, Some("its namespace cannot be opened")),
            Progress::NoProxy => (State::Pending, Some("no node proxy is connected")),
            Progress::Refused(reason) => {
                let reason = Some(format!("the node proxy could not start it: {reason}"));
                return Listed { record: record.clone(), state: State::Pending, reason };
            }
            _ => (State::Pending, Some("the node proxy has not answered yet")),
        };
        Listed { record: record.clone(), state, reason: reason.map(str::to_owned) }
    });
    listed.collect()
}
