//! Workloads as dumped.
use serde::{Deserialize, Serialize};

use super::lenient::null_is_default;

/// One workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Addresses in the order received.
    #[serde(deserialize_with = "null_is_default")]
    pub workload_ips: Vec<String>,
    /// Waypoint of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Gateway of its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<GatewayAddress>,
    /// `TCP` or `HBONE`.
    pub protocol: String,
    /// `Standard` or `HostNetwork`.
    pub network_mode: String,
    /// Unique id, e.g. `Kubernetes//Pod/ns/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Trust domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    /// Service account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    /// Network.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Name of the owning controller.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_name: String,
    /// `deployment`, `cronjob`, `pod` or `job`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_type: String,
    /// Canonical service name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_name: String,
    /// Canonical revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_revision: String,
    /// Host name for a workload without address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Node it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Speaks HBONE itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native_tunnel: bool,
    /// Protocol towards the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_tunnel: Option<ApplicationTunnel>,
    /// `<namespace>/<name>` of policies that select it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub authorization_policies: Vec<String>,
    /// `Healthy` or `Unhealthy`.
    pub status: String,
    /// Cluster.
    pub cluster_id: String,
    /// Where it is, if any part is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// `<namespace>/<hostname>` of its services.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub services: Vec<String>,
    /// Weight among endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub capacity: u32,
}

/// Where a waypoint or gateway is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayAddress {
    /// `<network>/<ip>` or `<namespace>/<hostname>`.
    pub destination: String,
    /// Its HBONE port.
    #[serde(deserialize_with = "null_is_default")]
    pub hbone_mtls_port: u16,
}

/// Protocol towards the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplicationTunnel {
    /// Port, `null` for the original one.
    pub port: Option<u16>,
    /// `PROXY`.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
}

/// Where a workload is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Subzone.
    pub subzone: String,
}
