//! From raw inputs to a [`Config`].
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use runtime::environment::Environment;
use runtime::folders;

use super::error::{ConfigError, ConfigErrors};
use super::proxy_config::ProxyConfig;
use super::reader::Reader;
use super::resolver::ResolverSettings;
use super::threads;
use super::{
    Config, ControlPlane, DnsAddress, HBONE_PORT, Http2, INBOUND_PLAINTEXT_PORT, Listen, Loopback, Mode,
    OUTBOUND_PORT, OwnPod, OwnWorkload, Pool, READINESS_PORT, SOCKS5_PORT, Sockets, TlsPolicy, WorkloadName,
};
use crate::certs::channel::{Credential, RootSource};
use crate::sync::LocalSource;

const MESH_FILE: &str = "./etc/istio/config/mesh";
const ROOT_FILE: &str = "./var/run/secrets/istio/root-cert.pem";
const DEFAULT_MARK: u32 = 1337;

/// Everything a configuration is made of, read by somebody else.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    pub(crate) environment: Environment,
    /// Text of the mesh file, or why it cannot be read; nothing if it is not there.
    pub(crate) mesh_file: Option<Result<String, String>>,
    /// Text of `/etc/resolv.conf`, empty if there is none.
    pub(crate) resolv_conf: String,
    pub(crate) n_cpus: usize,
    /// The kernel has IPv6 on loopback.
    pub(crate) ipv6_loopback: bool,
    pub(crate) arguments: String,
}

impl Inputs {
    /// Of this process.
    pub(crate) fn of_process(arguments: String) -> Self {
        let mesh_file = match std::fs::read_to_string(MESH_FILE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|error| error.to_string())),
        };
        let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
        Self {
            environment: Environment::of_process(),
            mesh_file,
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            n_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            ipv6_loopback: disabled.is_ok_and(|text| text.trim() != "1"),
            arguments,
        }
    }
}

impl Config {
    /// Reads everything; all mistakes if there is one.
    pub(crate) fn load(inputs: &Inputs) -> Result<Self, ConfigErrors> {
        let reader = Reader::new(&inputs.environment);
        let config = Loader { reader: &reader, inputs }.load();
        let errors = reader.into_errors();
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }
}

/// Wrong values are reported to the reader and replaced by defaults, so that reading goes on to the next mistake.
struct Loader<'a> {
    reader: &'a Reader<'a>,
    inputs: &'a Inputs,
}

impl Loader<'_> {
    fn load(&self) -> Config {
        let reader = self.reader;
        let document = self.proxy_config();
        let metadata = self.metadata(document.proxy_metadata.clone().unwrap_or_default());
        let mode = self.mode();
        let ipv6 = reader.flag("IPV6_ENABLED").unwrap_or(true);
        let dns_proxy = metadata.get("DNS_CAPTURE").is_none_or(|value| value.eq_ignore_ascii_case("true"));
        let proxy = reader.flag("ENABLE_PROXY").unwrap_or(true);
        if !proxy && !dns_proxy {
            reader.fail(ConfigError::NoServers);
        }
        let xds_on_demand = reader.flag("XDS_ON_DEMAND").unwrap_or(false);
        if xds_on_demand && dns_proxy {
            reader.fail(ConfigError::OnDemandWithDns);
        }
        let listen = self.listen(&document, &metadata, ipv6);
        let mark = (mode == Mode::Shared).then_some(DEFAULT_MARK);
        let cluster_id = metadata.get("CLUSTER_ID").map(String::as_str);
        let cluster_id = cluster_id.or_else(|| reader.text("CLUSTER_ID")).unwrap_or("Kubernetes").to_owned();
        let ca = self.control_plane("CA", None);
        if proxy && ca.address.is_none() {
            reader.fail(ConfigError::NoCa);
        }
        if reader.flag("FAKE_CA").unwrap_or(false) {
            reader.fail(ConfigError::FakeCa);
        }
        Config {
            proxy,
            dns_proxy,
            http2: Http2 {
                stream_window: reader.number("HTTP2_STREAM_WINDOW_SIZE").unwrap_or(4 << 20),
                connection_window: reader.number("HTTP2_CONNECTION_WINDOW_SIZE").unwrap_or(16 << 20),
                frame_size: reader.number("HTTP2_FRAME_SIZE").unwrap_or(1 << 20),
                memory: reader.number("CULVERT_HBONE_MEMORY").unwrap_or(512 << 20),
            },
            pool: Pool {
                max_streams_per_connection: reader.number("POOL_MAX_STREAMS_PER_CONNECTION").unwrap_or(100),
                unused_release_timeout: reader
                    .duration("POOL_UNUSED_RELEASE_TIMEOUT")
                    .unwrap_or(Duration::from_secs(300)),
            },
            illegal_ports: illegal_ports(&listen),
            listen,
            network: reader.text("NETWORK").unwrap_or_default().to_owned(),
            local_node: reader.text("NODE_NAME").map(str::to_owned),
            cluster_id,
            cluster_domain: reader.text("CLUSTER_DOMAIN").unwrap_or("cluster.local").to_owned(),
            ca,
            xds: self.control_plane("XDS", document.discovery_address.as_deref()),
            credential: self.credential(),
            join_token: self.join_token(),
            xds_on_demand,
            local_source: self.local_source(),
            preferred_service_namespace: reader.text("PREFERED_SERVICE_NAMESPACE").map(str::to_owned),
            secret_ttl: reader.duration("SECRET_TTL").unwrap_or(Duration::from_secs(86_400)),
            termination_deadline: self.termination_deadline(),
            istio_version: metadata.get("ISTIO_VERSION").cloned().unwrap_or_else(|| "unknown".into()),
            metadata,
            json_metadata: self.json_metadata(),
            n_traffic_threads: threads::count(reader, document.concurrency, self.inputs.n_cpus),
            require_original_source: reader.flag("ENABLE_ORIG_SRC"),
            arguments: self.inputs.arguments.clone(),
            resolver: ResolverSettings::parse(&self.inputs.resolv_conf),
            inpod_uds: PathBuf::from(reader.text("INPOD_UDS").unwrap_or("/var/run/ztunnel/ztunnel.sock")),
            inpod_port_reuse: reader.flag("INPOD_PORT_REUSE").unwrap_or(true),
            packet_mark: reader.number("PACKET_MARK").or(mark),
            mode,
            sockets: Sockets {
                keepalive: reader.flag("KEEPALIVE_ENABLED").unwrap_or(true),
                keepalive_time: reader.duration("KEEPALIVE_TIME").unwrap_or(Duration::from_secs(180)),
                keepalive_interval: reader.duration("KEEPALIVE_INTERVAL").unwrap_or(Duration::from_secs(180)),
                keepalive_retries: reader.number("KEEPALIVE_RETRIES").unwrap_or(9),
                user_timeout: reader.flag("USER_TIMEOUT_ENABLED").unwrap_or(false),
            },
            localhost_app_tunnel: reader.flag("LOCALHOST_APP_TUNNEL").unwrap_or(true),
            ipv6,
            crl_path: reader.non_empty("CRL_PATH").map(PathBuf::from),
            response_baggage: reader.flag("ENABLE_RESPONSE_BAGGAGE").unwrap_or(true),
            tls: TlsPolicy {
                pqc_only: reader.text("COMPLIANCE_POLICY") == Some("pqc"),
                tls12: reader.text("TLS12_ENABLED") == Some("true"),
            },
            policy_info_logging: reader.text("AUTHZ_POLICY_INFO_LOGGING") == Some("true"),
            own: self.own_pod(),
            runtime_folder: reader
                .non_empty("CULVERT_RUNTIME_DIR")
                .map_or_else(|| folders::default_base(&self.inputs.environment), PathBuf::from),
        }
    }

    fn proxy_config(&self) -> ProxyConfig {
        let mesh_file = |text: &Result<String, String>| {
            text.as_ref().map_err(Clone::clone).and_then(|text| ProxyConfig::parse_mesh_file(text))
        };
        let below =
            self.inputs.mesh_file.as_ref().map(mesh_file).unwrap_or_else(|| Ok(ProxyConfig::default()));
        let below = below.unwrap_or_else(|reason| {
            self.reader.fail(ConfigError::MeshFile { path: MESH_FILE.into(), reason });
            ProxyConfig::default()
        });
        let above =
            self.reader.text("PROXY_CONFIG").map_or_else(|| Ok(ProxyConfig::default()), ProxyConfig::parse);
        let above = above.unwrap_or_else(|reason| {
            self.reader.fail(ConfigError::ProxyConfig { reason });
            ProxyConfig::default()
        });
        above.over(below)
    }

    /// Keys lose their prefix if they have it; the environment wins.
    fn metadata(&self, document: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut metadata: BTreeMap<String, String> = document
            .into_iter()
            .map(|(key, value)| (key.strip_prefix("ISTIO_META_").unwrap_or(&key).to_owned(), value))
            .collect();
        let environment = self.reader.with_prefix("ISTIO_META_");
        metadata.extend(environment.map(|(key, value)| (key.to_owned(), value.to_owned())));
        metadata
    }

    /// What is no JSON is left out with a log line: a label with a typo should not keep a node down.
    fn json_metadata(&self) -> BTreeMap<String, serde_json::Value> {
        let parsed = self.reader.with_prefix("ISTIO_METAJSON_").filter_map(|(key, text)| {
            let value = serde_json::from_str(text);
            if let Err(error) = &value {
                tracing::error!(key, %error, "node metadata is no JSON and is left out");
            }
            Some((key.to_owned(), value.ok()?))
        });
        parsed.collect()
    }

    fn mode(&self) -> Mode {
        let name = self.reader.parsed("PROXY_WORKLOAD_INFO", workload_name);
        let dedicated = self.reader.parsed("PROXY_MODE", |text| match text {
            "shared" => Ok(false),
            "dedicated" => Ok(true),
            _ => Err("PROXY_MODE must be one of dedicated, shared".into()),
        });
        match (dedicated.unwrap_or(false), name) {
            (false, _) => Mode::Shared,
            (true, Some(name)) => Mode::Dedicated(name),
            (true, None) => {
                if self.reader.text("PROXY_WORKLOAD_INFO").is_none() {
                    self.reader.fail(ConfigError::NoWorkloadInfo);
                }
                Mode::Shared
            }
        }
    }

    fn listen(&self, document: &ProxyConfig, metadata: &BTreeMap<String, String>, ipv6: bool) -> Listen {
        let wildcard =
            if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let on = |port| SocketAddr::new(wildcard, port);
        let loopback = |port| Loopback { ipv6: ipv6 && self.inputs.ipv6_loopback, port };
        let dns = metadata.get("DNS_PROXY_ADDR").and_then(|value| {
            let address = match value.strip_prefix("localhost:") {
                Some(port) => port.parse().map(|port| DnsAddress::Localhost(loopback(port))).map_err(text_of),
                None => value.parse().map(DnsAddress::Socket).map_err(text_of),
            };
            let fail =
                |reason| self.reader.fail(ConfigError::DnsProxyAddress { value: value.clone(), reason });
            address.map_err(fail).ok()
        });
        let socks5 = self.reader.flag("UNSTABLE_ENABLE_SOCKS5").unwrap_or(false);
        Listen {
            admin: loopback(document.proxy_admin_port.unwrap_or(15000)),
            stats: on(document.stats_port.unwrap_or(15020)),
            readiness: on(READINESS_PORT),
            inbound: on(HBONE_PORT),
            inbound_plaintext: on(INBOUND_PLAINTEXT_PORT),
            outbound: on(OUTBOUND_PORT),
            dns: dns.unwrap_or_else(|| DnsAddress::Localhost(loopback(15053))),
            socks5: socks5.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, SOCKS5_PORT))),
        }
    }

    fn control_plane(&self, prefix: &'static str, discovery_address: Option<&str>) -> ControlPlane {
        let (address, root, hostname, headers) = match prefix {
            "XDS" => ("XDS_ADDRESS", "XDS_ROOT_CA", "ALT_XDS_HOSTNAME", "XDS_HEADER_"),
            _ => ("CA_ADDRESS", "CA_ROOT_CA", "ALT_CA_HOSTNAME", "CA_HEADER_"),
        };
        let in_cluster = self.reader.text("KUBERNETES_SERVICE_HOST").is_some();
        let default =
            if in_cluster { "https://istiod.istio-system.svc:15012" } else { "https://localhost:15012" };
        let given = self.reader.text(address).or(discovery_address).unwrap_or(default);
        ControlPlane {
            address: if given.is_empty() { None } else { self.uri(address, given) },
            roots: self.roots(self.reader.text(root)),
            alternative_hostname: self.reader.text(hostname).map(str::to_owned),
            headers: self.headers(headers),
        }
    }

    fn uri(&self, name: &'static str, given: &str) -> Option<String> {
        let address = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
        let reason = match address.parse::<http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => match uri.scheme_str() {
                Some("https") => return Some(address),
                _ => format!("only https is usable: {given}"),
            },
            Ok(_) => format!("no host in {given}"),
            Err(error) => error.to_string(),
        };
        self.reader.fail(ConfigError::InvalidUri { name, reason });
        None
    }

    /// A node that joins by token gets the roots along with its certificate, unless it is told others.
    fn roots(&self, given: Option<&str>) -> RootSource {
        match given {
            None if self.join_token().is_some() => RootSource::Joined,
            given => RootSource::from_setting(given.unwrap_or(ROOT_FILE)),
        }
    }

    fn join_token(&self) -> Option<PathBuf> {
        self.reader.non_empty("CULVERT_JOIN_TOKEN").map(PathBuf::from)
    }

    fn headers(&self, prefix: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in self.inputs.environment.with_prefix(prefix) {
            let key = HeaderName::try_from(name.to_ascii_lowercase());
            let text = HeaderValue::from_str(value);
            if key.is_err() {
                self.reader.fail(ConfigError::HeaderKey { name: format!("{prefix}{name}") });
            }
            if text.is_err() {
                self.reader.fail(ConfigError::HeaderValue { value: value.to_owned() });
            }
            headers.extend(key.ok().zip(text.ok()));
        }
        headers
    }

    fn credential(&self) -> Credential {
        if self.join_token().is_some() {
            return Credential::None;
        }
        Credential::from_setting(self.reader.text("AUTH_TOKEN"))
    }

    fn local_source(&self) -> Option<LocalSource> {
        match (self.reader.text("LOCAL_XDS_PATH"), self.reader.text("LOCAL_XDS")) {
            (None, None) => None,
            (Some(path), None) => Some(LocalSource::File(PathBuf::from(path))),
            (None, Some(text)) => Some(LocalSource::Inline(text.to_owned())),
            (Some(_), Some(_)) => {
                self.reader.fail(ConfigError::TwoLocalSources);
                None
            }
        }
    }

    /// A grace period of zero leaves no time at all.
    fn termination_deadline(&self) -> Duration {
        let deadline = self.reader.duration("CONNECTION_TERMINATION_DEADLINE");
        let grace: Option<u64> = self.reader.number("TERMINATION_GRACE_PERIOD_SECONDS");
        let by_grace = grace.map(|seconds| match seconds {
            0 => 0,
            1..=10 => (seconds - 1).max(1),
            _ => seconds - 5,
        });
        deadline.unwrap_or_else(|| Duration::from_secs(by_grace.unwrap_or(5)))
    }

    fn own_pod(&self) -> OwnPod {
        let text = |name| self.reader.text(name).map(str::to_owned);
        let (name, namespace, service_account) =
            (text("POD_NAME"), text("POD_NAMESPACE"), text("SERVICE_ACCOUNT"));
        let trust_domain = text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".into());
        let workload = match (&name, &namespace, service_account) {
            (Some(name), Some(namespace), Some(service_account)) => {
                let workload =
                    WorkloadName { name: name.clone(), namespace: namespace.clone(), service_account };
                Some(OwnWorkload { workload, trust_domain })
            }
            _ => None,
        };
        OwnPod {
            name: name.unwrap_or_default(),
            namespace: namespace.unwrap_or_default(),
            instance_ip: text("INSTANCE_IP").unwrap_or_else(|| "1.1.1.1".into()),
            workload,
        }
    }
}

fn illegal_ports(listen: &Listen) -> BTreeSet<u16> {
    let fixed = [HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT];
    fixed.into_iter().chain(listen.socks5.map(|address| address.port())).collect()
}

fn workload_name(text: &str) -> Result<WorkloadName, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let [namespace, name, service_account] = parts[..] else {
        return Err("expected namespace/name/service-account".into());
    };
    if [namespace, name, service_account].contains(&"") {
        return Err("expected namespace/name/service-account, none of them empty".into());
    }
    Ok(WorkloadName {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
    })
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}
