//! Configuration of Envoy: a TCP proxy that tunnels through CONNECT on the near side, a CONNECT terminator on the far
//! side. Defaults, but for circuit breakers that 10,000 connections would open. Its TLS library does not let one choose
//! the suite of TLS 1.3: it takes AES-128-GCM, which is a little cheaper than what the others use.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{N_THREADS, Programs};
use crate::certificates::{Certificates, NAME};
use crate::world::{Pod, World};

/// Where types of Envoy's API are found.
fn api(name: &str) -> String {
    format!("type.googleapis.com/envoy.{name}")
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn tls(files: &Certificates) -> Value {
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": {"filename": files.chain},
            "private_key": {"filename": files.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": files.root},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
        },
    })
}

fn cluster(to: SocketAddr) -> Value {
    json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }]},
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(to)}}]}],
        },
    })
}

fn config(port: u16, filter: &Value, transport: Option<&Value>, cluster: &Value) -> String {
    let mut chain = json!({"filters": [filter]});
    if let (Some(transport), Some(chain)) = (transport, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), transport.clone());
    }
    json!({
        "static_resources": {
            "listeners": [{
                "name": "bench",
                "address": socket(([0, 0, 0, 0], port).into()),
                "filter_chains": [chain],
            }],
            "clusters": [cluster],
        },
    })
    .to_string()
}

pub(super) fn near(port: u16, to: SocketAddr, files: &Certificates) -> String {
    let filter = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": api("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "bench",
            "cluster": "next",
            "idle_timeout": "0s",
            "tunneling_config": {"hostname": "server:7000"},
        },
    });
    let mut cluster = cluster(to);
    if let Some(fields) = cluster.as_object_mut() {
        fields.insert(
            "typed_extension_protocol_options".to_owned(),
            json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": api("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }}),
        );
        fields.insert(
            "transport_socket".to_owned(),
            json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": api("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                    "sni": NAME,
                    "common_tls_context": tls(files),
                },
            }),
        );
    }
    config(port, &filter, None, &cluster)
}

pub(super) fn far(port: u16, to: SocketAddr, files: &Certificates) -> String {
    let filter = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": api("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "bench",
            "codec_type": "HTTP2",
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT"}],
            "http2_protocol_options": {"allow_connect": true},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": api("extensions.filters.http.router.v3.Router")},
            }],
            "route_config": {"virtual_hosts": [{
                "name": "bench",
                "domains": ["*"],
                "routes": [{
                    "match": {"connect_matcher": {}},
                    "route": {
                        "cluster": "next",
                        "timeout": "0s",
                        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                    },
                }],
            }]},
        },
    });
    let transport = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": api("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": tls(files),
        },
    });
    config(port, &filter, Some(&transport), &cluster(to))
}

pub(super) fn command(
    world: &World,
    pod: Pod,
    programs: &Programs,
    folder: &Path,
    config: &str,
) -> anyhow::Result<Command> {
    let program = programs.envoy.as_ref().context("Envoy is not installed")?;
    let file = folder.join(format!("envoy-{pod:?}.json"));
    std::fs::write(&file, config)?;
    let mut command = world.program_in(pod, program)?;
    command.args(["--concurrency", &N_THREADS.to_string(), "--use-dynamic-base-id", "--log-level", "warn"]);
    command.arg("-c").arg(file);
    Ok(command)
}
