//! The mesh as an immutable value: workloads, services, their endpoints, and policies, with the decisions made on it.
//!
//! A [`Mesh`] is a snapshot. [`Mesh::apply`] takes a [`Delta`] and gives the next one; what did not change is shared.
//! On a snapshot: [`Mesh::route`] decides where an outbound connection goes, [`Mesh::admit`] what an inbound request
//! means, [`Mesh::evaluate`] whether policy allows it, what a DNS name stands for is in [`names`]. Each decision
//! carries its trace as data.
//!
//! What it does not do: I/O, clocks, waiting, logging. What is missing or has to be resolved is returned as a value
//! ([`Unrouted`]); the caller gets it and decides again.
//!
//! Start reading at [`mesh`], then [`route`] and [`inbound`]; [`from_wire`] and [`local_file`] are the border.
//!
//! Invariants: applying deltas one by one gives the same mesh as loading the result at once; an endpoint is kept
//! whatever its health, and filtered when it is chosen; a resource that cannot be understood is refused alone, and
//! a refused policy never opens what it was to protect.
#![warn(missing_docs)]

pub mod address;
pub mod apply;
pub mod endpoints;
pub mod from_wire;
pub mod inbound;
pub mod local_file;
pub mod mesh;
pub mod names;
pub mod route;
pub mod service;
mod shards;
mod to_dump;
pub mod workload;

pub use address::{GatewayAddress, GatewayDestination, MissingKey, NetworkAddress, ServiceKey};
pub use apply::{Applied, Delta, Rejected, ResourceType, WorkloadChange};
pub use endpoints::{Endpoint, EndpointTally};
pub use from_wire::RejectReason;
pub use inbound::{Admission, Application, Authority, InboundRefusal, InboundRequest, NotAdmitted};
pub use mesh::{Mesh, MeshConfig, PolicySet};
pub use names::{Family, FoundName, NameView};
pub use route::{Protocol, Refusal, Resolved, Route, RouteRefusal, RouteRequest, Row, Step, Unrouted};
pub use service::Service;
pub use workload::{Pod, Workload};
