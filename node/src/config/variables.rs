//! Every environment variable of the node, in one list. `docs/environment.md` is made from it.
#[cfg(test)]
use std::fmt::Write as _;

/// One variable, or a family of them when the name ends with `<X>`.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "for the documentation page, which a test writes"))]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
    /// Version of this program that brought it.
    pub(crate) since: &'static str,
    /// Named and meant as in ztunnel, or our own.
    pub(crate) origin: Origin,
}

/// Whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Ztunnel,
    Ours,
}

const fn ztunnel(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, since: "0.1", origin: Origin::Ztunnel }
}

const fn ours(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, since: "0.1", origin: Origin::Ours }
}

/// The list.
pub(crate) const VARIABLES: &[Variable] = &[
    ztunnel(
        "XDS_ADDRESS",
        "`https://istiod.istio-system.svc:15012` in Kubernetes, else `https://localhost:15012`",
        "discovery server; empty disables it; without scheme `https` is meant",
    ),
    ztunnel("CA_ADDRESS", "as `XDS_ADDRESS`", "certificate authority; does not follow `discoveryAddress`"),
    ztunnel("KUBERNETES_SERVICE_HOST", "–", "its presence selects the defaults above"),
    ztunnel(
        "XDS_ROOT_CA",
        "`./var/run/secrets/istio/root-cert.pem`",
        "what the discovery server's certificate must chain to: a file, `SYSTEM`, or PEM text",
    ),
    ztunnel(
        "CA_ROOT_CA",
        "`./var/run/secrets/istio/root-cert.pem`",
        "the same for the certificate authority",
    ),
    ztunnel("ALT_XDS_HOSTNAME", "–", "name to verify in the discovery server's certificate"),
    ztunnel("ALT_CA_HOSTNAME", "–", "name to verify in the certificate authority's certificate"),
    ztunnel(
        "AUTH_TOKEN",
        "`./var/run/secrets/tokens/istio-token` if it exists",
        "bearer token: a file, read per request, or the token itself",
    ),
    ours(
        "CULVERT_JOIN_TOKEN",
        "–",
        "file with a join token of `culvert control token`, exchanged once for a node certificate; goes before `AUTH_TOKEN`",
    ),
    ztunnel("CLUSTER_ID", "`Kubernetes`", "cluster of this node; `ISTIO_META_CLUSTER_ID` goes before it"),
    ztunnel("CLUSTER_DOMAIN", "`cluster.local`", "DNS suffix"),
    ztunnel("SECRET_TTL", "24h", "validity asked for certificates"),
    ztunnel("FAKE_CA", "false", "only `false`: there is no built-in authority"),
    ztunnel("XDS_ON_DEMAND", "false", "ask for workloads when needed; the DNS proxy must be off"),
    ztunnel("LOCAL_XDS_PATH", "–", "file with workloads, services and policies"),
    ztunnel("LOCAL_XDS", "–", "the same, inline"),
    ztunnel(
        "PREFERED_SERVICE_NAMESPACE",
        "–",
        "namespace preferred when several services have a name (spelling as is)",
    ),
    ztunnel("XDS_HEADER_<X>", "–", "header `<x>` (lower case) on discovery requests"),
    ztunnel("CA_HEADER_<X>", "–", "header `<x>` (lower case) on requests to the certificate authority"),
    ztunnel("ISTIO_META_<X>", "–", "node metadata `<X>`"),
    ztunnel(
        "ISTIO_META_ISTIO_VERSION",
        "`unknown`",
        "version of the mesh, shown in the dump and as a tag of `istio_build`",
    ),
    ztunnel("ISTIO_METAJSON_<X>", "–", "structured node metadata `<X>`, JSON"),
    ztunnel("PROXY_CONFIG", "–", "ProxyConfig document, YAML or JSON"),
    ztunnel("POD_NAME", "–", "own pod"),
    ztunnel("POD_NAMESPACE", "–", "own namespace"),
    ztunnel("SERVICE_ACCOUNT", "–", "own service account; with the two above it makes the own identity"),
    ztunnel("TRUST_DOMAIN", "`cluster.local`", "trust domain of the own identity"),
    ztunnel("INSTANCE_IP", "`1.1.1.1`", "own address, told to discovery"),
    ztunnel("NODE_NAME", "–", "this node"),
    ztunnel("NETWORK", "empty", "network of this node"),
    ztunnel("CRL_PATH", "–", "file with certificate revocation lists"),
    ztunnel("COMPLIANCE_POLICY", "–", "`pqc`: post-quantum key exchange only"),
    ztunnel("TLS12_ENABLED", "off", "`true`: TLS 1.2 is allowed towards the control plane"),
    ztunnel("PROXY_MODE", "`shared`", "`shared`: pods from the node agent; `dedicated`: one workload"),
    ztunnel("PROXY_WORKLOAD_INFO", "–", "`namespace/name/service-account` of that one workload"),
    ztunnel("ENABLE_PROXY", "true", "carry traffic"),
    ztunnel("INPOD_UDS", "`/var/run/ztunnel/ztunnel.sock`", "socket of the node agent"),
    ztunnel("INPOD_PORT_REUSE", "true", "`SO_REUSEPORT` on listeners in pods"),
    ztunnel("PACKET_MARK", "1337 in shared mode", "mark of sockets in pods"),
    ztunnel("ENABLE_ORIG_SRC", "found out", "keep the source address"),
    ztunnel("IPV6_ENABLED", "true", "listen on IPv6 too"),
    ztunnel("UNSTABLE_ENABLE_SOCKS5", "false", "SOCKS5 on 127.0.0.1:15080"),
    ztunnel("LOCALHOST_APP_TUNNEL", "true", "dial application tunnels on loopback"),
    ztunnel("ENABLE_RESPONSE_BAGGAGE", "true", "tell workload metadata in answers"),
    ztunnel("KEEPALIVE_ENABLED", "true", "TCP keepalive on data sockets"),
    ztunnel("KEEPALIVE_TIME", "180s", "idle time before the first probe"),
    ztunnel("KEEPALIVE_INTERVAL", "180s", "time between probes"),
    ztunnel("KEEPALIVE_RETRIES", "9", "probes before the connection counts as dead"),
    ztunnel("USER_TIMEOUT_ENABLED", "false", "`TCP_USER_TIMEOUT` of time + retries × interval"),
    ztunnel("HTTP2_STREAM_WINDOW_SIZE", "4194304", "window per stream"),
    ztunnel("HTTP2_CONNECTION_WINDOW_SIZE", "16777216", "window per tunnel"),
    ztunnel("HTTP2_FRAME_SIZE", "1048576", "largest frame accepted"),
    ztunnel("POOL_MAX_STREAMS_PER_CONNECTION", "100", "streams per outbound tunnel"),
    ztunnel("POOL_UNUSED_RELEASE_TIMEOUT", "5m", "life of an idle tunnel"),
    ztunnel(
        "CONNECTION_TERMINATION_DEADLINE",
        "–",
        "how long connections may go on after a stop; goes before the next",
    ),
    ztunnel(
        "TERMINATION_GRACE_PERIOD_SECONDS",
        "–",
        "the pod's grace period *s*; connections get *s* − 5 s if *s* > 10, else *s* − 1 s but at least 1 s (0 for *s* = 0); neither set: 5 s",
    ),
    ztunnel(
        "ZTUNNEL_WORKER_THREADS",
        "by cores",
        "threads that carry traffic: a number (0: all cores) or a percentage",
    ),
    ztunnel("ZTUNNEL_CPU_LIMIT", "–", "number of cores, told by the downward API"),
    ztunnel("ZTUNNEL_RESOURCE_CPU_LIMIT", "–", "CPU limit of the container (`2`, `1.5`, `500m`)"),
    ztunnel("ZTUNNEL_RESOURCE_CPU_REQUEST", "–", "CPU request of the container"),
    ztunnel("RUST_LOG", "`info`", "log filter: `level`, `target=level`, comma separated"),
    ztunnel("LOG_FORMAT", "plain", "`json`: one object per line"),
    ztunnel("AUTHZ_POLICY_INFO_LOGGING", "off", "`true`: policy decisions are logged at info"),
    ztunnel("INPOD_ENABLED", "–", "set by the chart, ignored"),
    ours(
        "CULVERT_RUNTIME_DIR",
        "`/run/culvert` as root, else `$XDG_RUNTIME_DIR/culvert`",
        "folder of the local admin socket (`NODE/admin.sock` in it)",
    ),
    ours(
        "CULVERT_HBONE_MEMORY",
        "536870912",
        "octets that all tunnels together may hold for applications and peers that do not read; beyond it new streams are refused",
    ),
    ours("XDG_RUNTIME_DIR", "–", "see `CULVERT_RUNTIME_DIR`"),
];

/// Whether a variable may be read: it is in the list.
pub(super) fn is_declared(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.name == name)
}

/// The documentation page.
#[cfg(test)]
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Environment of `culvert node`\n\n\
         Made from `node/src/config/variables.rs`; a test keeps it fresh. All are read once, at start; any mistake ends\n\
         the start with exit code 1 and a line for each mistake. Values that are not UTF-8 count as unset.\n\n\
         Precedence: environment, then `PROXY_CONFIG`, then `./etc/istio/config/mesh`, then the default. Booleans are\n\
         `true` or `false`; durations are numbers with a unit (`90s`, `1h30m`), without unit seconds.\n\n\
         | name | default | meaning | since | as in ztunnel |\n|---|---|---|---|---|\n",
    );
    for Variable { name, default, meaning, since, origin } in VARIABLES {
        let origin = if *origin == Origin::Ztunnel { "yes" } else { "ours" };
        let _ = writeln!(page, "| `{name}` | {default} | {meaning} | {since} | {origin} |");
    }
    page
}
