//! The mesh's YAML changes while traffic flows.

use crate::lab::{self, Lab};
use crate::probe::Probe;

const PORT: u16 = 7777;

const DENY_SLEEP: &str = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-sleep, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]
";

#[test]
fn a_policy_change_cuts_the_live_connection_and_no_other() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let mut server = lab.probe("ratings", &Probe::Double { port: PORT });
    server.report();
    let to = format!("{}:{PORT}", lab.address("ratings"));
    let mut denied = lab.probe("sleep", &Probe::Talk { to: to.clone() });
    let mut innocent = lab.probe("notsleep", &Probe::Talk { to: to.clone() });
    for talk in [&mut denied, &mut innocent] {
        assert_eq!(talk.report()["connected"], true);
        assert_eq!(talk.say("ab")["received"], "abab");
    }

    lab.write_mesh("deny-sleep.yaml", DENY_SLEEP);
    let line =
        lab.access_line("ambient-worker", |line| line.contains("connection closed due to policy change"));
    assert!(line.contains("direction=\"inbound\"") && line.contains("sa/sleep"), "{line}");
    assert!(denied.say("cd").get("end").is_some(), "the denied connection is cut");
    assert_eq!(innocent.say("ef")["received"], "efef", "the other goes on");
    let again = lab.probe("sleep", &Probe::Send { to: to.clone(), text: "x".to_owned() }).report();
    assert_eq!(again["received"], "", "a new connection is refused: {again}");
    let line =
        lab.access_line("ambient-worker", |line| line.contains("explicitly denied by: default/not-sleep"));
    assert!(line.contains("code=\"policy-explicit-deny\""), "{line}");

    // Without the policy all is as before.
    lab.remove_mesh("deny-sleep.yaml");
    lab::eventually("sleep is allowed again", || {
        let report = lab.probe("sleep", &Probe::Send { to: to.clone(), text: "x".to_owned() }).report();
        (report["received"] == "xx").then_some(())
    });
}

// A-NS-19
#[test]
fn a_principal_written_with_the_scheme_never_matches() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    lab.write_mesh(
        "scheme.yaml",
        r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: with-scheme, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from: [{source: {principals: ['spiffe://cluster.local/ns/default/sa/sleep']}}]
",
    );
    let wanted = "connection closed due to policy rejection: allow policies exist, but none allowed";
    lab::eventually(&format!("sleep is refused, and a node says: {wanted}"), || {
        // A request that is under way when the policy arrives is cut with another text, so ask again.
        let refused = !lab.get("sleep", "http://reviews:9080/").status.success();
        let said = ["ambient-worker", "ambient-worker2"].iter().any(|node| lab.log(node).contains(wanted));
        (refused && said).then_some(())
    });
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let policies = lab.zc(&["policies", "--node", "ambient-worker"]);
    lab.write_mesh("broken.yaml", "kind: Pod\nmetadata: {name: [\n");
    lab.write_mesh("unknown.yaml", "apiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: g}\n");
    lab.write_mesh("wrong.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: wrong, namespace: default}\nspec: {action: MAYBE}\n");
    for named in ["broken.yaml", "wrong.yaml"] {
        lab::eventually(&format!("control's log names {named}"), || {
            lab.log("control").contains(named).then_some(())
        });
    }
    assert_eq!(lab.zc(&["policies", "--node", "ambient-worker"]), policies);
    assert!(lab.get("sleep", "http://productpage:9080/").status.success());
    // Mended, it takes effect.
    lab.remove_mesh("broken.yaml");
    lab.write_mesh("wrong.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: wrong, namespace: default}\nspec: {action: DENY}\n");
    lab::eventually("the mended policy arrives", || {
        lab.zc(&["policies", "--node", "ambient-worker"]).contains("wrong").then_some(())
    });
}
