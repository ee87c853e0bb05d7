//! Policy, counted in instructions: `.ci/instructions` runs `evaluate CASE TIMES` under valgrind and compares.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that fails says so")]

use std::hint::black_box;
use std::sync::Arc;

use culvert_policy::{Action, Clause, Connection, Match, Policy, Rule, Scope, StringMatch, evaluate};

fn policy(number: u16, action: Action) -> Arc<Policy> {
    let principal = StringMatch::Exact(format!("cluster.local/ns/shop/sa/web-{number}").into());
    let from = Clause { matches: vec![Match { principals: vec![principal], ..Match::default() }] };
    let to = Clause { matches: vec![Match { destination_ports: vec![8080, 8443], ..Match::default() }] };
    Arc::new(Policy {
        key: format!("shop/policy-{number}").into(),
        namespace: "shop".into(),
        name: format!("policy-{number}").into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        rules: vec![Rule { clauses: vec![from, to] }],
    })
}

fn judge(account: u16, allowed: bool, times: usize) {
    let deny = (20..25).map(|number| policy(number, Action::Deny));
    let policies: Vec<_> = (0..10).map(|number| policy(number, Action::Allow)).chain(deny).collect();
    let connection = Connection {
        source_ip: "10.0.0.1".parse().unwrap(),
        source_identity: Some(format!("spiffe://cluster.local/ns/shop/sa/web-{account}").parse().unwrap()),
        destination: "10.0.0.2:8080".parse().unwrap(),
    };
    for _ in 0..times {
        assert_eq!(evaluate(black_box(&policies), black_box(&connection)).is_allowed(), allowed);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    match case.as_str() {
        "allow" => judge(5, true, times),
        "deny" => judge(22, false, times),
        // `cargo test` and `cargo bench` pass flags of their own.
        _ => judge(99, false, times),
    }
}
