//! The HBONE conformance suite (`culvert conformance`): judges any HBONE listener from outside, with raw frames.
//!
//! It shares no code with the tunnel engine: frames, HPACK and flow control are written here again from the RFCs, so
//! that no mistake can be on both sides. What it does not do: play the server's role, or measure speed.
//!
//! Start reading at [`run`]; `case` says what a case is, `cases/` holds them by subject, `http2/peer` is the client
//! that they speak through, `destination` what answers behind the target.
//!
//! Invariants
//! - Every wait is bounded by the case's deadline, every run by five minutes.
//! - A case that cannot be judged is shown as not run, with the reason; it never counts as passed.
//! - Ids are stable: a case that is no longer wanted leaves its number unused.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod args;
mod case;
mod cases;
mod destination;
mod expectations;
mod hello;
mod http2;
mod identity;
mod lab;
mod report;
mod run;
mod tls;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use runtime::clock::monotonic;

use args::{Cli, Command, DestinationArgs, Output, RunArgs};
pub use case::Level;
use expectations::{Expectations, ExpectationsError};
pub use identity::IdentityError;
use lab::{Lab, LabError};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum SuiteError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Expectations(#[from] ExpectationsError),
    #[error("listening on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("no case is called {0}")]
    NoCase(String),
    #[error("writing the result: {0}")]
    Write(#[from] std::io::Error),
}

/// Runs the program with its own arguments (without the program's name). Exits with 0 if everything is as expected,
/// with 1 if not, with 2 if the suite could not run.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let command = std::iter::once(OsString::from("culvert conformance")).chain(args);
    let cli = match Cli::try_parse_from(command) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match (cli.command, cli.run) {
        (Some(Command::List(list)), _) => print_list(list.output),
        (Some(Command::Destination(destination)), _) => serve(&destination),
        (None, Some(run)) => judge(&run),
        // Clap asks for --target.
        (None, None) => Ok(false),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "Error: {error}");
    ExitCode::from(2)
}

fn print(text: &str) -> Result<(), SuiteError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn print_list(output: Output) -> Result<bool, SuiteError> {
    let text = match output {
        Output::Table => report::list(),
        Output::Json => format!("{:#}\n", report::list_document()),
        Output::Markdown => report::page(),
    };
    print(text.trim_end())?;
    Ok(true)
}

fn serve(args: &DestinationArgs) -> Result<bool, SuiteError> {
    let address = args.listen;
    let silence = |address| destination::silence(address).map_err(|error| SuiteError::Listen(address, error));
    let _silence = args.silent.map(silence).transpose()?;
    let listener = destination::listen(address).map_err(|error| SuiteError::Listen(address, error))?;
    let address = listener.local_addr().map_err(|error| SuiteError::Listen(address, error))?;
    print(&format!("listening on {address}"))?;
    destination::serve(&listener);
    Ok(true)
}

fn judge(args: &RunArgs) -> Result<bool, SuiteError> {
    let expectations = match &args.expectations {
        Some(file) => Expectations::read(file)?,
        None => Expectations::default(),
    };
    for wanted in &args.case {
        if !cases::all().any(|case| case.id.starts_with(wanted.as_str())) {
            return Err(SuiteError::NoCase(wanted.clone()));
        }
    }
    let chosen = |case: &&case::Case| {
        case.level <= args.level
            && (args.case.is_empty() || args.case.iter().any(|wanted| case.id.starts_with(wanted.as_str())))
    };
    let cases: Vec<_> = cases::all().filter(chosen).collect();
    let mut lab = Lab::new(args, monotonic() + run::CASE_LIMIT)?;
    if let Some(address) = args.listen {
        let listener = destination::listen(address).map_err(|error| SuiteError::Listen(address, error))?;
        // Serves until the process ends.
        std::thread::spawn(move || destination::serve(&listener));
    }
    let mut printed = Ok(());
    let judged = run::run(&mut lab, &cases, &expectations, args.all, |one| {
        if args.output == Output::Table && printed.is_ok() {
            printed = print(&report::line(one));
        }
    });
    printed?;
    match args.output {
        Output::Json => print(&format!("{:#}", report::document(&args.target, &judged)))?,
        _ => print(&format!("\n{}", report::summary(&judged)))?,
    }
    Ok(judged.iter().all(|one| one.as_expected))
}

#[cfg(test)]
mod tests;
