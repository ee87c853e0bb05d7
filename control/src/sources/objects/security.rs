//! `security.istio.io`: policies. A field that is not in the schema is an error here: a misspelt
//! `from` would otherwise widen a policy unseen.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Object, Unused, or_default};

pub(crate) type AuthorizationPolicy = Object<AuthorizationPolicySpec, Unused>;
pub(crate) type PeerAuthentication = Object<PeerAuthenticationSpec, Unused>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct AuthorizationPolicySpec {
    pub(crate) selector: Option<Selector>,
    pub(crate) target_ref: Option<PolicyTarget>,
    pub(crate) target_refs: Option<Vec<PolicyTarget>>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) action: Action,
    #[serde(deserialize_with = "or_default")]
    pub(crate) rules: Vec<PolicyRule>,
    /// Of action CUSTOM, which node proxies do not enforce.
    pub(crate) provider: Option<Unused>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Selector {
    #[serde(deserialize_with = "or_default")]
    pub(crate) match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyTarget {
    #[serde(deserialize_with = "or_default")]
    pub(crate) group: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespace: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyRule {
    #[serde(deserialize_with = "or_default")]
    pub(crate) from: Vec<From>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) to: Vec<To>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) when: Vec<When>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct From {
    #[serde(deserialize_with = "or_default")]
    pub(crate) source: PolicySource,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct To {
    #[serde(deserialize_with = "or_default")]
    pub(crate) operation: Operation,
}

/// Lists are `None` when absent: the schema's rules ask for presence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct PolicySource {
    pub(crate) principals: Option<Vec<String>>,
    pub(crate) not_principals: Option<Vec<String>>,
    pub(crate) request_principals: Option<Vec<String>>,
    pub(crate) not_request_principals: Option<Vec<String>>,
    pub(crate) namespaces: Option<Vec<String>>,
    pub(crate) not_namespaces: Option<Vec<String>>,
    pub(crate) service_accounts: Option<Vec<String>>,
    pub(crate) not_service_accounts: Option<Vec<String>>,
    pub(crate) ip_blocks: Option<Vec<String>>,
    pub(crate) not_ip_blocks: Option<Vec<String>>,
    pub(crate) remote_ip_blocks: Option<Vec<String>>,
    pub(crate) not_remote_ip_blocks: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Operation {
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) not_hosts: Option<Vec<String>>,
    pub(crate) ports: Option<Vec<String>>,
    pub(crate) not_ports: Option<Vec<String>>,
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) not_methods: Option<Vec<String>>,
    pub(crate) paths: Option<Vec<String>>,
    pub(crate) not_paths: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct When {
    #[serde(deserialize_with = "or_default")]
    pub(crate) key: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) values: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) not_values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct PeerAuthenticationSpec {
    pub(crate) selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mtls: MutualTls,
    pub(crate) port_level_mtls: Option<BTreeMap<String, MutualTls>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MutualTls {
    #[serde(deserialize_with = "or_default")]
    pub(crate) mode: MutualTlsMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum MutualTlsMode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
