//! The steps of a routing decision, as data.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{GatewayDestination, NetworkAddress, ServiceKey};
use crate::endpoints::EndpointTally;

/// A step of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A service was found at an address.
    Service {
        /// The service.
        service: ServiceKey,
        /// The address.
        address: NetworkAddress,
    },
    /// A workload was found at the destination.
    Workload {
        /// The workload.
        uid: Arc<str>,
    },
    /// An endpoint of a service was drawn, or none could be.
    Endpoint {
        /// The service.
        service: ServiceKey,
        /// The service's port.
        port: u16,
        /// The endpoint.
        uid: Option<Arc<str>>,
        /// The port there.
        target_port: Option<u16>,
        /// What became of all of them.
        tally: EndpointTally,
    },
    /// A waypoint has to be passed.
    Waypoint {
        /// The waypoint.
        waypoint: GatewayDestination,
        /// Its port.
        port: u16,
        /// It was drawn from several by weight.
        weighted: bool,
    },
    /// The workload's waypoint is the caller: it goes on directly.
    CallerIsWaypoint,
    /// The upstream is on another network: through its gateway.
    Gateway {
        /// The network.
        network: Arc<str>,
        /// The gateway.
        gateway: GatewayDestination,
        /// Its port.
        port: u16,
    },
    /// An address of a workload was chosen.
    Address {
        /// The workload.
        uid: Arc<str>,
        /// The address.
        ip: IpAddr,
        /// Why it.
        choice: AddressChoice,
    },
    /// The original destination is kept.
    Passthrough(PassthroughReason),
}

/// Why an address of a workload was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressChoice {
    /// It is the one that was asked for.
    AskedFor,
    /// The first of the family that was asked for.
    SameFamily,
    /// The first; none is of the family that was asked for.
    OtherFamily,
    /// Drawn from what the resolver gave.
    Resolved,
}

/// Why a destination is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassthroughReason {
    /// The mesh does not know it.
    Unknown,
    /// The service says so.
    Service,
}
