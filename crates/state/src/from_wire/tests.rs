use proptest::prelude::*;
use wire::security as sec;
use wire::workload as pb;

use super::*;
use crate::{Mesh, MeshConfig};

fn base() -> pb::Workload {
    pb::Workload { uid: "u".into(), namespace: "ns".into(), ..pb::Workload::default() }
}

fn refused(change: impl FnOnce(&mut pb::Workload)) -> String {
    let mut workload = base();
    change(&mut workload);
    Workload::try_from(workload).unwrap_err().to_string()
}

// CO-2.5: reject texts; A-ST-08
#[test]
fn what_makes_no_sense_is_refused_with_the_contracts_words() {
    assert_eq!(refused(|w| w.addresses = vec![vec![]]), "failed to parse address, had 0 bytes");
    assert_eq!(refused(|w| w.addresses = vec![vec![1; 5]]), "failed to parse address, had 5 bytes");
    assert_eq!(
        refused(|w| w.waypoint = Some(pb::GatewayAddress::default())),
        "nonempty gateway address is missing address"
    );
    assert_eq!(
        refused(|w| drop(w.services.insert("nokey".into(), pb::PortList::default()))),
        "failed to parse namespaced hostname: nokey"
    );
    assert_eq!(
        refused(|w| w.tunnel_protocol = pb::TunnelProtocol::LegacyIstioMtls.into()),
        "unknown enum: unsupported tunnel protocol: legacy istio mtls"
    );
    for change in [
        (|w: &mut pb::Workload| w.tunnel_protocol = 9) as fn(&mut pb::Workload),
        |w| w.network_mode = 9,
        |w| w.status = 9,
        |w| w.application_tunnel = Some(pb::ApplicationTunnel { protocol: 9, port: 0 }),
    ] {
        let text = refused(change);
        assert!(text.starts_with("decode error: "), "{text}");
    }
    for good in [[0, 0, 0, 0], [127, 0, 0, 1], [255, 255, 255, 255]] {
        let workload = pb::Workload { addresses: vec![good.to_vec(), vec![0; 16]], ..base() };
        assert_eq!(Workload::try_from(workload).unwrap().addresses.len(), 2);
    }
    let service = |balancing: Option<pb::LoadBalancing>, length: Option<u32>| pb::Service {
        load_balancing: balancing,
        addresses: vec![pb::NetworkAddress { address: vec![10, 0, 0, 0], length, ..Default::default() }],
        ..pb::Service::default()
    };
    let scope = pb::LoadBalancing { routing_preference: vec![0], ..Default::default() };
    assert_eq!(
        Service::try_from(service(Some(scope), None)).unwrap_err().to_string(),
        "unknown enum: invalid target"
    );
    let mode = pb::LoadBalancing { mode: 9, ..Default::default() };
    assert!(
        Service::try_from(service(Some(mode), None)).unwrap_err().to_string().starts_with("decode error: ")
    );
    let long = Service::try_from(service(None, Some(33))).unwrap_err().to_string();
    assert!(long.starts_with("invalid cidr: "), "{long}");
    let host = Service::try_from(service(None, Some(32))).unwrap();
    assert_eq!((host.vips.len(), host.cidr_vips.len()), (1, 0));
    let range = Service::try_from(service(None, Some(0))).unwrap();
    assert_eq!((range.vips.len(), range.cidr_vips[0].to_string().as_str()), (0, "/0.0.0.0/0"));
}

#[test]
fn what_is_left_empty_has_its_default() {
    let workload = Workload::try_from(base()).unwrap();
    assert_eq!(workload.identity.as_str(), "spiffe://cluster.local/ns/ns/sa/default");
    assert_eq!(
        (&*workload.cluster_id, workload.capacity, &*workload.workload_type),
        ("Kubernetes", 1, "deployment")
    );
}

fn deny(ip: sec::Address) -> Authorization {
    let matches = vec![sec::Match { source_ips: vec![ip], ..Default::default() }];
    let rules = vec![sec::Rule { clauses: vec![sec::Clause { matches }] }];
    Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        scope: 1,
        action: 1,
        rules,
        ..Default::default()
    }
}

fn apply(mesh: &Mesh, name: &str, payload: &[u8]) -> (Mesh, crate::Applied) {
    mesh.apply(Delta::decode(ResourceType::Authorization, [(name, Some(payload))], []))
}

fn verdict(mesh: &Mesh, workload: &Workload) -> Option<String> {
    let connection = policy::Connection {
        source_ip: "10.0.0.1".parse().unwrap(),
        source_identity: None,
        destination: "10.0.0.2:80".parse().unwrap(),
    };
    mesh.evaluate(workload, &connection).denial().map(ToString::to_string)
}

// W51: a policy that makes no sense is refused with its name; until a good one comes, what it was to protect stays shut.
#[test]
fn a_refused_policy_never_opens_what_it_protects() {
    let good = deny(sec::Address { address: vec![10, 9, 0, 0], length: 16 }).encode_to_vec();
    let bad = deny(sec::Address { address: vec![10, 0, 0, 1], length: 64 }).encode_to_vec();
    let workload = Workload::try_from(base()).unwrap();
    let elsewhere = Workload::try_from(pb::Workload { namespace: "other".into(), ..base() }).unwrap();
    let empty = Mesh::new(MeshConfig::default());

    let (quarantined, applied) = apply(&empty, "ns/p", &bad);
    assert!(applied.nack().unwrap().starts_with("ns/p: invalid cidr: "));
    assert_eq!(verdict(&quarantined, &workload).unwrap(), "explicitly denied by: ns/p");
    assert_eq!(verdict(&quarantined, &elsewhere), None);
    let (healed, applied) = apply(&quarantined, "ns/p", &good);
    assert_eq!((applied.nack(), verdict(&healed, &workload)), (None, None));
    // The last good version stays in force.
    let (kept, applied) = apply(&healed, "ns/p", &bad);
    assert!(applied.nack().is_some() && applied.policies.is_empty());
    assert_eq!(kept.policy("ns/p"), healed.policy("ns/p"));

    let named = Workload { authorization_policies: vec!["ns/q".into()], ..workload.clone() };
    for payload in
        [&b"\xff\xff"[..], &Authorization { scope: 9, action: 1, ..Default::default() }.encode_to_vec()]
    {
        let (quarantined, applied) = apply(&empty, "ns/q", payload);
        assert!(applied.nack().is_some());
        assert_eq!(verdict(&quarantined, &workload), None, "nobody says that it applies here");
        assert_eq!(verdict(&quarantined, &named).unwrap(), "explicitly denied by: ns/q");
    }
    let text = sec::Match { principals: vec![sec::StringMatch { match_type: None }], ..Default::default() };
    let rules = vec![sec::Rule { clauses: vec![sec::Clause { matches: vec![text] }] }];
    let allow =
        Authorization { namespace: "ns".into(), name: "p".into(), scope: 1, rules, ..Default::default() };
    let (quarantined, applied) = apply(&empty, "ns/p", &allow.encode_to_vec());
    assert_eq!(applied.nack().unwrap(), "ns/p: string match without a kind");
    assert_eq!(verdict(&quarantined, &workload).unwrap(), "allow policies exist, but none allowed");
    let dry = Authorization { dry_run: true, ..allow };
    assert_eq!(verdict(&apply(&empty, "ns/p", &dry.encode_to_vec()).0, &workload), None);
}

proptest! {
    #[test]
    fn garbage_is_refused_not_fatal(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in [ResourceType::Address, ResourceType::Authorization] {
            let delta = Delta::decode(kind, [("x", Some(payload.as_slice()))], ["x".to_owned()]);
            let (mesh, _) = Mesh::new(MeshConfig::default()).apply(delta);
            prop_assert_eq!(mesh.n_policies(), 0);
        }
    }
}
