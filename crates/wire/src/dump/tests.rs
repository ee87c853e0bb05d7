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
fn null_is_the_same_as_no_key() {
    let text = r#"{
        "workloads": [{"uid": "u", "name": null, "namespace": null, "status": null, "nativeTunnel": null,
                       "waypoint": {"destination": null}, "locality": {"zone": null}}],
        "services": [{"name": "s", "hostname": null, "endpoints": {"u": {"workloadUid": null, "port": null}}}],
        "certificates": [{"identity": null, "state": "Initializing"}],
        "workloadState": {"pod": {"info": {"name": null}, "connections": {"inbound": [{"originalDst": null}]}}},
        "config": {"localNode": null}
    }"#;
    let dump = ConfigDump::parse(text.as_bytes()).unwrap();
    assert_eq!((dump.workloads[0].uid.as_str(), dump.workloads[0].name.as_str()), ("u", ""));
    assert_eq!(dump.services[0].endpoints.len(), 1);
    assert!(dump.config.get("localNode").is_some_and(Value::is_null), "the node's own keys stay as they are");
}

#[test]
fn wrong_shapes_are_refused_with_a_reason() {
    let error = ConfigDump::parse(br#"{"workloads": 3}"#).unwrap_err();
    assert!(error.to_string().contains("expected a list or a map, found a number"), "{error}");
    assert!(ConfigDump::parse(b"").is_err());
    // What derives its reader would take a list for its fields in their order.
    let error = ConfigDump::parse(b"[]").unwrap_err();
    assert!(error.to_string().contains("expected a map"), "{error}");
    let error = ConfigDump::parse(br#"{"certificates": [[[], "spiffe://td/ns/a/sa/b"]]}"#).unwrap_err();
    assert!(error.to_string().contains("expected a map, found a list"), "{error}");
}

/// Every key that can be there, in one dump: printing sorts them all, at every level.
#[test]
fn printed_keys_are_sorted_everywhere() {
    let text = r#"{
        "workloads": [{"uid": "u", "name": "n", "namespace": "s", "workloadIps": ["1.1.1.1"], "protocol": "HBONE", "nativeTunnel": true,
            "waypoint": {"hboneMtlsPort": 15008, "destination": "a/b"}, "networkGateway": {"destination": "a/c"}, "hostname": "h",
            "applicationTunnel": {"protocol": "PROXY", "port": 1}, "locality": {"zone": "z", "region": "r", "subzone": "s"},
            "authorizationPolicies": ["a/b"], "services": ["a/b"], "node": "n", "network": "net", "trustDomain": "td",
            "serviceAccount": "sa", "workloadName": "w", "workloadType": "pod", "canonicalName": "c", "canonicalRevision": "v",
            "status": "Healthy", "clusterId": "c", "capacity": 1, "networkMode": "Standard"}],
        "services": [{"ports": {"9080": 1, "80": 2, "443": 3}, "name": "s", "namespace": "s", "hostname": "h", "visibility": "Public",
            "vips": ["/1.1.1.1"], "cidrVips": ["net/10.0.0.0/8"], "ipFamilies": "Dual", "canonical": true, "subjectAltNames": ["x"],
            "weightedWaypoints": [{"weight": 1, "destination": {"destination": "a/b", "hboneMtlsPort": 1}}],
            "waypoint": {"destination": "a/b"}, "loadBalancer": {"routingPreferences": ["Zone"], "mode": "Strict", "healthPolicy": "AllowAll"},
            "endpoints": {"u": {"workloadUid": "u", "status": "Healthy", "port": {"90": 1, "100": 2}}}}],
        "policies": [{"scope": "Global", "rules": [[[{"notNamespaces": [{"Suffix": "x"}], "namespaces": [{"Prefix": "x"}],
            "serviceAccounts": [{"serviceAccount": "a", "namespace": "n"}], "notServiceAccounts": [{"namespace": "n"}],
            "principals": [{"Exact": "x"}], "notPrincipals": [{"Presence": []}], "sourceIps": ["10.0.0.0/8"], "notSourceIps": ["::/0"],
            "destinationIps": ["10.0.0.0/8"], "notDestinationIps": ["::/0"], "destinationPorts": [1], "notDestinationPorts": [2]}]]],
            "name": "n", "namespace": "s", "dryRun": true, "action": "Deny"}],
        "certificates": [{"state": "Available", "rootCerts": [], "identity": "i",
            "certChain": [{"validFrom": "f", "serialNumber": "1", "pem": "p", "expirationTime": "e"}]}],
        "workloadState": {"p": {"state": "Up", "info": {"serviceAccount": "a", "name": "n", "namespace": "s", "trustDomain": "t"},
            "connections": {"outbound": [], "inbound": [{"src": "s", "protocol": "TCP", "originalDst": null, "actualDst": "d"}]}}},
        "stagedServices": {"b": {}, "a": {"u": {"port": {}}}}, "config": {"b": {"d": 1, "c": 2}, "a": 1},
        "staticConfig": {"workloads": [{"b": 1, "a": 2}]}, "version": {"version": "1", "buildProfile": "release"}
    }"#;
    let dump = ConfigDump::parse(text.as_bytes()).unwrap();
    let printed = dump.to_pretty_json().unwrap();
    let mut value: Value = serde_json::from_str(&printed).unwrap();
    value.sort_all_objects();
    assert_eq!(printed, serde_json::to_string_pretty(&value).unwrap());
    assert_eq!(ConfigDump::parse(printed.as_bytes()).unwrap(), dump);
}
