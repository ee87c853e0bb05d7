//! The node's HTTP servers (control-and-operations 6): admin on loopback and on a local socket, stats, readiness.
//!
//! What is shown comes from [`Sources`]; how it is shown is decided here.
mod home;
mod logging;
mod profile;
mod query;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, StatusCode, Uri};
use runtime::drain::Drain;
use runtime::folders::{self, FolderError};
use runtime::health::Readiness;
use runtime::http::{
    Answer, BindError, Handler, Request, Server, method_not_allowed, not_found, text, with_type,
};
use runtime::logging::Logging;
use runtime::signals::StopHandle;
use runtime::tasks::TaskGroup;
use wire::dump::{self, ConfigDump};

use crate::config::Config;

/// Name of the local admin socket in the node's folder.
const SOCKET: &str = "admin.sock";

/// Where the parts of a dump come from.
pub(crate) trait Sources: Send + Sync + 'static {
    /// What is true now. May ask other threads.
    fn current(&self) -> impl Future<Output = Current> + Send;
}

/// The parts of a dump that change, sorted as they are shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Current {
    /// By identity.
    pub(crate) certificates: Vec<dump::CertificateState>,
    /// By uid.
    pub(crate) workloads: Vec<dump::Workload>,
    /// By hostname.
    pub(crate) services: Vec<dump::Service>,
    /// By key.
    pub(crate) policies: Vec<dump::Policy>,
    /// Endpoints that wait for their service.
    pub(crate) staged_services: BTreeMap<String, BTreeMap<String, dump::Endpoint>>,
    /// The local source as it would be read now.
    pub(crate) static_config: dump::StaticConfig,
    /// Pods by uid; nothing in dedicated mode.
    pub(crate) pods: Option<BTreeMap<String, dump::PodState>>,
}

/// The admin server's handler.
#[derive(Debug)]
pub(crate) struct Admin<S> {
    sources: S,
    config: serde_json::Value,
    version: dump::Version,
    logging: Logging,
    stop: StopHandle,
}

impl<S: Sources> Admin<S> {
    pub(crate) fn new(sources: S, config: &Config, logging: Logging, stop: StopHandle) -> Self {
        Self { sources, config: config.to_json(), version: version(&config.istio_version), logging, stop }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, method: &Method, uri: &Uri) -> Answer {
        let query = query::parse(uri.query().unwrap_or_default());
        match uri.path() {
            "/" => with_type(StatusCode::OK, "text/html; charset=utf-8", home::PAGE.as_str()),
            "/config_dump" => self.config_dump().await,
            "/logging" => logging::answer(&self.logging, method, &query),
            "/quitquitquit" if method == Method::POST => {
                self.stop.stop();
                text(StatusCode::OK, "shutdown now\n")
            }
            "/quitquitquit" => method_not_allowed(),
            "/debug/pprof/profile" => profile::cpu(&query).await,
            "/debug/pprof/heap" => text_error("heap profiling is not enabled"),
            "/debug/pprof/heap/profiling" => profile::heap_switch(&query),
            _ => not_found(),
        }
    }

    async fn config_dump(&self) -> Answer {
        let current = self.sources.current().await;
        let dump = ConfigDump {
            certificates: current.certificates,
            config: self.config.clone(),
            policies: current.policies,
            services: current.services,
            staged_services: current.staged_services,
            static_config: current.static_config,
            version: self.version.clone(),
            workload_state: current.pods,
            workloads: current.workloads,
        };
        // Large meshes take a while; the thread of this server has other things to do.
        match tokio::task::spawn_blocking(move || dump.to_pretty_json()).await {
            Ok(Ok(json)) => with_type(StatusCode::OK, "application/json", json),
            Ok(Err(error)) => text_error(&error.to_string()),
            Err(error) => text_error(&error.to_string()),
        }
    }
}

impl<S: Sources> Handler for Admin<S> {
    async fn handle(&self, request: Request) -> Answer {
        self.answer(request.method(), request.uri()).await
    }
}

/// 500 with a reason and, as the reference does, without a content type.
fn text_error(reason: &str) -> Answer {
    let mut answer = text(StatusCode::INTERNAL_SERVER_ERROR, reason.to_owned());
    answer.headers_mut().remove(http::header::CONTENT_TYPE);
    answer
}

/// What was built, for a mesh of this version.
pub(crate) fn version(istio_version: &str) -> dump::Version {
    use runtime::build;
    let known = build::GIT_REVISION != "unknown";
    dump::Version {
        version: (if known { build::GIT_REVISION } else { build::VERSION }).to_owned(),
        git_revision: build::GIT_REVISION.to_owned(),
        rust_version: build::RUST_VERSION.to_owned(),
        build_profile: build::PROFILE.to_owned(),
        build_status: build::STATUS.to_owned(),
        istio_version: istio_version.to_owned(),
        crypto_provider: "tls-aws-lc".to_owned(),
    }
}

/// The same as the one line of `version` and of the start of the log.
pub(crate) fn version_line(version: &dump::Version) -> String {
    let dump::Version {
        version, git_revision, rust_version, build_profile, build_status, istio_version, ..
    } = version;
    format!(
        "version.BuildInfo{{Version:\"{version}\", GitRevision:\"{git_revision}\", RustVersion:\"{rust_version}\", \
         BuildProfile:\"{build_profile}\", BuildStatus:\"{build_status}\", IstioVersion:\"{istio_version}\", \
         CryptoProvider:\"tls-aws-lc\"}}"
    )
}

/// All servers, bound and not yet serving.
#[derive(Debug)]
pub(crate) struct Servers {
    admin: Vec<Server>,
    stats: Server,
    readiness: Server,
}

impl Servers {
    /// Binds admin (loopback), stats and readiness; a conflict is an error. The local socket is a convenience: where it
    /// cannot be, one warning says so.
    pub(crate) async fn bind(config: &Config) -> Result<Self, BindError> {
        let readiness = Server::bind_tcp(config.listen.readiness, "readiness").await?;
        let mut admin = Vec::new();
        for address in config.listen.admin.addresses() {
            admin.push(Server::bind_tcp(address, "admin").await?);
        }
        let stats = Server::bind_tcp(config.listen.stats, "stats").await?;
        match local_socket(config)
            .map_err(|error| error.to_string())
            .and_then(|path| Server::bind_unix(&path, "local admin").map_err(|error| error.to_string()))
        {
            Ok(server) => admin.push(server),
            Err(reason) => {
                tracing::warn!(reason, "no local admin socket: `culvert zc` needs --admin-address")
            }
        }
        Ok(Self { admin, stats, readiness })
    }

    /// Addresses of the admin server, TCP first.
    #[cfg(test)]
    pub(crate) fn admin_addresses(&self) -> impl Iterator<Item = &str> {
        self.admin.iter().map(Server::address)
    }

    /// Address of the stats server.
    #[cfg(test)]
    pub(crate) fn stats_address(&self) -> &str {
        self.stats.address()
    }

    /// Serves all until drained, as tasks of `tasks`.
    pub(crate) fn serve<S: Sources>(
        self,
        admin: Admin<S>,
        page: impl Fn() -> String + Send + Sync + 'static,
        ready: Readiness,
        tasks: &TaskGroup,
        drain: &Drain,
    ) {
        let admin = Arc::new(admin);
        for server in self.admin {
            let admin = Arc::clone(&admin);
            let handler = move |request: Request| {
                let admin = Arc::clone(&admin);
                async move { admin.handle(request).await }
            };
            tasks.spawn("admin", server.serve(handler, tasks.clone(), drain.clone()));
        }
        let page = Arc::new(page);
        let stats = move |request: Request| {
            let page = Arc::clone(&page);
            async move { runtime::metrics::answer(&request.into_parts().0, || page()) }
        };
        tasks.spawn("stats", self.stats.serve(stats, tasks.clone(), drain.clone()));
        let readiness = move |request: Request| {
            let answer = ready.answer(request.method(), request.uri().path());
            async move { answer }
        };
        tasks.spawn("readiness", self.readiness.serve(readiness, tasks.clone(), drain.clone()));
    }
}

/// `D/NODE/admin.sock`, its folder made.
fn local_socket(config: &Config) -> Result<PathBuf, FolderError> {
    let node = config.local_node.as_deref().filter(|name| !name.is_empty()).unwrap_or("node");
    // A node's name is a DNS name; anything else must not lead out of the folder.
    let node = node.replace('/', "_");
    let folder = config.runtime_folder.join(if node.starts_with('.') { "node" } else { &node });
    folders::make(&folder)?;
    folders::socket_path(&folder, SOCKET)
}

#[cfg(test)]
mod tests;
