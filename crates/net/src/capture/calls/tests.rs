//! The image of a main table, and what is in the way of one.
use std::net::Ipv4Addr;

use netlink_packet_route::route::RouteNextHop;

use super::*;

fn route(destination: &str, more: Vec<RouteAttribute>) -> RouteMessage {
    let destination: IpNet = destination.parse().unwrap();
    let mut route = RouteMessage::default();
    route.header.address_family =
        if destination.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    route.header.destination_prefix_length = destination.prefix_len();
    route.header.kind = RouteType::Unicast;
    route.header.protocol = RouteProtocol::Static;
    route.header.table = 254;
    route.attributes = vec![RouteAttribute::Table(MAIN)];
    if destination.prefix_len() > 0 {
        route.attributes.push(RouteAttribute::Destination(destination.network().into()));
    }
    route.attributes.push(RouteAttribute::Oif(2));
    route.attributes.extend(more);
    route
}

fn gateway() -> RouteAttribute {
    RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 254)))
}

/// `10.0.0.0/8 unicast mtu 65520` and so on.
fn told(image: &[RouteMessage]) -> Vec<String> {
    let tell = |route: &RouteMessage| {
        assert_eq!(route.header.protocol, MADE_BY_US);
        let destination = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(address.to_string()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(address.to_string()),
            _ => None,
        });
        let metrics = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(format!(" {metrics:?}")),
            _ => None,
        });
        format!(
            "{}/{} {}{}",
            destination.unwrap_or_default(),
            route.header.destination_prefix_length,
            if route.header.kind == RouteType::Throw { "main" } else { "copy" },
            metrics.unwrap_or_default()
        )
    };
    image.iter().map(tell).collect()
}

#[track_caller]
fn check(main: &[RouteMessage], expected: &[&str]) {
    assert_eq!(told(&image(main, vec![])), expected);
}

#[test]
fn plain_routes_are_copied_with_the_mtu_of_loopback() {
    let source = RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1)));
    let mut connected = route("10.0.0.0/24", vec![source.clone()]);
    connected.header.scope = RouteScope::Link;
    let default = route("0.0.0.0/0", vec![gateway()]);
    let image = image(&[default, connected], vec![]);
    // The way to the gateway comes before what needs it.
    assert_eq!(told(&image), ["10.0.0.0/24 copy [Mtu(65520)]", "/0 copy [Mtu(65520)]"]);
    assert!(image[0].attributes.contains(&source));
    assert!(image[1].attributes.contains(&gateway()));
}

/// What is said about the real link's segments does not hold, the rest does.
#[test]
fn a_routes_own_mtu_gives_way_and_its_other_metrics_stay() {
    let metrics = vec![
        RouteMetric::Lock(4),
        RouteMetric::Mtu(1400),
        RouteMetric::Advmss(1300),
        RouteMetric::InitCwnd(20),
    ];
    let route = route("0.0.0.0/0", vec![gateway(), RouteAttribute::Metrics(metrics)]);
    check(&[route], &["/0 copy [Mtu(65520), InitCwnd(20)]"]);
}

#[test]
fn what_is_not_plain_is_left_to_the_main_table() {
    let mut blackhole = route("10.1.0.0/16", vec![]);
    blackhole.header.kind = RouteType::BlackHole;
    let several = route("10.2.0.0/16", vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])]);
    let object = route("10.3.0.0/16", vec![RouteAttribute::NhId(7)]);
    let link_local = route("fe80::/64", vec![RouteAttribute::Priority(256)]);
    let preferred = route("fd00::/64", vec![RouteAttribute::Preference(RoutePreference::High)]);
    for (route, expected) in [
        (blackhole, "10.1.0.0/16 main"),
        (several, "10.2.0.0/16 main"),
        (object, "10.3.0.0/16 main"),
        (link_local, "fe80::/64 main"),
        (preferred, "fd00::/64 main"),
    ] {
        check(&[route], &[expected]);
    }
}

/// Which of two comes first is not told by the list.
#[test]
fn routes_that_differ_in_their_way_only_are_left_to_the_main_table() {
    let other = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 253)));
    let low = RouteAttribute::Priority(7);
    let main = [
        route("0.0.0.0/0", vec![gateway()]),
        route("0.0.0.0/0", vec![other.clone()]),
        route("0.0.0.0/0", vec![other, low]),
    ];
    check(&main, &["/0 main", "/0 copy [Mtu(65520)]"]);
}

/// A probe's address is never an application's call, even if the main table has a route for it alone.
#[test]
fn exceptions_come_before_routes_of_the_same_place() {
    let probe = Ipv4Addr::new(169, 254, 7, 127);
    let main = [route("169.254.7.127/32", vec![]), route("0.0.0.0/0", vec![])];
    let image = image(&main, vec![except(probe.into())]);
    assert_eq!(told(&image), ["169.254.7.127/32 main", "/0 copy [Mtu(65520)]"]);
}

/// The kernel tells more about a route than it was given; that is no difference.
#[test]
fn a_copy_read_back_is_the_same() {
    let copy = copy(&route("0.0.0.0/0", vec![gateway()])).unwrap();
    let mut read = copy.clone();
    read.header.table = 252;
    read.header.flags = RouteFlags::Linkdown;
    read.attributes.insert(0, RouteAttribute::Table(CALLS_TABLE));
    read.attributes.push(RouteAttribute::Preference(RoutePreference::Medium));
    assert_eq!(standing(read), copy);
    let mut thrown = except("fd00::1".parse().unwrap());
    thrown.attributes.push(RouteAttribute::Oif(1));
    assert_eq!(standing(thrown), except("fd00::1".parse().unwrap()));
}

fn lookup(table: u32, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(table),
        RuleAttribute::SuppressPrefixLen(u32::MAX),
        RuleAttribute::Protocol(RouteProtocol::Kernel),
    ];
    message.attributes.extend((priority > 0).then_some(RuleAttribute::Priority(priority)));
    message
}

#[test]
fn only_the_usual_order_of_tables_has_room_for_ours() {
    let usual = [lookup(LOCAL, 0), lookup(MAIN, 32766), lookup(253, 32767)];
    let with = |more: RuleMessage| [&usual[..], &[more]].concat();
    assert_eq!(conflict(&usual, false), None);
    assert_eq!(conflict(&with(lookup(200, 100)), false), None);
    assert_eq!(conflict(&usual, true), Some(Conflict::Table));
    assert_eq!(conflict(&with(lookup(CALLS_TABLE, 100)), false), Some(Conflict::Table));
    assert_eq!(conflict(&with(lookup(200, PRIORITY)), false), Some(Conflict::Priority));
    let mut ours = rule(Family::V4);
    ours.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::FwMark(0)));
    assert_eq!(conflict(&with(ours), false), None);
    for unusual in [
        vec![lookup(LOCAL, 0), lookup(200, 32766)],
        vec![lookup(LOCAL, 0), lookup(MAIN, 1000)],
        vec![lookup(MAIN, 32766), lookup(LOCAL, 32767)],
        vec![],
    ] {
        assert_eq!(conflict(&unusual, false), Some(Conflict::Unusual), "{unusual:?}");
    }
    let mut only_some = lookup(MAIN, 32766);
    only_some.header.dst_len = 8;
    assert_eq!(conflict(&[lookup(LOCAL, 0), only_some], false), Some(Conflict::Unusual));
    let mut suppressed = lookup(MAIN, 32766);
    suppressed.attributes[1] = RuleAttribute::SuppressPrefixLen(0);
    assert_eq!(conflict(&[lookup(LOCAL, 0), suppressed], false), Some(Conflict::Unusual));
}

/// Without the condition on the protocol it would lead datagrams astray.
#[test]
fn a_rule_that_lost_a_condition_is_not_ours() {
    for lost in [RuleAttribute::IpProtocol(IpProtocol::Tcp), RuleAttribute::FwMask(u32::MAX)] {
        let mut rule = rule(Family::V6);
        assert!(is_ours(&rule));
        rule.attributes.retain(|attribute| *attribute != lost);
        assert!(!is_ours(&rule));
    }
}

#[test]
fn calls_have_routes_where_every_call_is_redirected_only() {
    let by_socket = WayBack::BySocket(Default::default());
    let usual = Capture::default();
    assert_eq!(wanted(&usual, &by_socket), [Family::V4, Family::V6]);
    assert_eq!(wanted(&Capture { ipv6: false, ..Capture::default() }, &by_socket), [Family::V4]);
    assert_eq!(wanted(&usual, &WayBack::ByConnection), []);
    for capture in [
        Capture { ingress: true, ..Capture::default() },
        Capture { track_answers: true, ..Capture::default() },
        Capture { virtual_interfaces: vec!["tap0".to_owned()], ..Capture::default() },
    ] {
        assert_eq!(wanted(&capture, &by_socket), [], "{capture:?}");
    }
}

/// A route that the kernel refuses is there as one that leads to the main table: nothing is missing that could be had.
#[test]
fn what_is_left_to_the_main_table_instead_is_in_step() {
    let image = image(&[route("10.0.0.0/24", vec![]), route("0.0.0.0/0", vec![gateway()])], vec![]);
    assert!(is_in_step(&image, &image));
    let refused = [image[0].clone(), left_to_main(&image[1])];
    assert!(is_in_step(&refused, &image));
    assert!(!is_in_step(&image[..1], &image));
    let mut other = image.clone();
    other[1].attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Gateway(_)));
    assert!(!is_in_step(&other, &image));
}

/// Only the proxy answers at its ports of this namespace.
#[test]
fn what_somebody_else_translates_is_not_redirected() {
    let local: HashSet<IpAddr> = ["10.0.0.1", "fd00::1"].map(|address| address.parse().unwrap()).into();
    let redirected = |answering: Option<&str>| {
        let connection = Tracked {
            source: "10.0.0.1:40000".parse().unwrap(),
            destination: "10.96.0.1:80".parse().unwrap(),
            answering: answering.map(|answering| answering.parse().unwrap()),
            mark: 0,
            open: true,
        };
        is_redirected(&connection, &local)
    };
    for proxy in ["127.0.0.1:15001", "[::1]:15001", "10.0.0.1:15006", "[fd00::1]:15006", "127.0.0.1:15053"] {
        assert!(redirected(Some(proxy)), "{proxy}");
    }
    for other in ["10.96.0.1:80", "10.0.0.2:8080", "10.0.0.2:15001", "10.0.0.1:8080", "127.0.0.1:15008"] {
        assert!(!redirected(Some(other)), "{other}");
    }
    assert!(!redirected(None));
}
