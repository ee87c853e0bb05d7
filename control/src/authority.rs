//! The certificate authority: who may have which certificate, and signing it.
//!
//! [`Authority::open`] takes up or makes the signing material; [`Authority::accept`] does TLS on port
//! 15012; [`Authority::services`] are the two gRPC services that belong there and nowhere else. The
//! plaintext port must never serve them: they refuse callers that came without TLS all the same.
//!
//! Reading order: `authenticate.rs` (who calls), `impersonate.rs` (what they may ask for), `issue.rs`
//! and `join.rs` (the services), `leaf.rs` (what a certificate says), `material.rs` (what it is signed
//! with), `state.rs` (what is on disk), `server.rs` (TLS). Contract: control-plane 1.3 to 1.6 and 5.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use identity::TrustDomain;
use runtime::clock::Clock;
use rustls::ServerConfig;
use wire::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use wire::join::join_service_server::JoinServiceServer;

mod authenticate;
mod counters;
mod impersonate;
mod issue;
mod join;
mod leaf;
mod material;
mod server;
mod state;
pub(crate) mod tokens;

#[cfg(test)]
use authenticate::Proof;
pub(crate) use authenticate::{Account, Authenticator, Principal};
pub(crate) use counters::Counters;
pub(crate) use impersonate::PodIndex;
pub(crate) use issue::CertificateService;
pub(crate) use join::JoinService;
pub(crate) use material::MaterialError;
pub(crate) use server::{Caller, SecureStream, canonical};
pub(crate) use state::StateError;

use material::{Material, PluggedFiles};
use server::Serving;
use state::StateFolder;

/// How often files are looked at and the root's age is checked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a node certificate lasts; it is renewed at half-life.
const NODE_TTL: Duration = Duration::from_secs(7 * 86_400);

/// What the authority needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// MeshConfig `trustDomain`.
    pub trust_domain: TrustDomain,
    /// The name of the local cluster; callers of another are refused.
    pub cluster_id: String,
    /// `--state`: made with mode 0700 when absent.
    pub state: PathBuf,
    /// `ROOT_CA_DIR`.
    pub root_ca_dir: PathBuf,
    /// DNS names and addresses of the server certificate; see [`server_names`].
    pub server_names: Vec<String>,
    /// `CA_TRUSTED_NODE_ACCOUNTS`.
    pub trusted_accounts: Vec<Account>,
    /// `DEFAULT_WORKLOAD_CERT_TTL`.
    pub default_ttl: Duration,
    /// `MAX_WORKLOAD_CERT_TTL`.
    pub max_ttl: Duration,
}

impl Config {
    /// The reference's defaults around a trust domain and a state folder.
    #[cfg(test)]
    pub(crate) fn new(trust_domain: TrustDomain, state: PathBuf) -> Self {
        Self {
            trust_domain,
            cluster_id: "Kubernetes".to_owned(),
            state,
            root_ca_dir: "./etc/cacerts".into(),
            server_names: server_names("istio-system", &[]),
            trusted_accounts: vec![Account::ztunnel()],
            default_ttl: Duration::from_secs(24 * 3600),
            max_ttl: Duration::from_secs(2160 * 3600),
        }
    }
}

/// Makes the state folder when absent, for those who keep something in it before the authority opens.
pub(crate) fn open_state(folder: &std::path::Path) -> Result<(), StateError> {
    StateFolder::open(folder).map(drop)
}

/// The names of the server certificate: the reference's, this machine's, and each `--name`.
pub(crate) fn server_names(system_namespace: &str, extra: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["istiod", "istiod-remote", "istio-pilot"]
        .iter()
        .map(|service| format!("{service}.{system_namespace}.svc"))
        .chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned))
        .chain(extra.iter().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The authority cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Material(#[from] MaterialError),
}

impl AuthorityError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::State(error) => error.code(),
            Self::Material(error) => error.code(),
        }
    }
}

/// The certificate authority. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    clock: Clock,
    state: StateFolder,
    authenticator: Authenticator,
    current: ArcSwap<Current>,
    counters: Counters,
}

/// Replaced as a whole when the signing material changes.
#[derive(Debug)]
struct Current {
    material: Arc<Material>,
    serving: Serving,
}

impl Authority {
    /// Takes up the files of `ROOT_CA_DIR`, or the root kept in the state folder, or makes one; publishes
    /// `root-cert.pem` in the state folder.
    pub(crate) fn open(config: Config, clock: Clock) -> Result<Self, AuthorityError> {
        let state = StateFolder::open(&config.state)?;
        let now = clock.wall();
        let material = Material::load(&config, &state, now)?;
        let authenticator = Authenticator::new(&config, state.token_key()?, clock.clone());
        let current = Current::new(material, &config, &state, now)?;
        let shared = Shared {
            config,
            clock,
            state,
            authenticator,
            current: ArcSwap::from_pointee(current),
            counters: Counters::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who calls; also for the discovery service.
    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.shared.authenticator
    }

    /// The configuration of port 15012 as of now. It changes with the roots: ask for each connection, or
    /// use [`Authority::accept`].
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.shared.current.load().serving.config()
    }

    /// TLS on an accepted connection of port 15012, within a limit.
    pub(crate) async fn accept(&self, stream: tokio::net::TcpStream) -> std::io::Result<SecureStream> {
        SecureStream::accept(self.server_config(), stream).await
    }

    /// The published root bundle, PEM.
    #[cfg(test)]
    pub(crate) fn root_bundle(&self) -> String {
        self.shared.current.load().material.bundle().to_owned()
    }

    /// The service that signs; `pods` says who runs where. Only for port 15012.
    pub(crate) fn service(
        &self,
        pods: Arc<dyn PodIndex>,
    ) -> IstioCertificateServiceServer<CertificateService> {
        IstioCertificateServiceServer::new(CertificateService::new(self.clone(), pods))
    }

    /// The service that exchanges join tokens. Only for port 15012.
    pub(crate) fn join_service(&self) -> JoinServiceServer<JoinService> {
        JoinServiceServer::new(JoinService::new(self.clone()))
    }

    /// Counters for the `citadel_*` metrics.
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// When the root ends (`citadel_server_root_cert_expiry_timestamp`).
    pub(crate) fn root_expiry(&self) -> SystemTime {
        self.shared.current.load().material.root_expiry()
    }

    /// When the signer ends (`citadel_server_cert_chain_expiry_timestamp`).
    pub(crate) fn signer_expiry(&self) -> SystemTime {
        self.shared.current.load().material.signer_expiry()
    }

    /// Renews a self-made root in its last fifth, takes up changed files, forgets old tokens. Runs until
    /// dropped.
    pub(crate) async fn maintain(&self) {
        let mut seen = PluggedFiles::fingerprint(&self.shared.config.root_ca_dir);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.maintain_once(&mut seen);
        }
    }

    fn maintain_once(&self, seen: &mut Option<u64>) {
        let shared = &self.shared;
        let now = shared.clock.wall();
        shared.state.prune_used_tokens(now);
        let files = PluggedFiles::fingerprint(&shared.config.root_ca_dir);
        let old = shared.current.load().material.clone();
        if files == *seen && !old.is_due_for_renewal(now) {
            return;
        }
        *seen = files;
        let replaced = Material::load(&shared.config, &shared.state, now)
            .and_then(|new| old.may_become(&new).map(|()| new))
            .map_err(AuthorityError::from)
            .and_then(|new| Current::new(new, &shared.config, &shared.state, now));
        match replaced {
            Ok(new) => {
                shared.current.store(Arc::new(new));
                tracing::info!("the signing material has changed");
            }
            Err(error) => tracing::error!(code = error.code(), %error, "keeping the old signing material"),
        }
    }
}

impl Current {
    fn new(
        material: Material,
        config: &Config,
        state: &StateFolder,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let material = Arc::new(material);
        let serving = Serving::new(&material, config, now)?;
        state.publish(material.bundle(), &material.issuing_root())?;
        Ok(Self { material, serving })
    }
}

impl Shared {
    fn material(&self) -> Arc<Material> {
        self.current.load().material.clone()
    }

    fn count(&self, counter: impl FnOnce(&Counters) -> &std::sync::atomic::AtomicU64) {
        counter(&self.counters).fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
