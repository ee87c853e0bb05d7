//! Finding records by the keys on-demand clients use (control-plane 2.8).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use wire::workload::{Address, Service, Workload, address};

use super::Table;

/// Indexes over the addresses of one catalog.
#[derive(Debug, Default)]
pub(super) struct Index {
    workloads_by_ip: BTreeMap<String, BTreeMap<IpAddr, Vec<Arc<str>>>>,
    services_by_ip: BTreeMap<String, BTreeMap<IpAddr, Vec<Arc<str>>>>,
    /// Ranges of a network, longest prefix first.
    services_by_range: BTreeMap<String, Vec<(IpNet, Arc<str>)>>,
    members: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    by_node: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// An address of a service, as it is advertised.
#[derive(Debug)]
pub(super) struct ServiceAddress<'a> {
    network: &'a str,
    range: IpNet,
    is_single: bool,
}

impl fmt::Display for ServiceAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.range.addr())?;
        if self.is_single { Ok(()) } else { write!(f, "/{}", self.range.prefix_len()) }
    }
}

pub(super) fn workload_addresses(workload: &Workload) -> impl Iterator<Item = IpAddr> + '_ {
    workload.addresses.iter().filter_map(|bytes| ip(bytes))
}

pub(super) fn service_addresses(service: &Service) -> impl Iterator<Item = ServiceAddress<'_>> {
    service.addresses.iter().filter_map(|address| {
        let ip = ip(&address.address)?;
        let range = match address.length {
            Some(length) => IpNet::new(ip, u8::try_from(length).ok()?).ok()?,
            None => IpNet::from(ip),
        };
        Some(ServiceAddress { network: &address.network, range, is_single: address.length.is_none() })
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

impl Index {
    pub(super) fn new(table: &Table, addresses: &BTreeMap<String, Address>) -> Self {
        let mut index = Self::default();
        for name in table.keys() {
            match addresses.get(&**name).and_then(|address| address.r#type.as_ref()) {
                Some(address::Type::Workload(workload)) => index.add_workload(name, workload),
                Some(address::Type::Service(service)) => index.add_service(name, service),
                None => {}
            }
        }
        for ranges in index.services_by_range.values_mut() {
            ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
        }
        index
    }

    fn add_workload(&mut self, name: &Arc<str>, workload: &Workload) {
        for ip in workload_addresses(workload) {
            let network = self.workloads_by_ip.entry(workload.network.clone()).or_default();
            network.entry(ip).or_default().push(Arc::clone(name));
        }
        for service in workload.services.keys() {
            self.members.entry(service.as_str().into()).or_default().push(Arc::clone(name));
        }
        if !workload.node.is_empty() {
            self.by_node.entry(workload.node.as_str().into()).or_default().push(Arc::clone(name));
        }
    }

    fn add_service(&mut self, name: &Arc<str>, service: &Service) {
        for address in service_addresses(service) {
            if address.is_single {
                let network = self.services_by_ip.entry(address.network.to_owned()).or_default();
                network.entry(address.range.addr()).or_default().push(Arc::clone(name));
            } else {
                let network = self.services_by_range.entry(address.network.to_owned()).or_default();
                network.push((address.range, Arc::clone(name)));
            }
        }
    }

    /// The names that answer to a key: a workload; all workloads of an address; a service with its members.
    pub(super) fn lookup(&self, table: &Table, key: &str) -> Vec<Arc<str>> {
        if let Some((name, _)) = table.get_key_value(key) {
            return self.with_members(name);
        }
        let Some((network, rest)) = key.split_once('/') else { return Vec::new() };
        if let Ok(ip) = rest.parse::<IpAddr>() {
            if let Some(workloads) = self.workloads_by_ip.get(network).and_then(|ips| ips.get(&ip)) {
                return workloads.clone();
            }
            let exact = self.services_by_ip.get(network).and_then(|ips| ips.get(&ip));
            let services =
                exact.cloned().unwrap_or_else(|| self.in_range(network, |range| range.contains(&ip)));
            return services.iter().flat_map(|service| self.with_members(service)).collect();
        }
        // A range as it is advertised.
        match rest.parse::<IpNet>() {
            Ok(wanted) => {
                let services = self.in_range(network, |range| *range == wanted);
                services.iter().flat_map(|service| self.with_members(service)).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// The services of the longest range that fits.
    fn in_range(&self, network: &str, fits: impl Fn(&IpNet) -> bool) -> Vec<Arc<str>> {
        let fitting =
            self.services_by_range.get(network).into_iter().flatten().filter(|(range, _)| fits(range));
        let mut fitting = fitting.peekable();
        let longest = fitting.peek().map(|(range, _)| range.prefix_len());
        fitting
            .take_while(|(range, _)| Some(range.prefix_len()) == longest)
            .map(|(_, name)| Arc::clone(name))
            .collect()
    }

    /// The name, followed by the workloads that list it.
    fn with_members(&self, name: &Arc<str>) -> Vec<Arc<str>> {
        let members = self.members.get(name).into_iter().flatten();
        std::iter::once(name).chain(members).cloned().collect()
    }

    /// The workloads on a node.
    pub(super) fn at(&self, node: &str) -> Vec<Arc<str>> {
        self.by_node.get(node).cloned().unwrap_or_default()
    }
}
