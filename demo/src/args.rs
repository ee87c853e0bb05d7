//! The command line of `culvert demo`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::app::AppArgs;

/// A whole two-node mesh on this machine.
///
/// Starts a control plane, and per node an agent and a node proxy; pods are network namespaces. Walks through Istio's
/// page "Troubleshoot connectivity issues with ztunnel", then stays up until Ctrl-C. Needs no root and leaves nothing
/// behind.
#[derive(Debug, Parser)]
#[command(name = "culvert demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Stop after the steps; exit with 0 only if every step came out right.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print the facts as JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Start the mesh and stay up, without walking through the page.
    #[arg(long, conflicts_with = "once")]
    pub(crate) only_mesh: bool,
    /// Folder with the mesh as ordinary Kubernetes YAML instead of the built-in bookinfo.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a program inside a pod, a node or the control plane of a running demo.
    Exec(ExecArgs),
    /// Gets a URL from inside a pod, where there is no curl.
    Get(GetArgs),
    /// Prints the log of a node proxy, or of all.
    Logs(LogsArgs),
    /// Lists running demos and what is in them.
    List,
    /// The application that runs in the demo's pods.
    #[command(hide = true)]
    App(AppArgs),
    /// One HTTP GET from where this process is.
    #[command(hide = true)]
    Fetch(FetchArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Which demo, where several run: the number in its folder's name.
    #[arg(long, value_name = "ID")]
    pub(crate) demo: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A pod (`sleep`, `reviews-v2`, `prod/client`), a node name, or `control`.
    pub(crate) target: String,
    /// The program and its arguments, after `--`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The pod that asks.
    #[arg(long, default_value = "sleep")]
    pub(crate) from: String,
    /// What is asked for, e.g. `http://productpage:9080/`.
    pub(crate) url: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A node's name; without it the logs of all nodes.
    pub(crate) node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// How often.
    #[arg(long, default_value_t = 1)]
    pub(crate) times: u32,
    /// Print one JSON object per request instead of the body.
    #[arg(long)]
    pub(crate) json: bool,
    pub(crate) url: String,
}
