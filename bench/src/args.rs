//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::load::LoadArgs;
use crate::peers::Peer;
use crate::tunnel::TunnelArgs;

/// Measures culvert beside other proxies, in network namespaces, and prints one table of ratios.
///
/// The real product with everything on: control plane, agents, node proxies, redirection in the pods, policies, access
/// log to a file, metrics. Exits with 1 if a run failed, whatever the figures say.
#[derive(Debug, Parser)]
#[command(name = "culvert-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// One short repetition and no waiting: is everything there, does everything work?
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rows whose name contains one of these.
    #[arg(long, value_delimiter = ';', value_name = "PART;PART")]
    pub(crate) rows: Vec<String>,
    /// Systems to measure.
    #[arg(long, value_delimiter = ',', default_values = Peer::NAMES)]
    pub(crate) peers: Vec<Peer>,
    /// Repetitions; in each one every system runs every row.
    #[arg(long, default_value_t = 5)]
    pub(crate) repetitions: usize,
    /// Length of one run; without it as long as the budget allows.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Minutes that the whole may take.
    #[arg(long, default_value_t = 24.0)]
    pub(crate) budget: f64,
    /// Leave out memory and system calls.
    #[arg(long)]
    pub(crate) only_timed: bool,
    /// The product; without it `cargo build --release` makes it.
    #[arg(long, value_name = "PATH")]
    pub(crate) culvert: Option<PathBuf>,
    /// haproxy, if not in PATH.
    #[arg(long, value_name = "PATH")]
    pub(crate) haproxy: Option<PathBuf>,
    /// Envoy; also `CULVERT_ENVOY`.
    #[arg(long, value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// Drive the HTTP rows with the bench's own loop even where `wrk` is installed.
    #[arg(long)]
    pub(crate) no_wrk: bool,
    /// Also write the table and every run as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write the table as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

/// The parts of which the bench starts several, inside the pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// The server that answers all loads.
    #[command(hide = true)]
    Serve { listen: SocketAddr },
    /// One load; prints what it saw as JSON.
    #[command(hide = true)]
    Load(LoadArgs),
    /// One end of the tunnel over the `h2` crate.
    #[command(hide = true)]
    Tunnel(TunnelArgs),
}
