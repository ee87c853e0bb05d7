//! Redirection of a workload's namespace to the node proxy: which rules (a pure decision), put in place, compared,
//! removed.
//!
//! The proxy marks its own packets; marked ones are never redirected. Packets that come back for a connection in which
//! the proxy speaks with a client's address are recognised by their connection's mark and routed to this machine
//! (table 100).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::NetNamespace;
use crate::limits::ipv6_on_loopback;
use crate::links::{Family, LOOPBACK, Links, MarkRule};
use crate::netlink::NetlinkError;
use crate::nftables::{
    self, Action, Bits, Chain, ChainKind, Hook, HookPoint, Is, Match, Rule, Ruleset, Table, Transport,
};

#[cfg(test)]
mod tests;

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

const DNS: u16 = 53;
const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";
/// Every table this module ever makes.
pub const TABLES: [&str; 3] = [NAT, MANGLE, RAW];
const PREROUTING: &str = "istio-prerouting";
const OUTPUT: &str = "istio-output";

/// How a namespace is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// IPv6 as well as IPv4.
    pub ipv6: bool,
    /// Ingress mode: inbound plaintext goes straight to the application.
    pub ingress: bool,
    /// DNS goes to the proxy.
    pub dns: bool,
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
            virtual_interfaces: Vec::new(),
            probe_v4: Ipv4Addr::new(169, 254, 7, 127),
            probe_v6: Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff),
        }
    }
}

/// The rules that capture a namespace so.
pub fn rules(capture: &Capture) -> Ruleset {
    let mut tables = vec![nat(capture), mangle()];
    if capture.dns {
        tables.push(raw());
    }
    Ruleset { tables }
}

/// Puts rules and routing in place. Doing it again changes nothing; no packet sees a state between old and new.
///
/// The routing comes first: rules alone would leave replies to the proxy without a way back.
pub fn apply(namespace: &NetNamespace, capture: &Capture) -> Result<(), NetlinkError> {
    let capture = usable(namespace, capture)?;
    let mut links = Links::open(namespace)?;
    links.set_up(LOOPBACK)?;
    for family in families(&capture) {
        links.add_local_table(RETURN_RULE.table, family)?;
        links.add_mark_rule(RETURN_RULE, family)?;
    }
    let unwanted: &[&str] = if capture.dns { &[] } else { &[RAW] };
    nftables::replace(namespace, &rules(&capture), unwanted)
}

/// Do rules and routing stand exactly as [`apply`] leaves them?
pub fn stands(namespace: &NetNamespace, capture: &Capture) -> Result<bool, NetlinkError> {
    let capture = usable(namespace, capture)?;
    let mut links = Links::open(namespace)?;
    for family in families(&capture) {
        if !links.has_mark_rule(RETURN_RULE, family)? || !links.has_local_table(RETURN_RULE.table, family)? {
            return Ok(false);
        }
    }
    Ok(nftables::read(namespace, &TABLES)? == rules(&capture))
}

/// Removes whatever [`apply`] may have put in place.
pub fn remove(namespace: &NetNamespace) -> Result<(), NetlinkError> {
    nftables::remove(namespace, &TABLES)?;
    let mut links = Links::open(namespace)?;
    for family in [Family::V4, Family::V6] {
        links.remove_mark_rule(RETURN_RULE, family)?;
        links.remove_local_table(RETURN_RULE.table, family)?;
    }
    Ok(())
}

/// IPv6 is captured only where the namespace has it.
fn usable(namespace: &NetNamespace, capture: &Capture) -> Result<Capture, NetlinkError> {
    let ipv6 = capture.ipv6 && namespace.run(ipv6_on_loopback)?;
    Ok(Capture { ipv6, ..capture.clone() })
}

fn families(capture: &Capture) -> Vec<Family> {
    if capture.ipv6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

fn nat(capture: &Capture) -> Table {
    let nat = |point| Hook { kind: ChainKind::Nat, point, priority: -100 };
    let chains = based(
        nat(HookPoint::Prerouting),
        nat_prerouting(capture),
        nat(HookPoint::Output),
        nat_output(capture),
    );
    Table { name: NAT.to_owned(), chains }
}

fn nat_prerouting(capture: &Capture) -> Vec<Rule> {
    let mut rules = Vec::new();
    for link in &capture.virtual_interfaces {
        let from = || vec![Match::InLink(Is::Equal, link.clone()), tcp()];
        rules.push(Rule { matches: from(), action: Action::Redirect(OUTBOUND) });
        rules.push(Rule { matches: from(), action: Action::Return });
    }
    if !capture.ingress {
        for probe in probes(capture) {
            rules
                .push(Rule { matches: vec![Match::Source(Is::Equal, probe), tcp()], action: Action::Accept });
        }
        for loopback in loopbacks(capture) {
            let matches =
                vec![not_to(loopback), tcp(), Match::DestinationPort(Is::Not, INBOUND_HBONE), not_marked()];
            rules.push(Rule { matches, action: Action::Redirect(INBOUND_PLAINTEXT) });
        }
    }
    rules
}

fn nat_output(capture: &Capture) -> Vec<Rule> {
    let mut rules = Vec::new();
    for probe in probes(capture) {
        let matches = vec![Match::Destination(Is::Equal, probe), tcp()];
        rules.push(Rule { matches, action: Action::Accept });
    }
    if capture.dns {
        let leaves = Match::OutLink(Is::Not, LOOPBACK.to_owned());
        let matches = vec![leaves, udp(), not_marked(), Match::DestinationPort(Is::Equal, DNS)];
        rules.push(Rule { matches, action: Action::Redirect(DNS_PROXY) });
        for loopback in loopbacks(capture) {
            let matches = vec![not_to(loopback), tcp(), Match::DestinationPort(Is::Equal, DNS), not_marked()];
            rules.push(Rule { matches, action: Action::Redirect(DNS_PROXY) });
        }
    }
    let returning = vec![tcp(), Match::Mark(Is::Equal, RETURN_MARK)];
    rules.push(Rule { matches: returning, action: Action::Accept });
    for loopback in loopbacks(capture) {
        let matches = vec![not_to(loopback), Match::OutLink(Is::Equal, LOOPBACK.to_owned())];
        rules.push(Rule { matches, action: Action::Accept });
    }
    for loopback in loopbacks(capture) {
        let matches = vec![not_to(loopback), tcp(), not_marked()];
        rules.push(Rule { matches, action: Action::Redirect(OUTBOUND) });
    }
    rules
}

fn mangle() -> Table {
    let prerouting = Hook { kind: ChainKind::Filter, point: HookPoint::Prerouting, priority: -150 };
    let output = Hook { kind: ChainKind::Route, point: HookPoint::Output, priority: -150 };
    let remember = Rule { matches: vec![marked()], action: Action::SetConnectionMark(RETURN_MARK) };
    let recall =
        Rule { matches: vec![Match::ConnectionMark(Is::Equal, RETURN_MARK)], action: Action::RestoreMark };
    Table { name: MANGLE.to_owned(), chains: based(prerouting, vec![remember], output, vec![recall]) }
}

/// The proxy asks the pod's name servers from the pod's address: its connections are tracked in a zone of their own,
/// or the answers would be taken for those to the application's redirected queries.
fn raw() -> Table {
    let raw = |point| Hook { kind: ChainKind::Filter, point, priority: -300 };
    let answers = vec![udp(), not_marked(), Match::SourcePort(Is::Equal, DNS)];
    let queries = vec![udp(), marked(), Match::DestinationPort(Is::Equal, DNS)];
    let zone = |matches| vec![Rule { matches, action: Action::Zone(1) }];
    let chains = based(raw(HookPoint::Prerouting), zone(answers), raw(HookPoint::Output), zone(queries));
    Table { name: RAW.to_owned(), chains }
}

/// The two chains with the rules, and the two base chains that only jump to them.
fn based(prerouting: Hook, on_arrival: Vec<Rule>, output: Hook, on_departure: Vec<Rule>) -> Vec<Chain> {
    let custom = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
    let base = |hook: Hook, to: &str| Chain {
        name: hook.point.to_string(),
        hook: Some(hook),
        rules: vec![Rule { matches: vec![], action: Action::Jump(to.to_owned()) }],
    };
    vec![
        custom(PREROUTING, on_arrival),
        custom(OUTPUT, on_departure),
        base(prerouting, PREROUTING),
        base(output, OUTPUT),
    ]
}

fn probes(capture: &Capture) -> Vec<IpAddr> {
    of_families(capture, capture.probe_v4.into(), capture.probe_v6.into())
}

fn loopbacks(capture: &Capture) -> Vec<IpAddr> {
    of_families(capture, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())
}

fn of_families(capture: &Capture, v4: IpAddr, v6: IpAddr) -> Vec<IpAddr> {
    if capture.ipv6 { vec![v4, v6] } else { vec![v4] }
}

fn tcp() -> Match {
    Match::Protocol(Transport::Tcp)
}

fn udp() -> Match {
    Match::Protocol(Transport::Udp)
}

fn marked() -> Match {
    Match::Mark(Is::Equal, PROXY_MARK)
}

fn not_marked() -> Match {
    Match::Mark(Is::Not, PROXY_MARK)
}

fn not_to(address: IpAddr) -> Match {
    Match::Destination(Is::Not, address)
}
