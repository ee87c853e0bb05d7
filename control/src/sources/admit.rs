//! Documents to objects: what an API server and its admission webhook would refuse is refused here.
//!
//! [`admit`] is total: any document is an object, a kind that means nothing here, or a refusal that
//! says which field and why.

mod core;
mod gateway;
mod kinds;
mod mesh;
mod metadata;
mod networking;
mod security;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Reason;
use super::document::Document;
use super::objects::{
    AuthorizationPolicy, EndpointSlice, Endpoints, Gateway, GatewayClass, Kind, MeshConfig, Metadata, Name,
    Namespace, Node, ObjectRef, Objects, PeerAuthentication, Pod, Service, ServiceAccount, ServiceEntry,
    Time, WorkloadEntry,
};
use kinds::{Resolved, resolve};
pub(super) use mesh::parse as parse_mesh_config;

/// The ConfigMap that holds the mesh configuration.
pub(super) const MESH_CONFIG: (&str, &str) = ("istio-system", "istio");

/// What a document turned out to be.
#[derive(Debug, Clone)]
pub(super) enum Admission {
    Object(ObjectRef, Admitted),
    /// Usable, but it says something that means nothing; what remains is safe to apply.
    Flawed(ObjectRef, Admitted, Reason),
    Refused(Option<ObjectRef>, Reason),
    /// Of a kind that means nothing here.
    Ignored(String),
}

/// An object of a kind that is read.
#[derive(Debug, Clone)]
pub(super) enum Admitted {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    ServiceAccount(Arc<ServiceAccount>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Endpoints(Arc<Endpoints>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
    Gateway(Arc<Gateway>),
    GatewayClass(Arc<GatewayClass>),
    MeshConfig(Box<MeshConfig>),
}

/// Decides what a document is.
pub(super) fn admit(document: &Document) -> Admission {
    let value = &document.value;
    let Some(fields) = value.as_object() else {
        return Admission::Refused(None, Reason::NotAnObject("it is no mapping"));
    };
    let text = |key| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Admission::Refused(None, Reason::NotAnObject("apiVersion or kind is missing"));
    };
    let kind = match resolve(api_version, kind) {
        Resolved::Kind(kind) => kind,
        Resolved::Ignored => return Admission::Ignored(format!("{api_version} {kind}")),
        Resolved::Version => {
            let reason =
                Reason::UnsupportedVersion { api_version: api_version.to_owned(), kind: kind.to_owned() };
            return Admission::Refused(None, reason);
        }
        Resolved::Misspelt { nearest } => {
            let given = format!("{api_version} {kind}");
            return Admission::Refused(None, Reason::UnknownKind { given, nearest });
        }
    };
    let name = metadata::name_of(kind, value);
    if kind == Kind::ConfigMap
        && name.as_ref().is_none_or(|name| (&*name.namespace, &*name.name) != MESH_CONFIG)
    {
        return Admission::Ignored(format!("{api_version} {}", kind.as_str()));
    }
    let object = name.map(|name| ObjectRef { kind, name });
    match read(kind, value) {
        Ok((admitted, flaw)) => match (object, flaw) {
            (Some(object), None) => Admission::Object(object, admitted),
            (Some(object), Some(flaw)) => Admission::Flawed(object, admitted, flaw),
            (None, _) => Admission::Refused(None, invalid("metadata.name", "is required")),
        },
        Err(reason) => Admission::Refused(object, reason),
    }
}

/// Reads and checks one kind; the second value is a flaw that does not make it unusable.
fn read(kind: Kind, value: &Value) -> Result<(Admitted, Option<Reason>), Reason> {
    metadata::check(kind, value)?;
    let sound = |admitted| Ok((admitted, None));
    match kind {
        Kind::Namespace => sound(Admitted::Namespace(Arc::new(typed(value)?))),
        Kind::Node => sound(Admitted::Node(Arc::new(typed(value)?))),
        Kind::ServiceAccount => sound(Admitted::ServiceAccount(Arc::new(typed(value)?))),
        Kind::GatewayClass => sound(Admitted::GatewayClass(Arc::new(gateway::class(typed(value)?)?))),
        Kind::Pod => sound(Admitted::Pod(Arc::new(core::pod(typed(value)?)?))),
        Kind::Service => sound(Admitted::Service(Arc::new(core::service(typed(value)?)?))),
        Kind::EndpointSlice => sound(Admitted::EndpointSlice(Arc::new(core::endpoint_slice(typed(value)?)?))),
        Kind::Endpoints => sound(Admitted::Endpoints(Arc::new(core::endpoints(typed(value)?)?))),
        Kind::WorkloadEntry => {
            sound(Admitted::WorkloadEntry(Arc::new(networking::workload_entry(typed(value)?, value)?)))
        }
        Kind::Gateway => sound(Admitted::Gateway(Arc::new(gateway::gateway(typed(value)?)?))),
        Kind::ServiceEntry => {
            let (entry, flaw) = networking::service_entry(typed(value)?, value)?;
            Ok((Admitted::ServiceEntry(Arc::new(entry)), flaw))
        }
        Kind::AuthorizationPolicy => {
            let (policy, flaw) = security::authorization_policy(typed(value)?)?;
            Ok((Admitted::AuthorizationPolicy(Arc::new(policy)), flaw))
        }
        Kind::PeerAuthentication => {
            sound(Admitted::PeerAuthentication(Arc::new(security::peer_authentication(typed(value)?)?)))
        }
        Kind::ConfigMap => sound(Admitted::MeshConfig(Box::new(mesh::of_config_map(value)?))),
    }
}

/// Types of fields, required fields and enumerations are checked by reading them.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Reason> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        Reason::Invalid { field, message: error.into_inner().to_string() }
    })
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Reason {
    Reason::Invalid { field: field.into(), message: message.into() }
}

/// `Err` with this field and message unless the condition holds.
fn require(holds: bool, field: impl FnOnce() -> String, message: &str) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(invalid(field(), message)) }
}

impl Admitted {
    /// Fills in what the API server would: the namespace, and when the object was first seen.
    pub(super) fn settle(&mut self, name: &Name, first_seen: Timestamp) {
        let settle = |meta: &mut Metadata| {
            meta.namespace.clone_from(&name.namespace);
            meta.creation_timestamp.get_or_insert(Time(first_seen));
        };
        match self {
            Self::Namespace(object) | Self::Node(object) | Self::ServiceAccount(object) => {
                settle(&mut Arc::make_mut(object).metadata);
            }
            Self::Pod(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::Service(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::EndpointSlice(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::Endpoints(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::ServiceEntry(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::WorkloadEntry(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::AuthorizationPolicy(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::PeerAuthentication(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::Gateway(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::GatewayClass(object) => settle(&mut Arc::make_mut(object).metadata),
            Self::MeshConfig(_) => {}
        }
    }

    /// Puts the object where it belongs.
    pub(super) fn insert_into(&self, name: &Name, objects: &mut Objects, mesh: &mut Option<MeshConfig>) {
        let key = name.clone();
        match self {
            Self::Namespace(object) => drop(objects.namespaces.insert(key.name, Arc::clone(object))),
            Self::Node(object) => drop(objects.nodes.insert(key.name, Arc::clone(object))),
            Self::Pod(object) => drop(objects.pods.insert(key, Arc::clone(object))),
            Self::ServiceAccount(object) => drop(objects.service_accounts.insert(key, Arc::clone(object))),
            Self::Service(object) => drop(objects.services.insert(key, Arc::clone(object))),
            Self::EndpointSlice(object) => drop(objects.endpoint_slices.insert(key, Arc::clone(object))),
            Self::Endpoints(object) => drop(objects.endpoints.insert(key, Arc::clone(object))),
            Self::ServiceEntry(object) => drop(objects.service_entries.insert(key, Arc::clone(object))),
            Self::WorkloadEntry(object) => drop(objects.workload_entries.insert(key, Arc::clone(object))),
            Self::AuthorizationPolicy(object) => {
                drop(objects.authorization_policies.insert(key, Arc::clone(object)));
            }
            Self::PeerAuthentication(object) => {
                drop(objects.peer_authentications.insert(key, Arc::clone(object)))
            }
            Self::Gateway(object) => drop(objects.gateways.insert(key, Arc::clone(object))),
            Self::GatewayClass(object) => drop(objects.gateway_classes.insert(key.name, Arc::clone(object))),
            Self::MeshConfig(config) => *mesh = Some((**config).clone()),
        }
    }
}
