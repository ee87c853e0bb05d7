//! The command line of `culvert conformance`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::case::Level;

/// Judges an HBONE listener from outside, whoever made it.
///
/// Opens connections to the target with the identities given, says right and wrong things on them, and tells what came
/// back. Cases that need something that was not given are shown as not run, with the flag that they need.
#[derive(Debug, Parser)]
#[command(
    name = "culvert conformance",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Option<RunArgs>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists all cases.
    List(ListArgs),
    /// Serves as the destination behind a target: echoes, and does what cases ask it to.
    Destination(DestinationArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// Address to listen on.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Address that is to answer to no TCP connection at all, for --silent.
    #[arg(long, value_name = "ADDR")]
    pub(crate) silent: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The HBONE listener to judge.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: String,
    /// Who we are: chain and key, PEM.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    pub(crate) identity: Vec<PathBuf>,
    /// Roots that the target's certificate must chain to, PEM. Without it any certificate is taken.
    #[arg(long, value_name = "PEM")]
    pub(crate) ca: Option<PathBuf>,
    /// SPIFFE id that the target's certificate must hold.
    #[arg(long, value_name = "SPIFFE")]
    pub(crate) server_id: Option<String>,

    /// Authority whose destination sends back what it gets; default: that of --destination.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) echo: Option<String>,
    /// Authority behind which `culvert conformance destination` listens.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) destination: Option<String>,
    /// Serve the destination from here; its authority is this address, unless --destination says otherwise.
    #[arg(long, value_name = "ADDR", help_heading = "Destinations")]
    pub(crate) listen: Option<SocketAddr>,
    /// The echo's authority as an IPv6 address.
    #[arg(long, value_name = "[ADDR]:PORT", help_heading = "Destinations")]
    pub(crate) v6: Option<String>,
    /// Authority of the target whose port nobody listens on.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) refusing: Option<String>,
    /// Authority of the target that policy denies to our identity.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) forbidden: Option<String>,
    /// Authority of the target whose destination does not answer to TCP at all.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) silent: Option<String>,
    /// Authority whose address is not served by the target.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Destinations")]
    pub(crate) foreign: Option<String>,
    /// Authority by the name of a service that leads to the echo.
    #[arg(long, value_name = "NAME:PORT", help_heading = "Destinations")]
    pub(crate) hostname: Option<String>,

    /// Identity that policy denies the echo.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"], help_heading = "Other identities")]
    pub(crate) denied: Vec<PathBuf>,
    /// Identity of another trust domain, signed by a root that the target trusts.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"], help_heading = "Other identities")]
    pub(crate) wrong_domain: Vec<PathBuf>,
    /// Certificate that has expired, signed by a root that the target trusts.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"], help_heading = "Other identities")]
    pub(crate) expired: Vec<PathBuf>,
    /// Certificate without a SPIFFE id, signed by a root that the target trusts.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"], help_heading = "Other identities")]
    pub(crate) no_spiffe: Vec<PathBuf>,

    /// Only cases whose id starts with this; may be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) case: Vec<String>,
    /// `must`: only what binds every implementation; `contract`: that and what Istio's node proxy does.
    #[arg(long, value_enum, default_value_t = Level::Contract)]
    pub(crate) level: Level,
    /// Known deviations, YAML: case id to a reason. Any difference from it fails, also a case that now passes.
    #[arg(long, value_name = "FILE")]
    pub(crate) expectations: Option<PathBuf>,
    /// A case that is not run is a failure.
    #[arg(long)]
    pub(crate) all: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// The list as the page `docs/conformance.md` holds it.
    #[value(hide = true)]
    Markdown,
}
