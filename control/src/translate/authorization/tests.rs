//! Conversion and status (CP-D-14, D-15, D-16) beyond what the recorded cases show.

use jiff::Timestamp;
use wire::security::{Match, Rule};

use crate::sources::objects::{Kind, Name, ObjectRef};
use crate::sources::{File, Folder};
use crate::translate::{Records, StatusCondition, Switches, translate};

/// Translates one policy `p` of namespace `shop`.
fn records(spec: &str, more: &str) -> Records {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n---\n{more}"
    );
    let file = File { path: "p.yaml".into(), content: Ok(text.into_bytes()) };
    let snapshot = Folder::default().apply(vec![file], None, Timestamp::UNIX_EPOCH);
    translate(&snapshot.objects, &snapshot.mesh, &Switches::default())
}

fn rules(spec: &str) -> Vec<Rule> {
    records(spec, "").authorizations.remove("shop/p").expect("it is sent").rules
}

fn condition(spec: &str, more: &str) -> StatusCondition {
    let name = ObjectRef { kind: Kind::AuthorizationPolicy, name: Name::new("shop", "p") };
    records(spec, more).conditions.remove(&name).expect("a condition").remove(0)
}

/// The only match of the only clause of the only rule.
fn only(spec: &str) -> Match {
    let mut rules = rules(spec);
    assert_eq!(rules.len(), 1, "{spec}");
    let mut clauses = rules.remove(0).clauses;
    assert_eq!(clauses.len(), 1, "{spec}");
    assert_eq!(clauses[0].matches.len(), 1, "{spec}");
    clauses.remove(0).matches.remove(0)
}

#[test]
fn entries_without_content_are_empty_and_survived() {
    for spec in ["{rules: [{from: [{}]}]}", "{rules: [{to: [{}]}]}", "{action: DENY, rules: [{from: [{}]}]}"]
    {
        assert_eq!(only(spec), Match::default(), "{spec}");
    }
}

#[test]
fn an_allow_with_meaningless_values_matches_no_more_than_written() {
    let nothing = Match::default();
    assert_eq!(only("{rules: [{from: [{source: {namespaces: [a], ipBlocks: [nope]}}]}]}"), nothing);
    assert_eq!(
        only("{rules: [{from: [{source: {namespaces: [a], notIpBlocks: [10.0.0.0/8, nope]}}]}]}"),
        nothing
    );
    assert_eq!(only("{rules: [{to: [{operation: {ports: ['80'], notPorts: [http]}}]}]}"), nothing);
    let some = only("{rules: [{to: [{operation: {ports: ['80', '+81', ' 82', '99999']}}]}]}");
    assert_eq!(some.destination_ports, [80]);
}

#[test]
fn a_deny_with_meaningless_values_matches_no_less_than_its_valid_part() {
    let wide = only("{action: DENY, rules: [{from: [{source: {namespaces: [a], ipBlocks: [nope]}}]}]}");
    assert_eq!((wide.namespaces.len(), wide.source_ips.len()), (1, 0));
    // Everybody but what cannot be told: everybody.
    let all = only("{action: DENY, rules: [{from: [{source: {notIpBlocks: [nope]}}]}]}");
    assert_eq!(all.not_destination_ports, [0]);
}

/// A webhook would refuse it; without one it is told, since it never holds.
#[test]
fn a_condition_without_values_is_reported() {
    let spec = "{action: DENY, rules: [{when: [{key: source.ip}]}]}";
    let remarks = records(spec, "").remarks;
    let texts: Vec<&str> = remarks.iter().map(|remark| remark.message.as_str()).collect();
    assert_eq!(texts, ["spec.rules[0].when[0].values: \"\" means nothing here"]);
    assert!(records("{rules: [{when: [{key: source.ip, notValues: [10.0.0.1]}]}]}", "").remarks.is_empty());
}

#[test]
fn the_status_says_what_became_of_http_attributes() {
    let cases = [
        ("{rules: [{from: [{source: {namespaces: [a]}}]}]}", "Accepted", "attached"),
        (
            "{rules: [{to: [{operation: {methods: [GET], paths: [/x]}}]}]}",
            "UnsupportedValue",
            "methods, paths",
        ),
        ("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", "UnsupportedValue", "no effect"),
        (
            "{action: DENY, rules: [{from: [{source: {namespaces: [a]}}], to: [{operation: {methods: [GET]}}]}]}",
            "UnsupportedValue",
            "no effect",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [a]}}]}]}",
            "UnsupportedValue",
            "denies more",
        ),
        (
            "{action: DENY, rules: [{}, {to: [{operation: {methods: [GET]}}]}]}",
            "UnsupportedValue",
            "denies more",
        ),
        ("{rules: [{to: [{operation: {ports: [http]}}]}]}", "UnsupportedValue", "http"),
    ];
    for (spec, reason, mention) in cases {
        let condition = condition(spec, "");
        assert_eq!(
            (condition.kind, condition.status, condition.reason),
            ("ZtunnelAccepted", true, reason),
            "{spec}"
        );
        assert!(condition.message.contains(mention), "{spec}: {}", condition.message);
    }
}

#[test]
fn policies_for_waypoints_are_not_sent_and_say_where_they_are_bound() {
    let world = "
apiVersion: v1
kind: Service
metadata: {name: free, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bound, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: w, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.0.0.3}]}
";
    let service = |name: &str| format!("{{kind: Service, group: '', name: {name}}}");
    let cases = [
        (service("bound"), true, "Accepted", "shop/wp"),
        (service("free"), false, "AncestorNotBound", "shop/free"),
        (service("gone"), false, "TargetNotFound", "shop/gone"),
        ([service("bound"), service("free")].join(", "), true, "PartiallyInvalid", "Service.core:shop/free"),
        ([service("gone"), service("free")].join(", "), false, "Invalid", "Service.core:shop/gone"),
    ];
    for (targets, status, reason, mention) in cases {
        let spec = format!("{{targetRefs: [{targets}], rules: [{{}}]}}");
        assert!(records(&spec, world).authorizations.is_empty());
        let condition = condition(&spec, world);
        assert_eq!(
            (condition.kind, condition.status, condition.reason),
            ("WaypointAccepted", status, reason),
            "{targets}"
        );
        assert!(condition.message.contains(mention), "{targets}: {}", condition.message);
    }
}
