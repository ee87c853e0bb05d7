//! The serving agent: builds its parts, runs them, stops.
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::environment::Environment;
use runtime::folders::{self, FolderError};
use runtime::signals::Signals;
use runtime::tasks::{TaskFailure, TaskGroup};

use crate::args::{Place, Serve};
use crate::enrolled::{Store, StoreError};
use crate::enrollment::Enrollment;
use crate::local::{self, SOCKET};
use crate::routing;
use crate::variables;
use crate::zds::{self, ServeError};

/// The reference's path, on both sides.
const ZDS_SOCKET: &str = "/var/run/ztunnel/ztunnel.sock";
/// Between looks for namespaces that could not be opened.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The agent's settings, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Its own folder.
    pub folder: PathBuf,
    pub zds_socket: PathBuf,
    pub cleanup: bool,
}

impl Config {
    pub(crate) fn new(serve: &Serve, environment: &Environment) -> Self {
        let node = node(&serve.place, environment).unwrap_or_else(|| "node".to_owned());
        let zds_socket =
            serve.zds_socket.clone().or_else(|| set(environment, "INPOD_UDS").map(PathBuf::from));
        Self {
            folder: base(&serve.place, environment).join(node),
            zds_socket: zds_socket.unwrap_or_else(|| ZDS_SOCKET.into()),
            cleanup: serve.cleanup,
        }
    }
}

/// The runtime folder of all nodes.
pub(crate) fn base(place: &Place, environment: &Environment) -> PathBuf {
    let given =
        place.runtime_dir.clone().or_else(|| set(environment, "CULVERT_RUNTIME_DIR").map(PathBuf::from));
    given.unwrap_or_else(|| folders::default_base(environment))
}

/// The node's name, if any is given.
pub(crate) fn node(place: &Place, environment: &Environment) -> Option<String> {
    place.node.clone().or_else(|| {
        // As a folder's name; the same rule as the node proxy's.
        let name = set(environment, "NODE_NAME")?.replace('/', "_");
        (!name.starts_with('.')).then_some(name)
    })
}

/// The value of a variable that is set to something.
pub(crate) fn set<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    debug_assert!(variables::is_declared(name), "{name} is in no documentation");
    environment.get(name).filter(|value| !value.is_empty())
}

/// The agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("another agent is running in {}: stop it, or choose another --node", .0.display())]
    Running(PathBuf),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("cannot serve {SOCKET} in {}: {source}", folder.display())]
    Socket { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Zds(#[from] ServeError),
    #[error("cannot watch for signals: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl AgentError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Running(_) => "agent-already-running",
            Self::Folder(error) => error.code(),
            Self::Socket { .. } => "agent-cannot-listen",
            Self::Store(error) => error.code(),
            Self::Zds(error) => error.code(),
            Self::Signals(_) => "agent-no-signals",
            Self::Task(error) => error.code(),
        }
    }
}

/// Serves until it is told to stop.
pub(crate) async fn serve(config: Config) -> Result<(), AgentError> {
    let mut signals = Signals::install().map_err(AgentError::Signals)?;
    let _lock = lock(&config)?;
    let enrollment = Arc::new(Enrollment::new(Store::new(&config.folder)));
    // Rules first: a proxy that connects finds them right.
    enrollment.restore()?;
    let proxies = zds::listen(&config.zds_socket).await?;
    let path = folders::socket_path(&config.folder, SOCKET)?;
    let requests = local::server::listen(&path)
        .map_err(|source| AgentError::Socket { folder: config.folder.clone(), source })?;
    tracing::info!(socket = %config.zds_socket.display(), folder = %config.folder.display(), "agent ready");

    let tasks = TaskGroup::new("agent");
    tasks.spawn_essential("zds", zds::serve(proxies, Arc::clone(&enrollment), tasks.clone()));
    let serving =
        local::server::serve(requests, Arc::clone(&enrollment), config.zds_socket.clone(), tasks.clone());
    tasks.spawn_essential("requests", serving);
    tasks.spawn_essential("routing", routing::follow(Arc::clone(&enrollment), tasks.clone()));
    tasks.spawn_essential("look again", look_again(Arc::clone(&enrollment)));
    let outcome = tokio::select! {
        _ = signals.stop_requested() => Ok(()),
        failure = tasks.failed() => Err(failure.into()),
    };
    // Nobody enrolls or connects to sockets that are about to end.
    let _ = std::fs::remove_file(&path);
    if config.cleanup {
        enrollment.withdraw_all().await;
    }
    let _ = std::fs::remove_file(&config.zds_socket);
    tasks.cancel();
    outcome
}

async fn look_again(enrollment: Arc<Enrollment>) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        enrollment.look_again().await;
    }
}

/// One agent per folder; held until it ends, however it ends.
fn lock(config: &Config) -> Result<File, AgentError> {
    folders::make(&config.folder)?;
    let failed = |source| AgentError::Socket { folder: config.folder.clone(), source };
    let lock =
        File::options().create(true).append(true).open(config.folder.join("agent.lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(AgentError::Running(config.folder.clone())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
