//! The node proxy.
#![expect(unused, reason = "under construction")]

mod access_log;
mod admin;
mod app;
mod certs;
mod config;
mod connections;
mod dns;
mod inbound;
mod metrics;
mod outbound;
mod pods;
mod sync;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the node proxy with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run(args)
}
