use std::future::Future as _;

use futures::FutureExt as _;

use super::*;

const WORLD: &str = r#"
workloads:
- {uid: w, name: app, namespace: ns, serviceAccount: sa, trustDomain: td, workloadIps: ["10.0.0.1"], services: {}}
"#;

const DENY_7000: &str = r#"
policies:
- name: deny
  namespace: ns
  scope: Namespace
  action: Deny
  dryRun: false
  rules: [[[{destinationPorts: [7000]}]]]
"#;

fn mesh(extra: &str) -> Mesh {
    let text = format!("{WORLD}{extra}");
    Mesh::new(state::MeshConfig::default()).apply(state::local_file::parse(&text).unwrap()).0
}

fn pod() -> Pod {
    Pod { namespace: "ns".into(), name: "app".into(), service_account: "sa".into() }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn open(connections: &Rc<Connections>, source: &str, target: &str) -> InboundEntry {
    let key =
        InboundKey { source: address(source), target: address(target), identity: None, forwarded_host: None };
    connections.inbound(Arc::new(key))
}

// A-PO-11, data-path 7.7: also a change that is not of a policy is noticed by whoever asks again.
#[test]
fn a_policy_cuts_what_it_no_longer_allows_and_nothing_else() {
    let connections = ConnectionLists::default().part();
    let to_7000 = open(&connections, "10.0.0.9:1", "10.0.0.1:7000");
    let to_7001 = open(&connections, "10.0.0.9:2", "10.0.0.1:7001");
    let (before, after) = (mesh(""), mesh(DENY_7000));
    let known = before.local_workload(&pod()).unwrap();
    connections.judge_again(&before, &pod(), known);
    assert!(to_7000.disallowed().now_or_never().is_none());
    connections.judge_again(&after, &pod(), known);
    assert!(to_7000.disallowed().now_or_never().is_some());
    assert!(to_7001.disallowed().now_or_never().is_none());
    // Told once is told for ever.
    assert!(to_7000.disallowed().now_or_never().is_some());
}

#[test]
fn who_does_not_wait_any_more_is_not_held() {
    struct Task;
    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let connections = ConnectionLists::default().part();
    let entry = open(&connections, "10.0.0.9:1", "10.0.0.1:7000");
    let task = Arc::new(Task);
    let waker = Waker::from(Arc::clone(&task));
    let mut waiting = Box::pin(entry.disallowed());
    assert!(waiting.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    assert_eq!(Arc::strong_count(&task), 3);
    drop(waiting);
    assert_eq!(Arc::strong_count(&task), 2);
}

/// What is judged again: everything after a change of policies, else only what is new since the last time, which may
/// have been judged by policies in between.
#[test]
fn only_changes_of_policies_judge_every_connection_again() {
    let connections = ConnectionLists::default().part();
    let _first = open(&connections, "10.0.0.9:1", "10.0.0.1:7001");
    let before = mesh(DENY_7000);
    let known = before.local_workload(&pod()).unwrap();
    assert_eq!(connections.judge_again(&before, &pod(), known), 1);
    let elsewhere =
        "workloads: [{uid: x, name: other, namespace: ns, workloadIps: [\"10.0.0.2\"], services: {}}]";
    let other = before.apply(state::local_file::parse(elsewhere).unwrap()).0;
    assert!(other.n_workloads() > before.n_workloads());
    assert_eq!(connections.judge_again(&other, &pod(), known), 0);
    let second = open(&connections, "10.0.0.9:2", "10.0.0.1:7000");
    assert_eq!(connections.judge_again(&before, &pod(), known), 1);
    assert!(second.is_disallowed());
    assert_eq!(connections.judge_again(&mesh(""), &pod(), known), 2);
}

// A-PO-10
#[test]
fn connections_of_one_peer_to_one_target_are_listed_once() {
    let lists = ConnectionLists::default();
    let (one, other) = (lists.part(), lists.part());
    let entries = [
        open(&one, "10.0.0.9:1", "10.0.0.1:7000"),
        open(&one, "10.0.0.9:1", "10.0.0.1:7000"),
        open(&other, "10.0.0.9:1", "10.0.0.1:7000"),
    ];
    for entry in entries {
        assert_eq!(lists.dump().inbound.len(), 1);
        drop(entry);
    }
    assert_eq!(lists.dump().inbound.len(), 0);
}

#[test]
fn the_dump_names_both_ends() {
    let lists = ConnectionLists::default();
    let part = lists.part();
    let identity = identity::SpiffeId::new("td", "ns", "sa").unwrap();
    let key = InboundKey {
        source: address("10.0.0.9:1"),
        target: address("10.0.0.1:7000"),
        identity: Some(identity),
        forwarded_host: Some("svc.ns".into()),
    };
    let _inbound = part.inbound(Arc::new(key));
    let _outbound = part.outbound(Arc::new(OutboundKey {
        source: address("10.0.0.1:2").into(),
        original: address("10.96.0.1:80").into(),
        actual: address("[fd00::1]:15008").into(),
        protocol: state::Protocol::Hbone,
    }));
    let dump::Connections { inbound, outbound } = lists.dump();
    let shown = |c: &dump::Connection| {
        (c.src.clone(), c.original_dst.clone(), c.actual_dst.clone(), c.protocol.clone())
    };
    let text = str::to_owned;
    let wanted = (text("10.0.0.9:1"), Some(text("svc.ns")), text("10.0.0.1:7000"), text("HBONE"));
    assert_eq!(inbound.iter().map(shown).collect::<Vec<_>>(), [wanted]);
    let original = Some(text("10.96.0.1:80"));
    let wanted = (text("10.0.0.1:2"), original, text("[fd00::1]:15008"), text("HBONE"));
    assert_eq!(outbound.iter().map(shown).collect::<Vec<_>>(), [wanted]);
}
