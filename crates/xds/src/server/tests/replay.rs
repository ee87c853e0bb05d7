//! The recorded transcripts, request by request (control-plane 2.4 to 2.9).
//!
//! `DIFFERENCES` lists every place where this server answers otherwise on purpose.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;
use wire::discovery::Status;

use super::*;

/// Recorded, but not what we do.
#[derive(Clone, Copy, Debug)]
enum Ours {
    /// Nothing is sent.
    Nothing,
    /// These names are sent and removed.
    Sends(&'static [&'static str], &'static [&'static str]),
}

/// (scenario, number of the `recv` event, what we do, why)
const DIFFERENCES: &[(&str, usize, Ours, &str)] = &[
    (
        "wildcard",
        4,
        Ours::Sends(&["xp/s.xp.svc.cluster.local"], &[]),
        "a service-only change resends no endpoint",
    ),
    (
        "on_demand",
        14,
        Ours::Sends(&["Kubernetes//Pod/xp/late"], &[]),
        "an address asked for before it existed is sent once it exists",
    ),
    (
        "on_demand",
        17,
        Ours::Sends(&["Kubernetes//Pod/xp/more"], &[]),
        "so is a new endpoint of a subscribed service",
    ),
    ("on_demand", 18, Ours::Sends(&[], &[]), "unsubscribing drops nothing else"),
    ("policy_type", 5, Ours::Nothing, "a policy whose message is the same is not sent again"),
];

fn change(scenario: &str, note: &str, world: &mut TestWorld) {
    let (s, p1, p2) = ("xp/s.xp.svc.cluster.local", "Kubernetes//Pod/xp/p1", "Kubernetes//Pod/xp/p2");
    let p3 = "Kubernetes//Pod/xp/p3";
    let pod = |version, aliases, place| Short { version, aliases, parents: &[], place: Some(place) };
    let put = |world: &mut TestWorld, name: &str, short: &Short<'_>| world.put(ADDRESS, name, short);
    let bump = |world: &mut TestWorld, versions: &[(&str, &str)]| {
        for (name, version) in versions {
            world.update(ADDRESS, name, version);
            if world.get(WORKLOAD, name).is_some() {
                world.update(WORKLOAD, name, version);
            }
        }
    };
    match (scenario, note) {
        (_, note) if note.contains("without meaning") || note.contains("label change only") => {}
        (_, "nothing happens") | ("on_demand", "the same pod again asked by address") => {}
        ("wildcard", "create pod p3 (n1, app=a)") | ("nack", "create p3") => {
            put(
                world,
                p3,
                &Short {
                    parents: &["xp/s.xp.svc.cluster.local"],
                    ..pod("eb677bcb5d0201a6", &["/10.30.0.3"], "n1")
                },
            );
        }
        ("wildcard", note) if note.starts_with("service gets another port") => bump(
            world,
            &[
                (p1, "26c13aa47c5be76f"),
                (p2, "24aa92e9c93a098f"),
                (p3, "1b4b2fbfd8d84c79"),
                (s, "f4eaa93b6488987c"),
            ],
        ),
        ("wildcard", note) if note.starts_with("service annotation traffic") => {
            bump(world, &[(s, "33e0b23bd71e7c4a")])
        }
        ("wildcard", "policy rules change") => world.update(POLICY, "xp/sel", "2"),
        ("wildcard", "policy deleted") => {
            bump(world, &[(p1, "8a741ea9e9cdf34"), (p2, "80e85c6d2cf625e0"), (p3, "e65262d57da485b1")]);
            world.remove(POLICY, "xp/sel");
        }
        ("wildcard", "pod p1 deleted") => world.remove(ADDRESS, p1),
        ("wildcard", "service deleted") => {
            bump(world, &[(p2, "1e549775228f17e8"), (p3, "5a092155a7e08b9b")]);
            world.remove(ADDRESS, s);
        }
        ("wildcard_idioms", "pod p2 deleted") => world.remove(ADDRESS, p2),
        ("nack", note) if note.starts_with("delete p3") => world.remove(ADDRESS, p3),
        ("no_ack", "create q0") => put(world, "Kubernetes//Pod/xp/q0", &pod("157d12b268536663", &[], "n1")),
        ("no_ack", "create q1") => put(world, "Kubernetes//Pod/xp/q1", &pod("329b08dad55fd989", &[], "n1")),
        ("workload_type", "service-only change") => {
            bump(world, &[(p1, "2958"), (p2, "c050"), (s, "4679")]);
        }
        ("policy_type", "another policy") => {
            world.put(POLICY, "xp/second", &Short { version: "1", ..Short::default() })
        }
        ("policy_type", "selector change") => {}
        ("policy_type", note) if note.starts_with("PeerAuthentication") => {
            let name = "istio-system/istio_converted_static_strict";
            world.put(POLICY, name, &Short { version: "1", ..Short::default() });
        }
        ("on_demand", note) if note.starts_with("create a pod with the formerly") => {
            put(world, "Kubernetes//Pod/xp/late", &pod("1", &["/10.30.99.99"], "n2"));
        }
        ("on_demand", note) if note.starts_with("new local pod") => {
            put(world, "Kubernetes//Pod/xp/loc", &pod("8389", &["/10.30.0.9"], "n1"));
        }
        ("on_demand", note) if note.starts_with("new endpoint") => {
            put(
                world,
                "Kubernetes//Pod/xp/more",
                &Short { parents: &["xp/s.xp.svc.cluster.local"], ..pod("1", &[], "n2") },
            );
        }
        ("on_demand", note) if note.starts_with("unsubscribe from the service") => {}
        ("on_demand", "unsubscribe from a name never subscribed") => {}
        ("on_demand", "(the service changes)") => bump(world, &[(p1, "f821"), (p2, "7ee7"), (s, "3333")]),
        ("on_demand", note) if note.starts_with("delete p2") => {
            world.remove(ADDRESS, p2);
            world.remove(ADDRESS, "Kubernetes//Pod/xp/loc");
        }
        ("on_demand_first_names", "create service later") => {
            bump(world, &[(p1, "6469"), (p2, "de42")]);
            let later = Short { version: "6579", aliases: &["/10.96.60.2"], ..Short::default() };
            put(world, "xp/later.xp.svc.cluster.local", &later);
        }
        ("on_demand_first_names", "selector change of s") => bump(world, &[(p1, "56d6"), (p2, "cc1b")]),
        ("reconnect_on_demand", note) if note.starts_with("while away") => world.remove(ADDRESS, p2),
        ("reconnect_on_demand", note) if note.starts_with("service changes") => {
            bump(world, &[(p1, "89d5a0f769056902"), (s, "193611148b2deb84")]);
        }
        ("reconnect_wildcard", note) if note.starts_with("while away") => {
            world.remove(ADDRESS, p2);
            put(world, p3, &pod("eb677bcb5d0201a6", &["/10.30.0.3"], "n1"));
        }
        (scenario, note) => panic!("{scenario}: what does {note:?} change?"),
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|name| name.as_str().expect("text").to_owned()).collect()
}

fn request(send: &Value, last: &BTreeMap<String, String>) -> DeltaDiscoveryRequest {
    let type_url = send["type_url"].as_str().expect("a type").to_owned();
    let nonce = match send["response_nonce"].as_str() {
        Some("<last>") => last.get(&type_url).cloned().unwrap_or_default(),
        nonce => nonce.unwrap_or_default().to_owned(),
    };
    let versions = send["initial_resource_versions"].as_object();
    DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&send["resource_names_subscribe"]),
        resource_names_unsubscribe: strings(&send["resource_names_unsubscribe"]),
        initial_resource_versions: versions
            .into_iter()
            .flatten()
            .map(|(name, version)| (name.clone(), version.as_str().expect("text").to_owned()))
            .collect(),
        response_nonce: nonce,
        error_detail: send["error_detail.message"]
            .as_str()
            .map(|message| Status { message: message.to_owned(), ..Default::default() }),
        type_url,
        ..Default::default()
    }
}

struct Replay {
    scenario: String,
    world: TestWorld,
    session: Session<TestWorld>,
    stream: Option<String>,
    queue: VecDeque<DeltaDiscoveryResponse>,
    last: BTreeMap<String, String>,
    n_received: usize,
}

impl Replay {
    fn note(&mut self, note: &str) {
        change(&self.scenario, note, &mut self.world);
        if note.starts_with("while away") {
            return;
        }
        self.queue.extend(self.session.push(Arc::new(self.world.clone())));
    }

    fn send(&mut self, send: &Value) {
        if let Received::Answer(response) = self.session.request(request(send, &self.last)) {
            self.queue.push_back(response);
        }
        // The recording changed the service right after this request.
        if self.scenario == "on_demand"
            && strings(&send["resource_names_unsubscribe"]) == ["xp/s.xp.svc.cluster.local"]
        {
            self.note("(the service changes)");
        }
    }

    fn receive(&mut self, recorded: &Value) {
        let number = self.n_received;
        self.n_received += 1;
        let context = format!("{} #{number}: {recorded}", self.scenario);
        let ours = DIFFERENCES
            .iter()
            .find(|(scenario, at, _, _)| *scenario == self.scenario && *at == number)
            .map(|(_, _, ours, _)| *ours);
        let expected = match (ours, recorded) {
            (Some(Ours::Nothing), _) | (None, Value::Null) => {
                assert!(self.queue.is_empty(), "{context}\nunexpected: {:?}", self.queue);
                return;
            }
            (Some(Ours::Sends(names, removed)), _) => {
                let set = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
                (set(names), set(removed))
            }
            (None, recorded) => {
                let resources = recorded["resources"].as_array().expect("a list");
                let names =
                    resources.iter().map(|resource| resource["name"].as_str().expect("text").to_owned());
                (names.collect(), strings(&recorded["removed_resources"]).into_iter().collect())
            }
        };
        let type_url = recorded["type_url"].as_str().unwrap_or(ADDRESS);
        let position = self.queue.iter().position(|response| response.type_url == type_url);
        let response = position.and_then(|position| self.queue.remove(position));
        let response = response.unwrap_or_else(|| panic!("{context}\nnothing was sent"));
        let got: (BTreeSet<String>, BTreeSet<String>) = (
            response.resources.iter().map(|resource| resource.name.clone()).collect(),
            response.removed_resources.iter().cloned().collect(),
        );
        assert_eq!(got, expected, "{context}");
        if ours.is_none() {
            for recorded in recorded["resources"].as_array().expect("a list") {
                let name = recorded["name"].as_str().expect("text");
                let resource = response.resources.iter().find(|resource| resource.name == name).expect("it");
                if recorded["version"].as_str().is_some_and(|version| version.len() > 4)
                    && resource.version.len() > 4
                {
                    assert_eq!(recorded["version"], resource.version, "{context}");
                }
                assert_eq!(strings(&recorded["aliases"]), resource.aliases, "{context}");
            }
        }
        self.last.insert(response.type_url, response.nonce);
    }
}

fn replay(scenario: &str, world: TestWorld) {
    let path = format!("{}/../../tests/data/xds/{scenario}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the transcript is part of the repository");
    let transcript: Value = serde_json::from_str(&text).expect("JSON");
    let place = (scenario != "on_demand_no_node").then_some("n1");
    let new_session =
        |world: &TestWorld| Session::new(KINDS, Arc::new(world.clone()), place.map(str::to_owned), 7);
    let mut replay = Replay {
        scenario: scenario.to_owned(),
        session: new_session(&world),
        world,
        stream: None,
        queue: VecDeque::new(),
        last: BTreeMap::new(),
        n_received: 0,
    };
    for event in transcript["events"].as_array().expect("a list") {
        let stream = event["stream"].as_str().map(str::to_owned);
        if stream.is_some() && stream != replay.stream {
            assert!(replay.queue.is_empty(), "{scenario}: left over: {:?}", replay.queue);
            if scenario == "policy_type" && stream.as_deref() == Some("names") {
                replay.world.put(POLICY, "xp/sel", &Short { version: "1", ..Short::default() });
            }
            replay.session = new_session(&replay.world);
            replay.last.clear();
            replay.stream = stream;
        }
        if !event["send"].is_null() {
            replay.send(&event["send"]);
        } else if event.get("recv").is_some() {
            replay.receive(&event["recv"]);
        } else if let Some(note) = event["note"].as_str() {
            replay.note(note);
        }
    }
    assert!(replay.queue.is_empty(), "{scenario}: left over: {:?}", replay.queue);
}

// CP-H-02, CP-H-07, CP-H-08, CP-H-11
#[test]
fn wildcard_streams() {
    replay("wildcard", recorded_world());
    replay("wildcard_idioms", recorded_world());
    replay("workload_type", recorded_world());
}

// CP-H-12
#[test]
fn refusals_and_strange_nonces() {
    replay("nack", recorded_world());
    replay("no_ack", recorded_world());
}

// CP-H-01
#[test]
fn on_demand_streams() {
    replay("on_demand", recorded_world());
    replay("on_demand_first_names", recorded_world());
    replay("on_demand_no_node", recorded_world());
}

// CP-H-03 to CP-H-06
#[test]
fn reconnecting_streams() {
    replay("reconnect_on_demand", recorded_world());
    replay("reconnect_wildcard", recorded_world());
}

// CP-H-08, CP-H-09
#[test]
fn policy_streams() {
    let mut world = recorded_world();
    world.remove(POLICY, "xp/sel");
    replay("policy_type", world);
}
