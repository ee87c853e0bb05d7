//! `service`.
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wire::dump::{self, ConfigDump, Service};

use super::views::{Gateway, passes, ports, waypoint_name};
use crate::render::Table;

/// Sorted by namespace, name, hostname.
fn sorted<'a>(dump: &'a ConfigDump, namespace: &str) -> Vec<&'a Service> {
    let mut services: Vec<&Service> =
        dump.services.iter().filter(|service| passes(namespace, &service.namespace)).collect();
    services.sort_by_key(|service| (&service.namespace, &service.name, &service.hostname));
    services
}

/// The table.
pub(crate) fn table(dump: &ConfigDump, namespace: &str) -> String {
    let healthy: BTreeSet<&str> =
        dump.workloads.iter().filter(|item| item.status == "Healthy").map(|item| item.uid.as_str()).collect();
    let mut table = Table::new(&["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"], 1);
    for service in sorted(dump, namespace) {
        let vips: Vec<&str> =
            service.vips.iter().map(|vip| vip.split_once('/').map_or(vip.as_str(), |(_, ip)| ip)).collect();
        let uids = service.endpoints.values().map(|endpoint| endpoint.workload_uid.as_str());
        let n_healthy = uids.filter(|uid| healthy.contains(uid)).count();
        table.row([
            service.namespace.clone(),
            service.name.clone(),
            vips.join(","),
            waypoint_name(dump, service.waypoint.as_ref()),
            format!("{n_healthy}/{}", service.endpoints.len()),
        ]);
    }
    table.render()
}

/// The sorted list.
pub(crate) fn views<'a>(dump: &'a ConfigDump, namespace: &str) -> Vec<View<'a>> {
    sorted(dump, namespace).into_iter().map(View::of).collect()
}

/// A service in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<String>,
    ports: BTreeMap<String, u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<Balancer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<Gateway<'a>>,
    endpoints: BTreeMap<&'a str, Endpoint<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    subject_alt_names: &'a [String],
    ip_families: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    canonical: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    visibility: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Balancer<'a> {
    mode: &'a str,
    routing_preferences: &'a [String],
    health_policy: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    workload_uid: &'a str,
    service: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    port: BTreeMap<String, u16>,
}

impl<'a> View<'a> {
    fn of(service: &'a Service) -> Self {
        let endpoint = |endpoint: &'a dump::Endpoint| Endpoint {
            workload_uid: &endpoint.workload_uid,
            service: &endpoint.service,
            address: &endpoint.address,
            port: ports(&endpoint.port),
        };
        Self {
            name: &service.name,
            namespace: &service.namespace,
            hostname: &service.hostname,
            vips: &service.vips,
            cidr_vips: service.cidr_vips.iter().map(|vip| format!("{}/{}", vip.network, vip.cidr)).collect(),
            ports: ports(&service.ports),
            load_balancer: service.load_balancer.as_ref().map(|balancer| Balancer {
                mode: &balancer.mode,
                routing_preferences: &balancer.routing_preferences,
                health_policy: &balancer.health_policy,
            }),
            waypoint: Gateway::of(service.waypoint.as_ref()),
            endpoints: service.endpoints.iter().map(|(uid, item)| (uid.as_str(), endpoint(item))).collect(),
            subject_alt_names: &service.subject_alt_names,
            ip_families: service.ip_families.as_deref().unwrap_or_default(),
            canonical: service.canonical,
            visibility: &service.visibility,
        }
    }
}
