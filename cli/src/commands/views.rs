//! Pieces of JSON that several subcommands show.
use std::collections::BTreeMap;

use serde::Serialize;
use wire::dump::{self, ConfigDump};

/// A waypoint or gateway: only where it is.
#[derive(Debug, Serialize)]
pub(crate) struct Gateway<'a> {
    pub(crate) destination: &'a str,
}

impl<'a> Gateway<'a> {
    pub(crate) fn of(address: Option<&'a dump::GatewayAddress>) -> Option<Self> {
        address.map(|address| Self { destination: &address.destination })
    }
}

/// Keys of maps are text, and sorted as such.
pub(crate) fn ports(ports: &BTreeMap<u16, u16>) -> BTreeMap<String, u16> {
    ports.iter().map(|(port, target)| (port.to_string(), *target)).collect()
}

/// WAYPOINT column: `None`, the short name of the service it points at, or `NA`.
pub(crate) fn waypoint_name(dump: &ConfigDump, waypoint: Option<&dump::GatewayAddress>) -> String {
    let Some(waypoint) = waypoint else { return "None".to_owned() };
    let destination = &waypoint.destination;
    let points_at = |service: &&dump::Service| {
        destination.split_once('/') == Some((&service.namespace, &service.hostname))
            || service.vips.contains(destination)
    };
    dump.services.iter().find(points_at).map_or_else(|| "NA".to_owned(), |service| service.name.clone())
}

/// An empty filter lets everything through; others compare without regard to case.
pub(crate) fn passes(filter: &str, value: &str) -> bool {
    filter.is_empty() || filter.to_lowercase() == value.to_lowercase()
}
