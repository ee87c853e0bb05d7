//! Rules the recordings do not show, or show as defects.

use super::*;

fn session(world: &TestWorld) -> Session<TestWorld> {
    Session::new(KINDS, Arc::new(world.clone()), Some("n1".to_owned()), 1)
}

/// A session that has had its first answers, acknowledged.
fn in_step(world: &TestWorld, types: &[&'static str]) -> Session<TestWorld> {
    let mut session = session(world);
    for type_url in types {
        let response = answer(session.request(ask(type_url, &[], &[])));
        assert!(matches!(session.request(ack(&response)), Received::Acknowledged));
    }
    session
}

fn policy(version: &str) -> Short<'_> {
    Short { version, ..Short::default() }
}

// CP-11-13: a client never holds a reference to a policy it has not been sent.
#[test]
fn new_policies_come_before_and_removed_policies_after_the_workloads_that_name_them() {
    let mut world = recorded_world();
    world.put(POLICY, "xp/old", &policy("1"));
    let mut session = in_step(&world, &[ADDRESS, POLICY]);
    world.put(POLICY, "xp/new", &policy("1"));
    world.remove(POLICY, "xp/old");
    world.update(ADDRESS, "Kubernetes//Pod/xp/p1", "changed");
    let sent: Vec<(String, Vec<String>, Vec<String>)> = session
        .push(Arc::new(world))
        .into_iter()
        .map(|response| {
            let names = names(&response).into_iter().map(str::to_owned).collect();
            (response.type_url, names, response.removed_resources)
        })
        .collect();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        sent,
        [
            (POLICY.to_owned(), list(&["xp/new"]), list(&[])),
            (ADDRESS.to_owned(), list(&["Kubernetes//Pod/xp/p1"]), list(&[])),
            (POLICY.to_owned(), list(&[]), list(&["xp/old"])),
        ]
    );
}

// CP-11-38: every request is answered; a name answered as absent is looked up again.
#[test]
fn a_repeated_demand_for_an_absent_name_is_answered() {
    let world = recorded_world();
    let mut session = session(&world);
    answer(session.request(ask(ADDRESS, &["*"], &["*"])));
    for _ in 0..2 {
        let response = answer(session.request(ask(ADDRESS, &["/10.9.9.9"], &[])));
        assert_eq!(response.removed_resources, ["/10.9.9.9"]);
    }
}

// A service asked for by its address brings members that come later, and gives up all when it goes.
#[test]
fn members_that_join_a_demanded_service_are_sent() {
    let mut world = recorded_world();
    let mut session = session(&world);
    answer(session.request(ask(ADDRESS, &["*", "/10.96.60.1"], &["*"])));
    let member = Short {
        version: "1",
        aliases: &["/10.30.0.8"],
        parents: &["xp/s.xp.svc.cluster.local"],
        place: Some("n2"),
    };
    world.put(ADDRESS, "Kubernetes//Pod/xp/p8", &member);
    let responses = session.push(Arc::new(world.clone()));
    assert_eq!(names(&responses[0]), ["Kubernetes//Pod/xp/p8"]);
    world.remove(ADDRESS, "xp/s.xp.svc.cluster.local");
    let responses = session.push(Arc::new(world.clone()));
    assert_eq!(responses[0].removed_resources, ["xp/s.xp.svc.cluster.local"]);
    // It comes back: the client still wants it.
    let again = Short { version: "9", aliases: &["/10.96.60.1"], ..Short::default() };
    world.put(ADDRESS, "xp/s.xp.svc.cluster.local", &again);
    let responses = session.push(Arc::new(world));
    assert!(names(&responses[0]).contains(&"xp/s.xp.svc.cluster.local"));
}

// CP-11-2: policies have versions, so a reconnecting client is not sent what it holds.
#[test]
fn policies_that_are_held_are_not_sent_again() {
    let mut world = recorded_world();
    world.put(POLICY, "xp/other", &policy("2"));
    let mut request = ask(POLICY, &[], &[]);
    for (name, version) in [("xp/sel", "1"), ("xp/other", "stale"), ("xp/gone", "1")] {
        request.initial_resource_versions.insert(name.to_owned(), version.to_owned());
    }
    let response = answer(session(&world).request(request));
    assert_eq!(names(&response), ["xp/other"]);
    assert_eq!(response.removed_resources, ["xp/gone"]);
}

// However many worlds were skipped, one push covers them; what came and went in between is not mentioned.
#[test]
fn skipped_worlds_are_merged() {
    let mut world = recorded_world();
    let mut session = in_step(&world, &[ADDRESS]);
    world.put(ADDRESS, "Kubernetes//Pod/xp/brief", &policy("1"));
    world.update(ADDRESS, "Kubernetes//Pod/xp/p1", "1");
    world.update(ADDRESS, "Kubernetes//Pod/xp/p1", "2");
    world.remove(ADDRESS, "Kubernetes//Pod/xp/brief");
    let responses = session.push(Arc::new(world.clone()));
    assert_eq!(names(&responses[0]), ["Kubernetes//Pod/xp/p1"]);
    assert_eq!(responses[0].resources[0].version, "2");
    assert!(responses[0].removed_resources.is_empty());
    assert!(session.push(Arc::new(world)).is_empty());
}

#[test]
fn what_is_acknowledged_is_what_was_accepted() {
    let mut world = recorded_world();
    let mut session = session(&world);
    let held = |session: &Session<TestWorld>| -> Vec<(String, String)> {
        session
            .acknowledged(ADDRESS)
            .iter()
            .map(|record| (record.name.to_string(), record.version.clone()))
            .collect()
    };
    let first = answer(session.request(ask(ADDRESS, &[], &[])));
    assert_eq!(held(&session), [], "sent is not acknowledged");
    session.request(ack(&first));
    assert_eq!(held(&session).len(), 6);

    world.update(ADDRESS, "Kubernetes//Pod/xp/p1", "good");
    world.update(ADDRESS, "Kubernetes//Pod/xp/p2", "bad");
    let push = session.push(Arc::new(world.clone())).remove(0);
    let mut nack = ack(&push);
    nack.error_detail = Some(wire::discovery::Status {
        message: "Kubernetes//Pod/xp/p2: decode: nonsense".to_owned(),
        ..Default::default()
    });
    assert!(matches!(session.request(nack), Received::Refused(_)));
    let now = held(&session);
    assert!(now.contains(&("Kubernetes//Pod/xp/p1".to_owned(), "good".to_owned())));
    assert!(!now.iter().any(|(name, _)| name == "Kubernetes//Pod/xp/p2"), "it refused p2");
    assert_eq!(session.progress()[0].last_error, "Kubernetes//Pod/xp/p2: decode: nonsense");
    assert_eq!(session.progress()[0].acked, first.nonce);

    // The next change mends it.
    world.update(ADDRESS, "Kubernetes//Pod/xp/p2", "mended");
    let push = session.push(Arc::new(world)).remove(0);
    session.request(ack(&push));
    assert!(held(&session).contains(&("Kubernetes//Pod/xp/p2".to_owned(), "mended".to_owned())));
    assert_eq!(session.progress()[0].last_error, "");
}

#[test]
fn what_a_client_of_names_holds_is_known_too() {
    let world = recorded_world();
    let mut session = session(&world);
    let mut request = ask(ADDRESS, &["*", "xp/s.xp.svc.cluster.local"], &["*"]);
    request
        .initial_resource_versions
        .insert("Kubernetes//Pod/xp/p1".to_owned(), "a9efa798f76d54ff".to_owned());
    let response = answer(session.request(request));
    assert_eq!(names(&response), ["Kubernetes//Pod/xp/p2", "xp/s.xp.svc.cluster.local"]);
    session.request(ack(&response));
    let held: Vec<String> =
        session.acknowledged(ADDRESS).iter().map(|record| record.name.to_string()).collect();
    assert_eq!(held, ["Kubernetes//Pod/xp/p1", "Kubernetes//Pod/xp/p2", "xp/s.xp.svc.cluster.local"]);
}

#[test]
fn nonces_are_unique_per_stream() {
    let world = recorded_world();
    let mut session = in_step(&world, &[ADDRESS, POLICY]);
    let mut nonces = BTreeSet::new();
    for progress in session.progress() {
        nonces.insert(progress.sent);
    }
    for _ in 0..10 {
        nonces.insert(answer(session.request(ask(POLICY, &["x"], &[]))).nonce);
    }
    assert_eq!(nonces.len(), 12);
    assert!(nonces.iter().all(|nonce| nonce.starts_with(&world.version())));
}

#[test]
fn too_many_names_end_the_stream() {
    let mut session = session(&recorded_world());
    let request = DeltaDiscoveryRequest {
        type_url: ADDRESS.to_owned(),
        resource_names_subscribe: (0..=NAMES_LIMIT).map(|n| n.to_string()).collect(),
        ..Default::default()
    };
    assert!(matches!(session.request(request), Received::TooManyNames));
}
