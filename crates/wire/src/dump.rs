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
use serde::{Deserialize, Serialize};

/// The whole answer of `/config_dump`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigDump {
    /// Certificates by identity.
    #[serde(deserialize_with = "list_or_map")]
    pub certificates: Vec<CertificateState>,
    /// Effective configuration of the program; its keys belong to the node.
    pub config: serde_json::Value,
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
        let mut value = serde_json::to_value(self)?;
        value.sort_all_objects();
        serde_json::to_string_pretty(&value)
    }

    /// Reads a dump leniently: top-level keys match in any case, unknown ones are ignored.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut value: serde_json::Value = serde_json::from_slice(text)?;
        lenient::fold_keys(&mut value, &TOP_LEVEL_KEYS);
        serde_json::from_value(value)
    }
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

/// One identity and its chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateState {
    /// `spiffe://…`.
    pub identity: String,
    /// `Initializing`, `Available` or `Unavailable: <error>`.
    #[serde(deserialize_with = "null_is_default")]
    pub state: String,
    /// Leaf first, then intermediates; empty unless available.
    #[serde(deserialize_with = "null_is_default")]
    pub cert_chain: Vec<Certificate>,
    /// Roots that came with it.
    #[serde(deserialize_with = "null_is_default")]
    pub root_certs: Vec<Certificate>,
}

/// One certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// Base64 of the PEM text.
    #[serde(deserialize_with = "null_is_default")]
    pub pem: String,
    /// Decimal text.
    #[serde(deserialize_with = "null_is_default")]
    pub serial_number: String,
    /// RFC 3339, UTC, seconds.
    #[serde(deserialize_with = "null_is_default")]
    pub valid_from: String,
    /// RFC 3339, UTC, seconds.
    #[serde(deserialize_with = "null_is_default")]
    pub expiration_time: String,
}

/// The local file source as it would be read now, in its own input shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StaticConfig {
    /// Policies of the file.
    pub policies: Vec<serde_json::Value>,
    /// Services of the file.
    pub services: Vec<serde_json::Value>,
    /// Workloads of the file.
    pub workloads: Vec<serde_json::Value>,
}

/// What was built, from what and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Version {
    /// Build version.
    pub version: String,
    /// Revision of the source.
    pub git_revision: String,
    /// Compiler.
    pub rust_version: String,
    /// `release` or `debug`.
    pub build_profile: String,
    /// `Clean` or `Modified`.
    pub build_status: String,
    /// Version of the mesh, `unknown` if not told.
    pub istio_version: String,
    /// TLS provider.
    pub crypto_provider: String,
}

/// One pod of this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodState {
    /// `Pending` or `Up`.
    #[serde(deserialize_with = "null_is_default")]
    pub state: String,
    /// Live connections; absent while pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Who the pod is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<WorkloadInfo>,
}

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadInfo {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Trust domain; only older dumps have it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    /// Service account.
    pub service_account: String,
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
    /// Client's `ip:port`.
    #[serde(deserialize_with = "null_is_default")]
    pub src: String,
    /// What the client asked for: `ip:port` outbound; inbound the requested host, if it was told.
    pub original_dst: Option<String>,
    /// Where it really goes, `ip:port`.
    #[serde(deserialize_with = "null_is_default")]
    pub actual_dst: String,
    /// `TCP`, `HBONE` or `DOUBLEHBONE`.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
}

#[cfg(test)]
mod tests;
