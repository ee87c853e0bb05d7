//! `gateway.networking.k8s.io`: the rules of its schema, as far as its fields are used.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::Reason;
use super::super::objects::{Gateway, GatewayClass, LabelSelector, Listener};
use super::core::is_port;
use super::metadata::is_dns_subdomain;
use super::{invalid, require};

const MAX_LISTENERS: usize = 64;
const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";

pub(super) fn class(class: GatewayClass) -> Result<GatewayClass, Reason> {
    let controller = &class.spec.controller_name;
    let is_path =
        controller.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
    require(is_path, || "spec.controllerName".to_owned(), "must be a domain and a path")?;
    Ok(class)
}

pub(super) fn gateway(gateway: Gateway) -> Result<Gateway, Reason> {
    let spec = &gateway.spec;
    require(!spec.gateway_class_name.is_empty(), || "spec.gatewayClassName".to_owned(), "is required")?;
    let n_listeners = spec.listeners.len();
    require(
        (1..=MAX_LISTENERS).contains(&n_listeners),
        || "spec.listeners".to_owned(),
        "1 to 64 are required",
    )?;
    let account = gateway.metadata.annotation(SERVICE_ACCOUNT).unwrap_or_default();
    require(
        account.is_empty() || is_dns_subdomain(account),
        || format!("metadata.annotations[{SERVICE_ACCOUNT}]"),
        "is no name of a service account",
    )?;
    let mut names = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for (i, listener) in spec.listeners.iter().enumerate() {
        let path = format!("spec.listeners[{i}]");
        check_listener(listener, &path)?;
        require(names.insert(&listener.name), || format!("{path}.name"), "is used twice")?;
        let socket = (listener.port, &listener.protocol, &listener.hostname);
        require(sockets.insert(socket), || path, "port, protocol and hostname are used twice")?;
    }
    for (part, addresses) in [("spec", &spec.addresses), ("status", &gateway.status.addresses)] {
        for (i, address) in addresses.iter().enumerate() {
            let is_ip = matches!(address.kind.as_str(), "" | "IPAddress");
            let good = !is_ip || address.value.is_empty() || address.value.parse::<IpAddr>().is_ok();
            require(good, || format!("{part}.addresses[{i}].value"), "is no IP address")?;
        }
    }
    Ok(gateway)
}

fn check_listener(listener: &Listener, path: &str) -> Result<(), Reason> {
    require(!listener.name.is_empty(), || format!("{path}.name"), "is required")?;
    require(is_port(listener.port), || format!("{path}.port"), "must be 1 to 65535")?;
    require(!listener.protocol.is_empty(), || format!("{path}.protocol"), "is required")?;
    let namespaces = &listener.allowed_routes.namespaces;
    let known = matches!(namespaces.from.as_str(), "" | "All" | "Same" | "Selector" | "None");
    let field = || format!("{path}.allowedRoutes.namespaces");
    require(known, || format!("{}.from", field()), "must be All, Same, Selector or None")?;
    namespaces
        .selector
        .as_ref()
        .map_or(Ok(()), |selector| check_selector(selector, &format!("{}.selector", field())))
}

/// Operators of Kubernetes' label selectors, and the values each takes.
pub(super) fn check_selector(selector: &LabelSelector, path: &str) -> Result<(), Reason> {
    for (i, requirement) in selector.match_expressions.iter().enumerate() {
        let at = |field: &'static str| move || format!("{path}.matchExpressions[{i}].{field}");
        require(!requirement.key.is_empty(), at("key"), "is required")?;
        match requirement.operator.as_str() {
            "In" | "NotIn" => {
                require(!requirement.values.is_empty(), at("values"), "at least one is required")?
            }
            "Exists" | "DoesNotExist" => {
                require(requirement.values.is_empty(), at("values"), "must be empty")?
            }
            _ => return Err(invalid(at("operator")(), "must be In, NotIn, Exists or DoesNotExist")),
        }
    }
    Ok(())
}
