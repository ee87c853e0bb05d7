//! The client against scripted responses (control-and-operations 2.3 to 2.7, 11.1).

use std::collections::BTreeSet;

use super::*;

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const POLICY: &str = "type.googleapis.com/istio.security.Authorization";

/// Takes everything but names that start with `bad` or `mad`.
#[derive(Default)]
struct Taker {
    have: BTreeSet<String>,
    synced: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("unknown address type")]
struct Nonsense;

impl Handler for Taker {
    fn apply(&mut self, update: &Update) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for resource in &update.resources {
            let name = resource.name.clone();
            if resource.resource.is_none() {
                rejected.push(Rejected { name, reason: Refusal::NoPayload });
            } else if name.starts_with("bad") {
                rejected.push(Rejected { name, reason: Refusal::Invalid(Box::new(Nonsense)) });
            } else {
                self.have.insert(name);
            }
        }
        for name in &update.removed {
            self.have.remove(name);
        }
        rejected
    }

    fn answers(&self, _type_url: &str, key: &str) -> bool {
        // As if the payload of `svc` carried this address.
        key == "/10.0.0.9" && self.have.contains("ns/svc")
    }

    fn synced(&mut self) {
        self.synced += 1;
    }
}

fn full() -> Client {
    Client::new(vec![
        Kind { type_url: ADDRESS.to_owned(), scope: Scope::Wildcard },
        Kind { type_url: POLICY.to_owned(), scope: Scope::Wildcard },
    ])
}

fn on_demand() -> Client {
    Client::new(vec![
        Kind { type_url: ADDRESS.to_owned(), scope: Scope::OnDemand },
        Kind { type_url: POLICY.to_owned(), scope: Scope::Wildcard },
    ])
}

fn response(type_url: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |(name, version): &(&str, &str)| Resource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: (!name.starts_with("empty")).then(prost_types::Any::default),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: "n1".to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn versions(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    request
        .initial_resource_versions
        .iter()
        .map(|(name, version)| (name.as_str(), version.as_str()))
        .collect()
}

// CO-2.3: Address first, then Authorization; empty lists mean everything.
#[test]
fn a_stream_opens_with_one_request_per_kind_in_order() {
    let node = Node { id: "me".to_owned(), ..Default::default() };
    let requests = full().open(&node);
    let types: Vec<&str> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types, [ADDRESS, POLICY]);
    for request in requests {
        assert_eq!(request.node.map(|node| node.id).as_deref(), Some("me"));
        assert!(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty() && request.response_nonce.is_empty());
    }
}

// CO-11.1-2, CO-2.4
#[test]
fn on_demand_subscribes_to_nothing_and_policies_stay_wildcard() {
    let requests = on_demand().open(&Node::default());
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    assert!(
        requests[1].resource_names_subscribe.is_empty() && requests[1].resource_names_unsubscribe.is_empty()
    );
}

// CO-11.1-3: the bad resource is refused alone, and only the good one is claimed on the next stream.
#[test]
fn only_the_bad_resource_is_refused_and_only_the_good_one_is_claimed() {
    let (mut client, mut taker) = (full(), Taker::default());
    client.open(&Node::default());
    let reply = client.receive(response(ADDRESS, &[("foo0", "0.0.1"), ("bad1", "0.0.2")], &[]), &mut taker);
    let error = reply.request.error_detail.expect("a refusal");
    assert_eq!(error.message, "bad1: unknown address type");
    assert_eq!(reply.request.response_nonce, "n1");
    assert!(taker.have.contains("foo0"));
    let requests = client.open(&Node::default());
    assert_eq!(versions(&requests[0]), [("foo0", "0.0.1")]);
    assert_eq!(versions(&requests[1]), []);
}

// CO-2.5: handler's refusals first, joined by semicolons.
#[test]
fn a_refusal_names_every_bad_resource_with_its_reason() {
    let (mut client, mut taker) = (full(), Taker::default());
    let reply = client.receive(
        response(ADDRESS, &[("empty1", "1"), ("bad1", "1"), ("good", ""), ("bad2", "1")], &[]),
        &mut taker,
    );
    assert_eq!(
        reply.request.error_detail.expect("a refusal").message,
        "bad1: unknown address type; bad2: unknown address type; empty1: XDS payload without resource"
    );
}

// CO-2.5: versions are kept for what is accepted, left for what is refused, dropped for what is removed.
#[test]
fn known_versions_follow_what_happened() {
    let (mut client, mut taker) = (full(), Taker::default());
    client.receive(response(ADDRESS, &[("a", "1"), ("b", "1"), ("c", "")], &[]), &mut taker);
    client.receive(response(ADDRESS, &[("a", "2")], &["b"]), &mut taker);
    assert_eq!(versions(&client.open(&Node::default())[0]), [("a", "2"), ("c", "")]);
    // In one response: put first, removed last.
    client.receive(response(ADDRESS, &[("d", "1")], &["d"]), &mut taker);
    assert_eq!(versions(&client.open(&Node::default())[0]), [("a", "2"), ("c", "")]);
    assert!(!taker.have.contains("d"));
}

// CO-11.1-1, CO-2.7
#[test]
fn synced_needs_an_accepted_answer_of_every_wildcard_kind() {
    let (mut client, mut taker) = (full(), Taker::default());
    assert!(!client.receive(response(ADDRESS, &[("a", "1")], &[]), &mut taker).now_synced);
    let refused = client.receive(response(POLICY, &[("bad", "1")], &[]), &mut taker);
    assert!(!refused.now_synced, "a refused response does not count");
    assert!(client.receive(response(POLICY, &[], &[]), &mut taker).now_synced);
    assert!(!client.receive(response(POLICY, &[], &[]), &mut taker).now_synced, "once");
    assert_eq!(taker.synced, 1);
    client.open(&Node::default());
    assert!(client.is_synced(), "never reverts");

    let (mut client, mut taker) = (on_demand(), Taker::default());
    assert!(client.receive(response(POLICY, &[], &[]), &mut taker).now_synced, "policies alone");
}

// CO-12.1-12: not acknowledged, for it was not applied.
#[test]
fn an_unknown_type_is_refused() {
    let (mut client, mut taker) = (full(), Taker::default());
    let reply = client.receive(response("what", &[("a", "1")], &[]), &mut taker);
    assert_eq!(reply.request.error_detail.expect("a refusal").message, "unknown type: what");
    assert!(taker.have.is_empty());
}

// CO-2.4, CO-12.1-1: by name, by alias, by what the payload says, as removed.
#[test]
fn a_demand_is_answered_in_four_ways() {
    let (mut client, mut taker) = (on_demand(), Taker::default());
    client.open(&Node::default());
    for key in ["ns/svc", "/10.0.0.1", "/10.0.0.9", "/10.0.0.2", "/10.0.0.3"] {
        let request = client.demand(ADDRESS, key).expect("a request");
        assert_eq!(request.resource_names_subscribe, [key]);
        assert!(request.node.is_none() && request.response_nonce.is_empty());
    }
    assert!(client.demand(ADDRESS, "/10.0.0.3").is_none(), "asked for already");
    let mut answer = response(ADDRESS, &[("ns/svc", "1")], &["/10.0.0.2"]);
    answer.resources[0].aliases = vec!["/10.0.0.1".to_owned()];
    let answered = client.receive(answer, &mut taker).answered;
    let expected = [
        ("/10.0.0.1", Answer::Present),
        ("/10.0.0.2", Answer::Absent),
        ("/10.0.0.9", Answer::Present),
        ("ns/svc", Answer::Present),
    ];
    assert_eq!(answered, expected.map(|(key, answer)| (key.to_owned(), answer)));
    assert!(client.known_absent(ADDRESS, "/10.0.0.2") && !client.known_absent(ADDRESS, "ns/svc"));
    // What is still unanswered travels with the next stream.
    let requests = client.open(&Node::default());
    assert_eq!(versions(&requests[0]), [("/10.0.0.3", ""), ("ns/svc", "1")]);
    assert!(!client.known_absent(ADDRESS, "/10.0.0.2"), "a new stream may know better");
}

#[test]
fn a_wildcard_kind_takes_no_demands() {
    assert!(full().demand(ADDRESS, "/10.0.0.1").is_none());
}
