//! Every environment variable of the control plane, in one list. `docs/environment-control.md` is made from it.
#[cfg(test)]
use std::fmt::Write as _;

/// Name, default, meaning.
type Variable = (&'static str, &'static str, &'static str);

/// The list. Names are the reference's where the part exists there.
const VARIABLES: &[Variable] = &[
    ("POD_NAMESPACE", "`istio-system`", "root namespace of the mesh"),
    ("CLUSTER_ID", "`Kubernetes`", "name of the cluster that the folder stands for"),
    ("REVISION", "`default`", "revision whose waypoint classes are served"),
    ("ROOT_CA_DIR", "`./etc/cacerts`", "folder of a plugged-in authority; empty or absent: one of our own"),
    ("DEFAULT_WORKLOAD_CERT_TTL", "`24h`", "validity of certificates asked for without one"),
    ("MAX_WORKLOAD_CERT_TTL", "`2160h`", "longest validity"),
    ("CA_TRUSTED_NODE_ACCOUNTS", "`<POD_NAMESPACE>/ztunnel`", "accounts that may ask for others' identities"),
    ("ISTIOD_CUSTOM_HOST", "–", "further names of the server certificate, comma separated"),
    ("XDS_AUTH", "`true`", "discovery asks who is calling"),
    (
        "XDS_AUTH_PLAINTEXT",
        "–",
        "`true`: callers of 15010 need a token; `false`: nobody does; unset: nobody on this machine, others do",
    ),
    (
        "PILOT_ENABLE_XDS_IDENTITY_CHECK",
        "`true`",
        "a proxy must be of the namespace and account it is authenticated as",
    ),
    ("PILOT_DEBOUNCE_AFTER", "`100ms`", "least time between two pushes"),
    ("PILOT_PUSH_THROTTLE", "by cores, at most 100", "pushes at once; 0: the default"),
    ("PILOT_MAX_REQUESTS_PER_SECOND", "by cores, at most 100", "new streams per second; 0: the default"),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", "`true`", "service entries without address get one"),
    ("PILOT_ENABLE_SERVICEENTRY_SELECT_PODS", "`true`", "service entries select pods"),
    ("PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES", "`true`", "services select workload entries"),
    ("PILOT_AUTO_ALLOW_WAYPOINT_POLICY", "`false`", "a policy of ours lets waypoints reach their workloads"),
    (
        "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY",
        "`false`",
        "policies with the dry-run annotation are served as such",
    ),
    ("GRPC_KEEPALIVE_INTERVAL", "`30s`", "time between pings; 0: none"),
    ("GRPC_KEEPALIVE_TIMEOUT", "`10s`", "a ping must be answered within this"),
    ("ENABLE_DEBUG_ENDPOINT_AUTH", "`true`", "`/debug` asks who is calling, but for callers on this machine"),
    (
        "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES",
        "–",
        "namespaces whose accounts see everything at `/debug`, beside `POD_NAMESPACE`",
    ),
    ("ENABLE_DEBUG_ON_HTTP", "`true`", "`/debug` also on 8080"),
    ("RUST_LOG", "`info`", "log filter: `level`, `target=level`, comma separated"),
    ("LOG_FORMAT", "plain", "`json`: one object per line"),
];

/// Whether a variable may be read: it is in the list.
pub(super) fn is_declared(name: &str) -> bool {
    VARIABLES.iter().any(|(declared, ..)| *declared == name)
}

/// The documentation page.
#[cfg(test)]
pub(super) fn page() -> String {
    let mut page = String::from(
        "# Environment of `culvert control`\n\n\
         Made from `control/src/config/variables.rs`; a test keeps it fresh. All are read once, at start; any mistake ends\n\
         the start with a line for each. Booleans are `true` or `false`; durations are numbers with units (`90s`, `1h30m`).\n\
         What is given as a flag is listed by `culvert control --help`.\n\n\
         | name | default | meaning |\n|---|---|---|\n",
    );
    for (name, default, meaning) in VARIABLES {
        let _ = writeln!(page, "| `{name}` | {default} | {meaning} |");
    }
    page
}
