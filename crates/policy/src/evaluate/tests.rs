use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::explain::Finding;
use crate::rules::Scope;

fn connection(identity: Option<&str>) -> Connection {
    Connection {
        source_ip: "10.0.0.1".parse().unwrap(),
        source_identity: identity.map(|text| text.parse().unwrap()),
        destination: "10.1.0.2:8080".parse().unwrap(),
    }
}

fn web() -> Connection {
    connection(Some("spiffe://td/ns/shop/sa/web"))
}

fn policy(name: &str, action: Action, rules: Vec<Vec<Vec<Match>>>) -> Arc<Policy> {
    let clause = |matches| Clause { matches };
    let rule = |clauses: Vec<Vec<Match>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    Arc::new(Policy {
        key: format!("ns/{name}").into(),
        namespace: "ns".into(),
        name: name.into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        rules: rules.into_iter().map(rule).collect(),
    })
}

fn dry(policy: &Arc<Policy>) -> Arc<Policy> {
    Arc::new(Policy { dry_run: true, ..Policy::clone(policy) })
}

fn port(port: u16) -> Match {
    Match { destination_ports: vec![port], ..Match::default() }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn matches(rules: Vec<Vec<Vec<Match>>>, connection: &Connection) -> bool {
    outcome(&policy("p", Action::Allow, rules), connection) != Outcome::Missed
}

// A-RB-01
#[test]
fn nothing_matches_nothing_or_everything_by_level() {
    assert!(!matches(vec![], &web()), "no rules");
    assert!(matches(vec![vec![]], &web()), "no clauses");
    assert!(matches(vec![vec![vec![]]], &web()), "no matches");
    assert!(!matches(vec![vec![vec![Match::default()]]], &web()), "no conditions");
    assert!(matches(vec![vec![vec![Match::default(), port(8080)]]], &web()), "it is only skipped");
}

// A-RB-02
#[test]
fn matches_or_clauses_and_rules_or() {
    let (yes, no) = (port(8080), port(1));
    assert!(matches(vec![vec![vec![no.clone(), yes.clone()]]], &web()));
    assert!(!matches(vec![vec![vec![no.clone()], vec![yes.clone()]]], &web()));
    assert!(matches(vec![vec![vec![yes.clone()], vec![yes.clone()]]], &web()));
    assert!(matches(vec![vec![vec![no]], vec![vec![yes]]], &web()));
}

// A-RB-03, A-RB-04, A-RB-10
#[test]
fn every_attribute_against_plaintext_and_two_identities() {
    let account = |namespace: &str, service_account: &str| ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: service_account.into(),
    };
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let d = Match::default;
    // match, then whether it holds for plaintext, the right identity, another identity
    let table = [
        (Match { namespaces: vec![exact("shop")], ..d() }, [false, true, false]),
        (Match { not_namespaces: vec![exact("shop")], ..d() }, [true, false, true]),
        (Match { principals: vec![exact("td/ns/shop/sa/web")], ..d() }, [false, true, false]),
        (Match { not_principals: vec![exact("td/ns/shop/sa/web")], ..d() }, [true, false, true]),
        (Match { not_principals: vec![StringMatch::Presence], ..d() }, [true, false, false]),
        (Match { principals: vec![exact("spiffe://td/ns/shop/sa/web")], ..d() }, [false, false, false]),
        (Match { service_accounts: vec![account("shop", "web")], ..d() }, [false, true, false]),
        (Match { not_service_accounts: vec![account("shop", "web")], ..d() }, [true, false, true]),
        (Match { source_ips: vec![net("10.0.0.0/24")], ..d() }, [true; 3]),
        (Match { source_ips: vec![net("10.0.1.0/24"), net("10.0.0.1/32")], ..d() }, [true; 3]),
        (Match { source_ips: vec![net("10.0.1.0/24")], ..d() }, [false; 3]),
        (Match { source_ips: vec![net("::/0")], ..d() }, [false; 3]),
        (Match { not_source_ips: vec![net("0.0.0.0/0")], ..d() }, [false; 3]),
        (Match { not_source_ips: vec![net("::/0")], ..d() }, [true; 3]),
        (Match { destination_ips: vec![net("10.1.0.2/32")], ..d() }, [true; 3]),
        (Match { not_destination_ips: vec![net("10.1.0.0/16")], ..d() }, [false; 3]),
        (Match { destination_ports: vec![80, 8080], ..d() }, [true; 3]),
        (Match { destination_ports: vec![80], ..d() }, [false; 3]),
        (Match { not_destination_ports: vec![8080], ..d() }, [false; 3]),
        (Match { not_destination_ports: vec![80], ..d() }, [true; 3]),
        (Match { namespaces: vec![exact("shop")], not_destination_ports: vec![8080], ..d() }, [false; 3]),
        (
            Match { namespaces: vec![exact("shop")], destination_ports: vec![8080], ..d() },
            [false, true, false],
        ),
    ];
    let connections = [connection(None), web(), connection(Some("spiffe://td/ns/other/sa/batch"))];
    for (m, expected) in table {
        let actual = connections.each_ref().map(|connection| failing(&m, connection).is_none());
        assert_eq!(actual, expected, "{m:?}");
    }
    let mut six = web();
    six.source_ip = "fd00::1".parse().unwrap();
    six.destination = "[fd01::2]:1".parse::<SocketAddr>().unwrap();
    assert!(failing(&Match { source_ips: vec![net("fd00::/64")], ..d() }, &six).is_none());
    assert!(failing(&Match { destination_ips: vec![net("0.0.0.0/0")], ..d() }, &six).is_some());
    // A-RB-06: the trust domain of the workload plays no part
    let account = Match { service_accounts: vec![account("shop", "web")], ..d() };
    assert!(failing(&account, &connection(Some("spiffe://elsewhere/ns/shop/sa/web"))).is_none());
}

// A-RB-05
#[test]
fn string_matches() {
    let text = |kind: fn(Arc<str>) -> StringMatch| kind("foo".into());
    for (m, expected) in [
        (text(StringMatch::Exact), [("foo", true), ("not", false), ("", false)]),
        (text(StringMatch::Prefix), [("foobar", true), ("notfoo", false), ("", false)]),
        (text(StringMatch::Suffix), [("barfoo", true), ("foonot", false), ("", false)]),
        (StringMatch::Presence, [("foo", true), ("x", true), ("", false)]),
    ] {
        for (input, expected) in expected {
            assert_eq!(m.matches(input), expected, "{m:?} {input:?}");
        }
    }
}

// A-RB-07, A-RB-08
#[test]
fn deny_goes_before_allow_before_the_default() {
    let deny = policy("deny", Action::Deny, vec![vec![vec![port(8080)]]]);
    let allow = policy("allow", Action::Allow, vec![vec![vec![port(8080)]]]);
    let other = policy("other", Action::Allow, vec![vec![vec![port(1)]]]);
    let both = evaluate(&[allow.clone(), deny.clone()], &web());
    assert_eq!(both.denial().unwrap().to_string(), "explicitly denied by: ns/deny");
    assert_eq!(both.denial().unwrap().code(), "policy-explicit-deny");
    let allowed = evaluate(&[other.clone(), allow], &web());
    assert_eq!(allowed.verdict, Verdict::Allowed(Allowance::Explicit { policy: "ns/allow".into() }));
    let missed = evaluate(&[other], &web());
    assert_eq!(missed.denial().unwrap().to_string(), "allow policies exist, but none allowed");
    assert_eq!(missed.denial().unwrap().code(), "policy-no-allow-match");
    assert_eq!(evaluate(&[], &web()).verdict, Verdict::Allowed(Allowance::NoAllowPolicies));
}

// A-RB-09
#[test]
fn dry_run_only_writes_notes() {
    let everything = |action| dry(&policy("all", action, vec![vec![]]));
    let nothing = dry(&policy("none", Action::Allow, vec![]));
    let decision = evaluate(&[everything(Action::Deny), everything(Action::Allow)], &web());
    let notes: Vec<_> =
        decision.notes().iter().map(|n| (n.message(), n.policy().map(str::to_owned))).collect();
    let all = Some("ns/all".to_owned());
    assert!(decision.is_allowed());
    assert_eq!(
        notes,
        [
            ("dry-run: deny policy match", all.clone()),
            ("dry-run: allow policy match", all),
            ("no allow policies, allow", None)
        ]
    );
    let decision = evaluate(std::slice::from_ref(&nothing), &web());
    let notes: Vec<_> = decision.notes().iter().map(|note| note.message()).collect();
    assert!(decision.is_allowed());
    assert_eq!(notes, ["dry-run: no allow policies match", "no allow policies, allow"]);
    let enforced = policy("web", Action::Allow, vec![vec![vec![port(1)]]]);
    let notes: Vec<_> = evaluate(&[nothing, enforced], &web()).notes().iter().map(|n| n.message()).collect();
    assert_eq!(notes, ["no allow policies matched"]);
}

#[test]
fn the_denying_policy_is_the_first_by_key_in_any_order() {
    let deny = |name| policy(name, Action::Deny, vec![vec![]]);
    for policies in [[deny("b"), deny("a"), deny("c")], [deny("c"), deny("b"), deny("a")]] {
        let denial = evaluate(&policies, &web()).denial().cloned();
        assert_eq!(denial, Some(Denial::Explicit { policy: "ns/a".into() }));
    }
}

#[test]
fn a_quarantined_policy_never_opens_anything() {
    let quarantined = |action| Arc::new(Policy::quarantined("ns/broken".into(), Scope::Global, action));
    assert_eq!(
        evaluate(&[quarantined(Action::Deny)], &web()).denial().unwrap().to_string(),
        "explicitly denied by: ns/broken"
    );
    assert_eq!(evaluate(&[quarantined(Action::Allow)], &web()).denial(), Some(&Denial::NoAllowMatch));
}

#[test]
fn the_explanation_names_rule_clause_match_wanted_and_got() {
    let principals = Match { principals: vec![exact("td/ns/shop/sa/cart")], ..Match::default() };
    let rules = vec![vec![vec![port(8080)], vec![port(1), principals, Match::default()]]];
    let allow = policy("p", Action::Allow, rules);
    let connection = web();
    let explanation = evaluate(std::slice::from_ref(&allow), &connection).explain(&connection);
    let Finding::Missed(misses) = &explanation.policies[0].finding else { panic!("{explanation:?}") };
    let told: Vec<_> = misses
        .iter()
        .map(|m| {
            let condition = m.condition.as_ref();
            let text = condition
                .map(|c| (c.attribute.name(), c.wanted.join(","), c.got.clone().unwrap_or_default()));
            (m.rule, m.clause, m.matched, text)
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, 1, 0, Some(("destinationPorts", "1".to_owned(), "8080".to_owned()))),
            (0, 1, 1, Some(("principals", "td/ns/shop/sa/cart".to_owned(), "td/ns/shop/sa/web".to_owned()))),
            (0, 1, 2, None)
        ]
    );
    let allow = policy("p", Action::Allow, vec![vec![vec![port(1), port(8080)], vec![]]]);
    let explanation = evaluate(&[allow], &connection).explain(&connection);
    assert_eq!(explanation.policies[0].finding, Finding::Matched { rule: 0, matches: vec![Some(1), None] });
}

/// The contract's sentences, written down once more without any shortcut.
fn oracle(policies: &[Arc<Policy>], c: &Connection) -> Result<(), String> {
    let pair = |positive: Vec<bool>, negative: Vec<bool>| {
        (positive.is_empty() || positive.contains(&true)) && !negative.contains(&true)
    };
    let namespace = c.source_identity.as_ref().map_or(String::new(), |id| id.namespace().to_owned());
    let holds = |m: &Match| {
        let text = |all: &[StringMatch]| -> Vec<bool> { all.iter().map(|s| s.matches(&namespace)).collect() };
        let principal = |all: &[StringMatch]| -> Vec<bool> {
            all.iter()
                .map(|s| {
                    c.source_identity.as_ref().is_some_and(|id| s.matches(&id.as_str()["spiffe://".len()..]))
                })
                .collect()
        };
        let ports = |all: &[u16]| -> Vec<bool> { all.iter().map(|p| *p == c.destination.port()).collect() };
        let nets = |all: &[IpNet]| -> Vec<bool> { all.iter().map(|n| n.contains(&c.source_ip)).collect() };
        let any = [
            m.namespaces.len(),
            m.not_namespaces.len(),
            m.principals.len(),
            m.not_principals.len(),
            m.source_ips.len(),
            m.not_source_ips.len(),
            m.destination_ports.len(),
            m.not_destination_ports.len(),
        ];
        any.iter().sum::<usize>() > 0
            && pair(text(&m.namespaces), text(&m.not_namespaces))
            && pair(principal(&m.principals), principal(&m.not_principals))
            && pair(nets(&m.source_ips), nets(&m.not_source_ips))
            && pair(ports(&m.destination_ports), ports(&m.not_destination_ports))
    };
    let clause = |clause: &Clause| clause.matches.is_empty() || clause.matches.iter().any(holds);
    let applies = |policy: &&Arc<Policy>| policy.rules.iter().any(|rule| rule.clauses.iter().all(clause));
    let enforced = |action| policies.iter().filter(move |p| p.action == action && !p.dry_run);
    if let Some(name) = enforced(Action::Deny).filter(applies).map(|p| &p.key).min() {
        return Err(format!("explicitly denied by: {name}"));
    }
    if enforced(Action::Allow).next().is_none() || enforced(Action::Allow).any(|p| applies(&p)) {
        return Ok(());
    }
    Err("allow policies exist, but none allowed".to_owned())
}

fn some_match() -> impl Strategy<Value = Match> {
    let text = || {
        let any = prop_oneof![
            Just(exact("a")),
            Just(StringMatch::Prefix("td/ns/a".into())),
            Just(StringMatch::Suffix("b".into())),
            Just(StringMatch::Presence),
        ];
        proptest::collection::vec(any, 0..2)
    };
    let ports = || proptest::collection::vec(1u16..4, 0..2);
    let nets = || {
        let any = prop_oneof![Just("10.0.0.0/8"), Just("10.0.0.1/32"), Just("::/0")];
        proptest::collection::vec(any.prop_map(|net| net.parse::<IpNet>().unwrap()), 0..2)
    };
    (text(), text(), text(), text(), ports(), ports(), nets(), nets()).prop_map(
        |(namespaces, not_namespaces, principals, not_principals, ports, not_ports, nets, not_nets)| Match {
            namespaces,
            not_namespaces,
            principals,
            not_principals,
            destination_ports: ports,
            not_destination_ports: not_ports,
            source_ips: nets,
            not_source_ips: not_nets,
            ..Match::default()
        },
    )
}

fn some_policy() -> impl Strategy<Value = Arc<Policy>> {
    let rules = proptest::collection::vec(
        proptest::collection::vec(proptest::collection::vec(some_match(), 0..3), 0..3),
        0..3,
    );
    (any::<bool>(), any::<bool>(), 0..9u8, rules).prop_map(|(deny, dry_run, name, rules)| {
        let action = if deny { Action::Deny } else { Action::Allow };
        let made = policy(&name.to_string(), action, rules);
        if dry_run { dry(&made) } else { made }
    })
}

proptest! {
    #[test]
    fn the_evaluator_agrees_with_the_oracle(
        policies in proptest::collection::vec(some_policy(), 0..5),
        identity in prop_oneof![Just(None), Just(Some("spiffe://td/ns/a/sa/b")), Just(Some("spiffe://td/ns/c/sa/d"))],
        ip in prop_oneof![Just("10.0.0.1"), Just("10.2.0.1"), Just("11.0.0.1"), Just("fd00::1")],
        port in 1u16..4,
    ) {
        let connection = Connection {
            source_ip: ip.parse().unwrap(),
            source_identity: identity.map(|text| text.parse().unwrap()),
            destination: SocketAddr::new("10.1.0.2".parse().unwrap(), port),
        };
        let decision = evaluate(&policies, &connection);
        let actual = decision.denial().map_or(Ok(()), |denial| Err(denial.to_string()));
        prop_assert_eq!(actual, oracle(&policies, &connection));
        prop_assert_eq!(decision.explain(&connection).policies.len(), decision.considered.len());
    }
}
