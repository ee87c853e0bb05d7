//! The rules as `nft` would print them. A-IP-16
use super::{Before, Capture, Setting, WayBack, rules};

const MANGLE: &str = "\
table inet istio-ambient-mangle {
  chain istio-prerouting {
    mark 0x539/0xfff counter ct mark set 0x111/0xfff
  }
  chain istio-output {
    ct mark 0x111/0xfff counter mark set ct mark
  }
  chain prerouting {
    type filter hook prerouting priority -150
    counter jump istio-prerouting
  }
  chain output {
    type route hook output priority -150
    counter jump istio-output
  }
}
";

const TUNNELS_IN: &str = "\
l4proto tcp dport 15008 counter notrack accept
l4proto tcp sport 15008 dport != 15001 dport != 15006 dport != 15053 socket mark 0x539/0xfff counter notrack accept
";

const ANSWERS: &str = "\
l4proto udp mark != 0x539/0xfff sport 53 counter ct zone set 1
";

const OWN: &str = "mark 0x0/0xffffffff counter accept\n";

const RETURNING: &str = "l4proto tcp mark 0x111/0xfff counter notrack accept\n";

const OTHERS: &str = "mark != 0x539/0xfff counter accept\n";

const QUERIES: &str = "l4proto udp dport 53 counter ct zone set 1\n";

const REDIRECTED: &str = "\
sport 15001 counter accept
sport 15006 counter accept
";

const REDIRECTED_DNS: &str = "sport 15053 counter accept\n";

const TUNNELS_OUT: &str = "\
l4proto tcp dport 15008 counter notrack accept
l4proto tcp sport 15008 counter notrack accept
";

const TO_APPLICATION: &str = "l4proto tcp oifname lo counter mark set 0x111/0xfff notrack accept\n";

fn raw(comment: &str, prerouting: &str, output: &str) -> String {
    format!(
        "table inet istio-ambient-raw {{
{comment}  chain prerouting {{
    type filter hook prerouting priority -300
{}  }}
  chain output {{
    type filter hook output priority -300
{}  }}
}}
",
        indent(prerouting),
        indent(output)
    )
}

/// The raw table of most captures.
fn usual_raw() -> String {
    let output = [OWN, RETURNING, OTHERS, QUERIES, REDIRECTED, REDIRECTED_DNS, TUNNELS_OUT, TO_APPLICATION];
    raw(REMEMBERED, &joined(&[TUNNELS_IN, ANSWERS]), &joined(&output))
}

const REMEMBERED: &str = "  comment \"before: net.ipv4.tcp_fwmark_accept=0 net.ipv4.fwmark_reflect=1\"\n";

fn by_socket() -> WayBack {
    WayBack::BySocket([(Setting::Accept, 0), (Setting::ReflectV4, 1)].into_iter().collect())
}

fn indent(rules: &str) -> String {
    rules.lines().map(|rule| format!("    {}\n", rule.trim())).collect()
}

fn nat(prerouting: &str, output: &str) -> String {
    format!(
        "table inet istio-ambient-nat {{
  chain istio-prerouting {{
{}  }}
  chain istio-output {{
{}  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    counter jump istio-prerouting
  }}
  chain output {{
    type nat hook output priority -100
    counter jump istio-output
  }}
}}
",
        indent(prerouting),
        indent(output)
    )
}

const INBOUND: &str = "\
ip saddr 169.254.7.127 l4proto tcp counter accept
ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff l4proto tcp counter accept
ip daddr != 127.0.0.1 l4proto tcp dport != 15008 mark != 0x539/0xfff counter redirect to :15006
ip6 daddr != ::1 l4proto tcp dport != 15008 mark != 0x539/0xfff counter redirect to :15006
";

const PROBE: &str = "\
ip daddr 169.254.7.127 l4proto tcp counter accept
ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff l4proto tcp counter accept
";

const DNS: &str = "\
oifname != lo l4proto udp mark != 0x539/0xfff dport 53 counter redirect to :15053
ip daddr != 127.0.0.1 l4proto tcp dport 53 mark != 0x539/0xfff counter redirect to :15053
ip6 daddr != ::1 l4proto tcp dport 53 mark != 0x539/0xfff counter redirect to :15053
";

const OUTBOUND: &str = "\
l4proto tcp mark 0x111/0xfff counter accept
ip daddr != 127.0.0.1 oifname lo counter accept
ip6 daddr != ::1 oifname lo counter accept
ip daddr != 127.0.0.1 l4proto tcp mark != 0x539/0xfff counter redirect to :15001
ip6 daddr != ::1 l4proto tcp mark != 0x539/0xfff counter redirect to :15001
";

const VIRTUAL: &str = "\
iifname tap0 l4proto tcp counter redirect to :15001
iifname tap0 l4proto tcp counter return
iifname tap1 l4proto tcp counter redirect to :15001
iifname tap1 l4proto tcp counter return
";

fn joined(parts: &[&str]) -> String {
    parts.concat()
}

#[track_caller]
fn check(capture: &Capture, expected: &[&str]) {
    assert_eq!(rules(capture, &by_socket()).to_string(), expected.concat());
}

fn two_taps() -> Vec<String> {
    vec!["tap0".to_owned(), "tap1".to_owned()]
}

#[test]
fn default_rules() {
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    check(&Capture::default(), &[&nat(INBOUND, &output), &usual_raw()]);
}

/// What is remembered comes back from the comment, and a comment of somebody else is nothing to remember.
#[test]
fn what_the_settings_were_is_read_back() {
    let WayBack::BySocket(before) = by_socket() else { unreachable!() };
    assert_eq!(Before::parse(&before.to_string()), before);
    for foreign in ["", "hello", "before: net.ipv4.ip_forward=1", "before: net.ipv4.tcp_fwmark_accept=300"] {
        assert_eq!(Before::parse(foreign), Before::default(), "{foreign}");
    }
}

/// The reference's rules; what is not tracked is not redirected by any of them.
#[test]
fn by_the_connection_its_mark_leads_back() {
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    let raw = raw(
        "",
        &joined(&[TUNNELS_IN, ANSWERS]),
        &joined(&[OWN, OTHERS, QUERIES, REDIRECTED, REDIRECTED_DNS, TUNNELS_OUT]),
    );
    let found = rules(&Capture::default(), &WayBack::ByConnection).to_string();
    assert_eq!(found, [&nat(INBOUND, &output), MANGLE, &raw].concat());
}

#[test]
fn ingress_mode_leaves_inbound_alone() {
    let capture = Capture { ingress: true, ..Capture::default() };
    check(&capture, &[&nat("", &joined(&[PROBE, DNS, OUTBOUND])), &usual_raw()]);
}

#[test]
fn virtual_interfaces_come_first() {
    let capture = Capture { virtual_interfaces: two_taps(), ..Capture::default() };
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    let taps = "iifname tap0 l4proto tcp counter accept\niifname tap1 l4proto tcp counter accept\n";
    let raw = usual_raw().replacen(&indent(TUNNELS_IN), &indent(&joined(&[taps, TUNNELS_IN])), 1);
    check(&capture, &[&nat(&joined(&[VIRTUAL, INBOUND]), &output), &raw]);
    let capture = Capture { ingress: true, ..capture };
    check(&capture, &[&nat(VIRTUAL, &output), &raw]);
}

#[test]
fn without_dns_capture_there_are_no_rules_about_it() {
    let capture = Capture { dns: false, ..Capture::default() };
    let raw = raw(
        REMEMBERED,
        TUNNELS_IN,
        &joined(&[OWN, RETURNING, OTHERS, REDIRECTED, TUNNELS_OUT, TO_APPLICATION]),
    );
    check(&capture, &[&nat(INBOUND, &joined(&[PROBE, OUTBOUND])), &raw]);
}

#[test]
fn without_ipv6_every_rule_that_names_an_address_is_there_once() {
    let capture = Capture { ipv6: false, ..Capture::default() };
    let v4 = |text: &str| {
        text.lines().filter(|line| !line.contains("ip6")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    check(&capture, &[&nat(&v4(INBOUND), &v4(&output)), &usual_raw()]);
}
