//! What an inbound request asks of this pod, and whether it may ask that here.

mod authority;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{GatewayAddress, GatewayDestination, MissingKey, NetworkAddress};
use crate::mesh::Mesh;
use crate::service::Service;
use crate::workload::{ApplicationProtocol, ApplicationTunnel, Workload};
pub use authority::{Authority, InvalidAuthority};

/// A CONNECT request as far as routing goes.
#[derive(Clone, Copy, Debug)]
pub struct InboundRequest<'a> {
    /// The workload of this pod.
    pub local: &'a Workload,
    /// The pod's own address that the connection came to.
    pub connection_ip: IpAddr,
    /// What is asked for.
    pub authority: &'a Authority,
    /// The `host=` of the `forwarded` header.
    pub forwarded_host: Option<&'a str>,
    /// Earlier [`NotAdmitted::Missing`] that discovery says do not exist.
    pub absent: &'a [MissingKey],
}

/// A request that may go on to policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The application's address: what policy judges, logs name, and is dialled unless the tunnel says otherwise.
    pub target: SocketAddr,
    /// How the application is reached.
    pub application: Application,
    /// The service that was called, as far as it can be told.
    pub service: Option<Arc<Service>>,
}

/// How the application is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Its bytes as they come.
    Plain,
    /// With a PROXY v2 header that names this destination.
    Proxy {
        /// The original destination.
        destination: SocketAddr,
    },
}

/// Why a request is not admitted (yet).
#[derive(Clone, Debug, PartialEq)]
pub enum NotAdmitted {
    /// It is refused.
    Refused(InboundRefusal),
    /// Ask for this on demand, then decide again on the next snapshot.
    Missing(MissingKey),
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundRefusal {
    /// It asks for an address that is not this pod's, nor of anything behind this waypoint.
    #[error("ip mismatch: {connection} != {requested}")]
    IpMismatch {
        /// The address the connection came to.
        connection: IpAddr,
        /// The address asked for.
        requested: IpAddr,
    },
    /// It asks for a service that this pod neither backs nor is a waypoint of.
    #[error("hostname mismatch: {workload} is no endpoint of {hostname}")]
    HostnameMismatch {
        /// The workload of this pod.
        workload: Arc<str>,
        /// The hostname asked for.
        hostname: Arc<str>,
    },
    /// Nobody has this hostname.
    #[error("no service or workload for hostname: {0}")]
    UnknownHostname(Arc<str>),
    /// The service does not have the port.
    #[error("requested service {hostname}:{port} found, but cannot resolve port")]
    UnknownPort {
        /// The hostname.
        hostname: Arc<str>,
        /// The port.
        port: u16,
    },
    /// The PROXY header needs an address and the service has none.
    #[error("requested service {0} found, but has no IP addresses")]
    NoVip(Arc<str>),
    /// The target is the proxy itself.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
}

impl InboundRefusal {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IpMismatch { .. } => "inbound-ip-mismatch",
            Self::HostnameMismatch { .. } => "inbound-hostname-mismatch",
            Self::UnknownHostname(_) => "inbound-unknown-hostname",
            Self::UnknownPort { .. } => "inbound-unknown-port",
            Self::NoVip(_) => "inbound-no-vip",
            Self::SelfCall => "inbound-self-call",
        }
    }

    /// The HTTP status it is answered with.
    pub fn status(&self) -> u16 {
        match self {
            Self::IpMismatch { .. } | Self::HostnameMismatch { .. } => 400,
            Self::UnknownHostname(_) | Self::UnknownPort { .. } | Self::NoVip(_) | Self::SelfCall => 503,
        }
    }
}

impl From<InboundRefusal> for NotAdmitted {
    fn from(refusal: InboundRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Mesh {
    /// Decides whether a request belongs here and which port of the pod it means. Policy comes after.
    pub fn admit(&self, request: &InboundRequest<'_>) -> Result<Admission, NotAdmitted> {
        let InboundRequest { local, connection_ip, authority, forwarded_host, .. } = *request;
        let tunnel = local.application_tunnel.as_ref();
        let (port, service) = match authority {
            Authority::Address(requested) => {
                self.validate(request, requested.ip())?;
                (requested.port(), self.attributed(local, requested.port(), forwarded_host))
            }
            Authority::Hostname { hostname, port } => {
                let service = self.requested_service(local, hostname)?;
                let own = local.services.get(&service.key).and_then(|ports| ports.get(port));
                let target = own.filter(|port| **port > 0).or_else(|| service.ports.get(port)).copied();
                let unknown = || InboundRefusal::UnknownPort { hostname: hostname.clone(), port: *port };
                (target.filter(|port| *port > 0).ok_or_else(unknown)?, Some(service))
            }
        };
        if self.config.illegal_ports.contains(&port) {
            return Err(InboundRefusal::SelfCall.into());
        }
        let target_port = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
        let application = match tunnel {
            Some(ApplicationTunnel { protocol: ApplicationProtocol::Proxy, .. }) => {
                Application::Proxy { destination: self.proxy_destination(authority, service.as_deref())? }
            }
            _ => Application::Plain,
        };
        Ok(Admission { target: SocketAddr::new(connection_ip, target_port), application, service })
    }

    /// The service that a connection to `port` of `local` was meant for: the one the sender names, else the first
    /// that leads to this port.
    pub fn attributed(&self, local: &Workload, port: u16, named: Option<&str>) -> Option<Arc<Service>> {
        let candidates =
            || local.services.iter().filter_map(|(key, ports)| Some((self.service(key)?, ports)));
        let by_name =
            named.and_then(|named| candidates().find(|(service, _)| &*service.key.hostname == named));
        let by_port = || {
            candidates().find(|(service, ports)| {
                let mut targets = service.ports.values().chain(ports.values());
                targets.any(|target| *target == port)
            })
        };
        by_name.or_else(by_port).map(|(service, _)| service.clone())
    }

    /// The workload that a peer is, unless the request came from another network.
    pub fn source_workload(&self, peer: IpAddr, forwarded_network: Option<&str>) -> Option<&Arc<Workload>> {
        let foreign = |network: &str| !network.eq_ignore_ascii_case(&self.config.network);
        if forwarded_network.is_some_and(foreign) {
            return None;
        }
        self.workload_by_address(&self.own_address(peer))
    }

    /// Whether the requested address belongs to this pod or to something that this pod is the waypoint of.
    fn validate(&self, request: &InboundRequest<'_>, requested: IpAddr) -> Result<(), NotAdmitted> {
        let InboundRequest { local, connection_ip, .. } = *request;
        if requested == connection_ip || local.application_tunnel.is_some() {
            return Ok(());
        }
        let address = self.own_address(requested);
        let workload = self.workload_by_address(&address);
        let services = self.services_at(&address);
        if workload.is_none() && services.is_empty() && self.config.on_demand {
            let key = MissingKey::Address(address);
            if !request.absent.contains(&key) {
                return Err(NotAdmitted::Missing(key));
            }
        }
        let waypoint_of_workload = workload.and_then(|workload| workload.waypoint.as_ref());
        let is_local = |waypoint: &GatewayAddress| self.is_waypoint(local, connection_ip, waypoint);
        if waypoint_of_workload.is_some_and(is_local)
            || services.iter().any(|service| waypoints(service).any(is_local))
        {
            return Ok(());
        }
        Err(InboundRefusal::IpMismatch { connection: connection_ip, requested }.into())
    }

    /// The service of a hostname: one that this pod backs, or that it is the waypoint of.
    fn requested_service(
        &self,
        local: &Workload,
        hostname: &Arc<str>,
    ) -> Result<Arc<Service>, InboundRefusal> {
        let namespace = Some(&*local.namespace);
        let Some(best) = self.service_by_hostname(hostname, namespace) else {
            return Err(InboundRefusal::UnknownHostname(hostname.clone()));
        };
        let backed = || {
            let mut visible = self.services_by_hostname(hostname, namespace);
            visible.find(|service| local.services.contains_key(&service.key))
        };
        let is_local = |waypoint: &GatewayAddress| {
            local.addresses.iter().any(|ip| self.is_waypoint(local, *ip, waypoint))
        };
        if local.services.contains_key(&best.key) {
            Ok(best.clone())
        } else if let Some(service) = backed() {
            Ok(service.clone())
        } else if local.application_tunnel.is_some() || waypoints(best).any(is_local) {
            Ok(best.clone())
        } else {
            let workload = local.name.clone();
            Err(InboundRefusal::HostnameMismatch { workload, hostname: hostname.clone() })
        }
    }

    /// Whether a waypoint reference leads to `local`.
    fn is_waypoint(&self, local: &Workload, connection_ip: IpAddr, waypoint: &GatewayAddress) -> bool {
        let (service, workload) = match &waypoint.destination {
            GatewayDestination::Hostname(key) => (self.service(key), self.workload_by_hostname(key)),
            GatewayDestination::Address(address) => {
                (self.service_by_address(address, None), self.workload_by_address(address))
            }
        };
        service.is_some_and(|service| local.services.contains_key(&service.key))
            || workload.is_some_and(|workload| workload.addresses.contains(&connection_ip))
    }

    /// All services that have this address; by range only where none has it exactly.
    fn services_at(&self, address: &NetworkAddress) -> Vec<&Arc<Service>> {
        match self.by_vip.get(address) {
            Some(services) => services.iter().collect(),
            None => self.service_by_address(address, None).into_iter().collect(),
        }
    }

    /// The destination that a PROXY header names.
    fn proxy_destination(
        &self,
        authority: &Authority,
        service: Option<&Service>,
    ) -> Result<SocketAddr, InboundRefusal> {
        match authority {
            Authority::Address(address) => Ok(*address),
            Authority::Hostname { hostname, port } => {
                let vips = service.map_or(&[][..], |service| &service.vips);
                let preference =
                    |vip: &&NetworkAddress| (vip.network != self.config.network, vip.ip.is_ipv6());
                let vip = vips.iter().min_by_key(preference);
                let vip = vip.ok_or_else(|| InboundRefusal::NoVip(hostname.clone()))?;
                Ok(SocketAddr::new(vip.ip, *port))
            }
        }
    }
}

/// All waypoints of a service: the one, and those shared by weight.
fn waypoints(service: &Service) -> impl Iterator<Item = &GatewayAddress> {
    service.waypoint.iter().chain(service.weighted_waypoints.iter().map(|weighted| &weighted.destination))
}

#[cfg(test)]
mod tests;
