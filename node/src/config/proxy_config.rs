//! `ProxyConfig` documents: the mesh file's `defaultConfig` and `PROXY_CONFIG` (control-and-operations 5.2).
use std::collections::BTreeMap;

use serde::Deserialize;

/// The keys that matter here; others are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    pub(super) proxy_admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    pub(super) concurrency: Option<u16>,
    pub(super) proxy_metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshFile {
    default_config: Option<ProxyConfig>,
}

impl ProxyConfig {
    /// A document of its own, YAML or JSON.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str::<Option<Self>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| error.to_string())
    }

    /// The part of a mesh file.
    pub(super) fn parse_mesh_file(text: &str) -> Result<Self, String> {
        let file: Option<MeshFile> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        Ok(file.and_then(|file| file.default_config).unwrap_or_default())
    }

    /// Field by field; what `self` says wins. Metadata is merged key by key.
    pub(super) fn over(self, below: Self) -> Self {
        let mut metadata = below.proxy_metadata.unwrap_or_default();
        metadata.extend(self.proxy_metadata.unwrap_or_default());
        Self {
            discovery_address: self.discovery_address.or(below.discovery_address),
            proxy_admin_port: self.proxy_admin_port.or(below.proxy_admin_port),
            stats_port: self.stats_port.or(below.stats_port),
            concurrency: self.concurrency.or(below.concurrency),
            proxy_metadata: Some(metadata),
        }
    }
}
