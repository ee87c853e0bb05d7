//! Routes of their own for what applications call.
//!
//! An application's call ends at the proxy in its own namespace and never leaves it, but its socket is routed by the
//! address that was called, before anything is redirected, and cuts its segments for the pod's link. So calls look up a
//! table of their own first: an [`image`] of the main table with the same links, gateways and source addresses and the
//! MTU of loopback. Whether a packet is redirected does not depend on it; only how large it is.
//!
//! What finds these routes must never cross a link. Only sockets without a mark do, and of those
//! - the proxy's have a mark, and so have sockets that applications accepted from the proxy ([`WayBack::BySocket`]);
//! - packets to addresses of the namespace are found in the local table before;
//! - answers to probes, which reach applications directly, are excepted by the image;
//! - in ingress mode strangers reach applications directly, with machines within the workload somebody else translates:
//!   there these routes are not made ([`wanted`]);
//! - connections that were open before and go past the proxy forbid them ([`Obstacle::Direct`]).
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Nla as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RoutePreference, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::rules::probes;
use super::{Capture, DNS_PROXY, INBOUND_PLAINTEXT, OUTBOUND, Obstacle, WayBack, families, must_track};
use crate::NetNamespace;
use crate::links::{Family, LOOPBACK, Links};
use crate::netlink::NetlinkError;
use crate::tracking::{Tracked, connected, tracked};

#[cfg(test)]
mod tests;

/// The routing table of calls.
pub const CALLS_TABLE: u32 = 15001;
/// Of its rule: right before the rule of the main table. Whatever comes earlier goes on to come earlier.
const PRIORITY: u32 = 32765;
const BOTH: [Family; 2] = [Family::V4, Family::V6];
const MAIN_PRIORITY: u32 = 32766;
const MAIN: u32 = 254;
const LOCAL: u32 = 255;
/// By this we know our routes from those of others.
const MADE_BY_US: RouteProtocol = RouteProtocol::Other(57);
/// The largest that the kernel takes for a route; loopback's own is 65536.
const MTU: u32 = 65520;
/// Of pods; a router is none.
const MAIN_ROUTES: usize = 256;
/// Routes may come and go while they are copied.
const ATTEMPTS: usize = 3;

/// Why the namespace's routing leaves no room for a table of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Between two rules of one priority, who was first decides.
    #[error("another routing rule has the priority {PRIORITY}")]
    Priority,
    /// Somebody uses the table.
    #[error("the routing table {CALLS_TABLE} is somebody else's")]
    Table,
    /// The local or the main table is not looked up where it usually is.
    #[error("the local and the main routing table are not looked up as usual")]
    Unusual,
    /// An image of so many would cost more than it saves.
    #[error("the main routing table has more than {MAIN_ROUTES} routes")]
    Large,
}

/// The families in which every socket without a mark that does not talk within the namespace is a call that is redirected.
pub(super) fn wanted(capture: &Capture, way: &WayBack) -> Vec<Family> {
    let wanted = matches!(way, WayBack::BySocket(_)) && !capture.ingress && !must_track(capture);
    if wanted { families(capture) } else { Vec::new() }
}

/// Takes away the rules of other families than these: what they lead to is not found any more. Nothing that others have
/// made of the namespace's routing is in the way of this.
pub(super) fn take_rules(links: &mut Links, wanted: &[Family]) -> Result<(), NetlinkError> {
    let unwanted = BOTH.into_iter().filter(|family| !wanted.contains(family));
    let taken = unwanted.map(|family| links.take_rule(rule(family)));
    // One that cannot be taken does not keep the other.
    taken.fold(Ok(()), Result::and)
}

/// Takes away the routes of other families than these, as far as they can be read. Their rules are gone.
pub(super) fn take_routes(links: &mut Links, wanted: &[Family]) -> Result<(), NetlinkError> {
    let mut taken = Ok(());
    for family in BOTH.into_iter().filter(|family| !wanted.contains(family)) {
        let routes = match ours(links, family) {
            Ok((routes, whole)) => {
                taken = taken.and(whole);
                routes
            }
            Err(error) => {
                taken = Err(error);
                continue;
            }
        };
        for route in routes {
            let one = links.take_route(CALLS_TABLE, route);
            taken = taken.and(one);
        }
    }
    taken
}

/// Makes the routes, or takes them away where something is in their way. The rules of redirection stand already, with or
/// without these routes: nothing here is an error.
pub(super) fn make(namespace: &NetNamespace, links: &mut Links, capture: &Capture) -> Option<Obstacle> {
    let attempted = attempt(namespace, links, capture);
    settle(links, attempted)
}

/// As [`make`], for routes that are there: they stay as they are while the namespace's routing changes faster than it can
/// be read.
pub(super) fn keep(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<Option<Obstacle>, NetlinkError> {
    match attempt(namespace, links, capture) {
        Err(error) if error.is_interrupted() => Err(error),
        attempted => Ok(settle(links, attempted)),
    }
}

fn settle(links: &mut Links, attempted: Result<Option<Obstacle>, NetlinkError>) -> Option<Obstacle> {
    let obstacle = attempted.unwrap_or_else(|error| Some(Obstacle::Routes(error)));
    if matches!(obstacle, None | Some(Obstacle::Partly(_))) {
        return obstacle;
    }
    match take_rules(links, &[]) {
        Ok(()) => {
            // Nobody looks up what may stay here.
            let _ = take_routes(links, &[]);
            obstacle
        }
        Err(error) => Some(Obstacle::Routes(error)),
    }
}

fn attempt(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<Option<Obstacle>, NetlinkError> {
    if let Some(obstacle) = obstacle(namespace, links, capture)? {
        return Ok(Some(obstacle));
    }
    let mut result = follow(links, capture);
    for _ in 1..ATTEMPTS {
        // What is interrupted has been tried often enough.
        if result.as_ref().is_err_and(|error| !error.is_interrupted()) {
            result = follow(links, capture);
        }
    }
    result.map(|refused| (refused > 0).then_some(Obstacle::Partly(refused)))
}

/// Are they there and as the main table is now? Or absent, and something is in their way?
pub(super) fn stand(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<bool, NetlinkError> {
    // What cannot be read is in their way.
    let obstacle = obstacle(namespace, links, capture).unwrap_or_else(|error| Some(Obstacle::Routes(error)));
    for family in families(capture) {
        let is_there = may_be_there(links, family)?;
        if is_there == obstacle.is_some() {
            return Ok(false);
        }
        if is_there {
            let (standing, image) = both(links, capture, family)?;
            if !is_in_step(&standing, &image) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Are rules of calls there in other families than these, as far as can be told?
pub(super) fn unwanted_are_there(links: &mut Links, wanted: &[Family]) -> Result<bool, NetlinkError> {
    for family in BOTH.into_iter().filter(|family| !wanted.contains(family)) {
        if may_be_there(links, family)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Is our rule there, or may it be among those that could not be read?
fn may_be_there(links: &mut Links, family: Family) -> Result<bool, NetlinkError> {
    let rules = links.rules(family)?;
    Ok(rules.cut || rules.unread > 0 || rules.read.iter().any(is_ours))
}

/// Brings the table into step with the main table, then leads calls to it. Where a route is missing meanwhile, the main
/// table's is found. Says how many routes the kernel refuses.
fn follow(links: &mut Links, capture: &Capture) -> Result<usize, NetlinkError> {
    let mut refused = 0;
    for family in families(capture) {
        let (standing, image) = both(links, capture, family)?;
        for route in standing.iter().filter(|route| !image.iter().any(|wanted| stands_for(route, wanted))) {
            links.take_route(CALLS_TABLE, route.clone())?;
        }
        for route in image.into_iter().filter(|route| !standing.contains(route)) {
            refused += usize::from(!put(links, route, &standing)?);
        }
        if links.rules(family)?.read.iter().any(is_ours) {
            continue;
        }
        links.put_rule(rule(family))?;
        // A kernel that does not know one of its conditions has made a rule for more than calls.
        if !links.rules(family)?.read.iter().any(is_ours) {
            let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(NetlinkError::Refused { operation: "route calls by their protocol".into(), source });
        }
    }
    Ok(refused)
}

/// Puts a route into the table. One that the kernel has in the main table and refuses here (its gateway was reachable when
/// it was made and is not now) is left to the main table. Says whether it was taken.
fn put(links: &mut Links, route: RouteMessage, standing: &[RouteMessage]) -> Result<bool, NetlinkError> {
    let thrown = left_to_main(&route);
    // Refusing this changes nothing, and nobody is told.
    let is_thrown = standing.contains(&thrown);
    let result = if is_thrown {
        links.replace_route(CALLS_TABLE, route.clone())
    } else {
        links.put_route(CALLS_TABLE, route.clone())
    };
    match result {
        Err(NetlinkError::Refused { .. }) if route != thrown => {
            if !is_thrown {
                links.put_route(CALLS_TABLE, thrown)?;
            }
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Is it what is wanted, or what there is instead if the kernel refuses that?
fn stands_for(route: &RouteMessage, wanted: &RouteMessage) -> bool {
    route == wanted || *route == left_to_main(wanted)
}

fn is_in_step(standing: &[RouteMessage], image: &[RouteMessage]) -> bool {
    standing.len() == image.len()
        && image.iter().all(|wanted| standing.iter().any(|route| stands_for(route, wanted)))
}

fn obstacle(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<Option<Obstacle>, NetlinkError> {
    let mut judged = true;
    for family in families(capture) {
        let rules = links.rules(family)?.whole("list the routing rules")?;
        judged &= rules.iter().any(is_ours);
        let foreign = links.routes(CALLS_TABLE, family)?;
        let foreign = foreign.cut
            || foreign.unread > 0
            || foreign.read.iter().any(|route| route.header.protocol != MADE_BY_US);
        let main = links.routes(MAIN, family)?;
        let large = main.cut || main.read.len() > MAIN_ROUTES;
        let conflict = conflict(&rules, foreign).or_else(|| large.then_some(Conflict::Large));
        if let Some(conflict) = conflict {
            return Ok(Some(conflict.into()));
        }
    }
    // With the rule there, whatever is open was made under it or was judged when it was made.
    if judged {
        return Ok(None);
    }
    Ok(match is_open_past_the_proxy(namespace, links, capture) {
        Ok(open) => open.then_some(Obstacle::Direct),
        Err(error) => Some(Obstacle::Untold(error)),
    })
}

/// Connections that cross a link and may be an application's own. Untracked ones are redirected with their next packet,
/// which ends them. Tracked ones may be long over, if nobody tracked how they ended.
fn is_open_past_the_proxy(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<bool, NetlinkError> {
    let connections = tracked(namespace)?;
    let probes = probes(capture);
    let local: HashSet<IpAddr> = links.addresses()?.iter().map(IpNet::addr).collect();
    let passes = |connection: &&Tracked| {
        let ends = [connection.source.ip(), connection.destination.ip()];
        let within = ends[0] == ends[1] || ends.iter().any(IpAddr::is_loopback);
        let of_probe = ends.iter().any(|address| probes.contains(address));
        connection.open && !is_redirected(connection, &local) && !within && !of_probe
    };
    let mut direct = connections.iter().filter(passes).peekable();
    if direct.peek().is_none() {
        return Ok(false);
    }
    let sockets: HashSet<_> = connected(namespace)?.into_iter().collect();
    Ok(direct.any(|connection| {
        let (source, destination) = (connection.source, connection.destination);
        sockets.contains(&(source, destination)) || sockets.contains(&(destination, source))
    }))
}

/// Does the proxy answer? Others translate as well, and what they translate may cross a link.
fn is_redirected(connection: &Tracked, local: &HashSet<IpAddr>) -> bool {
    connection.answering.is_some_and(|answering| {
        let here = answering.ip().is_loopback() || local.contains(&answering.ip());
        here && [OUTBOUND, INBOUND_PLAINTEXT, DNS_PROXY].contains(&answering.port())
    })
}

fn conflict(rules: &[RuleMessage], foreign_routes: bool) -> Option<Conflict> {
    let others = || rules.iter().filter(|rule| !is_ours(rule));
    if others().any(|rule| priority_of(rule) == PRIORITY) {
        return Some(Conflict::Priority);
    }
    if foreign_routes || others().any(|rule| table_of(rule) == CALLS_TABLE) {
        return Some(Conflict::Table);
    }
    let plain = |table| others().find(|rule| is_plain(rule) && table_of(rule) == table).map(priority_of);
    let usual = plain(MAIN) == Some(MAIN_PRIORITY) && plain(LOCAL).is_some_and(|local| local < PRIORITY);
    (!usual).then_some(Conflict::Unusual)
}

/// What stands in the table of calls, and what should.
fn both(
    links: &mut Links,
    capture: &Capture,
    family: Family,
) -> Result<(Vec<RouteMessage>, Vec<RouteMessage>), NetlinkError> {
    let main = links.routes(MAIN, family)?.whole("list the routes")?;
    let probes = probes(capture).into_iter().filter(|probe| (family == Family::V4) == probe.is_ipv4());
    let image = image(&main, probes.map(except).collect());
    let (standing, whole) = ours(links, family)?;
    whole?;
    Ok((standing, image))
}

/// Routes of ours, and whether these are all.
fn ours(
    links: &mut Links,
    family: Family,
) -> Result<(Vec<RouteMessage>, Result<(), NetlinkError>), NetlinkError> {
    let mut routes = links.routes(CALLS_TABLE, family)?;
    let read = std::mem::take(&mut routes.read);
    let ours = read.into_iter().filter(|route| route.header.protocol == MADE_BY_US).map(standing);
    Ok((ours.collect(), routes.whole("list the routes of calls").map(drop)))
}

/// The table of calls that goes with this main table. What cannot be copied for certain is left to the main table, with
/// its MTU: a route of the type "throw" has the search go on there.
fn image(main: &[RouteMessage], exceptions: Vec<RouteMessage>) -> Vec<RouteMessage> {
    let mut image = exceptions;
    for route in main {
        let others = main.iter().filter(|other| same_place(other, route)).count() > 1;
        let of_main = if others { None } else { copy(route) }.unwrap_or_else(|| left_to_main(route));
        if !image.iter().any(|there| same_place(there, &of_main)) {
            image.push(of_main);
        }
    }
    // A gateway is accepted when the way to it is known.
    image.sort_by_key(|route| {
        let reach = u8::from(route.header.scope);
        (std::cmp::Reverse(reach), std::cmp::Reverse(route.header.destination_prefix_length))
    });
    image
}

/// Would one replace the other?
fn same_place(one: &RouteMessage, other: &RouteMessage) -> bool {
    let place = |route: &RouteMessage| {
        let mut parts = kept(route, |attribute| {
            matches!(attribute, RouteAttribute::Destination(_) | RouteAttribute::Priority(_))
        });
        parts.sort_by_key(RouteAttribute::kind);
        (route.header.destination_prefix_length, route.header.tos, parts)
    };
    place(one) == place(other)
}

fn copy(route: &RouteMessage) -> Option<RouteMessage> {
    let understood = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Table(_) | RouteAttribute::CacheInfo(_) => true,
        RouteAttribute::Preference(preference) => *preference == RoutePreference::Medium,
        attribute => is_copied(attribute),
    };
    let has_link = route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Oif(_)));
    let understood = route.header.kind == RouteType::Unicast
        && route.header.source_prefix_length == 0
        && has_link
        && !is_link_local(route)
        && route.attributes.iter().all(understood);
    if !understood {
        return None;
    }
    let mut copied = standing(route.clone());
    let mut metrics = vec![RouteMetric::Mtu(MTU)];
    for attribute in &route.attributes {
        let RouteAttribute::Metrics(own) = attribute else { continue };
        // What is said about the link's segments does not hold for those that stay here.
        let about_segments = |metric: &RouteMetric| {
            matches!(metric, RouteMetric::Mtu(_) | RouteMetric::Advmss(_) | RouteMetric::Lock(_))
        };
        metrics.extend(own.iter().filter(|metric| !about_segments(metric)).cloned());
    }
    metrics.sort_by_key(RouteMetric::kind);
    copied.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
    copied.attributes.push(RouteAttribute::Metrics(metrics));
    copied.attributes.sort_by_key(RouteAttribute::kind);
    Some(copied)
}

/// The route as the kernel would say it if it stood in our table, but for the number of the table.
fn standing(route: RouteMessage) -> RouteMessage {
    let mut standing = left_to_main(&route);
    if route.header.kind == RouteType::Throw {
        return standing;
    }
    standing.header.kind = route.header.kind;
    standing.header.scope = route.header.scope;
    standing.header.flags = route.header.flags & RouteFlags::Onlink;
    standing.attributes = kept(&route, is_copied);
    for attribute in &mut standing.attributes {
        if let RouteAttribute::Metrics(metrics) = attribute {
            metrics.sort_by_key(RouteMetric::kind);
        }
    }
    standing.attributes.sort_by_key(RouteAttribute::kind);
    standing
}

fn left_to_main(route: &RouteMessage) -> RouteMessage {
    let mut thrown = RouteMessage::default();
    thrown.header.address_family = route.header.address_family;
    thrown.header.destination_prefix_length = route.header.destination_prefix_length;
    thrown.header.tos = route.header.tos;
    thrown.header.protocol = MADE_BY_US;
    thrown.header.kind = RouteType::Throw;
    thrown.header.scope = RouteScope::Universe;
    let place = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::Destination(_) | RouteAttribute::Priority(_))
    };
    thrown.attributes = kept(route, place);
    thrown.attributes.sort_by_key(RouteAttribute::kind);
    thrown
}

fn except(address: IpAddr) -> RouteMessage {
    /// The kernel's own choice for IPv6, which it tells.
    const METRIC: u32 = 1024;
    let mut route = RouteMessage::default();
    let (family, length) =
        if address.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    route.header.address_family = family;
    route.header.destination_prefix_length = length;
    route.attributes.push(RouteAttribute::Destination(address.into()));
    route.attributes.extend(address.is_ipv6().then_some(RouteAttribute::Priority(METRIC)));
    left_to_main(&route)
}

fn is_copied(attribute: &RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Destination(_)
            | RouteAttribute::Oif(_)
            | RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Priority(_)
            | RouteAttribute::PrefSource(_)
            | RouteAttribute::Metrics(_)
    )
}

/// Such routes are of one link each, though they look the same.
fn is_link_local(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => address.is_unicast_link_local(),
        _ => false,
    })
}

fn kept(route: &RouteMessage, which: impl Fn(&RouteAttribute) -> bool) -> Vec<RouteAttribute> {
    route.attributes.iter().filter(|attribute| which(attribute)).cloned().collect()
}

/// TCP of this machine's own sockets without a mark.
fn rule(family: Family) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.into();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Iifname(LOOPBACK.to_owned()),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(0),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(CALLS_TABLE),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
    ];
    message
}

fn is_ours(rule: &RuleMessage) -> bool {
    let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
    // A mark of zero is not told, but its mask is.
    let marked = |attribute: &RuleAttribute| matches!(attribute, RuleAttribute::FwMark(1..));
    has(RuleAttribute::Iifname(LOOPBACK.to_owned()))
        && has(RuleAttribute::Priority(PRIORITY))
        && has(RuleAttribute::FwMask(u32::MAX))
        && has(RuleAttribute::IpProtocol(IpProtocol::Tcp))
        && table_of(rule) == CALLS_TABLE
        && !rule.attributes.iter().any(marked)
}

/// Does it look up its table for every packet?
fn is_plain(rule: &RuleMessage) -> bool {
    let says_nothing = |attribute: &RuleAttribute| {
        matches!(
            attribute,
            RuleAttribute::Table(_)
                | RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::SuppressIfGroup(u32::MAX)
        )
    };
    let header = &rule.header;
    header.action == RuleAction::ToTable
        && (header.dst_len, header.src_len, header.tos) == (0, 0, 0)
        && !header.flags.contains(RuleFlags::Invert)
        && rule.attributes.iter().all(says_nothing)
}

/// Not told where it is zero.
fn priority_of(rule: &RuleMessage) -> u32 {
    let told = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    told.unwrap_or(0)
}

fn table_of(rule: &RuleMessage) -> u32 {
    let told = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    told.unwrap_or_else(|| rule.header.table.into())
}
