//! What can be asked (control-and-operations 10.1, 10.2).
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

/// Show what a node proxy knows: workloads, services, policies, certificates, connections, logging.
///
/// The node is found by --file, --admin-address, or the local admin sockets of this machine.
#[derive(Debug, Parser)]
#[command(name = "ztunnel-config", disable_version_flag = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Namespace of a pod named without one
    #[arg(long, short = 'n', global = true, default_value = "")]
    pub(crate) namespace: String,
    /// Namespace of the node proxies
    #[arg(long = "istioNamespace", short = 'i', global = true, default_value = "istio-system")]
    pub(crate) istio_namespace: String,
    /// Kubernetes configuration file (clusters are not supported yet)
    #[arg(long, short = 'c', global = true, hide = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Kubernetes context (clusters are not supported yet)
    #[arg(long, global = true, hide = true)]
    pub(crate) context: Option<String>,
    /// Whom to be in the cluster (clusters are not supported yet)
    #[arg(long = "as", global = true, hide = true)]
    pub(crate) as_user: Option<String>,
    /// UID to be in the cluster (clusters are not supported yet)
    #[arg(long, global = true, hide = true)]
    pub(crate) as_uid: Option<String>,
    /// Group to be in, in the cluster (clusters are not supported yet)
    #[arg(long, global = true, hide = true)]
    pub(crate) as_group: Vec<String>,
    /// How long a cluster may take (clusters are not supported yet)
    #[arg(long, global = true, hide = true)]
    pub(crate) kubeclient_timeout: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Workloads: address, node, waypoint, protocol
    #[command(visible_aliases = ["w", "workloads"])]
    Workload(WorkloadArgs),
    /// Services: addresses, waypoint, healthy endpoints
    #[command(visible_aliases = ["services", "s", "svc"])]
    Service(ServiceArgs),
    /// Authorization policies
    #[command(visible_aliases = ["policies", "p", "pol"])]
    Policy(PolicyArgs),
    /// Certificates of this node's workloads
    #[command(visible_aliases = ["certificates", "certs", "cert"])]
    Certificate(CertificateArgs),
    /// Open connections of this node's workloads
    #[command(visible_alias = "cons")]
    Connections(ConnectionsArgs),
    /// Everything above
    All(AllArgs),
    /// Show or change the log filter of node proxies
    #[command(visible_alias = "o")]
    Log(LogArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Node proxy (node, POD or POD.NAMESPACE), or a workload of its node
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub(crate) name: Vec<String>,
    /// Output: short, json or yaml
    #[arg(long, short = 'o', default_value = "short", value_name = "FORMAT")]
    pub(crate) output: String,
    /// Read a dump from a file, - for standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Node whose proxy is asked
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Admin server of a node proxy
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin_address: Option<String>,
    /// Port of the admin server, where an address has none
    #[arg(long, default_value_t = 15000, value_name = "PORT", allow_negative_numbers = true)]
    pub(crate) proxy_admin_port: i64,
    /// Only nodes of this demo
    #[arg(long, value_name = "ID")]
    pub(crate) demo: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkloadArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only workloads with this address
    #[arg(long, default_value = "", value_name = "IP")]
    pub(crate) address: String,
    /// Only workloads of this namespace
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    pub(crate) workload_namespace: String,
    /// Only workloads on this node
    #[arg(long, default_value = "", value_name = "NODE")]
    pub(crate) workload_node: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only services of this namespace
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    pub(crate) service_namespace: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only policies of this namespace
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    pub(crate) policy_namespace: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConnectionsArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only workloads of this namespace
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    pub(crate) workload_namespace: String,
    /// Only this direction: inbound or outbound
    #[arg(long, default_value = "", value_name = "DIRECTION")]
    pub(crate) direction: String,
    /// Addresses instead of names
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t, default_missing_value = "true")]
    pub(crate) raw: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// A header before each table
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t, default_missing_value = "true")]
    pub(crate) with_headers: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Comma list of LEVEL or LOGGER:LEVEL; levels are trace, debug, info, warning, error, critical, off
    #[arg(long, default_value = "")]
    pub(crate) level: String,
    /// Back to the start-up filter at level info
    #[arg(long, short = 'r', action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t, default_missing_value = "true")]
    pub(crate) reset: bool,
}

/// Arguments that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("at most one of --file, --node, or pod name must be passed")]
    SeveralTargets,
    #[error("port number {0} must be in the range 1..65535")]
    Port(i64),
    #[error("--level cannot be combined with --reset")]
    LevelAndReset,
    #[error("--output is not applicable for this command")]
    OutputOfLog,
}

impl Mistake {
    pub(crate) fn shows_usage(&self) -> bool {
        matches!(self, Self::SeveralTargets | Self::LevelAndReset)
    }
}

impl Command {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Workload(args) => &args.common,
            Self::Service(args) => &args.common,
            Self::Policy(args) => &args.common,
            Self::Certificate(args) => &args.common,
            Self::Connections(args) => &args.common,
            Self::All(args) => &args.common,
            Self::Log(args) => &args.common,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Service(_) => "service",
            Self::Policy(_) => "policy",
            Self::Certificate(_) => "certificate",
            Self::Connections(_) => "connections",
            Self::All(_) => "all",
            Self::Log(_) => "log",
        }
    }

    /// What the grammar cannot say.
    pub(crate) fn validate(&self) -> Result<(), Mistake> {
        let common = self.common();
        let one_name = common.name.len() == 1;
        if usize::from(common.file.is_some()) + usize::from(common.node.is_some()) + usize::from(one_name) > 1
        {
            return Err(Mistake::SeveralTargets);
        }
        if !(1..=65_535).contains(&common.proxy_admin_port) {
            return Err(Mistake::Port(common.proxy_admin_port));
        }
        if let Self::Log(log) = self {
            if log.reset && !log.level.is_empty() {
                return Err(Mistake::LevelAndReset);
            }
            if common.output != "short" {
                return Err(Mistake::OutputOfLog);
            }
        }
        Ok(())
    }
}
