//! Everything that crosses a process border, as plain types without logic.
//!
//! The modules follow `proto/`; [`dump`] is the JSON of the node proxy's `/config_dump`.
//! What it does not do: validate. `state::from_wire` and `control::translate` stand at the border.
#![allow(
    missing_docs,
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    reason = "generated code"
)]

pub mod dump;
mod gateway;
pub mod token;

/// `istio.workload`: workloads and services.
pub mod workload {
    tonic::include_proto!("istio.workload");
    pub use crate::gateway::{GatewayAddress, gateway_address};

    /// Type URL of [`Address`] resources.
    pub const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";
    /// Type URL of [`Workload`] resources.
    pub const WORKLOAD_TYPE: &str = "type.googleapis.com/istio.workload.Workload";
    /// `istio.workload.zds`: hand-over of pods.
    pub mod zds {
        tonic::include_proto!("istio.workload.zds");
    }
}

/// `istio.security`: authorization policies.
pub mod security {
    tonic::include_proto!("istio.security");

    /// Type URL of [`Authorization`] resources.
    pub const AUTHORIZATION_TYPE: &str = "type.googleapis.com/istio.security.Authorization";
}

/// `envoy.service.discovery.v3`: delta xDS.
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// `istio.v1.auth`: the certificate authority.
pub mod ca {
    tonic::include_proto!("istio.v1.auth");
}

/// `culvert.join.v1`: join tokens.
pub mod join {
    tonic::include_proto!("culvert.join.v1");
}
