//! Where the reference is known to be wrong, and what is right instead (docs/compatibility).
//!
//! Each function turns what was recorded in one case into what this control plane gives; the
//! recorded value is checked on the way, so that a difference that no longer exists is noticed.

use serde_json::{Value, json};

const STRICT: &str = "istio-system/istio_converted_static_strict";

/// Cases whose recorded status calls policies with meaningless values accepted (weakness 41).
pub(super) const REPORTS_INVALID_VALUES: [&str; 2] = ["ap-cleared-match", "ap-invalid"];

/// 4.5 gives it `UnsupportedValue`; nothing was recorded for it.
pub(super) const DRY_RUN_WITHOUT_STATUS: &str = "AuthorizationPolicy/aa/dry";

pub(super) fn differences(case: &str, step: usize, expected: &mut Value) {
    let mut at = At(expected);
    match (case, step) {
        ("ap-cleared-match", 1) => invalid_values_beside_valid_ones(&mut at),
        ("ap-invalid", 1) => invalid_values(&mut at),
        ("ap-scope", _) => empty_selectors(&mut at, step),
        ("pa-quirk-root-strict", 1) => strict_port_under_strict_mesh(&mut at),
        ("se-addresses-cidr", 1) => one_bad_address(&mut at),
        ("se-static", 1) => network_of_earlier_endpoint(&mut at),
        _ => {}
    }
}

struct At<'v>(&'v mut Value);

impl At<'_> {
    fn get(&mut self, pointer: &str) -> &mut Value {
        self.0.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing recorded at {pointer}"))
    }

    fn replace(&mut self, pointer: &str, recorded: &Value, ours: Value) {
        let value = self.get(pointer);
        assert_eq!(value, recorded, "recorded at {pointer}");
        *value = ours;
    }

    fn policies_reported(&mut self, namespace: &str, names: &[&str]) {
        let names: Vec<String> =
            names.iter().map(|name| format!("AuthorizationPolicy/{namespace}/{name}")).collect();
        *self.get("/refused") = json!(names);
    }
}

/// 4.2.9: dropping the value widens the ALLOW. The match matches nothing instead; the DENY stays wide.
fn invalid_values_beside_valid_ones(at: &mut At<'_>) {
    let recorded = json!([{"rules": [{"matches": [{"namespaces": [{"exact": "a"}]}]}]}]);
    for policy in ["allow", "notbad"] {
        let pointer = format!("/authorization/changed/acm~1{policy}/groups");
        at.replace(&pointer, &recorded, json!([{"rules": [{"matches": [{}]}]}]));
    }
    at.policies_reported("acm", &["allow", "deny", "notbad"]);
}

/// 4.2.9: what matches nobody is not sent, and every policy with such a value is reported.
fn invalid_values(at: &mut At<'_>) {
    let accounts = json!([{"namespace": "a", "serviceAccount": "b/c"}, {"namespace": "ai"}]);
    let recorded = json!([{"rules": [{"matches": [{"service_accounts": accounts}]}]}]);
    at.replace("/authorization/changed/ai~1badsa/groups", &recorded, json!([{"rules": [{"matches": [{}]}]}]));
    let reported =
        ["badip", "badip-deny", "badkey", "badport", "badport-mix", "badsa", "badwhenport", "mix-sa-ns"];
    at.policies_reported("ai", &reported);
}

/// 3.9: a selector without labels selects everything, as no selector does.
fn empty_selectors(at: &mut At<'_>, step: usize) {
    if step == 1 {
        for policy in ["emptysel", "emptylabels"] {
            let pointer = format!("/authorization/changed/as~1{policy}/scope");
            at.replace(&pointer, &json!("WORKLOAD_SELECTOR"), json!("NAMESPACE"));
        }
    }
    if step != 2 {
        let listed = at.get("/address/changed/Kubernetes~1~1Pod~1as~1a/workload/authorization_policies");
        let listed = listed.as_array_mut().expect("a list");
        let before = listed.len();
        listed.retain(|key| key != "as/emptylabels");
        assert_eq!(listed.len() + 1, before, "the policy with empty labels was recorded");
    }
}

/// 4.3.3, quirk 1: the policy that the workload names exists, and protects the port.
fn strict_port_under_strict_mesh(at: &mut At<'_>) {
    let listed = at.get("/address/changed/Kubernetes~1~1Pod~1pa9~1a/workload/authorization_policies").clone();
    assert_eq!(listed, json!(["pa9/converted_peer_authentication_w"]), "recorded: a name of nothing");
    assert!(at.get("/authorization/changed").get(STRICT).is_some());
    let matches = json!([{"not_principals": [{"presence": {}}], "destination_ports": [9090]}]);
    at.get("/authorization/changed")["pa9/converted_peer_authentication_w"] = json!({
        "name": "converted_peer_authentication_w",
        "namespace": "pa9",
        "scope": "WORKLOAD_SELECTOR",
        "action": "DENY",
        "groups": [{"rules": [{"matches": matches}]}],
    });
}

/// 3.7: one bad address costs that address, not the object, and is reported.
fn one_bad_address(at: &mut At<'_>) {
    at.get("/address/changed")["ec/bad.example"] = json!({"service": {
        "name": "bad",
        "namespace": "ec",
        "hostname": "bad.example",
        "addresses": [{"address": "198.51.103.1"}],
        "ports": [{"service_port": 443, "target_port": 443, "app_protocol": "TCP"}],
        "load_balancing": {"mode": "PASSTHROUGH", "health_policy": "ALLOW_ALL"},
        "canonical": true,
    }});
    *at.get("/refused") = json!(["ServiceEntry/ec/bad"]);
}

/// 3.10: a network is that of its own endpoint alone.
fn network_of_earlier_endpoint(at: &mut At<'_>) {
    for address in ["192.0.2.53", "fd00::50"] {
        let uid = format!("Kubernetes~1networking.istio.io~1ServiceEntry~1es~1st~1{address}");
        let workload =
            at.get(&format!("/address/changed/{uid}/workload")).as_object_mut().expect("a workload");
        assert_eq!(workload.remove("network"), Some(json!("net-2")), "recorded for {address}");
    }
}
