//! Routes through waypoints and through the gateways of other networks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Deciding, Protocol, Route, RouteRefusal, Row, Step, Stop, Upstream, hostname_authority,
    no_valid_destination,
};
use crate::address::{GatewayAddress, GatewayDestination, MissingKey, NetworkAddress};
use crate::endpoints::Resolution;
use crate::inbound::Authority;
use crate::service::Service;
use crate::workload::Workload;

impl Deciding<'_> {
    /// Through the waypoint of a service, if it has one.
    pub(super) fn through_service_waypoint(&mut self, service: &Arc<Service>) -> Result<Option<Route>, Stop> {
        let Some((waypoint, weighted)) = self.draw_waypoint(service) else { return Ok(None) };
        self.trace.push(Step::Waypoint {
            waypoint: waypoint.destination.clone(),
            port: waypoint.hbone_mtls_port,
            weighted,
        });
        let hop = self.waypoint(&waypoint)?;
        if hop.workload.network != self.request.source.network {
            return self.through_gateway(&hop, Some(service)).map(Some);
        }
        let mut route = self.by_waypoint(hop, Row::ServiceWaypoint)?;
        route.service = Some(service.clone());
        Ok(Some(route))
    }

    /// Through the waypoint of a workload.
    pub(super) fn through_workload_waypoint(&mut self, waypoint: &GatewayAddress) -> Result<Route, Stop> {
        self.trace.push(Step::Waypoint {
            waypoint: waypoint.destination.clone(),
            port: waypoint.hbone_mtls_port,
            weighted: false,
        });
        let hop = self.waypoint(waypoint)?;
        self.by_waypoint(hop, Row::WorkloadWaypoint)
    }

    /// Through the gateway of the network that `upstream` is on.
    pub(super) fn through_gateway(
        &mut self,
        upstream: &Upstream,
        service: Option<&Arc<Service>>,
    ) -> Result<Route, Stop> {
        let destination = self.request.destination;
        let Some(service) = service else { return Err(RouteRefusal::NoService(destination).into()) };
        let Some(gateway) = &upstream.workload.network_gateway else {
            return Err(no_valid_destination(&upstream.workload).into());
        };
        self.trace.push(Step::Gateway {
            network: upstream.workload.network.clone(),
            gateway: gateway.destination.clone(),
            port: gateway.hbone_mtls_port,
        });
        let hop = self
            .resolve(gateway, Resolution::Standard)?
            .ok_or_else(|| RouteRefusal::UnknownGateway(gateway.destination.to_string()))?;
        let next_hop = SocketAddr::new(self.address_of(&hop)?, hop.port);
        Ok(Route {
            row: Row::OtherNetwork,
            protocol: Protocol::DoubleHbone,
            next_hop,
            authority: Some(hostname_authority(&service.key, destination.port())),
            expected: hop.identities(),
            inner_expected: upstream.identities(),
            workload: Some(hop.workload),
            service: Some(service.clone()),
            trace: Vec::new(),
        })
    }

    /// Whether the caller is the waypoint itself: behind the reference there is a workload with the caller's
    /// identity and address. Asked of the workloads at that address, not of all endpoints of the waypoint.
    pub(super) fn caller_is_waypoint(&self, waypoint: &GatewayAddress) -> bool {
        let (mesh, source, client) = (self.mesh, self.request.source, self.request.client);
        let (service, workload) = match &waypoint.destination {
            GatewayDestination::Hostname(key) => (mesh.service(key), mesh.workload_by_hostname(key)),
            GatewayDestination::Address(address) => {
                (mesh.service_by_address(address, Some(&source.namespace)), mesh.workload_by_address(address))
            }
        };
        let is_behind = |candidate: &Workload| match (service, workload) {
            (Some(service), _) => candidate.services.contains_key(&service.key),
            (None, Some(workload)) => candidate.uid == workload.uid,
            (None, None) => false,
        };
        let address = NetworkAddress { network: source.network.clone(), ip: client };
        let at_address = mesh.by_address.get(&address).into_iter().flatten();
        let own = Some(source).filter(|source| source.addresses.contains(&client));
        at_address
            .map(|workload| &**workload)
            .filter(|workload| workload.identity == source.identity)
            .chain(own)
            .any(is_behind)
    }

    /// One of the weighted waypoints, or the only one.
    fn draw_waypoint(&mut self, service: &Service) -> Option<(GatewayAddress, bool)> {
        let weights: u64 = service.weighted_waypoints.iter().map(|waypoint| u64::from(waypoint.weight)).sum();
        if weights > 0 {
            let mut drawn = self.dice.below(weights);
            for waypoint in &service.weighted_waypoints {
                match drawn.checked_sub(u64::from(waypoint.weight)) {
                    None => return Some((waypoint.destination.clone(), true)),
                    Some(rest) => drawn = rest,
                }
            }
        }
        service.waypoint.clone().map(|waypoint| (waypoint, false))
    }

    fn waypoint(&mut self, waypoint: &GatewayAddress) -> Result<Upstream, Stop> {
        self.resolve(waypoint, Resolution::Waypoint)?
            .ok_or_else(|| RouteRefusal::UnknownWaypoint(waypoint_text(waypoint)).into())
    }

    fn by_waypoint(&mut self, hop: Upstream, row: Row) -> Result<Route, Stop> {
        let next_hop = SocketAddr::new(self.address_of(&hop)?, hop.port);
        Ok(Route {
            row,
            protocol: Protocol::Hbone,
            next_hop,
            authority: Some(Authority::Address(self.request.destination)),
            expected: hop.identities(),
            inner_expected: Vec::new(),
            workload: Some(hop.workload),
            service: None,
            trace: Vec::new(),
        })
    }

    /// The workload behind a reference. By address: whatever an outbound call to it would reach, in the family of
    /// the reference. By hostname: exactly that service or workload, in the family of the original destination.
    fn resolve(
        &mut self,
        reference: &GatewayAddress,
        resolution: Resolution,
    ) -> Result<Option<Upstream>, Stop> {
        let (mesh, source, port) = (self.mesh, self.request.source, reference.hbone_mtls_port);
        let (service, workload, wanted, key): (_, _, IpAddr, _) = match &reference.destination {
            GatewayDestination::Address(address) => (
                mesh.service_by_address(address, Some(&source.namespace)),
                mesh.workload_by_address(address),
                address.ip,
                MissingKey::Address(address.clone()),
            ),
            GatewayDestination::Hostname(key) => (
                mesh.service(key),
                mesh.workload_by_hostname(key),
                self.request.destination.ip(),
                MissingKey::Hostname(key.clone()),
            ),
        };
        if let Some(service) = service.cloned() {
            return Ok(self.endpoint(&service, port, resolution, wanted));
        }
        if let Some(workload) = workload.cloned() {
            return Ok(Some(Upstream { workload, service: None, port, wanted }));
        }
        self.demand(key)?;
        Ok(None)
    }
}

/// As the refusal names it: a hostname without its namespace.
fn waypoint_text(waypoint: &GatewayAddress) -> String {
    match &waypoint.destination {
        GatewayDestination::Hostname(key) => key.hostname.to_string(),
        GatewayDestination::Address(address) => address.to_string(),
    }
}
