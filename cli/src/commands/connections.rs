//! `connections`.
use std::collections::BTreeMap;

use serde::Serialize;
use wire::dump::{ConfigDump, Connection, PodState};

use crate::args::ConnectionsArgs;
use crate::render::Table;

/// Which connections are wanted, and how addresses are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) pod: String,
    pub(crate) namespace: String,
    /// `inbound` or `outbound`; anything else is both.
    pub(crate) direction: String,
    pub(crate) raw: bool,
}

impl Filter {
    /// A workload named in place of a proxy goes before the flags.
    pub(crate) fn new(args: &ConnectionsArgs, workload: Option<&(String, String)>) -> Self {
        let (pod, namespace) = match workload {
            Some((pod, namespace)) => (pod.clone(), namespace.clone()),
            None => (String::new(), args.workload_namespace.clone()),
        };
        Self { pod, namespace, direction: args.direction.clone(), raw: args.raw }
    }

    /// Names compare without regard to case, namespaces with it. `pod.namespace` counts as both.
    fn passes(&self, state: &PodState) -> bool {
        let (name, namespace) = state.info.as_ref().map_or(("", ""), |info| (&info.name, &info.namespace));
        let (pod, wanted) = match self.pod.split_once('.') {
            Some((pod, wanted)) if self.namespace.is_empty() => (pod, wanted),
            _ => (self.pod.as_str(), self.namespace.as_str()),
        };
        (wanted.is_empty() || wanted == namespace) && super::views::passes(pod, name)
    }
}

/// Pods that pass, sorted by namespace and name.
fn sorted<'a>(dump: &'a ConfigDump, filter: &Filter) -> Vec<&'a PodState> {
    let mut pods: Vec<&PodState> =
        dump.workload_state.iter().flat_map(BTreeMap::values).filter(|state| filter.passes(state)).collect();
    pods.sort_by_key(|state| state.info.as_ref().map(|info| (&info.namespace, &info.name)));
    pods
}

/// The table: of each pod the inbound rows, then the outbound ones.
pub(crate) fn table(dump: &ConfigDump, filter: &Filter) -> String {
    let mut table = Table::new(&["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"], 1);
    let names = Names::of(dump, filter.raw);
    for pod in sorted(dump, filter) {
        let info = pod.info.clone().unwrap_or_default();
        let workload = format!("{}.{}", info.name, info.namespace);
        let Some(connections) = &pod.connections else { continue };
        if !filter.direction.eq_ignore_ascii_case("outbound") {
            for Connection { src, original_dst, actual_dst, protocol } in &connections.inbound {
                table.row([
                    workload.clone(),
                    "Inbound".into(),
                    names.show(actual_dst),
                    names.show(src),
                    original_dst.clone().unwrap_or_default(),
                    protocol.clone(),
                ]);
            }
        }
        if !filter.direction.eq_ignore_ascii_case("inbound") {
            for Connection { src, original_dst, actual_dst, protocol } in &connections.outbound {
                table.row([
                    workload.clone(),
                    "Outbound".into(),
                    names.show(src),
                    names.show(actual_dst),
                    names.show(original_dst.as_deref().unwrap_or_default()),
                    protocol.clone(),
                ]);
            }
        }
    }
    table.render()
}

/// Names of addresses: services by their first VIP, workloads by their first IP; services win.
struct Names<'a>(BTreeMap<&'a str, String>);

impl<'a> Names<'a> {
    fn of(dump: &'a ConfigDump, raw: bool) -> Self {
        let mut names = BTreeMap::new();
        if raw {
            return Self(names);
        }
        for workload in &dump.workloads {
            if let Some(ip) = workload.workload_ips.first() {
                names.insert(ip.as_str(), format!("{}.{}", workload.name, workload.namespace));
            }
        }
        for service in &dump.services {
            if let Some((_, ip)) = service.vips.first().and_then(|vip| vip.split_once('/')) {
                names.insert(ip, service.hostname.clone());
            }
        }
        Self(names)
    }

    /// `host:port` with the host's name; what is unknown stays as it is.
    fn show(&self, address: &str) -> String {
        let named = address.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some(format!("{}:{port}", self.0.get(host)?))
        });
        named.unwrap_or_else(|| address.to_owned())
    }
}

/// The sorted list.
pub(crate) fn views<'a>(dump: &'a ConfigDump, filter: &Filter) -> Vec<View<'a>> {
    sorted(dump, filter).into_iter().map(View::of).collect()
}

/// A pod in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct View<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    connections: Lists<'a>,
    info: Info<'a>,
}

#[derive(Debug, Default, Serialize)]
struct Lists<'a> {
    inbound: Vec<ConnectionView<'a>>,
    outbound: Vec<ConnectionView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView<'a> {
    src: &'a str,
    original_dst: &'a str,
    actual_dst: &'a str,
    protocol: &'a str,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    name: &'a str,
    namespace: &'a str,
    trust_domain: &'a str,
    service_account: &'a str,
}

impl<'a> View<'a> {
    fn of(pod: &'a PodState) -> Self {
        let list = |connections: &'a [Connection]| {
            let view = |connection: &'a Connection| ConnectionView {
                src: &connection.src,
                original_dst: connection.original_dst.as_deref().unwrap_or_default(),
                actual_dst: &connection.actual_dst,
                protocol: &connection.protocol,
            };
            connections.iter().map(view).collect()
        };
        let connections = pod
            .connections
            .as_ref()
            .map(|both| Lists { inbound: list(&both.inbound), outbound: list(&both.outbound) });
        let info = pod.info.as_ref().map(|info| Info {
            name: &info.name,
            namespace: &info.namespace,
            trust_domain: &info.trust_domain,
            service_account: &info.service_account,
        });
        Self {
            state: &pod.state,
            connections: connections.unwrap_or_default(),
            info: info.unwrap_or_default(),
        }
    }
}
