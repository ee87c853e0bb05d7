//! Programs end and come back; traffic goes on.

use crate::lab::{self, Lab, rustix_signal};
use crate::probe::Probe;

const PORT: u16 = 7777;

fn works(lab: &Lab) -> bool {
    lab.get("sleep", "http://productpage:9080/").status.success()
}

#[test]
fn a_killed_node_proxy_comes_back_and_traffic_resumes() {
    if !lab::allowed() {
        return;
    }
    let mut lab = Lab::start();
    assert!(works(&lab));
    for node in ["ambient-worker", "ambient-worker2"] {
        let before = lab.pid(node);
        lab::signal(before, rustix_signal::KILL);
        lab::eventually("the node is started again", || {
            lab.reread();
            (lab.pid(node) != before).then_some(())
        });
        lab::eventually("traffic resumes", || works(&lab).then_some(()));
    }
}

#[test]
fn traffic_outlives_control_and_changes_arrive_when_it_is_back() {
    if !lab::allowed() {
        return;
    }
    let mut lab = Lab::start();
    let before = lab.pid("control");
    lab::signal(before, rustix_signal::KILL);
    assert!(works(&lab), "traffic needs no control plane");
    lab::eventually("control is started again", || {
        lab.reread();
        (lab.pid("control") != before).then_some(())
    });
    lab.write_mesh("deny.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: default}\nspec: {selector: {matchLabels: {app: productpage}}}\n");
    lab::eventually("the change arrives", || (!works(&lab)).then_some(()));
    lab.remove_mesh("deny.yaml");
    lab::eventually("and is taken back", || works(&lab).then_some(()));
}

#[test]
fn a_killed_agent_leaves_no_gap() {
    if !lab::allowed() {
        return;
    }
    let mut lab = Lab::start();
    let before = lab.register["agents"].clone();
    for agent in before.as_array().unwrap() {
        lab::signal(u32::try_from(agent.as_u64().unwrap()).unwrap(), rustix_signal::KILL);
    }
    assert!(works(&lab), "capture does not depend on the agent");
    lab::eventually("the agents are started again", || {
        lab.reread();
        let now = &lab.register["agents"];
        (0..2).all(|index| now[index] != before[index]).then_some(())
    });
    // The pods are handed over again to a node that starts now.
    let node = lab.pid("ambient-worker");
    lab::signal(node, rustix_signal::KILL);
    lab::eventually("the node is started again", || {
        lab.reread();
        (lab.pid("ambient-worker") != node).then_some(())
    });
    lab::eventually("traffic resumes", || works(&lab).then_some(()));
}

// A-NS-17, A-DI-03
#[test]
fn a_draining_node_keeps_its_connections_and_takes_no_new_ones() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let mut server = lab.probe("notsleep", &Probe::Double { port: PORT });
    server.report();
    let to = format!("{}:{PORT}", lab.address("notsleep"));
    let mut long = lab.probe("sleep", &Probe::Talk { to: to.clone() });
    assert_eq!(long.report()["connected"], true);
    assert_eq!(long.say("ab")["received"], "abab");

    let node = lab.pid("ambient-worker");
    lab::signal(node, rustix_signal::TERM);
    lab::eventually("new connections are refused", || {
        let report = lab.probe("sleep", &Probe::Send { to: to.clone(), text: "x".to_owned() }).report();
        (report["connected"] == false || !lab::alive(node)).then_some(())
    });
    assert!(lab::alive(node), "an open connection holds the drain");
    assert_eq!(long.say("cd")["received"], "cdcd", "the long connection goes on");
    drop(long);
    lab::eventually("the process is gone", || (!lab::alive(node)).then_some(()));
}
