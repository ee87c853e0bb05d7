//! The cluster's objects, cut down to the fields the records are made of.
//!
//! Types follow the Kubernetes and Istio schemas by name; every list, map and text that may be
//! absent or `null` reads as empty. What the schemas refuse is refused in [`super::admit`].

mod core;
mod gateway;
mod mesh;
mod metadata;
mod networking;
mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

pub(crate) use self::core::{
    Condition, Container, Endpoint, EndpointAddress, EndpointConditions, EndpointSlice, EndpointSubset,
    Endpoints, IntOrString, Namespace, Node, Pod, PodStatus, Service, ServiceAccount, ServicePort,
    ServiceSpec,
};
pub(crate) use gateway::{AllowedNamespaces, Gateway, GatewayClass, LabelSelector, Listener, Requirement};
pub(crate) use mesh::{MeshConfig, Visibility};
pub(crate) use metadata::{Metadata, Time};
pub(crate) use networking::{
    AllocatedAddress, EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadEntry,
};
pub(crate) use security::{
    Action, AuthorizationPolicy, MutualTlsMode, Operation, PeerAuthentication, PeerAuthenticationSpec,
    PolicyRule, PolicySource, PolicyTarget, Selector, When,
};

/// Namespace and name; cluster-wide objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Name {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds that are read; others in a folder are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Namespace,
    Node,
    Pod,
    ServiceAccount,
    Service,
    EndpointSlice,
    Endpoints,
    ServiceEntry,
    WorkloadEntry,
    AuthorizationPolicy,
    PeerAuthentication,
    Gateway,
    GatewayClass,
    /// Only `istio` in the root namespace: the mesh configuration.
    ConfigMap,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::ConfigMap => "ConfigMap",
        }
    }

    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::GatewayClass)
    }
}

/// One object of the cluster by kind and name, printed as `Kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// Everything a control plane knows of a cluster at one moment. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Objects {
    pub(crate) namespaces: BTreeMap<String, Arc<Namespace>>,
    pub(crate) nodes: BTreeMap<String, Arc<Node>>,
    pub(crate) pods: BTreeMap<Name, Arc<Pod>>,
    pub(crate) service_accounts: BTreeMap<Name, Arc<ServiceAccount>>,
    pub(crate) services: BTreeMap<Name, Arc<Service>>,
    pub(crate) endpoint_slices: BTreeMap<Name, Arc<EndpointSlice>>,
    /// A source without a cluster's controllers mirrors these to slices.
    pub(crate) endpoints: BTreeMap<Name, Arc<Endpoints>>,
    pub(crate) service_entries: BTreeMap<Name, Arc<ServiceEntry>>,
    pub(crate) workload_entries: BTreeMap<Name, Arc<WorkloadEntry>>,
    pub(crate) authorization_policies: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    pub(crate) peer_authentications: BTreeMap<Name, Arc<PeerAuthentication>>,
    pub(crate) gateways: BTreeMap<Name, Arc<Gateway>>,
    pub(crate) gateway_classes: BTreeMap<String, Arc<GatewayClass>>,
}

/// An object with the usual three parts; what is not used of a part is left unread.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Object<Spec: Default, Status: Default> {
    pub(crate) metadata: Metadata,
    #[serde(
        default = "Spec::default",
        deserialize_with = "or_default",
        bound(deserialize = "Spec: Default + Deserialize<'de>")
    )]
    pub(crate) spec: Spec,
    #[serde(
        default = "Status::default",
        deserialize_with = "or_default",
        bound(deserialize = "Status: Default + Deserialize<'de>")
    )]
    pub(crate) status: Status,
}

/// A part of an object that is not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Unused {}

/// Kubernetes treats `null` as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
