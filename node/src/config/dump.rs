//! The configuration as `/config_dump` shows it (control-and-operations 6.3). Secrets are not in it: tokens never,
//! and header values are replaced.
use std::time::Duration;

use serde_json::{Value, json};

use super::{Config, ControlPlane, DnsAddress, Loopback, Mode, WorkloadName};
use crate::certs::channel::RootSource;

/// What stands for a header's value.
const REDACTED: &str = "<redacted>";

impl Config {
    /// The `config` section.
    pub(crate) fn to_json(&self) -> Value {
        joined([self.traffic_json(), self.listen_json(), self.control_json(), self.pods_json()])
    }

    fn traffic_json(&self) -> Value {
        json!({
            "proxy": self.proxy,
            "dnsProxy": self.dns_proxy,
            "windowSize": self.http2.stream_window,
            "connectionWindowSize": self.http2.connection_window,
            "frameSize": self.http2.frame_size,
            "poolMaxStreamsPerConn": self.pool.max_streams_per_connection,
            "poolUnusedReleaseTimeout": duration(self.pool.unused_release_timeout),
        })
    }

    fn listen_json(&self) -> Value {
        let listen = &self.listen;
        json!({
            "socks5Addr": listen.socks5,
            "adminAddr": loopback(listen.admin),
            "statsAddr": {"SocketAddr": listen.stats},
            "readinessAddr": {"SocketAddr": listen.readiness},
            "inboundAddr": listen.inbound,
            "inboundPlaintextAddr": listen.inbound_plaintext,
            "outboundAddr": listen.outbound,
            "dnsProxyAddr": match listen.dns {
                DnsAddress::Localhost(address) => loopback(address),
                DnsAddress::Socket(address) => json!({"SocketAddr": address}),
            },
            "illegalPorts": self.illegal_ports,
            "network": self.network,
            "localNode": self.local_node,
            "proxyMode": match self.mode { Mode::Shared => "Shared", Mode::Dedicated(_) => "Dedicated" },
            "proxyWorkloadInformation": match &self.mode {
                Mode::Shared => Value::Null,
                Mode::Dedicated(name) => workload(name),
            },
        })
    }

    fn control_json(&self) -> Value {
        json!({
            "clusterId": self.cluster_id,
            "clusterDomain": self.cluster_domain,
            "caAddress": self.ca.address,
            "caRootCert": roots(&self.ca.roots),
            "altCaHostname": self.ca.alternative_hostname,
            "xdsAddress": self.xds.address,
            "xdsRootCert": roots(&self.xds.roots),
            "altXdsHostname": self.xds.alternative_hostname,
            "preferedServiceNamespace": self.preferred_service_namespace,
            "secretTtl": duration(self.secret_ttl),
            "xdsOnDemand": self.xds_on_demand,
            "fakeCa": false,
            "fakeSelfInbound": false,
            "selfTerminationDeadline": duration(self.termination_deadline),
            "proxyMetadata": self.metadata,
        })
    }

    fn pods_json(&self) -> Value {
        let own = self.own.workload.as_ref();
        json!({
            "numWorkerThreads": self.n_traffic_threads,
            "requireOriginalSource": self.require_original_source,
            "proxyArgs": self.arguments,
            "dnsResolverCfg": self.resolver.config_json(),
            "dnsResolverOpts": self.resolver.options_json(),
            "inpodUds": self.inpod_uds,
            "inpodPortReuse": self.inpod_port_reuse,
            "packetMark": self.packet_mark,
            "socketConfig": {
                "keepaliveTime": duration(self.sockets.keepalive_time),
                "keepaliveInterval": duration(self.sockets.keepalive_interval),
                "keepaliveRetries": self.sockets.keepalive_retries,
                "keepaliveEnabled": self.sockets.keepalive,
                "userTimeoutEnabled": self.sockets.user_timeout,
            },
            "xdsHeaders": headers(&self.xds),
            "caHeaders": headers(&self.ca),
            "localhostAppTunnel": self.localhost_app_tunnel,
            "ztunnelIdentity": own.map(|own| own.spiffe_id()),
            "ztunnelWorkload": own.map(|own| workload(&own.workload)),
            "ipv6Enabled": self.ipv6,
            "crlPath": self.crl_path,
            "enableEnhancedBaggage": self.response_baggage,
        })
    }

    /// The same as YAML, for the log line at start.
    pub(crate) fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&self.to_json()).unwrap_or_else(|error| format!("cannot be shown: {error}\n"))
    }
}

fn joined(parts: [Value; 4]) -> Value {
    let objects = parts.into_iter().filter_map(|part| match part {
        Value::Object(map) => Some(map),
        _ => None,
    });
    Value::Object(objects.flatten().collect())
}

fn duration(duration: Duration) -> Value {
    json!({"secs": duration.as_secs(), "nanos": duration.subsec_nanos()})
}

fn loopback(address: Loopback) -> Value {
    json!({"Localhost": [address.ipv6, address.port]})
}

fn workload(name: &WorkloadName) -> Value {
    json!({"name": name.name, "namespace": name.namespace, "serviceAccount": name.service_account})
}

fn roots(roots: &RootSource) -> Value {
    match roots {
        RootSource::File(path) => json!({"File": path}),
        RootSource::System => json!("Default"),
        RootSource::Static(_) | RootSource::Joined | RootSource::Pinned(_) => json!("Static"),
    }
}

fn headers(control_plane: &ControlPlane) -> Vec<Value> {
    control_plane.headers.iter().map(|(name, _)| json!([name.as_str(), REDACTED])).collect()
}
