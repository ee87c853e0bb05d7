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
use std::net::IpAddr;

use netlink_packet_core::Nla as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RoutePreference, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::rules::probes;
use super::{Capture, Obstacle, WayBack, families, must_track};
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

/// Takes away what must not be there any more once the rules of redirection are the new ones.
pub(super) fn take_unwanted(links: &mut Links, wanted: &[Family]) -> Result<(), NetlinkError> {
    let mut unwanted = BOTH.into_iter().filter(|family| !wanted.contains(family));
    unwanted.try_for_each(|family| take_away(links, family))
}

/// Makes the routes, or takes them away where something is in their way. The rules of redirection stand already.
pub(super) fn make(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<Option<Obstacle>, NetlinkError> {
    let mut found = obstacle(namespace, links, capture)?;
    if found.is_none() {
        let mut result = follow(links, capture);
        for _ in 1..ATTEMPTS {
            if result.is_err() {
                result = follow(links, capture);
            }
        }
        found = result.err().map(Obstacle::Routes);
    }
    if found.is_some() {
        take_unwanted(links, &[])?;
    }
    Ok(found)
}

/// Are they there and as the main table is now? Or absent, and something is in their way?
pub(super) fn stand(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<bool, NetlinkError> {
    let obstacle = obstacle(namespace, links, capture)?;
    for family in families(capture) {
        let is_there = links.rules(family)?.iter().any(is_ours);
        if is_there == obstacle.is_some() {
            return Ok(false);
        }
        let (standing, image) = both(links, capture, family)?;
        let in_step = standing.len() == image.len() && image.iter().all(|route| standing.contains(route));
        if is_there && !in_step {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Are rules of calls there in other families than these?
pub(super) fn unwanted_are_there(links: &mut Links, wanted: &[Family]) -> Result<bool, NetlinkError> {
    let mut there = false;
    for family in BOTH.into_iter().filter(|family| !wanted.contains(family)) {
        there |= links.rules(family)?.iter().any(is_ours);
    }
    Ok(there)
}

/// Takes away the rule and then what it led to.
fn take_away(links: &mut Links, family: Family) -> Result<(), NetlinkError> {
    links.take_rule(rule(family))?;
    for route in ours(links, family)? {
        links.take_route(CALLS_TABLE, route)?;
    }
    Ok(())
}

/// Brings the table into step with the main table, then leads calls to it. Where a route is missing meanwhile, the main
/// table's is found.
fn follow(links: &mut Links, capture: &Capture) -> Result<(), NetlinkError> {
    for family in families(capture) {
        let (standing, image) = both(links, capture, family)?;
        for route in standing.iter().filter(|route| !image.contains(route)) {
            links.take_route(CALLS_TABLE, route.clone())?;
        }
        for route in image.into_iter().filter(|route| !standing.contains(route)) {
            links.put_route(CALLS_TABLE, route)?;
        }
        if links.rules(family)?.iter().any(is_ours) {
            continue;
        }
        links.put_rule(rule(family))?;
        // A kernel that does not know one of its conditions has made a rule for more than calls.
        if !links.rules(family)?.iter().any(is_ours) {
            let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(NetlinkError::Refused { operation: "route calls by their protocol".into(), source });
        }
    }
    Ok(())
}

fn obstacle(
    namespace: &NetNamespace,
    links: &mut Links,
    capture: &Capture,
) -> Result<Option<Obstacle>, NetlinkError> {
    let mut judged = true;
    for family in families(capture) {
        let rules = links.rules(family)?;
        judged &= rules.iter().any(is_ours);
        let foreign = links.routes(CALLS_TABLE, family)?;
        let foreign = foreign.iter().any(|route| route.header.protocol != MADE_BY_US);
        let large = links.routes(MAIN, family)?.len() > MAIN_ROUTES;
        let conflict = conflict(&rules, foreign).or_else(|| large.then_some(Conflict::Large));
        if let Some(conflict) = conflict {
            return Ok(Some(conflict.into()));
        }
    }
    // With the rule there, whatever is open was made under it or was judged when it was made.
    let open = if judged { 0 } else { open_past_the_proxy(namespace, capture) };
    Ok((open > 0).then_some(Obstacle::Direct(open)))
}

/// Connections that cross a link and may be an application's own. Untracked ones are redirected with their next packet,
/// which ends them. Tracked ones may be long over, if nobody tracked how they ended.
fn open_past_the_proxy(namespace: &NetNamespace, capture: &Capture) -> usize {
    let Ok(connections) = tracked(namespace) else { return usize::MAX };
    let probes = probes(capture);
    let passes = |connection: &&Tracked| {
        let ends = [connection.source.ip(), connection.destination.ip()];
        let within = ends[0] == ends[1] || ends.iter().any(IpAddr::is_loopback);
        let of_probe = ends.iter().any(|address| probes.contains(address));
        connection.open && !connection.translated && !within && !of_probe
    };
    let direct: Vec<&Tracked> = connections.iter().filter(passes).collect();
    if direct.is_empty() {
        return 0;
    }
    let Ok(sockets) = connected(namespace) else { return usize::MAX };
    let lives = |connection: &&&Tracked| {
        let ends = (connection.source, connection.destination);
        sockets.iter().any(|socket| *socket == ends || *socket == (ends.1, ends.0))
    };
    direct.iter().filter(lives).count()
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
    let main = links.routes(MAIN, family)?;
    let probes = probes(capture).into_iter().filter(|probe| (family == Family::V4) == probe.is_ipv4());
    let image = image(&main, probes.map(except).collect());
    Ok((ours(links, family)?, image))
}

fn ours(links: &mut Links, family: Family) -> Result<Vec<RouteMessage>, NetlinkError> {
    let routes = links.routes(CALLS_TABLE, family)?;
    Ok(routes.into_iter().filter(|route| route.header.protocol == MADE_BY_US).map(standing).collect())
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
