use super::*;

const DUMPS: [&str; 2] = [
    include_str!("../../../../tests/data/page/config_dump-n1.json"),
    include_str!("../../../../tests/data/page/config_dump-n2.json"),
];

/// CO-11.5-2: whatever a node dumps survives the round trip, byte for byte.
#[test]
fn recorded_dumps_read_and_print_byte_for_byte() {
    for text in DUMPS {
        let dump = ConfigDump::parse(text.as_bytes()).unwrap();
        assert_eq!(dump.to_pretty_json().unwrap(), text);
    }
}

/// CO-11.6-2
#[test]
fn maps_stand_for_lists_and_keys_match_in_any_case() {
    let text = r#"{
        "workloads": {"uid-1": {"uid": "uid-1", "name": "a", "workloadIps": null, "capacity": 1, "later": true}},
        "services": {"x": {"name": "s", "cidrVips": ["net/10.0.0.0/8", {"cidr": "fd00::/8", "network": ""}],
                           "endpoints": {"u": {"service": {"namespace": "n"}, "port": {"80": 8080}}}}},
        "policies": null,
        "WORKLOADSTATE": {"pod": {"state": "Up", "info": {"name": "p", "trustDomain": "td"}}}
    }"#;
    let dump = ConfigDump::parse(text.as_bytes()).unwrap();
    assert_eq!(dump.workloads[0].name, "a");
    assert_eq!(dump.services[0].cidr_vips[0], CidrVip { cidr: "10.0.0.0/8".into(), network: "net".into() });
    assert_eq!(dump.services[0].endpoints["u"].port[&80], 8080);
    assert_eq!(dump.workload_state.unwrap()["pod"].info.as_ref().unwrap().trust_domain, "td");
    assert!(dump.policies.is_empty() && dump.certificates.is_empty());
}

#[test]
fn wrong_shapes_are_refused_with_a_reason() {
    let error = ConfigDump::parse(br#"{"workloads": 3}"#).unwrap_err();
    assert!(error.to_string().contains("expected a list or a map, found a number"), "{error}");
    assert!(ConfigDump::parse(b"").is_err());
}
