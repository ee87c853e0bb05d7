//! The control plane.

mod app;
mod authority;
mod catalog;
mod config;
mod debug;
mod discovery;
mod metrics;
mod sources;
mod translate;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the control plane with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run(args)
}
