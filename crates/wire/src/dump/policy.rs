//! Authorization policies as dumped.
use serde::{Deserialize, Serialize};

use super::lenient::null_is_default;

/// One policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// `Allow` or `Deny`.
    #[serde(deserialize_with = "null_is_default")]
    pub action: String,
    /// Logged, not enforced.
    #[serde(deserialize_with = "null_is_default")]
    pub dry_run: bool,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Rules → clauses → matches.
    #[serde(deserialize_with = "null_is_default")]
    pub rules: Vec<Vec<Vec<Match>>>,
    /// `Global`, `Namespace` or `WorkloadSelector`.
    #[serde(deserialize_with = "null_is_default")]
    pub scope: String,
}

/// One match: every non-empty part must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    /// Destination ranges.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub destination_ips: Vec<String>,
    /// Destination ports.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub destination_ports: Vec<u16>,
    /// Source namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub namespaces: Vec<StringMatch>,
    /// Destination ranges that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_destination_ips: Vec<String>,
    /// Destination ports that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_destination_ports: Vec<u16>,
    /// Source namespaces that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_namespaces: Vec<StringMatch>,
    /// Source principals that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_principals: Vec<StringMatch>,
    /// Source service accounts that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// Source ranges that must not be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub not_source_ips: Vec<String>,
    /// Source principals (without `spiffe://`).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub principals: Vec<StringMatch>,
    /// Source service accounts.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// Source ranges (CIDR text).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub source_ips: Vec<String>,
}

/// How text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Any but empty: `Presence([])`, dumped as `{"Presence": []}`.
    Presence([(); 0]),
}

/// A service account by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccountMatch {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub service_account: String,
}
