//! The mesh configuration, from its ConfigMap or a file of its own.

use identity::TrustDomain;
use serde_json::Value;

use super::super::Reason;
use super::super::document;
use super::super::objects::MeshConfig;
use super::{gateway, typed};

/// Reads the key `mesh` of the ConfigMap; without it all is at its default.
pub(super) fn of_config_map(config_map: &Value) -> Result<MeshConfig, Reason> {
    match config_map.get("data").and_then(|data| data.get("mesh")) {
        None | Some(Value::Null) => Ok(MeshConfig::default()),
        Some(Value::String(text)) => parse(text),
        Some(_) => Err(Reason::MeshConfig("data.mesh must be a string".to_owned())),
    }
}

/// Reads the text of a mesh configuration.
pub(crate) fn parse(text: &str) -> Result<MeshConfig, Reason> {
    let describe = |reason: Reason| Reason::MeshConfig(reason.to_string());
    let mut documents = document::parse(text).map_err(|(_, reason)| describe(reason))?;
    let value = match (documents.pop(), documents.is_empty()) {
        (None, _) => return Ok(MeshConfig::default()),
        (Some(document), true) => document.value,
        (Some(_), false) => return Err(Reason::MeshConfig("it has several documents".to_owned())),
    };
    let mut config: MeshConfig = typed(&value).map_err(describe)?;
    let default = MeshConfig::default();
    if config.trust_domain.is_empty() {
        config.trust_domain = default.trust_domain;
    }
    if config.root_namespace.is_empty() {
        config.root_namespace = default.root_namespace;
    }
    if let Err(error) = config.trust_domain.parse::<TrustDomain>() {
        return Err(Reason::MeshConfig(format!("trustDomain: {error}")));
    }
    for (i, selector) in config.discovery_selectors.iter().enumerate() {
        gateway::check_selector(selector, &format!("discoverySelectors[{i}]")).map_err(describe)?;
    }
    let policies = config.service_entry_visibility.iter().flat_map(|visibility| &visibility.policies);
    for (i, rule) in policies.flat_map(|policy| &policy.matching_rules).enumerate() {
        let path = format!("serviceEntryVisibility.matchingRules[{i}]");
        gateway::check_selector(&rule.namespace_selector, &path).map_err(describe)?;
    }
    Ok(config)
}
