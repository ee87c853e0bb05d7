//! Who a client says it is (control-plane 2.2).

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost_types::value::Kind;
use thiserror::Error;
use wire::discovery::Node;

/// The types whose streams are opened at all.
const TYPES: [&str; 5] = ["sidecar", "router", "waypoint", "ztunnel", "agentgateway"];

/// A client's description of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClientNode {
    /// `ztunnel` or another type.
    pub(crate) kind: String,
    /// `<pod>.<namespace>`: what tools call it.
    pub(crate) proxy: String,
    /// Metadata `NAMESPACE`, else the namespace of the id's domain.
    pub(crate) namespace: Option<String>,
    /// Metadata `SERVICE_ACCOUNT`
    pub(crate) service_account: Option<String>,
    /// Metadata `NODE_NAME`
    pub(crate) node_name: Option<String>,
    /// All metadata that is text.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Why a description is refused; the text is what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NodeError {
    #[error("missing node information")]
    Missing,
    #[error("missing parts in the service node {0:?}")]
    Parts(String),
    #[error("invalid node type (valid types: [sidecar router waypoint ztunnel]) in the service node {0:?}")]
    Type(String),
    #[error("no valid IP address in the service node id or metadata")]
    NoAddress,
}

impl NodeError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "xds-node-missing",
            Self::Parts(_) => "xds-node-malformed",
            Self::Type(_) => "xds-node-unknown-type",
            Self::NoAddress => "xds-node-no-address",
        }
    }
}

impl ClientNode {
    /// Reads `<type>~<ip>~<pod>.<ns>~<ns>.svc.<domain>` and the metadata.
    pub(crate) fn parse(node: &Node) -> Result<Self, NodeError> {
        if node.id.is_empty() {
            return Err(NodeError::Missing);
        }
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, ip, proxy, domain] = parts[..] else { return Err(NodeError::Parts(node.id.clone())) };
        if !TYPES.contains(&kind) {
            return Err(NodeError::Type(node.id.clone()));
        }
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let metadata: BTreeMap<String, String> = fields
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| match &value.kind {
                Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
                _ => None,
            })
            .collect();
        let instance_ips = metadata.get("INSTANCE_IPS").map(String::as_str).unwrap_or_default();
        let is_ip = |text: &str| text.trim().parse::<IpAddr>().is_ok();
        if !is_ip(ip) && !instance_ips.split(',').any(is_ip) {
            return Err(NodeError::NoAddress);
        }
        let text = |key: &str| metadata.get(key).filter(|value| !value.is_empty()).cloned();
        let of_domain = domain.split('.').next().filter(|namespace| !namespace.is_empty());
        Ok(Self {
            kind: kind.to_owned(),
            proxy: proxy.to_owned(),
            namespace: text("NAMESPACE").or_else(|| of_domain.map(str::to_owned)),
            service_account: text("SERVICE_ACCOUNT"),
            node_name: text("NODE_NAME"),
            metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(id: &str, ips: Option<&str>) -> Result<ClientNode, String> {
        let text = |value: &str| prost_types::Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let fields = ips.into_iter().map(|ips| ("INSTANCE_IPS".to_owned(), text(ips))).collect();
        let node =
            Node { id: id.to_owned(), metadata: Some(prost_types::Struct { fields }), ..Default::default() };
        ClientNode::parse(&node).map_err(|error| error.to_string())
    }

    // The texts of the recording `refusals` (CP-2.2).
    #[test]
    fn refusals_have_the_recorded_texts() {
        assert_eq!(parse("", None), Err("missing node information".to_owned()));
        assert_eq!(
            parse("ztunnel~10.0.0.11~p.istio-system", None),
            Err("missing parts in the service node \"ztunnel~10.0.0.11~p.istio-system\"".to_owned())
        );
        assert_eq!(
            parse("teapot~10.0.0.11~p.istio-system~istio-system.svc.cluster.local", None),
            Err("invalid node type (valid types: [sidecar router waypoint ztunnel]) in the service node \
                 \"teapot~10.0.0.11~p.istio-system~istio-system.svc.cluster.local\""
                .to_owned())
        );
        let no_ip = "ztunnel~~p.istio-system~istio-system.svc.cluster.local";
        assert_eq!(
            parse(no_ip, None),
            Err("no valid IP address in the service node id or metadata".to_owned())
        );
        assert!(parse(no_ip, Some("10.0.0.11,fd00::1")).is_ok());
    }

    #[test]
    fn the_parts_are_read() {
        let node = parse("ztunnel~10.0.0.11~p.x~istio-system.svc.cluster.local", None).expect("a node");
        assert_eq!((node.kind.as_str(), node.proxy.as_str()), ("ztunnel", "p.x"));
        assert_eq!(node.namespace.as_deref(), Some("istio-system"));
        assert_eq!(node.node_name, None);
    }
}
