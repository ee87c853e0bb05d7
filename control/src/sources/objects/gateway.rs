//! `gateway.networking.k8s.io`: waypoints and network gateways.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Object, Unused, or_default};

pub(crate) type Gateway = Object<GatewaySpec, GatewayStatus>;
pub(crate) type GatewayClass = Object<GatewayClassSpec, Unused>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewayClassSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) controller_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewaySpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) gateway_class_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) listeners: Vec<Listener>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<GatewayAddressValue>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayStatus {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<GatewayAddressValue>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayAddressValue {
    /// Absent means `IPAddress`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Listener {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) port: i64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) protocol: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) allowed_routes: AllowedRoutes,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AllowedRoutes {
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespaces: AllowedNamespaces,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AllowedNamespaces {
    /// `All`, `Same`, `Selector` or `None`; absent means `Same`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) from: String,
    pub(crate) selector: Option<LabelSelector>,
}

/// The selector of Kubernetes' own API: labels and expressions, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LabelSelector {
    #[serde(deserialize_with = "or_default")]
    pub(crate) match_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Requirement {
    #[serde(deserialize_with = "or_default")]
    pub(crate) key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) operator: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) values: Vec<String>,
}
