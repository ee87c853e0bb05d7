//! What each component is told: its own part and nothing else.
use identity::TlsOptions;

use super::{Config, ControlPlane, Mode};
use crate::certs::channel::ControlConfig;
use crate::certs::join::{JoinConfig, NodeIdentity};
use crate::{certs, dns, sync};

impl Config {
    /// Certificates; nothing without a certificate authority. `node` is the node's own certificate, if it joins.
    pub(crate) fn certs(&self, node: Option<NodeIdentity>) -> Option<certs::Config> {
        Some(certs::Config {
            ca: self.channel(&self.ca, node)?,
            secret_ttl: self.secret_ttl,
            tls: self.tls_options(),
            impersonate: self.is_shared(),
            limits: certs::Limits::default(),
        })
    }

    /// How the node gets its own certificate; nothing without a join token or a certificate authority.
    pub(crate) fn join(&self) -> Option<JoinConfig> {
        Some(JoinConfig {
            token: self.join_token.clone()?,
            address: self.ca.address.clone()?,
            alternative_name: self.ca.alternative_hostname.clone(),
            tls: self.tls_options(),
        })
    }

    /// Discovery.
    pub(crate) fn sync(&self, node: Option<NodeIdentity>) -> sync::Config {
        sync::Config {
            control: self.channel(&self.xds, node),
            node: sync::NodeInfo {
                instance_ip: Some(self.own.instance_ip.clone()),
                pod_name: self.own.name.clone(),
                pod_namespace: self.own.namespace.clone(),
                node_name: self.local_node.clone().unwrap_or_default(),
                metadata: self.metadata.clone(),
                structured_metadata: self.json_metadata.clone(),
            },
            on_demand: self.xds_on_demand,
            demand_limit: sync::DEMAND_LIMIT,
            local: self.local_source.clone(),
            mesh: state::MeshConfig {
                network: self.network.as_str().into(),
                node: self.local_node.as_deref().map(Into::into),
                illegal_ports: self.illegal_ports.iter().copied().collect(),
                on_demand: self.xds_on_demand,
            },
        }
    }

    /// The DNS proxies of all pods.
    pub(crate) fn dns(&self) -> dns::Settings {
        let dedicated = matches!(self.mode, Mode::Dedicated(_));
        dns::Settings {
            cluster_domain: self.cluster_domain.clone(),
            preferred_namespace: self.preferred_service_namespace.clone(),
            ipv6: self.ipv6,
            search: dedicated.then(|| self.resolver.search.clone()),
        }
    }

    fn channel(&self, to: &ControlPlane, node: Option<NodeIdentity>) -> Option<ControlConfig> {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Some(ControlConfig {
            address: to.address.clone()?,
            alternative_name: to.alternative_hostname.clone(),
            roots: to.roots.clone(),
            credential: self.credential.clone(),
            cluster_id: self.cluster_id.clone(),
            headers: to.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            tls: self.tls_options(),
            node,
        })
    }

    /// TLS as the environment wants it.
    pub(crate) fn tls_options(&self) -> TlsOptions {
        TlsOptions { tls12: self.tls.tls12, post_quantum_only: self.tls.pqc_only, ..TlsOptions::default() }
    }
}
