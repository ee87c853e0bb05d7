//! JSON of the node proxy's `/config_dump` (control-and-operations 6.3), for both directions.
//!
//! The node fills a [`ConfigDump`] and prints it with [`ConfigDump::to_pretty_json`]: keys sorted at
//! every level, two spaces. The CLI reads any dump, also older and foreign ones, with
//! [`ConfigDump::parse`]: lists may be maps, unknown keys are ignored, missing keys are empty.
//! Values stay text here (`"HBONE"`, `"network/ip"`): nothing is validated.
mod lenient;
mod policy;
mod service;
mod workload;

pub use policy::{Match, Policy, ServiceAccountMatch, StringMatch};
pub use service::{CidrVip, Endpoint, LoadBalancer, Service, WeightedWaypoint};
pub use workload::{ApplicationTunnel, GatewayAddress, Locality, Workload};

use std::collections::BTreeMap;

use lenient::{list_or_map, null_is_default};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The whole answer of `/config_dump`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigDump {
    /// Certificates by identity.
    #[serde(deserialize_with = "list_or_map")]
    pub certificates: Vec<CertificateState>,
    /// Effective configuration of the program; its keys belong to the node.
    #[serde(serialize_with = "sorted")]
    pub config: Value,
    /// Authorization policies by `<namespace>/<name>`.
    #[serde(deserialize_with = "list_or_map")]
    pub policies: Vec<Policy>,
    /// Services by hostname.
    #[serde(deserialize_with = "list_or_map")]
    pub services: Vec<Service>,
    /// Endpoints that wait for their service: `<namespace>/<hostname>` → workload uid → endpoint.
    #[serde(deserialize_with = "null_is_default")]
    pub staged_services: BTreeMap<String, BTreeMap<String, Endpoint>>,
    /// What the local file source says.
    #[serde(deserialize_with = "null_is_default")]
    pub static_config: StaticConfig,
    /// What was built.
    #[serde(deserialize_with = "null_is_default")]
    pub version: Version,
    /// Pods of this node by uid; only in shared mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_state: Option<BTreeMap<String, PodState>>,
    /// Workloads by uid.
    #[serde(deserialize_with = "list_or_map")]
    pub workloads: Vec<Workload>,
}

impl ConfigDump {
    /// The text the admin server answers: keys sorted at every level, indented by two spaces, no final newline.
    pub fn to_pretty_json(&self) -> Result<String, serde_json::Error> {
        // Fields are declared in the order of their keys: a large mesh is printed without a copy of it.
        serde_json::to_string_pretty(self)
    }

    /// Reads a dump leniently: top-level keys match in any case, unknown ones are ignored. Anything but a map is an
    /// error: derived readers would take a list for the fields in their order.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut dump: Map<String, Value> = serde_json::from_slice(text)?;
        lenient::fold_keys(&mut dump, &TOP_LEVEL_KEYS);
        lenient::drop_nulls(&mut dump, &SHOWN_KEYS);
        serde_json::from_value(Value::Object(dump))
    }
}

fn sorted<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = value.clone();
    value.sort_all_objects();
    value.serialize(serializer)
}

fn all_sorted<S: Serializer>(values: &[Value], serializer: S) -> Result<S::Ok, S::Error> {
    let mut values = values.to_vec();
    values.iter_mut().for_each(Value::sort_all_objects);
    values.serialize(serializer)
}

const TOP_LEVEL_KEYS: [&str; 9] = [
    "certificates",
    "config",
    "policies",
    "services",
    "stagedServices",
    "staticConfig",
    "version",
    "workloadState",
    "workloads",
];

/// Where `null` says no more than a missing key.
const SHOWN_KEYS: [&str; 5] = ["certificates", "policies", "services", "workloadState", "workloads"];

/// One identity and its chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateState {
    /// Leaf first, then intermediates; empty unless available.
    #[serde(deserialize_with = "null_is_default")]
    pub cert_chain: Vec<Certificate>,
    /// `spiffe://…`.
    pub identity: String,
    /// Roots that came with it.
    #[serde(deserialize_with = "null_is_default")]
    pub root_certs: Vec<Certificate>,
    /// `Initializing`, `Available` or `Unavailable: <error>`.
    #[serde(deserialize_with = "null_is_default")]
    pub state: String,
}

/// One certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// RFC 3339, UTC, seconds.
    #[serde(deserialize_with = "null_is_default")]
    pub expiration_time: String,
    /// Base64 of the PEM text.
    #[serde(deserialize_with = "null_is_default")]
    pub pem: String,
    /// Decimal text.
    #[serde(deserialize_with = "null_is_default")]
    pub serial_number: String,
    /// RFC 3339, UTC, seconds.
    #[serde(deserialize_with = "null_is_default")]
    pub valid_from: String,
}

/// The local file source as it would be read now, in its own input shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StaticConfig {
    /// Policies of the file.
    #[serde(serialize_with = "all_sorted")]
    pub policies: Vec<Value>,
    /// Services of the file.
    #[serde(serialize_with = "all_sorted")]
    pub services: Vec<Value>,
    /// Workloads of the file.
    #[serde(serialize_with = "all_sorted")]
    pub workloads: Vec<Value>,
}

/// What was built, from what and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Version {
    /// `release` or `debug`.
    pub build_profile: String,
    /// `Clean` or `Modified`.
    pub build_status: String,
    /// TLS provider.
    pub crypto_provider: String,
    /// Revision of the source.
    pub git_revision: String,
    /// Version of the mesh, `unknown` if not told.
    pub istio_version: String,
    /// Compiler.
    pub rust_version: String,
    /// Build version.
    pub version: String,
}

/// One pod of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodState {
    /// Live connections; absent while pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Who the pod is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<WorkloadInfo>,
    /// `Pending` or `Up`.
    #[serde(deserialize_with = "null_is_default")]
    pub state: String,
}

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadInfo {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Trust domain; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
}

/// Live connections of one pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Accepted ones.
    #[serde(deserialize_with = "null_is_default")]
    pub inbound: Vec<Connection>,
    /// Opened ones.
    #[serde(deserialize_with = "null_is_default")]
    pub outbound: Vec<Connection>,
}

/// One live connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// Where it really goes, `ip:port`.
    #[serde(deserialize_with = "null_is_default")]
    pub actual_dst: String,
    /// What the client asked for: `ip:port` outbound; inbound the requested host, if it was told.
    pub original_dst: Option<String>,
    /// `TCP`, `HBONE` or `DOUBLEHBONE`.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
    /// Client's `ip:port`.
    #[serde(deserialize_with = "null_is_default")]
    pub src: String,
}

#[cfg(test)]
mod tests;
