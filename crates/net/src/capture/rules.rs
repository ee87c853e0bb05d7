//! Which rules: a pure decision.
//!
//! Two ways back to the proxy, which speaks to the application from its client's address ([`WayBack`]). By the socket:
//! those packets of the proxy are not tracked and carry the return mark, the application's accepted socket takes it over
//! (two settings of the kernel see to that) and routes by it; no rule touches an answer. By the connection, where the
//! settings cannot be had: connections are tracked, marked, and the mark of each answer is restored from them.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Capture, DNS_PROXY, INBOUND_HBONE, INBOUND_PLAINTEXT, MANGLE, NAT, OUTBOUND, PROXY_MARK, RAW,
    RETURN_MARK, WayBack,
};
use crate::links::LOOPBACK;
use crate::nftables::{
    Action, Bits, Chain, ChainKind, Hook, HookPoint, Is, Match, Rule, Ruleset, Table, Transport,
};

const DNS: u16 = 53;
const PREROUTING: &str = "istio-prerouting";
const OUTPUT: &str = "istio-output";
const NO_MARK: Bits = Bits { value: 0, mask: u32::MAX };

/// The rules that capture a namespace so.
pub fn rules(capture: &Capture, way: &WayBack) -> Ruleset {
    let mut tables = vec![nat(capture)];
    if *way == WayBack::ByConnection {
        tables.push(mangle());
    }
    tables.push(raw(capture, way));
    Ruleset { tables }
}

fn nat(capture: &Capture) -> Table {
    let nat = |point| Hook { kind: ChainKind::Nat, point, priority: -100 };
    let chains = based(
        nat(HookPoint::Prerouting),
        nat_prerouting(capture),
        nat(HookPoint::Output),
        nat_output(capture),
    );
    Table { name: NAT.to_owned(), comment: None, chains }
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
    let chains = based(prerouting, vec![remember], output, vec![recall]);
    Table { name: MANGLE.to_owned(), comment: None, chains }
}

/// What is not tracked: tunnels, which nothing redirects, and by the socket the way to the application and back.
///
/// A tunnel's answers come from port 15008 of anybody; whether they are a tunnel's is known by the socket they are for.
/// A packet's source port alone would let a stranger who takes that port past the redirection of plaintext.
///
/// And DNS: the proxy asks the pod's name servers from the pod's address. Its connections are tracked in a zone of their
/// own, or the answers would be taken for those to the application's redirected queries.
fn raw(capture: &Capture, way: &WayBack) -> Table {
    let comment = match way {
        WayBack::BySocket(before) => Some(before.to_string()),
        WayBack::ByConnection => None,
    };
    let prerouting = raw_chain(HookPoint::Prerouting, raw_prerouting(capture));
    let chains = vec![prerouting, raw_chain(HookPoint::Output, raw_output(capture, way))];
    Table { name: RAW.to_owned(), comment, chains }
}

/// Every packet passes these: no chain to jump to.
fn raw_chain(point: HookPoint, rules: Vec<Rule>) -> Chain {
    let hook = Some(Hook { kind: ChainKind::Filter, point, priority: -300 });
    Chain { name: point.to_string(), hook, rules }
}

fn raw_prerouting(capture: &Capture) -> Vec<Rule> {
    let mut rules = Vec::new();
    for link in &capture.virtual_interfaces {
        let matches = vec![Match::InLink(Is::Equal, link.clone()), tcp()];
        rules.push(Rule { matches, action: Action::Accept });
    }
    let to_proxy = vec![tcp(), Match::DestinationPort(Is::Equal, INBOUND_HBONE)];
    rules.push(Rule { matches: to_proxy, action: Action::Untrack });
    let mut answers = vec![tcp(), Match::SourcePort(Is::Equal, INBOUND_HBONE)];
    // The proxy's listeners are its sockets as well.
    answers
        .extend([OUTBOUND, INBOUND_PLAINTEXT, DNS_PROXY].map(|port| Match::DestinationPort(Is::Not, port)));
    answers.push(Match::SocketMark(Is::Equal, PROXY_MARK));
    rules.push(Rule { matches: answers, action: Action::Untrack });
    if capture.dns {
        let answers = vec![udp(), not_marked(), Match::SourcePort(Is::Equal, DNS)];
        rules.push(Rule { matches: answers, action: Action::Zone(1) });
    }
    rules
}

fn raw_output(capture: &Capture, way: &WayBack) -> Vec<Rule> {
    let by_socket = matches!(way, WayBack::BySocket(_));
    // The application's own packets, most of them: nothing below is about them.
    let mut rules = vec![Rule { matches: vec![Match::Mark(Is::Equal, NO_MARK)], action: Action::Accept }];
    if by_socket {
        let returning = vec![tcp(), Match::Mark(Is::Equal, RETURN_MARK)];
        rules.push(Rule { matches: returning, action: Action::Untrack });
    }
    rules.push(Rule { matches: vec![not_marked()], action: Action::Accept });
    if capture.dns {
        let queries = vec![udp(), Match::DestinationPort(Is::Equal, DNS)];
        rules.push(Rule { matches: queries, action: Action::Zone(1) });
    }
    // Answers to what was redirected are translated back, so they stay tracked, whatever port they go to.
    let redirected = [OUTBOUND, INBOUND_PLAINTEXT].into_iter().chain(capture.dns.then_some(DNS_PROXY));
    for port in redirected {
        let matches = vec![Match::SourcePort(Is::Equal, port)];
        rules.push(Rule { matches, action: Action::Accept });
    }
    for port in
        [Match::DestinationPort(Is::Equal, INBOUND_HBONE), Match::SourcePort(Is::Equal, INBOUND_HBONE)]
    {
        rules.push(Rule { matches: vec![tcp(), port], action: Action::Untrack });
    }
    if by_socket {
        let matches = vec![tcp(), Match::OutLink(Is::Equal, LOOPBACK.to_owned())];
        rules.push(Rule { matches, action: Action::MarkUntracked(RETURN_MARK) });
    }
    rules
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

/// Whom probes come from: they reach applications, and the answers go back, without the proxy.
pub(super) fn probes(capture: &Capture) -> Vec<IpAddr> {
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
