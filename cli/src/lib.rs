//! The troubleshooting CLI: `culvert ztunnel-config`, short `zc`. It fetches a node's `/config_dump`, picks and renders.
//!
//! Its tables, JSON and YAML are those of `istioctl ztunnel-config` (control-and-operations 10). What it does not do:
//! look into a Kubernetes cluster (not yet), or change anything but a node's log filter.
//!
//! Start reading at [`run`]; `args` says what can be asked, `target` whom, `commands` what is answered. Rendering is
//! pure: a dump, a filter and the time go in, text comes out.
mod args;
mod commands;
mod dump;
mod fetch;
mod render;
mod target;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches};
use runtime::clock;
use runtime::environment::Environment;
use target::{Place, Targets};

/// How long a node may take to answer.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// Runs the program with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    let command = || Args::command().no_binary_name(true).bin_name("culvert ztunnel-config");
    if args.is_empty() {
        return print(&command().render_help().to_string());
    }
    let parsed = command().try_get_matches_from(args).and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    if let Err(mistake) = args.command.validate() {
        let mut whole = command();
        whole.build();
        let subcommand = whole.find_subcommand_mut(args.command.name()).map(clap::Command::render_usage);
        if let Some(usage) = subcommand.filter(|_| mistake.shows_usage()) {
            let _ = writeln!(std::io::stderr(), "{usage}\n");
        }
        return fail(&mistake);
    }
    match answer(&args, &Environment::of_process()) {
        Ok(text) => print(&text),
        Err(error) => fail(&format_args!("{error:#}")),
    }
}

/// The text to print.
fn answer(args: &Args, environment: &Environment) -> anyhow::Result<String> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    event_loop.block_on(answer_to(args, environment))
}

async fn answer_to(args: &Args, environment: &Environment) -> anyhow::Result<String> {
    let place = Place::of(args, environment)?;
    if let Command::Log(log) = &args.command {
        return commands::log::run(log, &place, args).await;
    }
    let common = args.command.common();
    let targets = Targets::read(&place, FETCH_LIMIT).await?;
    let chosen = targets.choose(common.name.first().map(String::as_str), common.node.as_deref(), args)?;
    commands::render(&args.command, &chosen, clock::wall())
}

/// A command line that can be asked about dumps, for fuzzers.
///
/// No program uses it, and no promise is made about it. It is public, and hidden from the documentation, because this
/// tree has no feature flags for tests.
#[doc(hidden)]
#[derive(Debug)]
pub struct Question(Args);

impl Question {
    /// Reads the arguments, without the program's name.
    pub fn parse(arguments: &[&str]) -> Result<Self, clap::Error> {
        <Args as clap::Parser>::try_parse_from(std::iter::once(&"zc").chain(arguments)).map(Self)
    }

    /// What is printed, of this dump.
    pub fn answer(&self, dump: Vec<u8>, now: SystemTime) -> anyhow::Result<String> {
        let Self(args) = self;
        let dump = dump::Dump::parse(dump)?;
        let targets = Targets(vec![target::Target { dump, folder: None, endpoint: None }]);
        let common = args.command.common();
        let name = common.name.first().map(String::as_str);
        let chosen = targets.choose(name, common.node.as_deref(), args)?;
        commands::render(&args.command, &chosen, now)
    }
}

fn print(text: &str) -> ExitCode {
    // A closed pipe (`| head`) is no failure worth a message.
    let written = std::io::stdout().write_all(text.as_bytes());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "Error: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
