//! `networking.istio.io`: workloads and services outside the cluster.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Condition, Object, or_default};

pub(crate) type ServiceEntry = Object<ServiceEntrySpec, ServiceEntryStatus>;
pub(crate) type WorkloadEntry = Object<EntryEndpoint, WorkloadEntryStatus>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceEntrySpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) hosts: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<EntryPort>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) resolution: Resolution,
    #[serde(deserialize_with = "or_default")]
    pub(crate) endpoints: Vec<EntryEndpoint>,
    pub(crate) workload_selector: Option<WorkloadSelector>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) subject_alt_names: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Resolution {
    #[default]
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "STATIC")]
    Static,
    #[serde(rename = "DNS")]
    Dns,
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EntryPort {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) number: i64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) protocol: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) target_port: i64,
}

/// An endpoint of a ServiceEntry, and the spec of a WorkloadEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EntryEndpoint {
    #[serde(deserialize_with = "or_default")]
    pub(crate) address: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: BTreeMap<String, i64>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) network: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) locality: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) weight: i64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) service_account: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadSelector {
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceEntryStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<AllocatedAddress>,
}

/// An address allocated for one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AllocatedAddress {
    #[serde(deserialize_with = "or_default")]
    pub(crate) value: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) host: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadEntryStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Vec<Condition>,
}
