//! Workloads as dumped.
use serde::{Deserialize, Serialize};

use super::lenient::null_is_default;

/// One workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Protocol towards the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_tunnel: Option<ApplicationTunnel>,
    /// `<namespace>/<name>` of policies that select it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub authorization_policies: Vec<String>,
    /// Canonical service name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_name: String,
    /// Canonical revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_revision: String,
    /// Weight among endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub capacity: u32,
    /// Cluster.
    pub cluster_id: String,
    /// Host name for a workload without address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Where it is, if any part is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Speaks HBONE itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native_tunnel: bool,
    /// Network.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Gateway of its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<GatewayAddress>,
    /// `Standard` or `HostNetwork`.
    pub network_mode: String,
    /// Node it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `TCP` or `HBONE`.
    pub protocol: String,
    /// Service account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    /// `<namespace>/<hostname>` of its services.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub services: Vec<String>,
    /// `Healthy` or `Unhealthy`.
    pub status: String,
    /// Trust domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    /// Unique id, e.g. `Kubernetes//Pod/ns/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Waypoint of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<GatewayAddress>,
    /// Addresses in the order received.
    #[serde(deserialize_with = "null_is_default")]
    pub workload_ips: Vec<String>,
    /// Name of the owning controller.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_name: String,
    /// `deployment`, `cronjob`, `pod` or `job`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_type: String,
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
    /// Subzone.
    pub subzone: String,
    /// Zone.
    pub zone: String,
}
