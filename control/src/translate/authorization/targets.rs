//! Status of policies that are attached to waypoints by `targetRefs` (control-plane 4.5).

use super::super::StatusCondition;
use super::super::waypoint::{Binding, Waypoints};
use super::super::world::World;
use crate::sources::objects::{AuthorizationPolicy, Metadata, Name, PolicyTarget};

const MESH_CONTROLLER: &str = "istio.io/mesh-controller";

/// How one target fared.
struct Outcome {
    bound: bool,
    reason: &'static str,
    message: String,
}

pub(super) fn condition(
    world: &World<'_>,
    waypoints: &Waypoints<'_>,
    policy: &AuthorizationPolicy,
) -> StatusCondition {
    let namespace = &policy.metadata.namespace;
    let spec = &policy.spec;
    let targets: Vec<&PolicyTarget> = spec
        .target_refs
        .iter()
        .flatten()
        .chain(spec.target_ref.iter().filter(|_| spec.target_refs.is_none()))
        .collect();
    let mut outcomes: Vec<Outcome> =
        targets.iter().map(|target| outcome(world, waypoints, namespace, target)).collect();
    let (status, reason, message) = if outcomes.len() == 1 {
        outcomes.pop().map_or((false, "Invalid", String::new()), |o| (o.bound, o.reason, o.message))
    } else {
        let unbound: Vec<String> = targets
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| !outcome.bound)
            .map(|(target, _)| {
                let group = if target.group.is_empty() { "core" } else { &target.group };
                format!("{}.{group}:{namespace}/{}", target.kind, target.name)
            })
            .collect();
        match unbound.len() {
            0 => (true, "Accepted", "bound to all targets".to_owned()),
            n if n == outcomes.len() => (false, "Invalid", format!("not bound: {}", unbound.join(", "))),
            _ => (true, "PartiallyInvalid", format!("not bound: {}", unbound.join(", "))),
        }
    };
    StatusCondition { kind: "WaypointAccepted", status, reason, message }
}

fn outcome(world: &World<'_>, waypoints: &Waypoints<'_>, namespace: &str, target: &PolicyTarget) -> Outcome {
    let name = Name::new(namespace, &target.name);
    let missing =
        || Outcome { bound: false, reason: "TargetNotFound", message: format!("{name} does not exist") };
    let through = |meta: Option<&Metadata>| match meta.map(|meta| waypoints.for_service(world, meta)) {
        None => missing(),
        Some(Binding::Bound(waypoint)) => bound(format!("bound to {}", waypoint.name)),
        Some(Binding::None | Binding::Refused(_)) => {
            Outcome { bound: false, reason: "AncestorNotBound", message: format!("{name} has no waypoint") }
        }
    };
    match target.kind.as_str() {
        "Gateway" if world.objects.gateways.contains_key(&name) => bound(format!("bound to {name}")),
        "Service" => through(world.objects.services.get(&name).map(|service| &service.metadata)),
        "ServiceEntry" => through(world.objects.service_entries.get(&name).map(|entry| &entry.metadata)),
        "GatewayClass" => gateway_class(world, namespace, target),
        _ => missing(),
    }
}

fn gateway_class(world: &World<'_>, namespace: &str, target: &PolicyTarget) -> Outcome {
    let invalid = |message: String| Outcome { bound: false, reason: "Invalid", message };
    if namespace != world.root_namespace() {
        return invalid(format!("a GatewayClass is a target in {} only", world.root_namespace()));
    }
    match world.objects.gateway_classes.get(&target.name) {
        None => Outcome {
            bound: false,
            reason: "TargetNotFound",
            message: format!("GatewayClass {} does not exist", target.name),
        },
        Some(class) if class.spec.controller_name == MESH_CONTROLLER => {
            bound(format!("bound to class {}", target.name))
        }
        Some(class) => invalid(format!("class {} belongs to {}", target.name, class.spec.controller_name)),
    }
}

fn bound(message: String) -> Outcome {
    Outcome { bound: true, reason: "Accepted", message }
}
