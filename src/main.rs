//! The binary `culvert`: reads the subcommand (or the name it was called by) and hands over.
//!
//! Called through a link named `ztunnel` it is `culvert node`, so that it drops into Istio's DaemonSet.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called_as = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if Path::new(&called_as).file_name() == Some(OsStr::new("ztunnel")) {
        return node::run(arguments);
    }
    let Some((subcommand, rest)) = arguments.split_first() else {
        return usage_error(&command().render_long_help().to_string());
    };
    let rest = rest.to_vec();
    match subcommand.to_str() {
        Some("node") => node::run(rest),
        Some("control") => control::run(rest),
        Some("agent") => agent::run(rest),
        Some("ztunnel-config" | "zc") => cli::run(rest),
        Some("demo") => demo::run(rest),
        Some("conformance") => conformance::run(rest),
        // Only --help, --version and mistakes are left: clap says the right thing about each.
        _ => command()
            .get_matches_from(std::iter::once(called_as).chain(arguments))
            .subcommand()
            .map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS),
    }
}

fn usage_error(help: &str) -> ExitCode {
    use std::io::Write as _;
    // Nothing is left to report to when standard error is closed.
    let _ = std::io::stderr().write_all(help.as_bytes());
    ExitCode::from(2)
}

/// The subcommands as the overview shows them; each program reads its own arguments.
fn command() -> Command {
    let program = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .disable_help_flag(true)
            .arg(Arg::new("arguments").num_args(..).allow_hyphen_values(true).action(ArgAction::Append))
    };
    Command::new("culvert")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The L4 half of an Istio ambient mesh, for Kubernetes and for machines without it")
        .subcommand_required(true)
        .subcommand(program(
            "node",
            "The node proxy: carries workloads' TCP over HBONE (drop-in for ztunnel)",
        ))
        .subcommand(program(
            "control",
            "The control plane: workload discovery, certificate authority, debug endpoints",
        ))
        .subcommand(program("agent", "The node agent: puts network namespaces into the mesh"))
        .subcommand(
            program("ztunnel-config", "Shows what a node proxy knows (drop-in for istioctl ztunnel-config)")
                .visible_alias("zc"),
        )
        .subcommand(program("demo", "A whole two-node mesh on this machine, from examples/bookinfo"))
        .subcommand(program("conformance", "Judges an HBONE listener from outside, whoever made it"))
}
