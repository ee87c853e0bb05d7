//! Where an outbound connection goes: one decision on one snapshot.
//!
//! The order: refuse calls to ourselves; a service at the destination, and its waypoint; an endpoint or workload;
//! another network; the workload's waypoint; HBONE or plain. What nobody knows passes through.

pub(crate) mod dice;
mod gateway;
mod trace;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use identity::SpiffeId;

use crate::address::{MissingKey, NetworkAddress, ServiceKey};
use crate::endpoints::{self, Resolution};
use crate::inbound::Authority;
use crate::mesh::Mesh;
use crate::service::Service;
use crate::workload::{TunnelProtocol, Workload};
use dice::Dice;
pub use trace::{AddressChoice, PassthroughReason, Step};

/// The port of HBONE.
pub const HBONE_PORT: u16 = 15008;

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// The workload that calls.
    pub source: &'a Workload,
    /// The address it calls from.
    pub client: IpAddr,
    /// The destination it asked for.
    pub destination: SocketAddr,
    /// All draws follow from it: the same seed on the same snapshot decides the same.
    pub seed: u64,
    /// Answers to earlier [`Unrouted::NeedsDns`], by workload uid.
    pub resolved: &'a [(Arc<str>, Resolved)],
    /// Earlier [`Unrouted::Missing`] that discovery says do not exist.
    pub absent: &'a [MissingKey],
}

/// What the resolver said about a workload's hostname.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Its addresses; perhaps none.
    Addresses(Vec<IpAddr>),
    /// It failed.
    Failed,
}

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which kind of route it is.
    pub row: Row,
    /// How the next hop is spoken to.
    pub protocol: Protocol,
    /// The TCP destination.
    pub next_hop: SocketAddr,
    /// What CONNECT asks for; none on plain TCP. Outer and inner tunnel ask for the same.
    pub authority: Option<Authority>,
    /// The identities accepted from the next hop.
    pub expected: Vec<SpiffeId>,
    /// The identities accepted inside the tunnel of a gateway.
    pub inner_expected: Vec<SpiffeId>,
    /// The workload of the next hop, for metrics and logs.
    pub workload: Option<Arc<Workload>>,
    /// The service that was called, for metrics, logs and the `forwarded` header.
    pub service: Option<Arc<Service>>,
    /// How it was decided.
    pub trace: Vec<Step>,
}

/// The kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// To the waypoint of a service.
    ServiceWaypoint,
    /// To the waypoint of a workload.
    WorkloadWaypoint,
    /// To the workload's own proxy.
    Direct,
    /// Through the gateway of another network.
    OtherNetwork,
    /// To an address that the mesh does not know.
    Passthrough,
    /// To a workload outside the mesh.
    Plain,
}

/// How a next hop is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain TCP.
    Tcp,
    /// A tunnel.
    Hbone,
    /// A tunnel inside a tunnel.
    DoubleHbone,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Hbone => "HBONE",
            Self::DoubleHbone => "DOUBLEHBONE",
        })
    }
}

/// Why there is no route (yet).
#[derive(Clone, Debug, PartialEq)]
pub enum Unrouted {
    /// There is none.
    Refused(Box<Refusal>),
    /// Ask for this on demand, then decide again on the next snapshot.
    Missing(MissingKey),
    /// Resolve this workload's hostname, then decide again with the answer.
    NeedsDns {
        /// The workload.
        uid: Arc<str>,
        /// Its hostname.
        hostname: Arc<str>,
    },
}

/// A refusal and how it came to it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why.
    pub reason: RouteRefusal,
    /// How it was decided.
    pub trace: Vec<Step>,
}

/// Why a connection has no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// It would come back to this proxy.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// A service is there, but no endpoint can take the connection.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(SocketAddr),
    /// The waypoint is not known.
    #[error("unknown waypoint: waypoint {0} not found")]
    UnknownWaypoint(String),
    /// The gateway of the other network is not known.
    #[error("unknown network gateway: network gateway {0} not found")]
    UnknownGateway(String),
    /// Only services can be reached on other networks.
    #[error("no service for target address: {0}")]
    NoService(SocketAddr),
    /// The workload has no address that leads to it.
    #[error("no valid routing destination for workload: Workload{{{name} with uid {uid} ({protocol})}}")]
    NoValidDestination {
        /// Its name.
        name: Arc<str>,
        /// Its uid.
        uid: Arc<str>,
        /// How it is reached.
        protocol: TunnelProtocol,
    },
    /// The resolver failed.
    #[error("no ip addresses were resolved for workload: {uid}")]
    NoResolvedAddresses {
        /// The workload.
        uid: Arc<str>,
    },
    /// The resolver's answer has no address.
    #[error("ip addresses were resolved for workload {uid}, but valid dns response had no A/AAAA records")]
    EmptyDnsResponse {
        /// The workload.
        uid: Arc<str>,
    },
}

impl RouteRefusal {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SelfCall => "route-self-call",
            Self::NoHealthyUpstream(_) => "route-no-healthy-upstream",
            Self::UnknownWaypoint(_) => "route-unknown-waypoint",
            Self::UnknownGateway(_) => "route-unknown-gateway",
            Self::NoService(_) => "route-no-service",
            Self::NoValidDestination { .. } => "route-no-valid-destination",
            Self::NoResolvedAddresses { .. } => "route-dns-failed",
            Self::EmptyDnsResponse { .. } => "route-dns-empty",
        }
    }
}

impl Mesh {
    /// Decides where a connection goes.
    pub fn route(&self, request: &RouteRequest<'_>) -> Result<Route, Unrouted> {
        let mut decision =
            Deciding { mesh: self, request, dice: Dice::new(request.seed), trace: Vec::with_capacity(8) };
        match decision.route() {
            Ok(route) => Ok(Route { trace: decision.trace, ..route }),
            Err(Stop::Refused(reason)) => {
                Err(Unrouted::Refused(Box::new(Refusal { reason, trace: decision.trace })))
            }
            Err(Stop::Missing(key)) => Err(Unrouted::Missing(key)),
            Err(Stop::NeedsDns { uid, hostname }) => Err(Unrouted::NeedsDns { uid, hostname }),
        }
    }
}

/// Why a decision ends without a route.
enum Stop {
    Refused(RouteRefusal),
    Missing(MissingKey),
    NeedsDns { uid: Arc<str>, hostname: Arc<str> },
}

impl From<RouteRefusal> for Stop {
    fn from(reason: RouteRefusal) -> Self {
        Self::Refused(reason)
    }
}

/// A decision under way.
struct Deciding<'a> {
    mesh: &'a Mesh,
    request: &'a RouteRequest<'a>,
    dice: Dice,
    trace: Vec<Step>,
}

/// A workload to connect to.
struct Upstream {
    workload: Arc<Workload>,
    /// The service it was found through.
    service: Option<Arc<Service>>,
    /// The port there.
    port: u16,
    /// The address that was asked for: its family is kept.
    wanted: IpAddr,
}

impl Upstream {
    /// The identities it may have: those of the service, then its own.
    fn identities(&self) -> Vec<SpiffeId> {
        let of_service = self.service.as_ref().map_or(&[][..], |service| &service.identities);
        let mut identities = Vec::with_capacity(of_service.len() + 1);
        for identity in of_service.iter().chain([&self.workload.identity]) {
            if !identities.contains(identity) {
                identities.push(identity.clone());
            }
        }
        identities
    }
}

impl<'a> Deciding<'a> {
    fn route(&mut self) -> Result<Route, Stop> {
        let RouteRequest { source, destination, .. } = *self.request;
        if destination.ip().is_loopback() && self.mesh.config.illegal_ports.contains(&destination.port()) {
            return Err(RouteRefusal::SelfCall.into());
        }
        let service = self.called_service()?;
        if let Some(service) = &service {
            if let Some(route) = self.through_service_waypoint(service)? {
                return Ok(route);
            }
            if service.is_passthrough() {
                return Ok(self.passthrough(PassthroughReason::Service));
            }
        }
        let Some(upstream) = self.upstream(service.as_ref())? else {
            return match service {
                Some(_) => Err(RouteRefusal::NoHealthyUpstream(destination).into()),
                None => Ok(self.passthrough(PassthroughReason::Unknown)),
            };
        };
        if upstream.workload.network != source.network {
            return self.through_gateway(&upstream, service.as_ref());
        }
        if service.is_none()
            && let Some(waypoint) = upstream.workload.waypoint.clone()
        {
            if self.caller_is_waypoint(&waypoint) {
                self.trace.push(Step::CallerIsWaypoint);
            } else {
                return self.through_workload_waypoint(&waypoint);
            }
        }
        self.direct(upstream)
    }

    /// The service at the destination, if the source may find it. It takes precedence over a workload there: else
    /// an address that is both would go round the service's waypoint.
    fn called_service(&mut self) -> Result<Option<Arc<Service>>, Stop> {
        let RouteRequest { source, destination, .. } = *self.request;
        let address = NetworkAddress { network: source.network.clone(), ip: destination.ip() };
        let service = self.mesh.service_by_address(&address, Some(&source.namespace)).cloned();
        match &service {
            Some(service) => {
                self.trace.push(Step::Service { service: service.key.clone(), address });
            }
            None if self.mesh.workload_by_address(&address).is_none() => {
                self.demand(MissingKey::Address(address))?;
            }
            None => {}
        }
        Ok(service)
    }

    /// Without a service: the workload at the destination. With one: an endpoint of it.
    fn upstream(&mut self, service: Option<&Arc<Service>>) -> Result<Option<Upstream>, Stop> {
        let RouteRequest { source, destination, .. } = *self.request;
        if let Some(service) = service {
            return Ok(self.endpoint(service, destination.port(), Resolution::Standard, destination.ip()));
        }
        let address = NetworkAddress { network: source.network.clone(), ip: destination.ip() };
        Ok(self.mesh.workload_by_address(&address).map(|workload| {
            self.trace.push(Step::Workload { uid: workload.uid.clone() });
            let workload = workload.clone();
            Upstream { workload, service: None, port: destination.port(), wanted: destination.ip() }
        }))
    }

    /// Draws an endpoint.
    fn endpoint(
        &mut self,
        service: &Arc<Service>,
        port: u16,
        resolution: Resolution,
        wanted: IpAddr,
    ) -> Option<Upstream> {
        let all = self.mesh.endpoints(&service.key);
        let (choice, tally) =
            endpoints::choose(service, all, self.request.source, port, resolution, &mut self.dice);
        let step =
            |uid, target_port| Step::Endpoint { service: service.key.clone(), port, uid, target_port, tally };
        let Some(choice) = choice else {
            self.trace.push(step(None, None));
            return None;
        };
        self.trace.push(step(Some(choice.endpoint.workload.uid.clone()), Some(choice.target_port)));
        Some(Upstream {
            workload: choice.endpoint.workload.clone(),
            service: Some(service.clone()),
            port: choice.target_port,
            wanted,
        })
    }

    /// To the workload itself, by its own protocol.
    fn direct(&mut self, upstream: Upstream) -> Result<Route, Stop> {
        let ip = self.address_of(&upstream)?;
        let target = SocketAddr::new(ip, upstream.port);
        let hbone = upstream.workload.protocol == TunnelProtocol::Hbone;
        Ok(Route {
            row: if hbone { Row::Direct } else { Row::Plain },
            protocol: if hbone { Protocol::Hbone } else { Protocol::Tcp },
            next_hop: if hbone { SocketAddr::new(ip, HBONE_PORT) } else { target },
            authority: hbone.then_some(Authority::Address(target)),
            expected: if hbone { upstream.identities() } else { Vec::new() },
            inner_expected: Vec::new(),
            workload: Some(upstream.workload),
            service: upstream.service,
            trace: Vec::new(),
        })
    }

    /// To the original address, unchanged.
    fn passthrough(&mut self, reason: PassthroughReason) -> Route {
        self.trace.push(Step::Passthrough(reason));
        Route {
            row: Row::Passthrough,
            protocol: Protocol::Tcp,
            next_hop: self.request.destination,
            authority: None,
            expected: Vec::new(),
            inner_expected: Vec::new(),
            workload: None,
            service: None,
            trace: Vec::new(),
        }
    }

    /// The address of a workload to connect to.
    fn address_of(&mut self, upstream: &Upstream) -> Result<IpAddr, Stop> {
        let workload = &upstream.workload;
        let allowed =
            |ip: &&IpAddr| upstream.service.as_ref().is_none_or(|service| service.allows_family(**ip));
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == upstream.wanted.is_ipv4();
        let usable = || workload.addresses.iter().filter(allowed);
        let chosen = if workload.addresses.contains(&upstream.wanted) {
            Some((upstream.wanted, AddressChoice::AskedFor))
        } else if let Some(ip) = usable().find(same_family) {
            Some((*ip, AddressChoice::SameFamily))
        } else {
            usable().next().map(|ip| (*ip, AddressChoice::OtherFamily))
        };
        let (ip, choice) = match chosen {
            Some(chosen) => chosen,
            None if !workload.hostname.is_empty() => (self.resolved(upstream)?, AddressChoice::Resolved),
            None => return Err(no_valid_destination(workload).into()),
        };
        self.trace.push(Step::Address { uid: workload.uid.clone(), ip, choice });
        Ok(ip)
    }

    /// A drawn one of the addresses that the resolver gave, of the wanted family if there is one.
    fn resolved(&mut self, upstream: &Upstream) -> Result<IpAddr, Stop> {
        let uid = upstream.workload.uid.clone();
        let answer = self.request.resolved.iter().find(|(of, _)| *of == uid).map(|(_, answer)| answer);
        let addresses = match answer {
            None => return Err(Stop::NeedsDns { uid, hostname: upstream.workload.hostname.clone() }),
            Some(Resolved::Failed) => return Err(RouteRefusal::NoResolvedAddresses { uid }.into()),
            Some(Resolved::Addresses(addresses)) => addresses,
        };
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == upstream.wanted.is_ipv4();
        let preferred: Vec<&IpAddr> = addresses.iter().filter(same_family).collect();
        let pool = if preferred.is_empty() { addresses.iter().collect() } else { preferred };
        let drawn = match pool.len() {
            0 => None,
            n => pool.get(usize::try_from(self.dice.below(n as u64)).unwrap_or(0)),
        };
        drawn.map(|ip| **ip).ok_or(Stop::Refused(RouteRefusal::EmptyDnsResponse { uid }))
    }

    /// Stops to ask for `key`, once, where that is possible.
    fn demand(&self, key: MissingKey) -> Result<(), Stop> {
        if self.mesh.config.on_demand && !self.request.absent.contains(&key) {
            return Err(Stop::Missing(key));
        }
        Ok(())
    }
}

fn no_valid_destination(workload: &Workload) -> RouteRefusal {
    RouteRefusal::NoValidDestination {
        name: workload.name.clone(),
        uid: workload.uid.clone(),
        protocol: workload.protocol,
    }
}

/// A hostname and port as an authority.
fn hostname_authority(service: &ServiceKey, port: u16) -> Authority {
    Authority::Hostname { hostname: service.hostname.clone(), port }
}

#[cfg(test)]
mod tests;
