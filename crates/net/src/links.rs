//! Links, addresses, routes and policy rules of a namespace, over rtnetlink.
//!
//! A [`Links`] handle belongs to the namespace it was opened for, whichever thread uses it.
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::NetNamespace;
use crate::netlink::{Connection, Dump, NetlinkError};

mod changes;

pub use changes::RoutingChanges;

/// The loopback link, the same in every namespace.
pub const LOOPBACK: &str = "lo";

/// Its index: the kernel makes it first in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Links, addresses and routes of one namespace.
#[derive(Debug)]
pub struct Links {
    connection: Connection,
    namespace: NetNamespace,
}

/// More than a pod has, of addresses, rules or routes of one table. Whoever has more is not read to the end.
const MOST: usize = 4096;

/// Packets with this mark look up that table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark.
    pub mark: u32,
    /// Which bits of it count.
    pub mask: u32,
    /// The routing table.
    pub table: u8,
    /// Lower comes first.
    pub priority: u32,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Links {
    /// Opens a handle on `namespace`.
    pub fn open(namespace: &NetNamespace) -> Result<Self, NetlinkError> {
        let connection = Connection::open(namespace, netlink_sys::protocols::NETLINK_ROUTE)?;
        Ok(Self { connection, namespace: namespace.try_clone()? })
    }

    /// A list of what others make as well: there may be very many, and some that cannot be read.
    fn dump(
        &mut self,
        operation: &str,
        question: RouteNetlinkMessage,
    ) -> Result<Dump<RouteNetlinkMessage>, NetlinkError> {
        let dump = self.connection.dump(operation, question, MOST)?;
        if dump.cut {
            self.connection = Connection::open(&self.namespace, netlink_sys::protocols::NETLINK_ROUTE)?;
        }
        Ok(dump)
    }

    /// Makes two links joined by a cable: `name` here and `peer` in `other`.
    pub fn add_veth(&mut self, name: &str, peer: &str, other: &NetNamespace) -> Result<(), NetlinkError> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        far.attributes.push(LinkAttribute::NetNsFd(other.as_fd().as_raw_fd()));
        let mut near = LinkMessage::default();
        near.attributes.push(LinkAttribute::IfName(name.to_owned()));
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        let message = RouteNetlinkMessage::NewLink(near);
        self.connection.change(&format!("make the link {name}"), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a link (and the other end of its cable).
    pub fn remove(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.connection.change(&format!("remove the link {name}"), RouteNetlinkMessage::DelLink(link), 0)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.connection.change(&format!("bring the link {name} up"), RouteNetlinkMessage::SetLink(link), 0)
    }

    /// The largest packet that a link takes.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.push(LinkAttribute::Mtu(mtu));
        let operation = format!("set the MTU of the link {name}");
        self.connection.change(&operation, RouteNetlinkMessage::SetLink(link), 0)
    }

    /// The names of all links with their indexes.
    pub fn list(&mut self) -> Result<Vec<(String, u32)>, NetlinkError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.connection.dump("list the links", message, usize::MAX)?.read;
        let named = links.into_iter().filter_map(|message| {
            let RouteNetlinkMessage::NewLink(link) = message else { return None };
            let index = link.header.index;
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some((name, index)),
                _ => None,
            })
        });
        Ok(named.collect())
    }

    /// Gives a link an address; usable at once (no duplicate address detection).
    pub fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        let mut message = AddressMessage::default();
        message.header.family = family_of(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.connection.change(&format!("give {link} the address {address}"), message, flags)
    }

    /// The addresses of all links (without link-local ones of IPv6), as far as they can be read.
    pub fn addresses(&mut self) -> Result<Vec<IpNet>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", message)?.read;
        let addresses = messages.into_iter().filter_map(|message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return None };
            if message.header.scope == AddressScope::Link {
                return None;
            }
            // IPv4 names its own address "local"; IPv6 has one "address" only.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            IpNet::new(address?, message.header.prefix_len).ok()
        });
        Ok(addresses.collect())
    }

    /// Sends what goes to `destination` out of `link`, through `gateway` if there is one.
    pub fn add_route(
        &mut self,
        destination: IpNet,
        link: &str,
        gateway: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        if destination.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
        }
        message.attributes.push(RouteAttribute::Oif(index));
        if let Some(gateway) = gateway {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        }
        let message = RouteNetlinkMessage::NewRoute(message);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.connection.change(&format!("route {destination} to {link}"), message, flags)
    }

    /// Undoes [`Self::add_route`] without a gateway; nothing to undo is fine. Routes through gateways that were reached by it
    /// stay.
    pub fn remove_route(&mut self, destination: IpNet, link: &str) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.scope = RouteScope::NoWhere;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
        message.attributes.push(RouteAttribute::Oif(self.index(link)?));
        self.take_route(RouteHeader::RT_TABLE_MAIN.into(), message)
    }

    /// Makes all destinations local in `table`: packets that look it up are delivered to this machine.
    pub fn add_local_table(&mut self, table: u8, family: Family) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(self.local_table(table, family)?);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.connection.change(&format!("fill the routing table {table}"), message, flags)
    }

    /// Undoes [`Self::add_local_table`]; nothing to undo is fine.
    pub fn remove_local_table(&mut self, table: u8, family: Family) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(self.local_table(table, family)?);
        absent_is_fine(self.connection.change(&format!("empty the routing table {table}"), message, 0))
    }

    /// Is the route of [`Self::add_local_table`] there?
    pub fn has_local_table(&mut self, table: u8, family: Family) -> Result<bool, NetlinkError> {
        Ok(self.routes(table.into(), family)?.read.iter().any(|route| {
            route.header.kind == RouteType::Local && route.header.destination_prefix_length == 0
        }))
    }

    /// The routes of one table, as the kernel describes them, as far as they can be read.
    pub(crate) fn routes(&mut self, table: u32, family: Family) -> Result<Dump<RouteMessage>, NetlinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family.into();
        question.attributes.push(RouteAttribute::Table(table));
        self.connection.be_strict(true);
        let dump = self.dump("list the routes", RouteNetlinkMessage::GetRoute(question));
        self.connection.be_strict(false);
        let Dump { read, unread, cut } = match dump {
            // There is no such table.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => {
                return Ok(Dump { read: Vec::new(), unread: 0, cut: false });
            }
            dump => dump?,
        };
        let routes = read.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        // What was learnt about a path is told among the routes, and a kernel that lacks a family tells all others.
        let wanted = |route: &RouteMessage| {
            table_of(route) == table
                && route.header.address_family == family.into()
                && !route.header.flags.contains(RouteFlags::Cloned)
        };
        Ok(Dump { read: routes.filter(wanted).collect(), unread, cut })
    }

    /// How many routes a table has and how many policy rules look it up.
    pub fn usage(&mut self, table: u32, family: Family) -> Result<(usize, usize), NetlinkError> {
        let looks_up = |rule: &&RuleMessage| rule.attributes.contains(&RuleAttribute::Table(table));
        let rules = self.rules(family)?.read.iter().filter(looks_up).count();
        Ok((self.routes(table, family)?.read.len(), rules))
    }

    /// Adds a route to a table; one that is there already is refused.
    pub(crate) fn put_route(&mut self, table: u32, route: RouteMessage) -> Result<(), NetlinkError> {
        let operation = format!("add a route to the table {table}");
        let message = RouteNetlinkMessage::NewRoute(in_table(route, table));
        self.connection.change(&operation, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Puts a route in place of the one that is there.
    pub(crate) fn replace_route(&mut self, table: u32, route: RouteMessage) -> Result<(), NetlinkError> {
        let operation = format!("replace a route of the table {table}");
        let message = RouteNetlinkMessage::NewRoute(in_table(route, table));
        self.connection.change(&operation, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes a route out of a table; nothing to take out is fine.
    pub(crate) fn take_route(&mut self, table: u32, route: RouteMessage) -> Result<(), NetlinkError> {
        let operation = format!("take a route out of the table {table}");
        let message = RouteNetlinkMessage::DelRoute(in_table(route, table));
        absent_is_fine(self.connection.change(&operation, message, 0))
    }

    /// Adds a policy rule.
    pub(crate) fn put_rule(&mut self, rule: RuleMessage) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(rule);
        self.connection.change("add a routing rule", message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a policy rule; nothing to remove is fine.
    pub(crate) fn take_rule(&mut self, rule: RuleMessage) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(rule);
        absent_is_fine(self.connection.change("remove a routing rule", message, 0))
    }

    /// Adds a policy rule unless it is there.
    pub fn add_mark_rule(&mut self, rule: MarkRule, family: Family) -> Result<(), NetlinkError> {
        // The kernel would add a second copy of an IPv6 rule.
        if family == Family::V6 && self.has_mark_rule(rule, family)? {
            return Ok(());
        }
        let message = RouteNetlinkMessage::NewRule(mark_rule(rule, family));
        let operation = format!("add a routing rule for the mark {:#x}", rule.mark);
        match self.connection.change(&operation, message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a policy rule; nothing to remove is fine.
    pub fn remove_mark_rule(&mut self, rule: MarkRule, family: Family) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(mark_rule(rule, family));
        let operation = format!("remove the routing rule for the mark {:#x}", rule.mark);
        absent_is_fine(self.connection.change(&operation, message, 0))
    }

    /// Is the rule there?
    pub fn has_mark_rule(&mut self, rule: MarkRule, family: Family) -> Result<bool, NetlinkError> {
        Ok(self.rules(family)?.read.iter().any(|message| {
            let has = |wanted: RuleAttribute| message.attributes.contains(&wanted);
            message.header.table == rule.table
                && has(RuleAttribute::FwMark(rule.mark))
                && has(RuleAttribute::FwMask(rule.mask))
                && has(RuleAttribute::Priority(rule.priority))
        }))
    }

    /// The policy rules, first to last, as far as they can be read.
    pub(crate) fn rules(&mut self, family: Family) -> Result<Dump<RuleMessage>, NetlinkError> {
        let mut question = RuleMessage::default();
        question.header.family = family.into();
        let Dump { read, unread, cut } =
            self.dump("list the routing rules", RouteNetlinkMessage::GetRule(question))?;
        let rules = read.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(rule) if rule.header.family == family.into() => Some(rule),
            _ => None,
        });
        Ok(Dump { read: rules.collect(), unread, cut })
    }

    fn local_table(&mut self, table: u8, family: Family) -> Result<RouteMessage, NetlinkError> {
        let index = self.index(LOOPBACK)?;
        let mut message = RouteMessage::default();
        message.header.address_family = family.into();
        message.header.table = table;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Host;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Oif(index));
        Ok(message)
    }

    fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        // A pod that makes and removes links all the time could keep them from being listed, and so from being captured.
        if name == LOOPBACK {
            return Ok(LOOPBACK_INDEX);
        }
        let links = self.list()?;
        let found = links.into_iter().find(|(link, _)| link == name);
        found.map(|(_, index)| index).ok_or_else(|| NetlinkError::NoSuchLink(name.to_owned()))
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Inet,
            Family::V6 => Self::Inet6,
        }
    }
}

/// Tables above 255 have no place in the header.
fn table_of(route: &RouteMessage) -> u32 {
    let named = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or_else(|| route.header.table.into())
}

fn in_table(mut route: RouteMessage, table: u32) -> RouteMessage {
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
    route.attributes.push(RouteAttribute::Table(table));
    route
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn mark_rule(rule: MarkRule, family: Family) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.into();
    message.header.table = rule.table;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(u32::from(rule.table)),
    ];
    message
}

fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH | libc::EAFNOSUPPORT)) => {
            Ok(())
        }
        other => other,
    }
}
