//! Redirection of a workload's namespace to the node proxy: which rules (a pure decision), put in place, compared,
//! removed.
//!
//! The proxy marks its own packets; marked ones are never redirected. Packets that come back for a connection in which
//! the proxy speaks with a client's address carry another mark and are routed to this machine (table 100); how they
//! come by it is the [`WayBack`].
//!
//! What applications call has routes of its own, so that its segments are as large as those of loopback.
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::NetNamespace;
use crate::limits::ipv6_on_loopback;
use crate::links::{Family, LOOPBACK, Links, MarkRule};
use crate::netlink::NetlinkError;
use crate::nftables::{self, Bits, Ruleset};
use crate::tracking::tracked;

mod calls;
mod rules;
mod settings;
#[cfg(test)]
mod tests;

pub use calls::{CALLS_TABLE, Conflict};
pub use rules::rules;
pub use settings::{Before, Setting, SettingRefused};

/// The mark of the proxy's packets.
pub const PROXY_MARK: Bits = Bits { value: 0x539, mask: 0xfff };
/// The mark of packets that come back to the proxy.
pub const RETURN_MARK: Bits = Bits { value: 0x111, mask: 0xfff };
/// Routing of returning packets.
pub const RETURN_RULE: MarkRule =
    MarkRule { mark: RETURN_MARK.value, mask: RETURN_MARK.mask, table: 100, priority: 32764 };
/// Where traffic is redirected to: outbound TCP, inbound plaintext TCP, DNS; and the port that is never redirected.
pub const OUTBOUND: u16 = 15001;
/// Inbound plaintext.
pub const INBOUND_PLAINTEXT: u16 = 15006;
/// Inbound HBONE.
pub const INBOUND_HBONE: u16 = 15008;
/// DNS.
pub const DNS_PROXY: u16 = 15053;

const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";
/// Every table this module ever makes.
pub const TABLES: [&str; 3] = [NAT, MANGLE, RAW];

/// How a namespace is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// IPv6 as well as IPv4.
    pub ipv6: bool,
    /// Ingress mode: inbound plaintext goes straight to the application.
    pub ingress: bool,
    /// DNS goes to the proxy.
    pub dns: bool,
    /// Answers find back by their connection although they could by their socket: for applications whose listeners have a
    /// mark of their own.
    pub track_answers: bool,
    /// Links of machines within the workload; what comes in by them is outbound traffic.
    pub virtual_interfaces: Vec<String>,
    /// Source of the kubelet's probes, never redirected.
    pub probe_v4: Ipv4Addr,
    /// The same for IPv6.
    pub probe_v6: Ipv6Addr,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            ipv6: true,
            ingress: false,
            dns: true,
            track_answers: false,
            virtual_interfaces: Vec::new(),
            probe_v4: Ipv4Addr::new(169, 254, 7, 127),
            probe_v6: Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff),
        }
    }
}

/// How answers of the application find back to the proxy that speaks with a client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayBack {
    /// The application's accepted socket carries the mark: nothing is tracked, no packet is looked at. What the settings
    /// were that make it so is kept as the comment of a table, beside the rules that need them.
    BySocket(Before),
    /// Connections are tracked and carry the mark, as the reference has it.
    ByConnection,
}

/// Why a namespace is captured in a more costly way than it could be: answers find back by their connection, or
/// applications' calls have segments of the pod's link. What is redirected is the same.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The kernel does not have the settings or they cannot be written.
    #[error(transparent)]
    Setting(#[from] SettingRefused),
    /// Connections are open whose answers need the rules that stand.
    #[error("{0} connections are open that were made under the rules that stand")]
    Open(usize),
    /// How many of those are open cannot be told.
    #[error("open connections that need the rules that stand cannot be counted: {0}")]
    Uncounted(#[source] NetlinkError),
    /// Connections are open that may be an application's own and are not redirected.
    #[error("connections are open that may be an application's and go past the proxy")]
    Direct,
    /// Whether connections are open that go past the proxy cannot be told.
    #[error("open connections cannot be told: {0}")]
    Untold(#[source] NetlinkError),
    /// The namespace's routing leaves no room for routes of calls.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The kernel refused the routes of calls, or the namespace's routing cannot be read.
    #[error("routes of calls: {0}")]
    Routes(#[source] NetlinkError),
    /// The kernel refused some of the routes of calls; what they are for is left to the main table.
    #[error("{0} routes of calls were refused")]
    Partly(usize),
}

/// Puts rules and routing in place. Doing it again changes nothing; no packet sees a state between old and new.
///
/// The routing of answers comes first: rules alone would leave replies to the proxy without a way back. The routes of calls
/// come last and go first: they are for what is redirected. Says what is in the way of the better way, if anything is.
pub fn apply(namespace: &NetNamespace, capture: &Capture) -> Result<Option<Obstacle>, NetlinkError> {
    let capture = usable(namespace, capture)?;
    let mut links = Links::open(namespace)?;
    links.set_up(LOOPBACK)?;
    for family in families(&capture) {
        links.add_local_table(RETURN_RULE.table, family)?;
        links.add_mark_rule(RETURN_RULE, family)?;
    }
    let standing = nftables::read(namespace, &TABLES)?;
    let (way, obstacle) = choose(namespace, &capture, &standing)?;
    let unwanted: &[&str] = if way == WayBack::ByConnection { &[] } else { &[MANGLE] };
    let calls = calls::wanted(&capture, &way);
    let rules = rules(&capture, &way);
    // Where other rules stood, connections may have been opened past the proxy: they are to be counted.
    let kept = if standing == rules { calls.as_slice() } else { &[] };
    calls::take_rules(&mut links, kept)?;
    nftables::replace(namespace, &rules, unwanted)?;
    // Nobody looks up what may stay here.
    let _ = calls::take_routes(&mut links, &calls);
    Ok(if calls.is_empty() { obstacle } else { calls::make(namespace, &mut links, &capture) })
}

/// Brings the routes of calls into step with the namespace's routing, where they are. To be called when that has changed
/// ([`crate::links::RoutingChanges`]), and again later if it fails or says [`Obstacle::Partly`]. Until then calls may find a
/// route that was: they end at the proxy all the same.
pub fn follow_routing(namespace: &NetNamespace, capture: &Capture) -> Result<Option<Obstacle>, NetlinkError> {
    let capture = usable(namespace, capture)?;
    let mut links = Links::open(namespace)?;
    if !calls::unwanted_are_there(&mut links, &[])? {
        return Ok(None);
    }
    calls::keep(namespace, &mut links, &capture)
}

/// The best way back that can be had, with its settings turned on.
fn choose(
    namespace: &NetNamespace,
    capture: &Capture,
    standing: &Ruleset,
) -> Result<(WayBack, Option<Obstacle>), NetlinkError> {
    if must_track(capture) {
        settings::put_back(namespace, &before(standing))?;
        return Ok((WayBack::ByConnection, None));
    }
    match returning_by_connection(namespace, standing) {
        Ok(0) => {}
        Ok(open) => return Ok((WayBack::ByConnection, Some(Obstacle::Open(open)))),
        Err(error) => return Ok((WayBack::ByConnection, Some(Obstacle::Uncounted(error)))),
    }
    Ok(match settings::turn_on(namespace, capture, &before(standing))? {
        Ok(before) => (WayBack::BySocket(before), None),
        Err(refused) => (WayBack::ByConnection, Some(refused.into())),
    })
}

/// Do rules, routing and settings stand exactly as [`apply`] would leave them?
pub fn stands(namespace: &NetNamespace, capture: &Capture) -> Result<bool, NetlinkError> {
    let capture = usable(namespace, capture)?;
    let mut links = Links::open(namespace)?;
    for family in families(&capture) {
        if !links.has_mark_rule(RETURN_RULE, family)? || !links.has_local_table(RETURN_RULE.table, family)? {
            return Ok(false);
        }
    }
    let standing = nftables::read(namespace, &TABLES)?;
    if standing.tables.iter().any(|table| table.name == MANGLE) {
        let best = must_track(&capture)
            || !matches!(returning_by_connection(namespace, &standing), Ok(0))
            || !settings::can_be_turned_on(namespace, &capture)?;
        let right = best && standing == rules(&capture, &WayBack::ByConnection);
        return Ok(right && !calls::unwanted_are_there(&mut links, &[])?);
    }
    let way = WayBack::BySocket(before(&standing));
    if must_track(&capture) || !settings::are_on(namespace, &capture)? || standing != rules(&capture, &way) {
        return Ok(false);
    }
    let calls = calls::wanted(&capture, &way);
    if calls::unwanted_are_there(&mut links, &calls)? {
        return Ok(false);
    }
    Ok(calls.is_empty() || calls::stand(namespace, &mut links, &capture)?)
}

/// Removes whatever [`apply`] may have put in place, and puts settings back to what they were. The rules of redirection go
/// whatever else fails. Says what may be left that does no harm without them: routes that nobody looks up any more, settings
/// that could not be put back or of which nobody can tell what they were.
pub fn remove(namespace: &NetNamespace) -> Result<Option<NetlinkError>, NetlinkError> {
    let standing = nftables::read(namespace, &TABLES);
    let mut links = Links::open(namespace);
    let led_to_calls = links.as_mut().map_or(Ok(()), |links| calls::take_rules(links, &[]));
    nftables::remove(namespace, &TABLES)?;
    // From here on a failure must not make it look as if the pod were still captured.
    let mut links = links?;
    let mut left = Vec::new();
    for family in [Family::V4, Family::V6] {
        left.extend(links.remove_mark_rule(RETURN_RULE, family).err());
        left.extend(links.remove_local_table(RETURN_RULE.table, family).err());
    }
    let settings = standing.and_then(|standing| settings::put_back(namespace, &before(&standing)));
    left.extend(settings.err());
    left.extend(calls::take_routes(&mut links, &[]).err());
    led_to_calls?;
    Ok(left.into_iter().next())
}

/// Machines within a workload are reached through address translation of somebody else's making, which needs tracking.
fn must_track(capture: &Capture) -> bool {
    capture.track_answers || !capture.virtual_interfaces.is_empty()
}

/// How many open connections depend on rules that restore their answers' mark. Where those rules stand and the question
/// is refused there may be some.
fn returning_by_connection(namespace: &NetNamespace, standing: &Ruleset) -> Result<usize, NetlinkError> {
    if !standing.tables.iter().any(|table| table.name == MANGLE) {
        return Ok(0);
    }
    let returning = |mark: u32| mark & RETURN_MARK.mask == RETURN_MARK.value;
    let connections = tracked(namespace)?;
    Ok(connections.iter().filter(|connection| connection.open && returning(connection.mark)).count())
}

/// What the settings were, as the rules that stand remember it.
fn before(standing: &Ruleset) -> Before {
    let raw = standing.tables.iter().find(|table| table.name == RAW);
    raw.and_then(|table| table.comment.as_deref()).map(Before::parse).unwrap_or_default()
}

/// IPv6 is captured only where the namespace has it.
fn usable(namespace: &NetNamespace, capture: &Capture) -> Result<Capture, NetlinkError> {
    let ipv6 = capture.ipv6 && namespace.run(ipv6_on_loopback)?;
    Ok(Capture { ipv6, ..capture.clone() })
}

fn families(capture: &Capture) -> Vec<Family> {
    if capture.ipv6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}
