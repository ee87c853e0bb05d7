//! What the control plane is told on its command line and in its environment, read once.
//!
//! Names are the reference's where the part exists there. All mistakes are reported together.

mod environment;
mod error;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use runtime::environment::Environment;
use runtime::logging::Format;

use crate::authority::tokens::TokenKind;
use crate::authority::{self, Account};
use crate::debug::DebugAccess;
use crate::discovery::{Limits, Plaintext};
use crate::sources::FileSourceConfig;
use crate::translate::Switches;
use environment::Reader;
pub(crate) use error::{ConfigError, ConfigErrors};

/// Serves the mesh described by a folder of Kubernetes manifests to node proxies.
#[derive(Debug, Parser)]
#[command(name = "culvert control", disable_version_flag = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder of Kubernetes manifests, read with its subfolders
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Folder for the root key, allocated addresses and tokens [default: a folder of this user's]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Mesh configuration; otherwise the ConfigMap istio-system/istio of the folder
    #[arg(long = "meshConfig", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Discovery without TLS; empty: off
    #[arg(long = "grpcAddr", value_name = "ADDR", default_value = ":15010")]
    grpc: String,
    /// Discovery and certificates over TLS; empty: off
    #[arg(long = "secureGRPCAddr", value_name = "ADDR", default_value = ":15012")]
    secure_grpc: String,
    /// Metrics, version and debug; empty: on the address of --httpAddr
    #[arg(long = "monitoringAddr", value_name = "ADDR", default_value = ":15014")]
    monitoring: String,
    /// Readiness; empty: off
    #[arg(long = "httpAddr", value_name = "ADDR", default_value = ":8080")]
    http: String,
    /// Further name or address of this server, for its certificate
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// DNS suffix of the cluster
    #[arg(long, value_name = "SUFFIX", default_value = "cluster.local")]
    domain: String,
    /// Close connections older than this, so that clients spread over replicas
    #[arg(long = "keepaliveMaxServerConnectionAge", value_name = "DURATION")]
    connection_age: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a token that stands for a node
    Token {
        /// Name of the node
        #[arg(long, value_name = "NAME")]
        node: String,
        /// A bearer token for an unmodified ztunnel, instead of a join token that works once
        #[arg(long)]
        bearer: bool,
        /// How long it lasts, for example 12h
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// Service account it stands for
        #[arg(long, value_name = "NS/NAME", default_value = "istio-system/ztunnel")]
        account: String,
        /// State folder of the control plane
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    Serve(Box<Config>),
    Token(TokenRequest),
}

/// A token to print.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    pub(crate) kind: TokenKind,
    pub(crate) node: String,
    pub(crate) account: Account,
    pub(crate) ttl: Duration,
    pub(crate) state: PathBuf,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) secure_grpc: Option<SocketAddr>,
    pub(crate) monitoring: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
}

/// Liveness of gRPC connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) connection_age: Option<Duration>,
}

/// The authority's part, as far as it does not depend on the mesh configuration.
#[derive(Clone, Debug)]
pub(crate) struct AuthoritySettings {
    pub(crate) state: PathBuf,
    pub(crate) root_ca_dir: PathBuf,
    pub(crate) server_names: Vec<String>,
    pub(crate) default_ttl: Duration,
    pub(crate) max_ttl: Duration,
}

/// Everything the control plane is told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) source: FileSourceConfig,
    pub(crate) switches: Switches,
    pub(crate) listen: Listen,
    pub(crate) keepalive: Keepalive,
    pub(crate) authority: AuthoritySettings,
    pub(crate) trusted_accounts: Vec<Account>,
    pub(crate) limits: Limits,
    /// Least time between two pushes.
    pub(crate) debounce: Duration,
    /// `XDS_AUTH`
    pub(crate) authenticate: bool,
    /// `PILOT_ENABLE_XDS_IDENTITY_CHECK`
    pub(crate) check_identity: bool,
    /// `XDS_AUTH_PLAINTEXT`
    pub(crate) plaintext: Plaintext,
    pub(crate) debug: DebugAccess,
    /// `ENABLE_DEBUG_ON_HTTP`
    pub(crate) debug_on_http: bool,
    pub(crate) log_filter: Option<String>,
    pub(crate) log_format: Format,
}

/// Reads the command line and the environment.
pub(crate) fn read(arguments: Vec<OsString>, environment: &Environment) -> Result<Task, ConfigErrors> {
    let program = std::iter::once(OsString::from("culvert control"));
    let arguments = Arguments::try_parse_from(program.chain(arguments))
        .map_err(|error| ConfigErrors::Usage(Box::new(error)))?;
    let mut reader = Reader::new(environment);
    let task = match arguments.command {
        Some(Command::Token { node, bearer, ttl, account, state }) => {
            let kind = if bearer { TokenKind::Bearer } else { TokenKind::Join };
            Task::Token(TokenRequest {
                kind,
                node,
                account: reader.parsed("--account", &account).unwrap_or_else(Account::ztunnel),
                ttl: reader.optional_duration("--ttl", ttl.as_deref()).unwrap_or_else(|| kind.default_ttl()),
                state: reader.state_folder(state),
            })
        }
        None => Task::Serve(Box::new(serve(arguments, &mut reader))),
    };
    reader.finish(task)
}

fn serve(arguments: Arguments, reader: &mut Reader<'_>) -> Config {
    let state = reader.state_folder(arguments.state);
    let folder =
        arguments.config.unwrap_or_else(|| reader.missing("--config", "the folder of manifests to serve"));
    let system_namespace = reader.text("POD_NAMESPACE", "istio-system");
    let allocate_addresses = reader.flag("PILOT_ENABLE_IP_AUTOALLOCATE", true);
    let switches = Switches {
        cluster_id: reader.text("CLUSTER_ID", "Kubernetes"),
        cluster_domain: reader.domain("--domain", &arguments.domain),
        system_namespace: system_namespace.clone(),
        revision: reader.text("REVISION", "default"),
        service_entries_select_pods: reader.flag("PILOT_ENABLE_SERVICEENTRY_SELECT_PODS", true),
        services_select_workload_entries: reader.flag("PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES", true),
        allocate_addresses,
        allow_waypoints: reader.flag("PILOT_AUTO_ALLOW_WAYPOINT_POLICY", false),
        dry_run_policies: reader.flag("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", false),
    };
    let mut names = arguments.names;
    names.extend(reader.list("ISTIOD_CUSTOM_HOST"));
    let mut namespaces: BTreeSet<String> =
        reader.list("DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES").into_iter().collect();
    namespaces.insert(system_namespace.clone());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let throttle = (15 + 5 * cores).min(100);
    #[expect(clippy::cast_precision_loss, reason = "at most 100")]
    let streams_per_second = throttle as f64;
    Config {
        source: FileSourceConfig {
            folder,
            mesh_config: arguments.mesh_config,
            state: Some(state.clone()),
            allocate_addresses,
        },
        listen: Listen {
            grpc: reader.address("--grpcAddr", &arguments.grpc),
            secure_grpc: reader.address("--secureGRPCAddr", &arguments.secure_grpc),
            monitoring: reader.address("--monitoringAddr", &arguments.monitoring),
            http: reader.address("--httpAddr", &arguments.http),
        },
        keepalive: Keepalive {
            interval: reader.duration("GRPC_KEEPALIVE_INTERVAL", Duration::from_secs(30)),
            timeout: reader.duration("GRPC_KEEPALIVE_TIMEOUT", Duration::from_secs(10)),
            connection_age: reader
                .optional_duration("--keepaliveMaxServerConnectionAge", arguments.connection_age.as_deref()),
        },
        authority: AuthoritySettings {
            state,
            root_ca_dir: reader.text("ROOT_CA_DIR", "./etc/cacerts").into(),
            server_names: authority::server_names(&system_namespace, &names),
            default_ttl: reader.duration("DEFAULT_WORKLOAD_CERT_TTL", Duration::from_secs(24 * 3600)),
            max_ttl: reader.duration("MAX_WORKLOAD_CERT_TTL", Duration::from_secs(90 * 24 * 3600)),
        },
        trusted_accounts: reader.accounts("CA_TRUSTED_NODE_ACCOUNTS", &format!("{system_namespace}/ztunnel")),
        limits: Limits {
            streams_per_second: reader.rate("PILOT_MAX_REQUESTS_PER_SECOND", streams_per_second),
            concurrent_pushes: reader.count("PILOT_PUSH_THROTTLE", throttle),
        },
        debounce: reader.duration("PILOT_DEBOUNCE_AFTER", Duration::from_millis(100)),
        authenticate: reader.flag("XDS_AUTH", true),
        check_identity: reader.flag("PILOT_ENABLE_XDS_IDENTITY_CHECK", true),
        plaintext: match reader.optional_flag("XDS_AUTH_PLAINTEXT") {
            None => Plaintext::LoopbackOnly,
            Some(true) => Plaintext::Authenticated,
            Some(false) => Plaintext::Open,
        },
        debug: DebugAccess { authenticate: reader.flag("ENABLE_DEBUG_ENDPOINT_AUTH", true), namespaces },
        debug_on_http: reader.flag("ENABLE_DEBUG_ON_HTTP", true),
        log_filter: reader.optional_text("RUST_LOG"),
        log_format: if reader.text("LOG_FORMAT", "plain") == "json" { Format::Json } else { Format::Plain },
        switches,
    }
}

/// Everywhere, IPv6 and IPv4.
const ANYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
