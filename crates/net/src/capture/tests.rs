//! The rules as `nft` would print them. A-IP-16
use super::{Capture, rules};

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

const RAW: &str = "\
table inet istio-ambient-raw {
  chain istio-prerouting {
    l4proto udp mark != 0x539/0xfff sport 53 counter ct zone set 1
  }
  chain istio-output {
    l4proto udp mark 0x539/0xfff dport 53 counter ct zone set 1
  }
  chain prerouting {
    type filter hook prerouting priority -300
    counter jump istio-prerouting
  }
  chain output {
    type filter hook output priority -300
    counter jump istio-output
  }
}
";

fn nat(prerouting: &str, output: &str) -> String {
    let indent = |rules: &str| rules.lines().map(|rule| format!("    {}\n", rule.trim())).collect::<String>();
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
    assert_eq!(rules(capture).to_string(), expected.concat());
}

fn two_taps() -> Vec<String> {
    vec!["tap0".to_owned(), "tap1".to_owned()]
}

#[test]
fn default_rules() {
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    check(&Capture::default(), &[&nat(INBOUND, &output), MANGLE, RAW]);
}

#[test]
fn ingress_mode_leaves_inbound_alone() {
    let capture = Capture { ingress: true, ..Capture::default() };
    check(&capture, &[&nat("", &joined(&[PROBE, DNS, OUTBOUND])), MANGLE, RAW]);
}

#[test]
fn virtual_interfaces_come_first() {
    let capture = Capture { virtual_interfaces: two_taps(), ..Capture::default() };
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    check(&capture, &[&nat(&joined(&[VIRTUAL, INBOUND]), &output), MANGLE, RAW]);
    let capture = Capture { ingress: true, ..capture };
    check(&capture, &[&nat(VIRTUAL, &output), MANGLE, RAW]);
}

#[test]
fn without_dns_capture_there_is_no_raw_table() {
    let capture = Capture { dns: false, ..Capture::default() };
    check(&capture, &[&nat(INBOUND, &joined(&[PROBE, OUTBOUND])), MANGLE]);
}

#[test]
fn without_ipv6_every_rule_that_names_an_address_is_there_once() {
    let capture = Capture { ipv6: false, ..Capture::default() };
    let v4 = |text: &str| {
        text.lines().filter(|line| !line.contains("ip6")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let output = joined(&[PROBE, DNS, OUTBOUND]);
    check(&capture, &[&nat(&v4(INBOUND), &v4(&output)), MANGLE, RAW]);
}
