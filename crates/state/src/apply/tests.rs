use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::address::NetworkAddress;
use crate::{MeshConfig, local_file};

fn empty() -> Mesh {
    Mesh::new(MeshConfig::default())
}

fn with(mesh: &Mesh, text: &str) -> (Mesh, Applied) {
    mesh.apply(local_file::parse(text).unwrap_or_else(|error| panic!("{error}")))
}

fn without(mesh: &Mesh, kind: ResourceType, names: &[&str]) -> (Mesh, Applied) {
    mesh.apply(Delta::decode(kind, [], names.iter().map(|name| (*name).to_owned())))
}

fn workload(uid: &str, ip: &str, more: &str) -> String {
    format!("workloads: [{{uid: {uid}, name: n, namespace: ns, workloadIps: [{ip}]{more}}}]\n")
}

fn service(namespace: &str, hostname: &str, vips: &str, more: &str) -> String {
    format!(
        "services: [{{name: s, namespace: {namespace}, hostname: {hostname}, vips: [{vips}], ports: {{80: 80}}{more}}}]\n"
    )
}

fn at(ip: &str) -> NetworkAddress {
    NetworkAddress { network: "".into(), ip: ip.parse().unwrap() }
}

fn found(mesh: &Mesh, ip: &str, namespace: Option<&str>) -> Option<String> {
    mesh.service_by_address(&at(ip), namespace).map(|service| service.key.to_string())
}

const IN: &str = ", services: {ns/s.example: {80: 80}}";
const IN_SICK: &str = ", services: {ns/s.example: {80: 80}}, status: Unhealthy";
const OUT: &str = ", services: {}";

// A-ST-03, A-ST-09, A-ST-10, A-ST-11
#[test]
fn endpoints_follow_their_workloads_in_any_order() {
    let key = ServiceKey::new("ns", "s.example");
    let (staged, applied) = with(&empty(), &workload("a", "10.0.0.1", IN));
    assert_eq!((staged.dump_staged_services().len(), applied.services.clone()), (1, vec![key.clone()]));
    let (arrived, _) = with(&staged, &service("ns", "s.example", "/10.9.0.1", ""));
    assert_eq!((arrived.dump_staged_services().len(), arrived.endpoints(&key).len()), (0, 1));
    let (moved, _) = with(&arrived, &service("ns", "s.example", "/10.9.0.2", ""));
    assert_eq!((found(&moved, "10.9.0.1", None), moved.endpoints(&key).len()), (None, 1));
    assert_eq!(found(&moved, "10.9.0.2", None).unwrap(), "ns/s.example");
    let (left, _) = with(&moved, &workload("a", "10.0.0.1", OUT));
    assert!(left.endpoints(&key).is_empty());
    let (gone, applied) = without(&moved, ResourceType::Address, &["a"]);
    assert!(gone.endpoints(&key).is_empty() && gone.workload_by_address(&at("10.0.0.1")).is_none());
    assert!(applied.workloads[0].after.is_none());
    assert!(without(&staged, ResourceType::Address, &["a"]).0.dump_staged_services().is_empty());
    let (unserved, _) = without(&moved, ResourceType::Address, &["ns/s.example"]);
    assert_eq!((unserved.n_services(), unserved.n_workloads()), (0, 1));
    assert_eq!(
        (found(&unserved, "10.9.0.2", None), unserved.service_by_hostname("s.example", None)),
        (None, None)
    );
    // The snapshots before are what they were.
    assert_eq!(found(&arrived, "10.9.0.1", None).unwrap(), "ns/s.example");
}

// A-ST-12, A-ST-13, weaknesses 5 and 5b
#[test]
fn health_is_a_filter_not_a_loss() {
    let all = ", loadBalancer: {healthPolicy: AllowAll}";
    let endpoints = |mesh: &Mesh| mesh.dump_services()[0].endpoints.len();
    let (mesh, _) = with(&empty(), &workload("a", "10.0.0.1", IN));
    let (mesh, _) = with(&mesh, &workload("b", "10.0.0.2", IN_SICK));
    let (strict, _) = with(&mesh, &service("ns", "s.example", "", ""));
    let (lax, _) = with(&strict, &service("ns", "s.example", "", all));
    assert_eq!((endpoints(&strict), endpoints(&lax)), (1, 2));
    assert_eq!(endpoints(&with(&strict, &workload("a", "10.0.0.1", IN_SICK)).0), 0);
    assert_eq!(endpoints(&with(&lax, &workload("a", "10.0.0.1", IN_SICK)).0), 2);
    let mut both = local_file::parse(&workload("c", "10.0.0.3", IN)).unwrap();
    both.removed.push("c".into());
    assert_eq!(endpoints(&strict.apply(both).0), 1);
}

// A-ST-14
#[test]
fn pods_win_a_shared_address() {
    let (mesh, _) = with(&empty(), &workload("c//Pod/ns/a", "10.0.0.1", OUT));
    let (mesh, _) = with(
        &mesh,
        &workload("c/networking.istio.io/WorkloadEntry/ns/b", "10.0.0.1", &format!("{OUT}, protocol: HBONE")),
    );
    let uid =
        |mesh: &Mesh| mesh.workload_by_address(&at("10.0.0.1")).map(|workload| workload.uid.to_string());
    assert_eq!(uid(&mesh).unwrap(), "c//Pod/ns/a");
    let (mesh, _) = without(&mesh, ResourceType::Address, &["c//Pod/ns/a"]);
    assert_eq!(uid(&mesh).unwrap(), "c/networking.istio.io/WorkloadEntry/ns/b");
    let (mesh, _) = without(&mesh, ResourceType::Address, &["c/networking.istio.io/WorkloadEntry/ns/b"]);
    assert_eq!((uid(&mesh), mesh.by_address.len(), mesh.by_pod.len()), (None, 0, 0));
}

// A-ST-15, weakness 4
#[test]
fn one_address_may_have_several_services() {
    let (mesh, _) = with(&empty(), &service("ns1", "a", "/10.9.0.1", ""));
    let (mesh, _) = with(&mesh, &service("ns2", "b", "/10.9.0.1", ""));
    let (mesh, _) = with(&mesh, &service("ns2", "c", "/10.9.0.1", ""));
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns2")).unwrap(), "ns2/b");
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns3")).unwrap(), "ns1/a");
    let (mesh, _) = without(&mesh, ResourceType::Address, &["ns2/b"]);
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns2")).unwrap(), "ns2/c");
    let (mesh, _) = with(&mesh, &service("ns3", "d", "/10.9.0.1", ", canonical: true"));
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns4")).unwrap(), "ns3/d");
}

// A-ST-16, A-ST-17
#[test]
fn hidden_services_are_found_in_their_namespace_only() {
    let hidden = ", visibility: Namespace, cidrVips: [{network: \"\", cidr: 10.9.1.0/24}]";
    let (mesh, _) = with(&empty(), &service("ns1", "a", "/10.9.0.1", hidden));
    for (namespace, expected) in [(Some("ns1"), true), (Some("ns2"), false), (None, true)] {
        assert_eq!(found(&mesh, "10.9.0.1", namespace).is_some(), expected);
        assert_eq!(found(&mesh, "10.9.1.7", namespace).is_some(), expected);
        assert_eq!(mesh.service_by_hostname("a", namespace).is_some(), expected);
    }
    let range = ", cidrVips: [{network: \"\", cidr: 10.9.0.0/16}]";
    let (mesh, _) = with(&mesh, &service("ns2", "range", "", range));
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns2")).unwrap(), "ns2/range");
    assert_eq!(found(&mesh, "10.9.0.1", Some("ns1")).unwrap(), "ns1/a");
}

// A-ST-18, A-ST-19, weakness 3
#[test]
fn ranges_answer_where_no_address_does() {
    let range = |cidr: &str| format!(", cidrVips: [{{network: \"\", cidr: \"{cidr}\"}}]");
    let (mesh, _) = with(&empty(), &service("ns1", "wide", "", &range("10.8.0.0/13")));
    let (mesh, _) = with(&mesh, &service("ns2", "narrow", "", &range("10.9.0.0/16")));
    let (mesh, _) = with(&mesh, &service("ns2", "exact", "/10.9.0.1", ""));
    let (mesh, _) = with(&mesh, &service("ns2", "six", "", &range("fd00::/8")));
    let (mesh, _) =
        with(&mesh, &service("ns1", "elsewhere", "", ", cidrVips: [{network: remote, cidr: 10.0.0.0/8}]"));
    for (ip, namespace, expected) in [
        ("10.9.0.1", Some("ns2"), Some("ns2/exact")),
        ("10.9.0.2", Some("ns2"), Some("ns2/narrow")),
        ("10.9.0.2", Some("ns3"), Some("ns2/narrow")),
        ("10.9.0.2", Some("ns1"), Some("ns1/wide")),
        ("10.10.0.2", Some("ns3"), Some("ns1/wide")),
        ("10.0.0.1", Some("ns1"), None),
        ("fd12::1", None, Some("ns2/six")),
        ("fe80::1", None, None),
    ] {
        assert_eq!(found(&mesh, ip, namespace).as_deref(), expected, "{ip} {namespace:?}");
    }
    let (again, _) = with(&mesh, &service("ns2", "narrow", "", &range("10.9.0.0/16")));
    assert_eq!(
        again
            .by_cidr
            .get(
                &again
                    .services()
                    .find(|s| &*s.name == "s" && &*s.key.hostname == "narrow")
                    .unwrap()
                    .cidr_vips[0]
            )
            .unwrap()
            .len(),
        1
    );
    let (gone, _) =
        without(&again, ResourceType::Address, &["ns2/narrow", "ns1/wide", "ns2/six", "ns1/elsewhere"]);
    assert_eq!((found(&gone, "10.9.0.2", None), gone.by_cidr.len()), (None, 0));
    assert!(gone.prefix_lengths.iter().flatten().all(|count| *count == 0));
}

// A-ST-20, CO-11.2
#[test]
fn a_push_rebuilds_each_service_once() {
    let members: Vec<String> = (0..50)
        .map(|n| format!("{{uid: w{n:02}, name: w{n}, namespace: ns, workloadIps: [10.0.0.{n}], services: {{ns/s.example: {{80: 80}}}}}}"))
        .collect();
    let text =
        format!("workloads: [{}]\n{}", members.join(", "), service("ns", "s.example", "/10.9.0.1", ""));
    let (mesh, applied) = with(&empty(), &text);
    assert_eq!((applied.n_rebuilt, applied.workloads.len()), (1, 50));
    assert_eq!(mesh.endpoints(&ServiceKey::new("ns", "s.example")).len(), 50);
    assert!(mesh.dump_staged_services().is_empty());
}

// A-RB-11, CO-11.2
#[test]
fn a_policy_that_changes_its_scope_leaves_the_namespace() {
    let policy = |scope: &str| {
        format!(
            "policies: [{{name: p, namespace: ns, scope: {scope}, action: Deny, rules: [[]], dryRun: false}}]"
        )
    };
    let (mesh, _) =
        with(&empty(), &workload("a", "10.0.0.1", &format!("{OUT}, authorizationPolicies: [ns/gone]")));
    let (mesh, _) = with(&mesh, &policy("Namespace"));
    let set = mesh.policies_for(mesh.workload("a").unwrap());
    assert_eq!((set.policies.len(), &*set.unknown[0]), (1, "ns/gone"));
    let (global, _) = with(&mesh, &policy("Global"));
    assert_eq!(global.policies_for(global.workload("a").unwrap()).policies.len(), 1);
    let (selected, _) = with(&global, &policy("WorkloadSelector"));
    assert!(selected.policies_for(selected.workload("a").unwrap()).policies.is_empty());
    let named = workload("a", "10.0.0.1", &format!("{OUT}, authorizationPolicies: [ns/p, ns/p]"));
    let (selected, _) = with(&selected, &named);
    assert_eq!(selected.policies_for(selected.workload("a").unwrap()).policies.len(), 1);
    let (removed, applied) = without(&selected, ResourceType::Authorization, &["ns/p", "ns/none"]);
    assert_eq!((removed.n_policies(), applied.policies.len()), (0, 1));
}

/// One change of a small world.
#[derive(Clone, Debug)]
enum Change {
    Workload(u8, u8, bool, u8),
    Service(u8, u8, bool),
    Policy(u8, bool),
    Remove(u8),
}

impl Change {
    fn text(&self) -> Option<String> {
        Some(match self {
            Self::Workload(uid, ip, healthy, services) => {
                let of =
                    (0..3).filter(|n| services & (1 << n) != 0).map(|n| format!("ns/s{n}: {{80: 8{n}}}"));
                let status = if *healthy { "Healthy" } else { "Unhealthy" };
                let services = of.collect::<Vec<_>>().join(", ");
                workload(
                    &format!("w{uid}"),
                    &format!("10.0.0.{ip}"),
                    &format!(", status: {status}, services: {{{services}}}"),
                )
            }
            Self::Service(n, vip, lax) => {
                let policy = if *lax { "AllowAll" } else { "OnlyHealthy" };
                let more = format!(
                    ", loadBalancer: {{healthPolicy: {policy}}}, cidrVips: [{{network: \"\", cidr: 10.{vip}.0.0/16}}]"
                );
                service("ns", &format!("s{n}"), &format!("/10.9.0.{vip}"), &more)
            }
            Self::Policy(n, global) => {
                let scope = if *global { "Global" } else { "Namespace" };
                format!(
                    "policies: [{{name: p{n}, namespace: ns, scope: {scope}, action: Deny, rules: [], dryRun: false}}]"
                )
            }
            Self::Remove(_) => return None,
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Workload(n, ..) => format!("w{n}"),
            Self::Service(n, ..) => format!("ns/s{n}"),
            Self::Policy(n, _) => format!("ns/p{n}"),
            Self::Remove(n) if *n < 4 => format!("w{n}"),
            Self::Remove(n) if *n < 7 => format!("ns/s{}", n - 4),
            Self::Remove(n) => format!("ns/p{}", n - 7),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..4u8, 1..4u8, any::<bool>(), 0..8u8).prop_map(|(a, b, c, d)| Change::Workload(a, b, c, d)),
        (0..3u8, 1..4u8, any::<bool>()).prop_map(|(a, b, c)| Change::Service(a, b, c)),
        (0..2u8, any::<bool>()).prop_map(|(a, b)| Change::Policy(a, b)),
        (0..9u8).prop_map(Change::Remove),
    ]
}

/// All that can be seen of a mesh, apart from what depends on the order of arrival.
fn seen(mesh: &Mesh) -> String {
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let ips: Vec<IpAddr> = (1..4).map(|n| format!("10.0.0.{n}").parse().unwrap()).collect();
    let by_address: Vec<_> = ips
        .iter()
        .map(|ip| {
            let there = mesh.by_address.get(&mesh.own_address(*ip)).into_iter().flatten();
            sorted(there.map(|w| format!("{} {:?}", w.uid, w.status)).collect())
        })
        .collect();
    let by_vip: Vec<_> = (1..4)
        .map(|n| {
            let there = mesh.by_vip.get(&at(&format!("10.9.0.{n}"))).into_iter().flatten();
            sorted(there.map(|s| s.key.to_string()).collect())
        })
        .collect();
    let by_pod = mesh.by_pod.iter().map(|(_, there)| there.len()).sum::<usize>();
    let sizes =
        (mesh.by_address.len(), mesh.by_vip.len(), mesh.by_cidr.len(), mesh.by_hostname.len(), by_pod);
    let prefixes: Vec<u32> = mesh.prefix_lengths.iter().flatten().copied().filter(|n| *n > 0).collect();
    let endpoints: Vec<_> =
        (0..3).map(|n| format!("{:?}", mesh.endpoints(&ServiceKey::new("ns", &format!("s{n}"))))).collect();
    let scoped = mesh.policies_by_namespace.iter().map(|(_, there)| there.len()).sum::<usize>();
    format!(
        "{:?} {:?} {:?} {:?} {by_address:?} {by_vip:?} {sizes:?} {prefixes:?} {endpoints:?} {scoped}",
        mesh.dump_workloads(),
        mesh.dump_services(),
        mesh.dump_staged_services(),
        mesh.dump_policies()
    )
}

proptest! {
    #[test]
    fn deltas_one_by_one_equal_a_rebuild_from_scratch(changes in proptest::collection::vec(change(), 0..25)) {
        let mut step = empty();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for change in &changes {
            let name = change.name();
            step = match change.text() {
                Some(text) => {
                    last.insert(name, text.clone());
                    with(&step, &text).0
                }
                None => {
                    last.remove(&name);
                    let kind = if name.starts_with("ns/p") { ResourceType::Authorization } else { ResourceType::Address };
                    without(&step, kind, &[&name]).0
                }
            };
        }
        let scratch = last.values().fold(empty(), |mesh, text| with(&mesh, text).0);
        prop_assert_eq!(seen(&step), seen(&scratch));
    }
}
