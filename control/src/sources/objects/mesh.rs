//! The mesh configuration, as far as records depend on it.

use serde::{Deserialize, Serialize};

use super::{LabelSelector, or_default};

/// Istio's MeshConfig; keys that mean nothing to the ambient records are left unread.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MeshConfig {
    /// The loader fills in `cluster.local` where it is empty.
    #[serde(deserialize_with = "or_default")]
    pub(crate) trust_domain: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) trust_domain_aliases: Vec<String>,
    /// The loader fills in `istio-system` where it is empty.
    #[serde(deserialize_with = "or_default")]
    pub(crate) root_namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) discovery_selectors: Vec<LabelSelector>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) service_entry_visibility: Option<ServiceEntryVisibility>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            discovery_selectors: Vec::new(),
            service_entry_visibility: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceEntryVisibility {
    #[serde(deserialize_with = "or_default")]
    pub(crate) default_visibility: Visibility,
    #[serde(deserialize_with = "or_default")]
    pub(crate) policies: Vec<VisibilityPolicy>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Visibility {
    #[default]
    Public,
    Namespace,
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VisibilityPolicy {
    #[serde(deserialize_with = "or_default")]
    pub(crate) visibility: Visibility,
    #[serde(deserialize_with = "or_default")]
    pub(crate) matching_rules: Vec<MatchingRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MatchingRule {
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespace_selector: LabelSelector,
}
