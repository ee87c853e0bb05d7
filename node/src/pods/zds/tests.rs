use std::os::fd::OwnedFd;

use super::*;

fn encode(payload: zds::workload_request::Payload) -> Vec<u8> {
    zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

fn add_of(uid: &str, with_info: bool) -> Vec<u8> {
    let info = zds::WorkloadInfo { name: "n".into(), namespace: "ns".into(), service_account: "sa".into() };
    encode(zds::workload_request::Payload::Add(zds::AddWorkload {
        uid: uid.into(),
        workload_info: with_info.then_some(info),
    }))
}

fn keep(uid: &str) -> Vec<u8> {
    encode(zds::workload_request::Payload::Keep(zds::KeepWorkload { uid: uid.into() }))
}

fn delete(uid: &str) -> Vec<u8> {
    encode(zds::workload_request::Payload::Del(zds::DelWorkload { uid: uid.into() }))
}

fn snapshot() -> Vec<u8> {
    encode(zds::workload_request::Payload::SnapshotSent(zds::SnapshotSent {}))
}

fn own_namespace() -> OwnedFd {
    std::fs::File::open("/proc/self/ns/net").unwrap().into()
}

fn some_file() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn pods_named_before_the_snapshot_are_remembered() {
    let mut rules = Rules::default();
    let added = rules.accept(&add_of("a", true), Some(own_namespace())).unwrap();
    assert!(matches!(added, Request::Add { uid, pod, .. } if uid == "a" && &*pod.name == "n"));
    rules.accept(&keep("k"), None).unwrap();
    rules.accept(&keep("gone"), None).unwrap();
    rules.accept(&delete("gone"), None).unwrap();
    assert!(matches!(rules.accept(&snapshot(), None).unwrap(), Request::SnapshotSent));
    // Afterwards the set is what the reconciliation used, and no more.
    rules.accept(&add_of("later", true), Some(own_namespace())).unwrap();
    let mut named: Vec<_> = rules.named().iter().map(String::as_str).collect();
    named.sort_unstable();
    assert_eq!(named, ["a", "k"]);
}

// A-IP-01, A-IP-10
#[test]
fn every_breach_is_told_by_its_code() {
    let after = |bytes: Vec<u8>, descriptor: Option<OwnedFd>, synced: bool| {
        let mut rules = Rules::default();
        if synced {
            rules.accept(&snapshot(), None).unwrap();
        }
        rules.accept(&bytes, descriptor).unwrap_err()
    };
    let table = [
        (after(b"\xff\xff".to_vec(), None, false), "zds-undecodable", "failure to read message : "),
        (after(Vec::new(), None, false), "zds-undecodable", "failure to read message : "),
        (
            after(add_of("", true), Some(own_namespace()), false),
            "zds-missing-uid",
            "failure to process message : ",
        ),
        (
            after(add_of("a", false), Some(own_namespace()), false),
            "zds-missing-workload-info",
            "failure to process message : ",
        ),
        (after(add_of("a", true), None, false), "zds-missing-namespace", "failure to read message : "),
        (
            after(add_of("a", true), Some(some_file()), false),
            "zds-bad-namespace",
            "failure to read message : ",
        ),
        (
            after(keep("a"), Some(own_namespace()), false),
            "zds-unexpected-descriptor",
            "failure to read message : ",
        ),
        (after(keep("a"), None, true), "zds-keep-after-snapshot", "failure to process message : "),
        (after(snapshot(), None, true), "zds-second-snapshot", "failure to process message : "),
    ];
    for (error, code, text) in table {
        assert_eq!(error.code(), code);
        assert!(error.refusal().starts_with(text), "{}", error.refusal());
    }
}
