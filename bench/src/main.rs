//! PROGRAM: the benchmark (`cargo run --release -p culvert-bench`).
//!
//! Starts the real product and its peers in network namespaces, runs every row on every system in turn, and prints one
//! table of ratios. Start reading at `run.rs`; `docs/performance.md` has the method and the figures.

mod args;
mod certificates;
mod load;
mod memory;
mod payload;
mod peers;
mod processes;
mod report;
mod rows;
mod run;
mod serve;
mod sockets;
mod statistics;
mod syscalls;
mod systems;
mod table;
mod tunnel;
mod world;
mod wrk;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Part};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.part {
        None => run::run(&cli.run),
        Some(Part::Serve { listen }) => serve::serve(listen).map(|()| ExitCode::SUCCESS),
        Some(Part::Load(args)) => load(&args),
        Some(Part::Tunnel(args)) => tunnel::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        say(&format!("culvert-bench: {error:#}"));
        ExitCode::FAILURE
    })
}

fn load(args: &load::LoadArgs) -> anyhow::Result<ExitCode> {
    if let Some(outcome) = load::run(args)? {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for whoever watches.
fn say(line: &str) {
    // Nothing is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
