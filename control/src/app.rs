//! Builds and joins every part of the control plane.
//!
//! Order of start: configuration → source → authority → first catalog → listeners → ready. Nothing listens before the
//! whole world is known: a client that is answered from half a world would delete the other half.

mod handshakes;
mod ports;
mod reload;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use identity::TrustDomain;
use jiff::Timestamp;
use parking_lot::Mutex;
use runtime::clock::Clock;
use runtime::drain::{Drain, Trigger};
use runtime::environment::Environment;
use runtime::logging::{Logging, Settings};
use runtime::signals::Signals;
use runtime::tasks::TaskGroup;
use thiserror::Error;
use tokio::sync::watch;

use crate::authority::{self, Authority, AuthorityError, PodIndex};
use crate::catalog::Catalog;
use crate::config::{self, Config, ConfigErrors, Task, TokenRequest};
use crate::debug::{Debug, SourceState};
use crate::discovery::{Access, Discovery};
use crate::metrics::Metrics;
use crate::sources::{FileSource, LoadError, Snapshot};
use crate::translate::translate;
use ports::Ports;
use reload::Reloader;

/// How long open streams and requests may take to end.
const DRAIN: Duration = Duration::from_secs(5);
/// Mistakes in flags or environment.
const EXIT_USAGE: u8 = 2;

/// Runs the control plane, or prints a token.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    match config::read(arguments, &Environment::of_process()) {
        Ok(Task::Serve(config)) => serve(*config),
        Ok(Task::Token(request)) => token(&request),
        Err(ConfigErrors::Usage(error)) => {
            // Help goes to standard output with success, mistakes to standard error.
            _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
        Err(mistakes) => {
            say(&mistakes.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Why the control plane cannot start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Source(#[from] LoadError),
    #[error("mesh configuration: trustDomain: {0}")]
    TrustDomain(#[from] identity::InvalidTrustDomain),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("failed to bind {component} to {address}: {source}")]
    Bind { component: &'static str, address: SocketAddr, source: std::io::Error },
}

impl StartError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Source(_) => "source-refused-at-start",
            Self::TrustDomain(_) => "source-invalid-mesh-config",
            Self::Authority(error) => error.code(),
            Self::Bind { .. } => "listen-bind-failed",
        }
    }
}

fn serve(config: Config) -> ExitCode {
    let settings = Settings {
        format: config.log_format,
        filter: config.log_filter.clone(),
        program: "culvert_control",
        ..Settings::default()
    };
    let logging = match Logging::init(settings) {
        Ok(logging) => logging,
        Err(error) => {
            say(&format!("Error: {error} [{}]\n", error.code()));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("Error: cannot start threads: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(until_stopped(config));
    logging.flush();
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn until_stopped(config: Config) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("Error: cannot handle signals: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(target: "control", version = runtime::build::VERSION, config = ?config, "starting");
    let control = match ControlPlane::start(config, Clock::system()).await {
        Ok(control) => control,
        Err(error) => {
            tracing::error!(target: "control", code = error.code(), "not started");
            say(&format!("Error: {error} [{}]\n", error.code()));
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(target: "control", addresses = ?control.addresses(), "ready");
    let failed = tokio::select! {
        _ = signals.stop_requested() => None,
        failure = control.failed() => Some(failure),
    };
    if let Some(failure) = &failed {
        tracing::error!(target: "control", code = failure.code(), %failure, "a part has failed, stopping");
    }
    tokio::select! {
        () = control.stop(DRAIN) => {}
        () = signals.interrupted() => {}
    }
    if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn token(request: &TokenRequest) -> ExitCode {
    let TokenRequest { kind, node, account, ttl, state } = request;
    match authority::tokens::issue(state, *kind, node, account, *ttl, runtime::clock::wall()) {
        Ok(token) => match print_token(&token) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            say(&format!("Error: {error} [{}]\n", error.code()));
            ExitCode::FAILURE
        }
    }
}

/// A file gets the token and nothing else: a ztunnel sends its token file as it is, and no header holds a line feed.
fn print_token(token: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(token.as_bytes())?;
    if output.is_terminal() {
        output.write_all(b"\n")?;
    }
    output.flush()
}

/// To whoever started the program. Nothing is left to report to when standard error is closed.
fn say(text: &str) {
    _ = std::io::stderr().write_all(text.as_bytes());
}

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    tasks: TaskGroup,
    /// Ends what accepts and reloads; streams end because no more worlds come.
    trigger: Trigger,
    addresses: Addresses,
}

/// Where it really listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) secure_grpc: Option<SocketAddr>,
    pub(crate) monitoring: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
}

impl ControlPlane {
    /// Loads the world, then listens.
    pub(crate) async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        authority::open_state(&config.authority.state).map_err(AuthorityError::from)?;
        let (source, snapshot) = FileSource::open(config.source.clone(), timestamp(&clock))?;
        let authority =
            Authority::open(authority_config(&config, &snapshot.mesh.trust_domain)?, clock.clone())?;
        let records = Arc::new(translate(&snapshot.objects, &snapshot.mesh, &config.switches));
        reload::log_remarks(&records);
        let catalog = Arc::new(Catalog::first(records, timestamp(&clock)));
        let counts = catalog.counts();
        tracing::info!(
            target: "control",
            workloads = counts.n_workloads,
            services = counts.n_services,
            policies = counts.n_policies,
            "the mesh is loaded"
        );
        let (worlds, receiver) = watch::channel(catalog);
        let metrics = Metrics::new(clock.wall());
        metrics.reloaded(snapshot.problems.len(), clock.wall());
        reload::log_ignored(&Default::default(), &snapshot.ignored_kinds);
        let Snapshot { problems, mesh, ignored_kinds, .. } = snapshot;
        let trust_domain = mesh.trust_domain.clone();
        let state = Arc::new(Mutex::new(SourceState { problems, mesh, ignored_kinds }));

        let access = Access {
            authority: authority.clone(),
            trusted: config.trusted_accounts.clone(),
            authenticate: config.authenticate,
            check_identity: config.check_identity,
            plaintext: config.plaintext,
        };
        let discovery =
            Discovery::new(receiver.clone(), access, config.limits, metrics.clone(), clock.clone());
        let debug = Debug {
            discovery: discovery.clone(),
            authority: authority.clone(),
            metrics: metrics.clone(),
            source: Arc::clone(&state),
            access: Arc::new(config.debug.clone()),
            cluster_id: config.switches.cluster_id.as_str().into(),
            clock: clock.clone(),
        };
        let ports = Ports::bind(&config.listen).await?;
        let addresses = ports.addresses();

        let tasks = TaskGroup::new("control");
        let (trigger, drain) = Drain::new();
        let pods = Arc::new(ServedPods(receiver));
        ports.serve(&config, &discovery, &authority, pods, &debug, &tasks, &drain);
        let reloader = Reloader {
            watch: source.watch(),
            source,
            switches: config.switches,
            trust_domain,
            worlds,
            state,
            metrics,
            clock,
        };
        tasks.spawn("reload", reloader.run(config.debounce, drain));
        tasks.spawn("authority", async move { authority.maintain().await });
        Ok(Self { tasks, trigger, addresses })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until a part fails.
    pub(crate) async fn failed(&self) -> runtime::tasks::TaskFailure {
        self.tasks.failed().await
    }

    /// Ends streams and requests, within a limit. Clients are told nothing but to come back.
    pub(crate) async fn stop(self, limit: Duration) {
        let outcome = self.trigger.drain(limit).await;
        tracing::info!(target: "control", ?outcome, "stopped");
        self.tasks.cancel();
        _ = self.tasks.join().await;
    }
}

fn timestamp(clock: &Clock) -> Timestamp {
    Timestamp::try_from(clock.wall()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn authority_config(config: &Config, trust_domain: &str) -> Result<authority::Config, StartError> {
    let settings = &config.authority;
    Ok(authority::Config {
        trust_domain: trust_domain.parse::<TrustDomain>()?,
        cluster_id: config.switches.cluster_id.clone(),
        state: settings.state.clone(),
        root_ca_dir: settings.root_ca_dir.clone(),
        server_names: settings.server_names.clone(),
        trusted_accounts: config.trusted_accounts.clone(),
        default_ttl: settings.default_ttl,
        max_ttl: settings.max_ttl,
    })
}

/// Who runs where, from the very records that discovery serves.
#[derive(Debug)]
struct ServedPods(watch::Receiver<Arc<Catalog>>);

impl PodIndex for ServedPods {
    fn runs_on(&self, namespace: &str, account: &str, node: &str) -> bool {
        self.0.borrow().records().pods.runs_on(namespace, account, node)
    }
}
