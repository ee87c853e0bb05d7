//! What is refused, by which field.

use super::*;
use crate::sources::document;

fn admission(text: &str) -> Admission {
    let documents = document::parse(text).unwrap_or_else(|(_, reason)| panic!("{reason}\n{text}"));
    admit(documents.first().expect("a document"))
}

/// The field an object of this kind is refused for.
fn refused(kind: &str, spec: &str) -> String {
    match admission(&manifest(kind, spec)) {
        Admission::Refused(Some(object), Reason::Invalid { field, .. }) => {
            assert_eq!(object.to_string(), format!("{}/ns/x", object.kind.as_str()));
            field
        }
        Admission::Flawed(_, _, Reason::Invalid { field, .. }) => format!("flawed {field}"),
        other => panic!("{kind} {spec}: {other:?}"),
    }
}

fn accepted(kind: &str, spec: &str) {
    let admission = admission(&manifest(kind, spec));
    assert!(matches!(admission, Admission::Object(..)), "{kind} {spec}: {admission:?}");
}

fn manifest(kind: &str, spec: &str) -> String {
    let group = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" => "security.istio.io/v1",
        "ServiceEntry" | "WorkloadEntry" => "networking.istio.io/v1",
        "Gateway" => "gateway.networking.k8s.io/v1",
        _ => "v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec: {spec}\n")
}

#[test]
fn authorization_policies_break_rules_of_their_schema() {
    let cases = [
        ("{action: MAYBE}", "spec.action"),
        ("{action: 5}", "spec.action"),
        ("{rules: {}}", "spec.rules"),
        ("{rules: [{form: []}]}", "spec.rules[0].form"),
        ("{slector: {}}", "spec.slector"),
        ("{rules: [{to: [{operation: {ports: [80]}}]}]}", "spec.rules[0].to[0].operation.ports[0]"),
        (
            "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}",
            "spec.rules[0].from[0].source",
        ),
        (
            "{rules: [{from: [{source: {notServiceAccounts: [a], principals: [b]}}]}]}",
            "spec.rules[0].from[0].source",
        ),
        ("{rules: [{when: [{values: [a]}]}]}", "spec.rules[0].when[0].key"),
        ("{selector: {}, targetRefs: []}", "spec"),
        ("{selector: {matchLabels: {a: 'b*'}}}", "spec.selector.matchLabels"),
        ("{targetRefs: [{kind: Deployment, group: apps, name: a}]}", "spec.targetRefs[0]"),
        ("{targetRef: {kind: Service, group: ''}}", "spec.targetRef.name"),
        ("{targetRef: {kind: Service, group: '', name: a, namespace: b}}", "spec.targetRef.namespace"),
        // What its webhook would refuse leaves a policy that is safe to use.
        ("{rules: [{to: [{operation: {ports: [http]}}]}]}", "flawed spec.rules[0].to[0].operation.ports"),
        ("{rules: [{when: [{key: nonsense}]}]}", "flawed spec.rules[0].when[0].key"),
    ];
    for (spec, field) in cases {
        assert_eq!(refused("AuthorizationPolicy", spec), field, "{spec}");
    }
    accepted("AuthorizationPolicy", "{action: CUSTOM, provider: {name: x}, rules: [{from: [{}], to: [{}]}]}");
    accepted(
        "AuthorizationPolicy",
        "{selector: null, rules: [{when: [{key: 'request.headers[x]', values: [a]}]}]}",
    );
}

#[test]
fn peer_authentications_break_rules_of_their_schema() {
    let cases = [
        ("{mtls: {mode: SOMETIMES}}", "spec.mtls.mode"),
        ("{mtls: STRICT}", "spec.mtls"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls"),
        ("{selector: {matchLabels: {}}, portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "spec.portLevelMtls"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}", "spec.portLevelMtls[0]"),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
            "spec.portLevelMtls[http]",
        ),
        ("{mode: STRICT}", "spec.mode"),
    ];
    for (spec, field) in cases {
        assert_eq!(refused("PeerAuthentication", spec), field, "{spec}");
    }
    accepted(
        "PeerAuthentication",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: STRICT}}}",
    );
}

#[test]
fn service_entries_break_rules_of_their_schema() {
    let port = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let cases = [
        ("{}".to_owned(), "spec.hosts"),
        ("{hosts: ['*']}".to_owned(), "spec.hosts[0]"),
        ("{hosts: [a.b, 'https://a.b/c']}".to_owned(), "spec.hosts[1]"),
        ("{hosts: ['a b']}".to_owned(), "spec.hosts[0]"),
        ("{hosts: ['']}".to_owned(), "spec.hosts[0]"),
        (
            "{hosts: ['*.a.b'], resolution: STATIC, endpoints: [{address: 1.1.1.1, serviceAccount: ns/sa}]}".to_owned(),
            "spec.endpoints[0].serviceAccount",
        ),
        (format!("{{hosts: [a.b], resolution: MAGIC, {port}}}"), "spec.resolution"),
        ("{hosts: [a.b], location: HERE}".to_owned(), "spec.location"),
        ("{hosts: [a.b], ports: [{number: 80}]}".to_owned(), "spec.ports[0].name"),
        ("{hosts: [a.b], ports: [{name: a}]}".to_owned(), "spec.ports[0].number"),
        ("{hosts: [a.b], ports: [{number: 70000, name: a}]}".to_owned(), "spec.ports[0].number"),
        ("{hosts: [a.b], ports: [{number: 1, name: a}, {number: 1, name: b}]}".to_owned(), "spec.ports[1].number"),
        ("{hosts: [a.b], ports: [{number: 1, name: a}, {number: 2, name: a}]}".to_owned(), "spec.ports[1].name"),
        ("{hosts: [a.b], endpoints: [{address: 1.1.1.1}]}".to_owned(), "spec.endpoints"),
        (
            "{hosts: [a.b], resolution: STATIC, endpoints: [{address: 1.1.1.1}], workloadSelector: {labels: {a: b}}}"
                .to_owned(),
            "spec",
        ),
        ("{hosts: [a.b], resolution: DNS, addresses: [10.0.0.0/8]}".to_owned(), "spec.addresses"),
        ("{hosts: [a.b], resolution: STATIC, endpoints: [{ports: {http: 1}}]}".to_owned(), "spec.endpoints[0].address"),
        (
            "{hosts: [a.b], resolution: STATIC, endpoints: [{address: 'unix://./rel'}]}".to_owned(),
            "spec.endpoints[0].address",
        ),
        (
            "{hosts: [a.b], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: b.c}]}".to_owned(),
            "spec.endpoints",
        ),
        ("{hosts: [a.b], addresses: [nope]}".to_owned(), "flawed spec.addresses[0]"),
    ];
    for (spec, field) in cases {
        assert_eq!(refused("ServiceEntry", &spec), field, "{spec}");
    }
    assert_eq!(refused("WorkloadEntry", "{labels: {a: b}}"), "spec.address");
    assert_eq!(refused("WorkloadEntry", "{address: 1.1.1.1, weight: heavy}"), "spec.weight");
    accepted("WorkloadEntry", "{network: n}");
}

#[test]
fn kubernetes_kinds_break_rules_of_the_api_server() {
    let cases = [
        ("Service", "{ports: [{port: 80, name: a}, {port: 80, name: b}]}", "spec.ports[1]"),
        ("Service", "{clusterIP: 10.0.0.1}", "spec.ports"),
        ("Service", "{ports: [{port: 80}, {port: 81}]}", "spec.ports[0].name"),
        ("Service", "{ports: [{port: 0}]}", "spec.ports[0].port"),
        ("Service", "{ports: [{port: eighty}]}", "spec.ports[0].port"),
        ("Service", "{ports: [{port: 80, protocol: HTTP}]}", "spec.ports[0].protocol"),
        ("Service", "{ports: [{port: 80, targetPort: Not_A_Name}]}", "spec.ports[0].targetPort"),
        ("Service", "{type: Magic, ports: [{port: 80}]}", "spec.type"),
        ("Service", "{clusterIP: nope, ports: [{port: 80}]}", "spec.clusterIP"),
        ("Service", "{internalTrafficPolicy: Global, ports: [{port: 80}]}", "spec.internalTrafficPolicy"),
        ("Service", "{type: ExternalName}", "spec.externalName"),
        ("Service", "{selector: {app: 1}, ports: [{port: 80}]}", "spec.selector.app"),
        ("Pod", "{}", "spec.containers"),
        ("Pod", "{containers: [{image: a}]}", "spec.containers[0].name"),
        (
            "Pod",
            "{containers: [{name: a, ports: [{containerPort: 99999}]}]}",
            "spec.containers[0].ports[0].containerPort",
        ),
        ("Pod", "{containers: [{name: a}], hostNetwork: maybe}", "spec.hostNetwork"),
        ("Pod", "{containers: [{name: a}]}\nstatus: {podIP: 10.0.0.999}", "status.podIP"),
        (
            "Pod",
            "{containers: [{name: a}]}\nstatus: {podIPs: [{ip: 10.0.0.1}, {ip: x}]}",
            "status.podIPs[1].ip",
        ),
        ("Gateway", "{listeners: [{name: a, port: 1, protocol: HBONE}]}", "spec.gatewayClassName"),
        ("Gateway", "{gatewayClassName: c}", "spec.listeners"),
        ("Gateway", "{gatewayClassName: c, listeners: [{name: a, port: 1}]}", "spec.listeners[0].protocol"),
    ];
    for (kind, spec, field) in cases {
        assert_eq!(refused(kind, spec), field, "{kind} {spec}");
    }
}

#[test]
fn names_and_labels_follow_kubernetes() {
    let refusal = |metadata: &str| match admission(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {metadata}\n"
    )) {
        Admission::Refused(_, Reason::Invalid { field, .. }) => field,
        other => panic!("{metadata}: {other:?}"),
    };
    assert_eq!(refusal("{}"), "metadata.name");
    assert_eq!(refusal("{name: Upper}"), "metadata.name");
    assert_eq!(refusal("{name: a, namespace: a.b}"), "metadata.namespace");
    assert_eq!(refusal("{name: a, labels: {k: 1}}"), "metadata.labels[k]");
    assert_eq!(refusal("{name: a, labels: {k: 'a b'}}"), "metadata.labels[k]");
    assert_eq!(refusal("{name: a, labels: {'-k': a}}"), "metadata.labels[-k]");
    assert_eq!(refusal("{name: a, creationTimestamp: yesterday}"), "metadata.creationTimestamp");
}

#[test]
fn kinds_and_versions_are_told_apart() {
    let of = |api_version: &str, kind: &str| {
        admission(&format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n"))
    };
    assert!(matches!(of("apps/v1", "Deployment"), Admission::Ignored(kind) if kind == "apps/v1 Deployment"));
    assert!(matches!(of("v1", "ConfigMap"), Admission::Ignored(_)));
    let future = of("security.istio.io/v2", "AuthorizationPolicy");
    assert!(matches!(future, Admission::Refused(_, Reason::UnsupportedVersion { .. })), "{future:?}");
    assert!(matches!(admission("foo: bar"), Admission::Refused(None, Reason::NotAnObject(_))));
    assert!(matches!(admission("just text"), Admission::Refused(None, Reason::NotAnObject(_))));
}
