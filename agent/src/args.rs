//! The command line: `culvert agent`, `culvert agent enroll|withdraw|list`.
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::enrolled::{Options, PodName};

/// Puts network namespaces into the mesh and hands them to the node proxy.
///
/// Without a subcommand it serves: it keeps the enrolled set, its redirection rules and the node proxy in step. When it
/// stops, rules and proxy go on, and the next agent takes up where it stopped.
#[derive(Debug, Parser)]
#[command(name = "culvert agent", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

/// Where the agent is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The node's name (NODE_NAME; default "node"): the agent's folder is DIR/NAME
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub node: Option<String>,
    /// Runtime folder (CULVERT_RUNTIME_DIR; default /run/culvert for root, else $XDG_RUNTIME_DIR/culvert)
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub place: Place,
    /// Where the node proxy connects (INPOD_UDS; default /var/run/ztunnel/ztunnel.sock)
    #[arg(long, value_name = "PATH")]
    pub zds_socket: Option<PathBuf>,
    /// At the end withdraw every pod, instead of leaving rules and proxy as they are
    #[arg(long)]
    pub cleanup: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put a namespace into the mesh; returns when the node proxy serves it and the rules stand
    Enroll(Enroll),
    /// Take a namespace out of the mesh: rules and proxy
    Withdraw(Withdraw),
    /// Show what is enrolled
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// The network namespace: /proc/PID/ns/net, /run/netns/NAME, or just a process id
    #[arg(long, value_name = "PATH")]
    pub netns: PathBuf,
    /// The pod as the control plane knows it
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pod: PodName,
    /// Its service account, which is its identity
    #[arg(long, value_name = "NAME")]
    pub service_account: String,
    /// Its uid [default: NAMESPACE/NAME]
    #[arg(long)]
    pub uid: Option<String>,
    /// Whether its DNS queries go to the node proxy
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub dns_capture: bool,
    /// Let plaintext in without the node proxy (annotation ambient.istio.io/bypass-inbound-capture)
    #[arg(long, alias = "bypass-inbound-capture")]
    pub ingress: bool,
    /// Interfaces of machines within the pod, whose traffic is outbound
    #[arg(long, value_name = "NAMES", value_delimiter = ',', alias = "reroute-virtual-interfaces")]
    pub virtual_interfaces: Vec<String>,
    /// Lead answers back by connection tracking: for applications whose listeners have a mark of their own (SO_MARK)
    #[arg(long)]
    pub track_answers: bool,
    /// How long to wait for the node proxy, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait: u64,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Withdraw {
    /// The pod
    #[arg(long, value_name = "NAMESPACE/NAME", required_unless_present = "uid")]
    pub pod: Option<PodName>,
    /// Or its uid
    #[arg(long, conflicts_with = "pod")]
    pub uid: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// A table, or JSON for machines
    #[arg(short, long, value_enum, default_value_t = Output::Short)]
    pub output: Output,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Short,
    Json,
}

impl Enroll {
    pub(crate) fn options(&self) -> Options {
        Options {
            dns_capture: self.dns_capture,
            ingress: self.ingress,
            virtual_interfaces: self.virtual_interfaces.clone(),
            track_answers: self.track_answers,
        }
    }
}

/// It is a folder's name too.
fn node_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('.') || text.contains('/') {
        return Err("a node's name is a DNS name".to_owned());
    }
    Ok(text.to_owned())
}
