//! Builds and joins every part of the node proxy, and takes them apart again.
//!
//! The order is part of the contract (control-and-operations 9.2): what can refuse to start does
//! so before anything is served, and traffic flows only once the mesh is known.

mod command;
mod dump;
mod names;
mod traffic;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::drain::{Drain, Trigger};
use runtime::environment::Environment;
use runtime::health::Readiness;
use runtime::logging::{self, Format, Logging};
use runtime::metrics::RuntimeCollector;
use runtime::signals::Signals;
use runtime::tasks::TaskGroup;
use state::Mesh;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{self, Admin, Servers};
use crate::certs::channel::ChannelError;
use crate::certs::join::Joiner;
use crate::certs::revocations::Revocations;
use crate::certs::{CaClient, CertificateManager};
use crate::config::{Config, LOG_ALIASES};
use crate::dns;
use crate::memory;
use crate::metrics::Metrics;
use crate::pods::{self, DnsParts, PodList, StartError as PodError};
use crate::settings::Settings;
use crate::sync::{LocalIdentities, MeshHandle, Sync, SyncError};
use crate::threads::{Equipment, Threads};
use command::Command;
use traffic::Traffic;

/// How long the HTTP servers and background tasks get once the pods are drained.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How long tunnels get for their last words where the drain has used up its deadline.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the node proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("cannot watch for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("certificates: {0}")]
    Certificates(#[from] ChannelError),
    #[error("ca_address must be set to use CA")]
    NoCa,
    #[error("discovery: {0}")]
    Discovery(#[from] SyncError),
    #[error("{0}")]
    Bind(#[from] runtime::http::BindError),
    #[error("in-pod mode needs the right to enter network namespaces: {0}")]
    CannotEnter(#[source] net::NamespaceError),
    #[error("in-pod mode needs the right to mark packets (CAP_NET_ADMIN): {0}")]
    CannotMark(#[source] std::io::Error),
    #[error("{0}")]
    Listen(#[source] PodError),
    #[error("invalid identity of this proxy: {0}")]
    OwnIdentity(#[from] identity::InvalidSpiffeId),
}

impl StartError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Thread(_) => "node-no-thread",
            Self::Signals(_) => "node-no-signals",
            Self::Certificates(error) => error.code(),
            Self::NoCa => "config-no-ca",
            Self::Discovery(error) => error.code(),
            Self::Bind(error) => error.code(),
            Self::CannotEnter(_) => "node-cannot-enter-namespaces",
            Self::CannotMark(_) => "node-cannot-mark",
            Self::Listen(error) => error.code(),
            Self::OwnIdentity(error) => error.code(),
        }
    }
}

/// Runs the node proxy with its own arguments.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match Command::parse(arguments) {
        Command::Run => start(arguments),
        answered => answered.answer(),
    }
}

fn start(arguments: &[OsString]) -> ExitCode {
    net::memory::keep_little();
    let environment = Environment::of_process();
    let json = environment.get("LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
    let logging = Logging::init(logging::Settings {
        format: if json { Format::Json } else { Format::Plain },
        base: "hickory_server::server=off",
        filter: environment.get("RUST_LOG").map(str::to_owned),
        aliases: LOG_ALIASES,
        program: "",
    });
    let logging = match logging {
        Ok(logging) => logging,
        Err(error) => return command::complain(&error.to_string()),
    };
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let config = match Config::from_process(words.join(" ")) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors.0 {
                tracing::error!(code = error.code(), %error, "invalid configuration");
            }
            logging.flush();
            return command::complain(&errors.to_string());
        }
    };
    let code = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(event_loop) => event_loop.block_on(serve(config, &logging)),
        Err(error) => Err(StartError::Thread(error)),
    };
    let code = code.unwrap_or_else(|error| {
        tracing::error!(code = error.code(), %error, "the node proxy cannot start");
        logging.flush();
        command::complain(&format!("{error} ({})", error.code()))
    });
    logging.flush();
    code
}

/// The parts that live for as long as the process.
struct Parts {
    tasks: TaskGroup,
    /// Tasks of connections: a fault in one is no fault of the rest.
    connections: TaskGroup,
    trigger: Trigger,
    drain: Drain,
    signals: Signals,
}

/// Starts everything, waits for the end, takes everything apart.
async fn serve(config: Config, logging: &Logging) -> Result<ExitCode, StartError> {
    let signals = Signals::install().map_err(StartError::Signals)?;
    let (trigger, drain) = Drain::new();
    let (tasks, connections) = (TaskGroup::new("node"), TaskGroup::new("connections"));
    let parts = Parts { tasks, connections, trigger, drain, signals };
    announce(&config);
    let clock = Clock::system();

    let joined = config.join().map(|join| {
        let (joiner, identity) = Joiner::new(join, clock.clone());
        parts.tasks.spawn("join", joiner.run());
        identity
    });
    let mut certs = config.certs(joined.clone()).ok_or(StartError::NoCa)?;
    let revocations = config.crl_path.clone().map(Revocations::open);
    let lists = revocations.as_ref().map(Revocations::lists);
    let revision = revocations.as_ref().map(Revocations::revision);
    certs.tls.revocations.clone_from(&lists);
    if let Some(revocations) = revocations {
        parts.tasks.spawn("revocations", revocations.follow());
    }
    let issuer = Arc::new(CaClient::new(&certs)?);
    let (certificates, worker) = CertificateManager::new(issuer, certs.limits, clock.clone());
    parts.tasks.spawn("certificates", worker.run());

    let mut threads = Threads::start(config.n_traffic_threads).map_err(StartError::Thread)?;
    let readiness = Readiness::new();
    let ready = traffic::Tasks::register(&config, &readiness);
    let servers = Servers::bind(&config).await?;

    let tag = config.istio_version.as_str();
    let alive = vec![parts.tasks.clone(), parts.connections.clone()];
    let event_loops = RuntimeCollector::new(threads.event_loops(), alive);
    let mut metrics = Metrics::new(tag, event_loops, config.is_shared());
    if let Some(lists) = lists {
        metrics.show_revocations(lists);
    }
    let dns_metrics = dns::Metrics::new(metrics.dns());
    let node = config.local_node.as_deref().filter(|_| config.is_shared());
    let observer = LocalIdentities::new(certificates.clone(), node.map(Arc::from));
    let sync = Sync::new(config.sync(joined), metrics.discovery(), observer)?;
    let mesh = sync.mesh();
    parts.tasks.spawn_essential("discovery", sync.run());

    let settings = Arc::new(Settings::new(&config));
    metrics.show_tunnels(&settings.hbone);
    threads.equip(|| Equipment {
        mesh: mesh.clone(),
        certificates: certificates.clone(),
        settings: Arc::clone(&settings),
        counters: metrics.shard(),
        logging: logging.clone(),
        clock: clock.clone(),
        revocations: revision.clone(),
    });
    let threads = Arc::new(threads);
    parts.tasks.spawn("memory", memory::give_back(Arc::downgrade(&threads)));
    let goodbye = Goodbye { tunnels: settings.hbone.metrics.clone(), deadline: config.termination_deadline };
    let list = PodList::default();
    let environment = pods::Environment {
        threads: Arc::clone(&threads),
        settings,
        dns: dns_parts(&config, &mesh, dns_metrics, &parts.tasks),
        metrics: metrics.pods.clone(),
        list: list.clone(),
        drain: parts.drain.clone(),
        tasks: parts.tasks.clone(),
        connections: parts.connections.clone(),
    };
    let sources = dump::Running {
        mesh: mesh.clone(),
        certificates: certificates.clone(),
        pods: config.is_shared().then_some(list),
        local: config.local_source.clone(),
    };
    let traffic = Traffic::bind(&config, environment, &certificates, ready)?;
    let admin = Admin::new(sources, &config, logging.clone(), parts.signals.handle());
    let page = move || metrics.render();
    servers.serve(admin, page, readiness, &parts.tasks, &parts.drain);

    let traffic = traffic.carry(config, mesh);
    let code = until_stopped(parts, traffic, goodbye).await;
    threads.stop().await;
    code
}

fn announce(config: &Config) {
    let version = admin::version_line(&admin::version(&config.istio_version));
    tracing::info!(target: "ztunnel", "version: {version}");
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    match runtime::limits::raise_descriptor_limit() {
        Ok((before, now)) => {
            let (before, now) = (shown(before), shown(now));
            tracing::info!(target: "ztunnel", "set file descriptor limits from {before} to {now}");
        }
        Err(error) => {
            tracing::warn!(target: "ztunnel", %error, "failed to raise the file descriptor limit");
        }
    }
    tracing::info!(target: "ztunnel", "running with config: {}", config.to_yaml());
    // The first random number of a process takes its time.
    let _: u64 = rand::random();
}

/// In-pod mode enters other namespaces and marks its packets; better to know now than per pod.
fn self_test(mark: Option<u32>) -> Result<(), StartError> {
    let own = net::NetNamespace::current().map_err(StartError::CannotEnter)?;
    let marked = own.run(|| mark.map_or(Ok(()), net::socket::can_mark));
    marked.map_err(StartError::CannotEnter)?.map_err(StartError::CannotMark)
}

/// DNS follows the mesh through a channel of snapshots.
fn dns_parts(config: &Config, mesh: &MeshHandle, metrics: dns::Metrics, tasks: &TaskGroup) -> DnsParts {
    let mut following = mesh.clone();
    let (snapshots, current): (_, watch::Receiver<Arc<Mesh>>) = watch::channel(mesh.current());
    tasks.spawn("mesh for dns", async move {
        loop {
            following.changed().await;
            snapshots.send_replace(following.current());
        }
    });
    DnsParts { mesh: current, settings: Arc::new(config.dns()), metrics }
}

/// What the process waits for when no connection is carried any more.
struct Goodbye {
    tunnels: Option<Arc<hbone::Metrics>>,
    deadline: Duration,
}

impl Goodbye {
    /// What connections have said before they ended may still be on its way, sealed or not: the process would take it
    /// with it. Bounded by the deadline of the drain.
    async fn said(&self, began: Instant) {
        let Some(tunnels) = &self.tunnels else { return };
        let left = self.deadline.saturating_sub(began.elapsed()).max(LAST_WORDS);
        if tokio::time::timeout(left, tunnels.all_closed()).await.is_err() {
            tracing::debug!("some peers have not closed their tunnels");
        }
    }
}

/// Runs until a signal, a request, or the failure of a part; then drains.
async fn until_stopped(
    parts: Parts,
    traffic: impl Future<Output = Result<(), StartError>>,
    goodbye: Goodbye,
) -> Result<ExitCode, StartError> {
    let Parts { tasks, connections, trigger, mut signals, .. } = parts;
    let mut traffic = std::pin::pin!(traffic);
    let failed = tasks.failed();
    let mut code = ExitCode::SUCCESS;
    tokio::select! {
        biased;
        _ = signals.stop_requested() => {}
        failure = failed => {
            tracing::error!(code = failure.code(), error = %failure, "a part of the node proxy failed");
            code = ExitCode::FAILURE;
        }
        ended = traffic.as_mut() => ended?,
    }
    let began = Instant::now();
    trigger.start();
    let drained = async {
        // Whatever was carried has ended or was cut at its own deadline.
        let ended = traffic.await;
        goodbye.said(began).await;
        trigger.drain(LAST_CALL).await;
        ended
    };
    tokio::select! {
        biased;
        // The person at the terminal does not want to wait.
        () = signals.interrupted() => return Ok(ExitCode::SUCCESS),
        ended = drained => ended?,
    }
    connections.cancel();
    tasks.cancel();
    Ok(code)
}
