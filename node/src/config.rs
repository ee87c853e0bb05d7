//! The node's configuration: environment, `PROXY_CONFIG`, the mesh file and defaults become one [`Config`], once.
//!
//! All mistakes are reported together. Nothing reads the environment later. Precedence: environment, then
//! `PROXY_CONFIG`, then `./etc/istio/config/mesh`, then the default (control-and-operations 5.1).
mod aliases;
mod components;
mod dump;
mod duration;
mod error;
mod load;
mod proxy_config;
mod reader;
mod resolver;
mod threads;
mod variables;

pub(crate) use aliases::LOG_ALIASES;
pub(crate) use error::ConfigErrors;
pub(crate) use load::Inputs;
pub(crate) use resolver::ResolverSettings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::certs::channel::{Credential, RootSource};
use crate::sync::LocalSource;

/// Port of inbound HBONE.
pub(crate) const HBONE_PORT: u16 = 15008;
/// Port of captured plaintext coming in.
pub(crate) const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Port of captured connections going out.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// Port of readiness.
pub(crate) const READINESS_PORT: u16 = 15021;
/// Port of SOCKS5, if enabled.
pub(crate) const SOCKS5_PORT: u16 = 15080;

/// Everything the node was told, defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Carry traffic.
    pub(crate) proxy: bool,
    /// Answer DNS.
    pub(crate) dns_proxy: bool,
    /// HTTP/2 of tunnels.
    pub(crate) http2: Http2,
    /// Pool of tunnels.
    pub(crate) pool: Pool,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// Upstream ports that are never dialled: they are ours.
    pub(crate) illegal_ports: BTreeSet<u16>,
    /// Network of this node.
    pub(crate) network: String,
    /// This node.
    pub(crate) local_node: Option<String>,
    /// Pods handed over, or one workload told by hand.
    pub(crate) mode: Mode,
    /// Cluster.
    pub(crate) cluster_id: String,
    /// DNS suffix of the cluster.
    pub(crate) cluster_domain: String,
    /// Certificate authority.
    pub(crate) ca: ControlPlane,
    /// Discovery.
    pub(crate) xds: ControlPlane,
    /// The bearer token that says who this node is.
    pub(crate) credential: Credential,
    /// File with a join token, to be exchanged for a node certificate; goes before the bearer token.
    pub(crate) join_token: Option<PathBuf>,
    /// Ask for workloads when needed.
    pub(crate) xds_on_demand: bool,
    /// Local source of workloads, services and policies.
    pub(crate) local_source: Option<LocalSource>,
    /// DNS tie-break.
    pub(crate) preferred_service_namespace: Option<String>,
    /// Validity asked of the CA.
    pub(crate) secret_ttl: Duration,
    /// How long connections may go on after a stop is asked for.
    pub(crate) termination_deadline: Duration,
    /// Node metadata for discovery.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Structured node metadata for discovery.
    pub(crate) json_metadata: BTreeMap<String, serde_json::Value>,
    /// Threads that carry traffic.
    pub(crate) n_traffic_threads: usize,
    /// Keep the source address: yes, no, or find out.
    pub(crate) require_original_source: Option<bool>,
    /// Arguments as given.
    pub(crate) arguments: String,
    /// The node's own resolver.
    pub(crate) resolver: ResolverSettings,
    /// Socket of the node agent.
    pub(crate) inpod_uds: PathBuf,
    /// `SO_REUSEPORT` in pods.
    pub(crate) inpod_port_reuse: bool,
    /// Mark of our sockets.
    pub(crate) packet_mark: Option<u32>,
    /// TCP options.
    pub(crate) sockets: Sockets,
    /// Dial application tunnels on loopback.
    pub(crate) localhost_app_tunnel: bool,
    /// IPv6.
    pub(crate) ipv6: bool,
    /// Revocation lists.
    pub(crate) crl_path: Option<PathBuf>,
    /// Workload metadata headers in answers.
    pub(crate) response_baggage: bool,
    /// TLS choices.
    pub(crate) tls: TlsPolicy,
    /// Log policy decisions at info.
    pub(crate) policy_info_logging: bool,
    /// This proxy's own pod.
    pub(crate) own: OwnPod,
    /// Version of the mesh.
    pub(crate) istio_version: String,
    /// Runtime folder for the local admin socket.
    pub(crate) runtime_folder: PathBuf,
}

/// HTTP/2 of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Http2 {
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) frame_size: u32,
    /// Octets that all tunnels may hold together.
    pub(crate) memory: u64,
}

/// Pool of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) max_streams_per_connection: u16,
    pub(crate) unused_release_timeout: Duration,
}

/// Where the node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) admin: Loopback,
    pub(crate) stats: SocketAddr,
    pub(crate) readiness: SocketAddr,
    pub(crate) inbound: SocketAddr,
    pub(crate) inbound_plaintext: SocketAddr,
    pub(crate) outbound: SocketAddr,
    pub(crate) dns: DnsAddress,
    pub(crate) socks5: Option<SocketAddr>,
}

/// A port on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loopback {
    pub(crate) ipv6: bool,
    pub(crate) port: u16,
}

impl Loopback {
    /// The addresses to bind.
    pub(crate) fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let v6 = self.ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        std::iter::once(v4).chain(v6).map(move |ip| SocketAddr::new(ip, self.port))
    }
}

/// Where DNS is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DnsAddress {
    Localhost(Loopback),
    Socket(SocketAddr),
}

impl std::fmt::Display for DnsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Localhost(loopback) => write!(f, "localhost:{}", loopback.port),
            Self::Socket(address) => address.fmt(f),
        }
    }
}

/// Whose traffic is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Pods that the node agent hands over.
    Shared,
    /// One workload.
    Dedicated(WorkloadName),
}

/// A workload by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadName {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
}

/// How one service of the control plane is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlPlane {
    /// Address with scheme; nothing: disabled.
    pub(crate) address: Option<String>,
    /// What its certificate must chain to.
    pub(crate) roots: RootSource,
    /// Name to verify instead of the address's.
    pub(crate) alternative_hostname: Option<String>,
    /// Headers sent along.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// TCP options of data sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sockets {
    pub(crate) keepalive: bool,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_retries: u32,
    pub(crate) user_timeout: bool,
}

/// TLS choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsPolicy {
    /// Post-quantum key exchange only.
    pub(crate) pqc_only: bool,
    /// TLS 1.2 towards the control plane.
    pub(crate) tls12: bool,
}

/// This proxy's own pod, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OwnPod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) instance_ip: String,
    /// Known when name, namespace and service account all are.
    pub(crate) workload: Option<OwnWorkload>,
}

/// This proxy as a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnWorkload {
    pub(crate) workload: WorkloadName,
    pub(crate) trust_domain: String,
}

impl OwnWorkload {
    /// `spiffe://…`.
    pub(crate) fn spiffe_id(&self) -> String {
        let WorkloadName { namespace, service_account, .. } = &self.workload;
        format!("spiffe://{}/ns/{namespace}/sa/{service_account}", self.trust_domain)
    }
}

impl Config {
    /// Reads the process's environment and files.
    pub(crate) fn from_process(arguments: String) -> Result<Self, ConfigErrors> {
        Self::load(&Inputs::of_process(arguments))
    }

    /// The id this node has in discovery (2.2).
    #[cfg(test)]
    pub(crate) fn node_id(&self) -> String {
        let OwnPod { name, namespace, instance_ip, .. } = &self.own;
        format!("ztunnel~{instance_ip}~{name}.{namespace}~{namespace}.svc.cluster.local")
    }

    /// Shared mode: pods are handed over.
    pub(crate) fn is_shared(&self) -> bool {
        self.mode == Mode::Shared
    }
}

#[cfg(test)]
mod tests;
