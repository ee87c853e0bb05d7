//! Waypoints: which gateways are one, and who is bound to which (control-plane 3.8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wire::workload::{
    ApplicationTunnel, GatewayAddress, NamespacedHostname, NetworkAddress, WeightedWaypoint,
    application_tunnel, gateway_address::Destination,
};

use super::address_bytes;
use super::labels::matches_selector;
use super::world::World;
use crate::sources::objects::{AllowedNamespaces, Gateway, Metadata, Name};

const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const CANARY: &str = "istio.io/use-waypoint-canary";
const CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
const CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
const INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const MANAGED: &str = "gateway.istio.io/managed";
const HBONE_PORT: u32 = 15008;

/// What a waypoint accepts traffic for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Service,
    Workload,
    All,
    Nothing,
}

/// What is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Service,
    Workload,
}

impl Traffic {
    fn accepts(self, bound: Bound) -> bool {
        match self {
            Self::All => true,
            Self::Service => bound == Bound::Service,
            Self::Workload => bound == Bound::Workload,
            Self::Nothing => false,
        }
    }
}

pub(super) struct Waypoint<'a> {
    pub(super) name: Name,
    pub(super) address: GatewayAddress,
    traffic: Traffic,
    allowed: Option<&'a AllowedNamespaces>,
    pub(super) tunnel: Option<ApplicationTunnel>,
    /// Service accounts of its pods.
    pub(super) accounts: BTreeSet<&'a str>,
}

/// Why an object that names a waypoint has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) waypoint: Name,
}

/// An object's waypoint: not asked for, bound, or refused.
pub(super) enum Binding<'w, 'a> {
    None,
    Bound(&'w Waypoint<'a>),
    Refused(Refusal),
}

impl<'w, 'a> Binding<'w, 'a> {
    pub(super) fn waypoint(&self) -> Option<&'w Waypoint<'a>> {
        match self {
            Self::Bound(waypoint) => Some(waypoint),
            Self::None | Self::Refused(_) => None,
        }
    }

    pub(super) fn address(&self) -> Option<GatewayAddress> {
        self.waypoint().map(|waypoint| waypoint.address.clone())
    }
}

pub(super) struct Waypoints<'a> {
    by_name: BTreeMap<Name, Waypoint<'a>>,
}

impl<'a> Waypoints<'a> {
    /// Any gateway with an address is a candidate; it has no effect unless named.
    pub(super) fn index(world: &World<'a>) -> Self {
        let mut by_name: BTreeMap<Name, Waypoint<'a>> = world
            .objects
            .gateways
            .iter()
            .filter(|(_, gateway)| world.in_scope(&gateway.metadata))
            .filter_map(|(name, gateway)| Some((name.clone(), candidate(world, name, gateway)?)))
            .collect();
        for pod in world.objects.pods.values() {
            let Some(gateway) = pod.metadata.label(GATEWAY_NAME) else { continue };
            if let Some(waypoint) = by_name.get_mut(&Name::new(&pod.metadata.namespace, gateway)) {
                waypoint.accounts.insert(&pod.spec.service_account_name);
            }
        }
        Self { by_name }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Waypoint<'a>> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waypoint<'a>> {
        self.by_name.values()
    }

    /// The waypoint whose instance this workload is.
    pub(super) fn instance_of(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<&Waypoint<'a>> {
        self.get(&Name::new(namespace, labels.get(GATEWAY_NAME)?))
    }

    /// The waypoint of a service.
    pub(super) fn for_service(&self, world: &World<'a>, meta: &Metadata) -> Binding<'_, 'a> {
        if is_managed(meta) {
            return Binding::None;
        }
        let Some((name, _)) = reference(world, &meta.labels, &meta.namespace) else { return Binding::None };
        match self.find(world, name, &meta.namespace, Bound::Service) {
            Ok(waypoint) => Binding::Bound(waypoint),
            Err(refusal) => Binding::Refused(refusal),
        }
    }

    /// The waypoint of a workload that is no waypoint itself.
    pub(super) fn for_workload(
        &self,
        world: &World<'a>,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Binding<'_, 'a> {
        let Some((name, own)) = reference(world, labels, namespace) else { return Binding::None };
        match self.find(world, name, namespace, Bound::Workload) {
            Ok(waypoint) => Binding::Bound(waypoint),
            // A namespace's waypoint for services says nothing about its workloads.
            Err(refusal) if refusal.reason == UNSUPPORTED_TRAFFIC_TYPE && !own => Binding::None,
            Err(refusal) => Binding::Refused(refusal),
        }
    }

    /// Both waypoints with their weights, if a canary is asked for and can be had.
    pub(super) fn weighted(
        &self,
        world: &World<'a>,
        meta: &Metadata,
        primary: &Waypoint<'a>,
    ) -> Result<Vec<WeightedWaypoint>, Refusal> {
        let inherits = !meta.labels.contains_key(USE_WAYPOINT);
        let inherited_label = |key| inherits.then(|| world.namespace_label(&meta.namespace, key)).flatten();
        let (name, namespace) = match meta.label(CANARY) {
            Some(name) => (name, meta.label(CANARY_NAMESPACE)),
            None => match inherited_label(CANARY) {
                Some(name) => (name, inherited_label(CANARY_NAMESPACE)),
                None => return Ok(Vec::new()),
            },
        };
        if name.is_empty() || name == "none" {
            return Ok(Vec::new());
        }
        let name = Name::new(namespace.unwrap_or(&meta.namespace), name);
        let refuse = |reason| Err(Refusal { reason, waypoint: name.clone() });
        if name == primary.name {
            return refuse("CanarySameAsPrimary");
        }
        let weight = meta.annotation(CANARY_WEIGHT).or_else(|| {
            inherits.then(|| world.namespace_annotation(&meta.namespace, CANARY_WEIGHT)).flatten()
        });
        let weight = match weight.map(str::parse::<u32>) {
            None => 0,
            Some(Ok(weight)) if weight <= 100 => weight,
            Some(_) => return refuse("CanaryInvalidWeight"),
        };
        let canary = self.find(world, name, &meta.namespace, Bound::Service)?;
        let weighted = |waypoint: &Waypoint<'_>, weight| WeightedWaypoint {
            destination: Some(waypoint.address.clone()),
            weight,
        };
        Ok(vec![weighted(primary, 100 - weight), weighted(canary, weight)])
    }

    fn find(
        &self,
        world: &World<'a>,
        name: Name,
        namespace: &str,
        bound: Bound,
    ) -> Result<&Waypoint<'a>, Refusal> {
        let Some(waypoint) = self.get(&name) else {
            return Err(Refusal { reason: "WaypointIsNotReady", waypoint: name });
        };
        if !waypoint.permits(world, namespace) {
            return Err(Refusal { reason: "AttachmentDenied", waypoint: name });
        }
        if !waypoint.traffic.accepts(bound) {
            return Err(Refusal { reason: UNSUPPORTED_TRAFFIC_TYPE, waypoint: name });
        }
        Ok(waypoint)
    }
}

const UNSUPPORTED_TRAFFIC_TYPE: &str = "UnsupportedTrafficType";

impl Waypoint<'_> {
    fn permits(&self, world: &World<'_>, namespace: &str) -> bool {
        let same = self.name.namespace == namespace;
        match self.allowed {
            None => same,
            Some(allowed) => match allowed.from.as_str() {
                "All" => true,
                "Selector" => allowed
                    .selector
                    .as_ref()
                    .is_some_and(|selector| matches_selector(selector, &world.namespace_labels(namespace))),
                "" | "Same" => same,
                _ => false,
            },
        }
    }
}

/// Gateways' own services get no waypoint.
fn is_managed(meta: &Metadata) -> bool {
    matches!(meta.label(MANAGED), Some("istio.io-mesh-controller" | "istio.io-eastwest-controller"))
}

/// The waypoint an object names, and whether by its own label. Its own label is final.
fn reference(world: &World<'_>, labels: &BTreeMap<String, String>, namespace: &str) -> Option<(Name, bool)> {
    let (name, waypoint_namespace, own) = match labels.get(USE_WAYPOINT) {
        Some(name) => (name.as_str(), labels.get(USE_WAYPOINT_NAMESPACE).map(String::as_str), true),
        None => (
            world.namespace_label(namespace, USE_WAYPOINT)?,
            world.namespace_label(namespace, USE_WAYPOINT_NAMESPACE),
            false,
        ),
    };
    (name != "none").then(|| (Name::new(waypoint_namespace.unwrap_or(namespace), name), own))
}

fn candidate<'a>(world: &World<'a>, name: &Name, gateway: &'a Gateway) -> Option<Waypoint<'a>> {
    let addresses = &gateway.status.addresses;
    let hostname = addresses.iter().find(|address| address.kind == "Hostname").map(|address| {
        Destination::Hostname(NamespacedHostname {
            namespace: name.namespace.clone(),
            hostname: address.value.clone(),
        })
    });
    let ip = || {
        let ips = addresses.iter().filter(|address| matches!(address.kind.as_str(), "" | "IPAddress"));
        ips.filter_map(|address| address.value.parse::<IpAddr>().ok()).next().map(|ip| {
            Destination::Address(NetworkAddress {
                network: world.network.to_owned(),
                address: address_bytes(ip),
                length: None,
            })
        })
    };
    let destination = hostname.or_else(ip)?;
    let class =
        world.objects.gateway_classes.get(&gateway.spec.gateway_class_name).map(|class| &class.metadata);
    let traffic = gateway.metadata.label(WAYPOINT_FOR).or_else(|| class?.label(WAYPOINT_FOR));
    let binding = gateway.metadata.annotation(INBOUND_BINDING).or_else(|| class?.annotation(INBOUND_BINDING));
    let tunnel = binding.and_then(inbound_binding);
    Some(Waypoint {
        name: name.clone(),
        address: GatewayAddress { destination: Some(destination), hbone_mtls_port: HBONE_PORT },
        traffic: match traffic {
            None | Some("service") => Traffic::Service,
            Some("workload") => Traffic::Workload,
            Some("all") => Traffic::All,
            Some(_) => Traffic::Nothing,
        },
        allowed: allowed_namespaces(gateway, tunnel.as_ref()),
        tunnel,
        accounts: BTreeSet::new(),
    })
}

/// `<PROTOCOL>` or `<PROTOCOL>/<port>`; anything else is as if not written.
fn inbound_binding(text: &str) -> Option<ApplicationTunnel> {
    let (protocol, port) = match text.split_once('/') {
        Some((protocol, port)) => (protocol, u32::from(port.parse::<u16>().ok()?)),
        None => (text, 0),
    };
    let protocol = match protocol {
        "NONE" => application_tunnel::Protocol::None,
        "PROXY" => application_tunnel::Protocol::Proxy,
        _ => return None,
    };
    Some(ApplicationTunnel { protocol: protocol.into(), port })
}

/// The rules of the listener that receives the traffic; without one only the own namespace is allowed.
fn allowed_namespaces<'a>(
    gateway: &'a Gateway,
    tunnel: Option<&ApplicationTunnel>,
) -> Option<&'a AllowedNamespaces> {
    let mut listeners = gateway.spec.listeners.iter();
    let proxy = i32::from(application_tunnel::Protocol::Proxy);
    let listener = match tunnel {
        Some(tunnel) if tunnel.port != 0 => {
            listeners.find(|listener| listener.port == i64::from(tunnel.port))
        }
        Some(tunnel) if tunnel.protocol == proxy => {
            listeners.find(|listener| listener.protocol == "istio.io/PROXY")
        }
        _ => {
            listeners.find(|listener| listener.protocol == "HBONE" && listener.port == i64::from(HBONE_PORT))
        }
    };
    listener.map(|listener| &listener.allowed_routes.namespaces)
}
