//! The keys of a local file: all that are known, and no others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::workload::PortMap;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) workloads: Vec<LocalWorkload>,
    #[serde(default)]
    pub(super) policies: Vec<LocalPolicy>,
    #[serde(default)]
    pub(super) services: Vec<LocalService>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalWorkload {
    pub(super) workload_ips: Vec<IpAddr>,
    pub(super) namespace: String,
    pub(super) services: BTreeMap<String, PortMap>,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) service_account: String,
    #[serde(default)]
    pub(super) trust_domain: String,
    #[serde(default)]
    pub(super) network: String,
    #[serde(default)]
    pub(super) workload_name: String,
    #[serde(default)]
    pub(super) workload_type: String,
    #[serde(default)]
    pub(super) canonical_name: String,
    #[serde(default)]
    pub(super) canonical_revision: String,
    #[serde(default)]
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) node: String,
    #[serde(default)]
    pub(super) cluster_id: String,
    #[serde(default)]
    pub(super) protocol: LocalProtocol,
    #[serde(default)]
    pub(super) network_mode: LocalNetworkMode,
    #[serde(default)]
    pub(super) status: LocalHealth,
    #[serde(default)]
    pub(super) native_tunnel: bool,
    #[serde(default)]
    pub(super) waypoint: Option<LocalGateway>,
    #[serde(default)]
    pub(super) network_gateway: Option<LocalGateway>,
    #[serde(default)]
    pub(super) application_tunnel: Option<LocalTunnel>,
    #[serde(default)]
    pub(super) authorization_policies: Vec<String>,
    #[serde(default)]
    pub(super) locality: Option<LocalLocality>,
    #[serde(default = "one")]
    pub(super) capacity: u32,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) enum LocalProtocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "HBONE")]
    Hbone,
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) enum LocalNetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) enum LocalHealth {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalGateway {
    pub(super) destination: String,
    pub(super) hbone_mtls_port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalTunnel {
    pub(super) protocol: LocalTunnelProtocol,
    #[serde(default)]
    pub(super) port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum LocalTunnelProtocol {
    None,
    Proxy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalLocality {
    pub(super) region: String,
    pub(super) zone: String,
    pub(super) subzone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalService {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) hostname: String,
    pub(super) vips: Vec<String>,
    pub(super) ports: PortMap,
    #[serde(default)]
    pub(super) cidr_vips: Vec<LocalCidr>,
    #[serde(default)]
    pub(super) endpoints: BTreeMap<String, LocalEndpoint>,
    #[serde(default)]
    pub(super) subject_alt_names: Vec<String>,
    #[serde(default)]
    pub(super) waypoint: Option<LocalGateway>,
    #[serde(default)]
    pub(super) weighted_waypoints: Vec<LocalWeighted>,
    #[serde(default)]
    pub(super) load_balancer: Option<LocalBalancer>,
    #[serde(default)]
    pub(super) ip_families: Option<LocalFamilies>,
    #[serde(default)]
    pub(super) canonical: bool,
    #[serde(default)]
    pub(super) visibility: LocalVisibility,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalCidr {
    pub(super) network: String,
    pub(super) cidr: IpNet,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalEndpoint {
    #[serde(default)]
    pub(super) workload_uid: String,
    #[serde(default)]
    pub(super) port: PortMap,
    #[serde(default)]
    pub(super) status: LocalHealth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalWeighted {
    pub(super) destination: LocalGateway,
    pub(super) weight: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalBalancer {
    #[serde(default)]
    pub(super) routing_preferences: Vec<LocalScope>,
    #[serde(default)]
    pub(super) mode: LocalMode,
    #[serde(default)]
    pub(super) health_policy: LocalHealthPolicy,
}

#[derive(Deserialize)]
pub(super) enum LocalScope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Default, Deserialize)]
pub(super) enum LocalMode {
    #[default]
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Default, Deserialize)]
pub(super) enum LocalHealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Deserialize)]
pub(super) enum LocalFamilies {
    Dual,
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
}

#[derive(Default, Deserialize)]
pub(super) enum LocalVisibility {
    #[default]
    Public,
    Namespace,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalPolicy {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) scope: LocalPolicyScope,
    pub(super) action: LocalAction,
    pub(super) rules: Vec<Vec<Vec<LocalMatch>>>,
    pub(super) dry_run: bool,
}

#[derive(Deserialize)]
pub(super) enum LocalPolicyScope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Deserialize)]
pub(super) enum LocalAction {
    Allow,
    Deny,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LocalMatch {
    pub(super) namespaces: Vec<LocalText>,
    pub(super) not_namespaces: Vec<LocalText>,
    pub(super) service_accounts: Vec<LocalAccount>,
    pub(super) not_service_accounts: Vec<LocalAccount>,
    pub(super) principals: Vec<LocalText>,
    pub(super) not_principals: Vec<LocalText>,
    pub(super) source_ips: Vec<IpNet>,
    pub(super) not_source_ips: Vec<IpNet>,
    pub(super) destination_ips: Vec<IpNet>,
    pub(super) not_destination_ips: Vec<IpNet>,
    pub(super) destination_ports: Vec<u16>,
    pub(super) not_destination_ports: Vec<u16>,
}

/// `!Exact x`, or `{Exact: x}` as dumps and JSON have it.
#[derive(Deserialize)]
pub(super) enum LocalText {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Presence([(); 0]),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalAccount {
    pub(super) namespace: String,
    pub(super) service_account: String,
}
