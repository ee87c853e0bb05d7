//! The node agent: which network namespaces are in the mesh, their redirection rules, their hand-over to the node proxy.
//!
//! **Not for:** carrying traffic (the node proxy), identity or discovery (the control plane), anything in the host's own
//! namespace.
//!
//! **Start reading at** `enrollment`: the order in which a namespace comes in and goes out; then `ledger`, the
//! decision what each proxy is told; then `zds` and `local`, the two sockets.
//!
//! **Invariants:** rules stand before an enrolled application is promised anything, and go before its proxy does; what
//! is on disk is enough for the next agent to go on; an agent that ends leaves rules and proxy as they are.
#![forbid(unsafe_code)]

mod app;
mod args;
mod enrolled;
mod enrollment;
mod ledger;
mod local;
mod namespaces;
mod routing;
mod variables;
mod zds;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use runtime::environment::Environment;
use runtime::logging::{Format, Logging, Settings};

use crate::args::{Arguments, Command, Enroll, Output, Place};
use crate::local::client::{AskError, ask, socket};
use crate::local::{Listed, Request, State};

/// Runs the program with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    let name = OsString::from("culvert agent");
    let arguments = match Arguments::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to report to when the stream is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let environment = Environment::of_process();
    let Some(command) = &arguments.command else {
        return serve(&app::Config::new(&arguments.serve, &environment), &environment);
    };
    match request(command, &environment) {
        Ok(text) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => report(&error.to_string(), error.code()),
    }
}

fn serve(config: &app::Config, environment: &Environment) -> ExitCode {
    let format =
        if app::set(environment, "LOG_FORMAT") == Some("json") { Format::Json } else { Format::Plain };
    let filter = app::set(environment, "RUST_LOG").map(str::to_owned);
    let logging =
        match Logging::init(Settings { format, filter, program: "culvert_agent", ..Settings::default() }) {
            Ok(logging) => logging,
            Err(error) => return report(&error.to_string(), error.code()),
        };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&format!("cannot start: {error}"), "agent-cannot-start"),
    };
    let outcome = runtime.block_on(app::serve(config.clone()));
    if let Err(error) = &outcome {
        tracing::error!(code = error.code(), "{error}");
    }
    logging.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error.to_string(), error.code()),
    }
}

fn report(message: &str, code: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {message} [{code}]");
    ExitCode::FAILURE
}

fn request(command: &Command, environment: &Environment) -> Result<String, AskError> {
    let find = |place: &Place| {
        let node = app::node(place, environment);
        socket(&app::base(place, environment), node.as_deref())
    };
    match command {
        Command::Enroll(arguments) => {
            let listed = ask(&find(&arguments.place)?, &Request::Enroll(enroll(arguments)))?;
            Ok(said(&listed))
        }
        Command::Withdraw(arguments) => {
            let pod = arguments.pod.as_ref().map(ToString::to_string);
            let uid = arguments.uid.clone().or(pod).unwrap_or_default();
            let path = find(&arguments.place)?;
            // A pod that was enrolled with a uid of its own is found by its name as well.
            let uid = match &arguments.pod {
                Some(pod) => {
                    let listed = ask(&path, &Request::List)?;
                    let found = listed.into_iter().find(|listed| listed.record.pod == *pod);
                    found.map_or(uid, |found| found.record.uid)
                }
                None => uid,
            };
            Ok(said(&ask(&path, &Request::Withdraw { uid })?))
        }
        Command::List(arguments) => {
            let listed = ask(&find(&arguments.place)?, &Request::List)?;
            Ok(match arguments.output {
                Output::Short => table(&listed),
                Output::Json => {
                    serde_json::to_string_pretty(&listed).map_or_else(|_| String::new(), |text| text + "\n")
                }
            })
        }
    }
}

fn enroll(arguments: &Enroll) -> local::Enroll {
    local::Enroll {
        netns: absolute(&arguments.netns),
        uid: arguments.uid.clone().unwrap_or_else(|| arguments.pod.to_string()),
        pod: arguments.pod.clone(),
        service_account: arguments.service_account.clone(),
        options: arguments.options(),
        wait_seconds: arguments.wait,
    }
}

/// The path as the agent, another process in another folder, must say it.
fn absolute(netns: &Path) -> PathBuf {
    let text = netns.to_string_lossy();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return PathBuf::from(format!("/proc/{text}/ns/net"));
    }
    for own in ["/proc/self/", "/proc/thread-self/"] {
        if let Some(rest) = text.strip_prefix(own) {
            return PathBuf::from(format!("/proc/{}/{rest}", std::process::id()));
        }
    }
    std::path::absolute(netns).unwrap_or_else(|_| netns.to_owned())
}

fn said(listed: &[Listed]) -> String {
    let line = |listed: &Listed| {
        let done = if listed.state == State::Withdrawn { "withdrawn" } else { "enrolled" };
        format!(
            "{} {done} (uid {}, {})\n",
            listed.record.pod,
            listed.record.uid,
            listed.record.netns.display()
        )
    };
    listed.iter().map(line).collect()
}

fn table(listed: &[Listed]) -> String {
    let mut rows = vec![["POD", "SERVICE ACCOUNT", "STATE", "UID", "NETNS"].map(str::to_owned)];
    rows.extend(listed.iter().map(|listed| {
        let state = match (listed.state, &listed.reason) {
            (State::Enabled, _) => "enabled".to_owned(),
            (State::Withdrawn, _) => "withdrawn".to_owned(),
            (State::Pending, None) => "pending".to_owned(),
            (State::Pending, Some(reason)) => format!("pending ({reason})"),
        };
        let record = &listed.record;
        let netns = record.netns.display().to_string();
        [record.pod.to_string(), record.service_account.clone(), state, record.uid.clone(), netns]
    }));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
