//! The node proxy: carries the TCP of this node's workloads over HBONE, mutual TLS in HTTP/2, under
//! the mesh's policies. A drop-in for ztunnel.
//!
//! Start reading at `app`, which joins the parts, then at the two paths, `outbound` and
//! `inbound`, each of which opens with the list of its steps. What is decided about the mesh is
//! decided in the crates `state` and `policy`; here it is done.

mod access_log;
mod address;
mod admin;
mod app;
mod baggage;
mod carried;
mod certs;
mod config;
mod connections;
mod context;
mod dialers;
mod dns;
mod failure;
mod hostnames;
mod inbound;
mod memory;
mod metrics;
mod outbound;
mod peers;
mod pods;
mod record;
mod relay;
mod settings;
mod slots;
mod sync;
#[cfg(test)]
mod testbed;
mod threads;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the node proxy with its own arguments (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run(&args)
}
