//! Envoy as a peer in both roles, while our end of the connection moves from engine to engine at random moments.
//!
//! `CULVERT_ENVOY` names its binary (CONTRIBUTING.md says how to get one); unset, the test says that it is skipped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use culvert_hbone::{ConnectRequest, ConnectionEnd, Settings, client, server};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::process::{Folder, Process};
use support::traffic::{Relays, application, noise, tokio_socket};
use support::{eventually, pair, run_within, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const STREAMS: u64 = 4;
const MOVES: usize = 10;

/// An Envoy that ends CONNECT tunnels at `echo` and opens some to `server`.
struct Envoy {
    _process: Process,
    /// Speaks HBONE.
    tunnel: SocketAddr,
    /// Takes plain connections.
    plain: SocketAddr,
}

#[expect(clippy::disallowed_methods, reason = "the test's own switch")]
fn binary(name: &str) -> Option<std::ffi::OsString> {
    let found = std::env::var_os("CULVERT_ENVOY");
    if found.is_none() {
        // Not by a macro: the harness would keep what a test that passes prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: CULVERT_ENVOY names no Envoy");
    }
    found
}

/// TLS of either side of Envoy, as YAML flow text.
fn tls_context(folder: &Folder, kind: &str, more: &str) -> String {
    let (cert, key, roots) = (folder.path("cert.pem"), folder.path("key.pem"), folder.path("roots.pem"));
    format!(
        r#"{{name: tls, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext, {more}
          common_tls_context: {{
            alpn_protocols: [h2],
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}},
            tls_certificates: [{{certificate_chain: {{filename: {cert}}}, private_key: {{filename: {key}}}}}],
            validation_context: {{trusted_ca: {{filename: {roots}}}}}}}}}}}"#
    )
}

fn cluster(name: &str, at: SocketAddr, more: &str) -> String {
    format!(
        r#"{{name: {name}, type: STATIC, {more} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [
          {{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}"#,
        at.ip(),
        at.port()
    )
}

fn bootstrap(folder: &Folder, echo: SocketAddr, server: SocketAddr) -> String {
    let any_port = "{socket_address: {address: 127.0.0.1, port_value: 0}}";
    let downstream = tls_context(folder, "Downstream", "require_client_certificate: true,");
    let upstream = tls_context(folder, "Upstream", "");
    let http2 = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
          explicit_http_config: {http2_protocol_options: {}}}},"#;
    let (echo, server) = (
        cluster("echo", echo, ""),
        cluster("server", server, &format!("{http2} transport_socket: {upstream},")),
    );
    format!(
        r#"
admin: {{address: {any_port}}}
static_resources:
  listeners:
  - name: tunnel
    address: {any_port}
    filter_chains:
    - transport_socket: {downstream}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: tunnel
          codec_type: HTTP2
          http2_protocol_options: {{allow_connect: true}}
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route: {{cluster: echo, timeout: 0s, upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: plain
    address: {any_port}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: plain
          cluster: server
          tunneling_config: {{hostname: "10.0.0.1:80"}}
  clusters:
  - {echo}
  - {server}
"#
    )
}

/// What Envoy's admin page says, as the body of a GET.
async fn admin(at: SocketAddr, path: &str) -> String {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    text
}

async fn start(binary: std::ffi::OsString, folder: &Folder, echo: SocketAddr, server: SocketAddr) -> Envoy {
    let (config, admin_file) = (folder.path("envoy.yaml"), folder.path("admin"));
    std::fs::write(&config, bootstrap(folder, echo, server)).unwrap();
    let mut command = Command::new(binary);
    command.args(["-c", &config, "--admin-address-path", &admin_file, "--concurrency", "1"]);
    command.args(["--use-dynamic-base-id", "-l", "error"]);
    let process = Process::start(command);
    let address = || std::fs::read_to_string(&admin_file).ok()?.trim().parse::<SocketAddr>().ok();
    eventually("an admin address", || address().is_some() || !process.errors.borrow().is_empty()).await;
    let Some(at) = address() else {
        panic!("{}", String::from_utf8_lossy(&process.errors.borrow()));
    };
    // The listeners come up after the admin page.
    loop {
        let text = admin(at, "/listeners?format=text").await;
        let find = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}::")))?;
            line.split_once("::")?.1.trim().parse::<SocketAddr>().ok()
        };
        if let (Some(tunnel), Some(plain)) = (find("tunnel"), find("plain"))
            && admin(at, "/ready").await.contains("LIVE")
        {
            return Envoy { _process: process, tunnel, plain };
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn our_client_moves_under_tunnels_that_envoy_ends() {
    let Some(binary) = binary("our_client_moves_under_tunnels_that_envoy_ends") else { return };
    run_within(Duration::from_secs(60), async {
        let tls = tls();
        let folder = Folder::new("envoy-server", &tls.pem);
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = echo.local_addr().unwrap();
        spawn(async move {
            while let Ok((tcp, _)) = echo.accept().await {
                spawn(async move {
                    let (mut read, mut write) = tcp.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let envoy = start(binary, &folder, at, at).await;
        let settings = Settings { records_per_key: 50, ..Settings::default() };
        let tcp = TcpStream::connect(envoy.tunnel).await.unwrap();
        let mut connection = client::connect(tcp, tls.client, &settings).await.unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut relays = Relays::default();
        let mut applications = Vec::new();
        for stream in 0..STREAMS {
            let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
            let (_, tunnel) = connection.open(request).await.unwrap();
            let (app, proxy) = pair().await;
            relays.start(tunnel, proxy);
            let up = noise(&mut random, 3 << 20);
            applications.push((spawn(application(app, up.clone(), stream)), up));
        }
        for _ in 0..MOVES {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
            let (live, tcp) = connection.export().unwrap();
            let moved = client::import(live, tokio_socket(tcp), &settings).unwrap();
            connection = moved.connection;
            let apps = relays.stop().await;
            relays.resume(moved.tunnels, apps);
        }
        for (application, expected) in applications {
            assert!(application.await.unwrap() == expected, "what came back differs");
        }
        assert_eq!(relays.finish().await, usize::try_from(STREAMS).unwrap());
        assert_eq!(connection.ended(), None);
    });
}

#[test]
fn our_server_moves_under_tunnels_that_envoy_opens() {
    let Some(binary) = binary("our_server_moves_under_tunnels_that_envoy_opens") else { return };
    run_within(Duration::from_secs(60), async {
        let tls = tls();
        let folder = Folder::new("envoy-client", &tls.pem);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let envoy = start(binary, &folder, at, at).await;
        let settings = Settings { records_per_key: 50, ..Settings::default() };
        let mut random = StdRng::seed_from_u64(2);
        let mut relays = Relays::default();
        let (mut connection, mut applications) = (None, Vec::new());
        for stream in 0..STREAMS {
            let near = TcpStream::connect(envoy.plain).await.unwrap();
            if connection.is_none() {
                let (tcp, _) = listener.accept().await.unwrap();
                connection = Some(server::accept(tcp, tls.server.clone(), &settings).await.unwrap());
            }
            let request = connection.as_ref().unwrap().next().await.unwrap();
            assert_eq!(request.authority(), Some("10.0.0.1:80"));
            let (far, proxy) = pair().await;
            relays.start(request.accept(&[]), proxy);
            let (up, down) = (noise(&mut random, 3 << 20), noise(&mut random, 3 << 20));
            applications.push((spawn(application(near, up.clone(), stream)), down.clone()));
            applications.push((spawn(application(far, down, stream + 100)), up));
        }
        let mut connection = connection.unwrap();
        for _ in 0..MOVES {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
            let (live, tcp) = connection.export().unwrap();
            let moved = server::import(live, tokio_socket(tcp), &settings).unwrap();
            assert_eq!(connection.ended(), Some(ConnectionEnd::Moved));
            connection = moved.connection;
            let apps = relays.stop().await;
            relays.resume(moved.tunnels, apps);
        }
        for (application, expected) in applications {
            assert!(application.await.unwrap() == expected, "bytes differ");
        }
        assert_eq!(relays.finish().await, usize::try_from(STREAMS).unwrap());
        assert_eq!(connection.ended(), None);
    });
}
