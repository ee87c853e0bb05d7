//! Configuration of haproxy: defaults, but for the number of threads and connections and timeouts that never matter.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use tokio::process::Command;

use super::{N_THREADS, Programs};
use crate::certificates::{Certificates, NAME};
use crate::world::{Pod, World};

/// Enough for 10,000 connections and those that are about to close.
const CONNECTIONS: u64 = 30_000;

/// So many connections, of two descriptors each, as this machine's limit allows: haproxy refuses to start with more.
pub(crate) fn connections() -> u64 {
    let descriptors = runtime::limits::descriptor_limit().unwrap_or(u64::MAX);
    CONNECTIONS.min(descriptors.saturating_sub(200) / 2)
}

pub(super) fn plain(port: u16, to: SocketAddr) -> String {
    config(&format!("bind :{port}"), &format!("server next {to}"))
}

pub(super) fn near_tls(port: u16, to: SocketAddr, files: &Certificates) -> String {
    let (both, root) = (files.both.display(), files.root.display());
    let server = format!("server next {to} ssl crt {both} ca-file {root} verify required verifyhost {NAME}");
    config(&format!("bind :{port}"), &server)
}

pub(super) fn far_tls(port: u16, to: SocketAddr, files: &Certificates) -> String {
    let (both, root) = (files.both.display(), files.root.display());
    let bind = format!("bind :{port} ssl crt {both} ca-file {root} verify required");
    config(&bind, &format!("server next {to}"))
}

fn config(bind: &str, server: &str) -> String {
    let connections = connections();
    format!(
        "global\n  nbthread {N_THREADS}\n  maxconn {connections}\n\
         \x20 ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384\n\
         \x20 ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384\n\
         \x20 ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         \x20 ssl-default-server-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n\
         listen bench\n  {bind}\n  {server}\n"
    )
}

pub(super) fn command(
    world: &World,
    pod: Pod,
    programs: &Programs,
    folder: &Path,
    config: &str,
) -> anyhow::Result<Command> {
    let program = programs.haproxy.as_ref().context("haproxy is not installed")?;
    let name = format!("haproxy-{pod:?}-{}.cfg", config.contains(" ssl crt "));
    let file = folder.join(name);
    std::fs::write(&file, config)?;
    let mut command = world.program_in(pod, program)?;
    // In the foreground, one process.
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}
