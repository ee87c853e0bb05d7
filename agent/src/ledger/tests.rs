//! What each proxy is told, as decisions. A-IP-19
use super::*;

fn pod(uid: &str) -> Record {
    let id = NetNamespace::current().unwrap().id();
    Record {
        uid: uid.to_owned(),
        pod: format!("default/{uid}").parse().unwrap(),
        service_account: "default".to_owned(),
        netns: "/proc/1/ns/net".into(),
        device: id.device,
        inode: id.inode,
        options: crate::enrolled::Options::default(),
    }
}

fn open() -> Option<Arc<NetNamespace>> {
    Some(Arc::new(NetNamespace::current().unwrap()))
}

/// Tells everything there is to tell, each answered by `refuse`; what was said, as text.
fn told(ledger: &mut Ledger, connection: ConnectionId, refuse: Option<&str>) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(message) = ledger.next(connection, Instant::now()) {
        said.push(match &message {
            Message::Add(pod) => format!("add {}", pod.record.uid),
            Message::Keep { uid } => format!("keep {uid}"),
            Message::Delete { uid } => format!("del {uid}"),
            Message::SnapshotSent => "sent".to_owned(),
        });
        let refusal = refuse.filter(|_| matches!(message, Message::Add(_)));
        ledger.answered(connection, &message, refusal, Instant::now());
    }
    said
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_adds_what_is_open_keeps_what_is_not_and_ends() {
    let mut ledger = Ledger::default();
    ledger.enroll(pod("a"), open());
    ledger.enroll(pod("b"), None);
    let first = ledger.connect();
    assert_eq!(told(&mut ledger, first, None), ["add a", "keep b", "sent"]);
    // Found later: added. Keep is not said again.
    ledger.enroll(pod("b"), open());
    assert_eq!(told(&mut ledger, first, None), ["add b"]);
}

#[tokio::test(start_paused = true)]
async fn new_pods_go_to_the_newest_proxy_and_deletions_to_all() {
    let mut ledger = Ledger::default();
    let old = ledger.connect();
    ledger.enroll(pod("a"), open());
    assert_eq!(told(&mut ledger, old, None), ["sent", "add a"]);
    let new = ledger.connect();
    assert_eq!(told(&mut ledger, new, None), ["add a", "sent"]);
    let generation = ledger.enroll(pod("b"), open());
    assert_eq!(told(&mut ledger, old, None), [""; 0]);
    assert_eq!(told(&mut ledger, new, None), ["add b"]);
    assert_eq!(ledger.progress("b", generation), Progress::Accepted);

    ledger.withdraw("a");
    assert!(!ledger.is_forgotten("a"));
    assert_eq!(told(&mut ledger, old, None), ["del a"]);
    assert_eq!(told(&mut ledger, new, None), ["del a"]);
    assert!(ledger.is_forgotten("a"));

    // The newest goes: the one before catches up.
    ledger.disconnect(new);
    assert_eq!(ledger.progress("b", generation), Progress::Waiting);
    assert_eq!(told(&mut ledger, old, None), ["add b"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_is_tried_again_later_and_forgotten_if_withdrawn() {
    let mut ledger = Ledger::default();
    let proxy = ledger.connect();
    let generation = ledger.enroll(pod("a"), open());
    assert_eq!(told(&mut ledger, proxy, Some("no port")), ["sent", "add a"]);
    assert_eq!(ledger.progress("a", generation), Progress::Refused("no port".to_owned()));
    assert_eq!(told(&mut ledger, proxy, None), [""; 0]);
    tokio::time::advance(RETRY).await;
    assert_eq!(told(&mut ledger, proxy, None), ["add a"]);
    assert_eq!(ledger.progress("a", generation), Progress::Accepted);

    ledger.enroll(pod("b"), open());
    told(&mut ledger, proxy, Some("no port"));
    ledger.withdraw("b");
    // It may be retrying by itself.
    assert_eq!(told(&mut ledger, proxy, None), ["del b"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_withdrawn_during_the_snapshot_is_not_told_or_deleted_after_it() {
    let mut ledger = Ledger::default();
    ledger.enroll(pod("a"), open());
    ledger.enroll(pod("b"), open());
    let proxy = ledger.connect();
    let first = ledger.next(proxy, Instant::now()).unwrap();
    ledger.answered(proxy, &first, None, Instant::now());
    ledger.withdraw("a");
    ledger.withdraw("b");
    assert!(!ledger.is_forgotten("b"), "an instance from before may still run");
    assert_eq!(told(&mut ledger, proxy, None), ["sent", "del a"]);
    assert!(ledger.is_forgotten("a") && ledger.is_forgotten("b"));
}

#[test]
fn progress_tells_enrollments_of_one_uid_apart() {
    let mut ledger = Ledger::default();
    let first = ledger.enroll(pod("a"), open());
    assert_eq!(ledger.progress("a", first), Progress::NoProxy);
    let second = ledger.enroll(pod("a"), open());
    assert_eq!(ledger.progress("a", first), Progress::Gone);
    assert_eq!(ledger.progress("a", second), Progress::NoProxy);
    ledger.withdraw("a");
    assert_eq!(ledger.progress("a", second), Progress::Gone);
}
