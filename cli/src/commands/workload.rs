//! `workload`.
use serde::Serialize;
use wire::dump::{ConfigDump, Workload};

use super::views::{Gateway, passes, waypoint_name};
use crate::args::WorkloadArgs;
use crate::render::Table;

/// Which workloads are wanted; empty text is no wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) node: String,
    pub(crate) address: String,
}

impl Filter {
    /// A workload named in place of a proxy goes before the flags.
    pub(crate) fn new(args: &WorkloadArgs, workload: Option<&(String, String)>) -> Self {
        let (name, namespace) = match workload {
            Some((name, namespace)) => (name.clone(), namespace.clone()),
            None => (String::new(), args.workload_namespace.clone()),
        };
        Self { name, namespace, node: args.workload_node.clone(), address: args.address.clone() }
    }

    fn passes(&self, workload: &Workload) -> bool {
        let has_address =
            self.address.is_empty() || workload.workload_ips.iter().any(|ip| passes(&self.address, ip));
        has_address
            && passes(&self.name, &workload.name)
            && passes(&self.namespace, &workload.namespace)
            && passes(&self.node, &workload.node)
    }
}

/// The table, sorted by namespace and name, then node.
pub(crate) fn table(dump: &ConfigDump, filter: &Filter) -> String {
    let mut table = Table::new(&["NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"], 1);
    let mut workloads: Vec<&Workload> = dump.workloads.iter().filter(|item| filter.passes(item)).collect();
    workloads.sort_by_cached_key(|item| (format!("{}.{}", item.namespace, item.name), item.node.clone()));
    for workload in workloads {
        let ips = workload.workload_ips.join(",");
        table.row([
            workload.namespace.clone(),
            workload.name.clone(),
            if ips.is_empty() { workload.hostname.clone() } else { ips },
            workload.node.clone(),
            waypoint_name(dump, workload.waypoint.as_ref()),
            workload.protocol.clone(),
        ]);
    }
    table.render()
}

/// The list, in the order of the dump.
pub(crate) fn views<'a>(dump: &'a ConfigDump, filter: &Filter) -> Vec<View<'a>> {
    dump.workloads.iter().filter(|item| filter.passes(item)).map(View::of).collect()
}

/// A workload in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View<'a> {
    uid: &'a str,
    workload_ips: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<Gateway<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<Gateway<'a>>,
    protocol: &'a str,
    name: &'a str,
    namespace: &'a str,
    service_account: &'a str,
    workload_name: &'a str,
    workload_type: &'a str,
    canonical_name: &'a str,
    canonical_revision: &'a str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trust_domain: &'a str,
    locality: Locality<'a>,
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    status: &'a str,
    hostname: &'a str,
    capacity: u32,
    application_tunnel: Tunnel<'a>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    authorization_policies: &'a [String],
}

#[derive(Debug, Default, Serialize)]
struct Locality<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    region: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    zone: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subzone: &'a str,
}

#[derive(Debug, Default, Serialize)]
struct Tunnel<'a> {
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl<'a> View<'a> {
    fn of(workload: &'a Workload) -> Self {
        let locality = workload.locality.as_ref();
        let tunnel = workload.application_tunnel.as_ref();
        Self {
            uid: &workload.uid,
            workload_ips: &workload.workload_ips,
            waypoint: Gateway::of(workload.waypoint.as_ref()),
            network_gateway: Gateway::of(workload.network_gateway.as_ref()),
            protocol: &workload.protocol,
            name: &workload.name,
            namespace: &workload.namespace,
            service_account: &workload.service_account,
            workload_name: &workload.workload_name,
            workload_type: &workload.workload_type,
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            cluster_id: &workload.cluster_id,
            trust_domain: &workload.trust_domain,
            locality: locality
                .map(|l| Locality { region: &l.region, zone: &l.zone, subzone: &l.subzone })
                .unwrap_or_default(),
            node: &workload.node,
            network: &workload.network,
            status: &workload.status,
            hostname: &workload.hostname,
            capacity: workload.capacity,
            application_tunnel: tunnel
                .map(|t| Tunnel { protocol: &t.protocol, port: t.port.filter(|port| *port != 0) })
                .unwrap_or_default(),
            authorization_policies: &workload.authorization_policies,
        }
    }
}
