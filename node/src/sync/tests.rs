//! The node's discovery client against a control plane over the real protocol.

use std::net::IpAddr;
use std::time::Duration;

use kit::fake_control::{FakeControl, Thing, resource, service, workload};
use prometheus_client::registry::Registry;
use tonic::Status;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use wire::security::Authorization;
use wire::workload::{Address, NetworkAddress, PortList, Service, Workload, address};
use xds::client::{Answer, DemandError};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

struct Rig {
    control: FakeControl,
    mesh: MeshHandle,
    registry: Registry,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "the test is the parent")]
    fn start(control: FakeControl, on_demand: bool) -> Self {
        let mut registry = Registry::default();
        let url = control.url();
        let sync = Sync::with(config(on_demand), Some((Plain(url.clone()), url)), &mut registry, ()).unwrap();
        let mesh = sync.mesh();
        let running = tokio::spawn(sync.run());
        Self { control, mesh, registry, running }
    }

    async fn until(&self, wanted: impl Fn(&Mesh) -> bool) {
        let mut mesh = self.mesh.clone();
        let waiting = async {
            while !wanted(&mesh.current()) {
                mesh.changed().await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the mesh becomes as wanted");
    }

    async fn synced(&self) {
        tokio::time::timeout(LIMIT, self.mesh.synced()).await.expect("in step");
    }

    fn metrics(&self) -> String {
        runtime::metrics::encode(&self.registry)
    }
}

fn config(on_demand: bool) -> Config {
    Config {
        control: None,
        node: NodeInfo { pod_name: "zt".to_owned(), node_name: "n1".to_owned(), ..NodeInfo::default() },
        on_demand,
        demand_limit: LIMIT,
        local: None,
        mesh: state::MeshConfig { on_demand, ..state::MeshConfig::default() },
    }
}

fn pod(name: &str, ip: [u8; 4]) -> Workload {
    Workload {
        uid: format!("c//Pod/ns/{name}"),
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        addresses: vec![ip.to_vec()],
        services: [("ns/svc.example".to_owned(), PortList::default())].into(),
        ..Default::default()
    }
}

fn svc() -> Service {
    Service {
        name: "svc".to_owned(),
        namespace: "ns".to_owned(),
        hostname: "svc.example".to_owned(),
        addresses: vec![NetworkAddress { address: vec![10, 96, 0, 1], ..Default::default() }],
        ..Default::default()
    }
}

fn policy(name: &str) -> Thing {
    Thing::Policy(Authorization { name: name.to_owned(), namespace: "ns".to_owned(), ..Default::default() })
}

fn wrapped(workload: Workload) -> Address {
    Address { r#type: Some(address::Type::Workload(workload)) }
}

fn opening(requests: &[(u64, DeltaDiscoveryRequest)], stream: u64) -> Vec<&DeltaDiscoveryRequest> {
    requests.iter().filter(|(of, request)| *of == stream && request.node.is_some()).map(|(_, r)| r).collect()
}

// CO-11.1-1
#[tokio::test]
async fn in_step_means_both_kinds_are_in_the_mesh() {
    let control = FakeControl::start().await;
    control.put([workload(pod("a", [10, 0, 0, 1])), service(svc()), policy("p")]);
    let rig = Rig::start(control, false);
    rig.synced().await;
    let mesh = rig.mesh.current();
    assert_eq!((mesh.n_workloads(), mesh.n_services(), mesh.n_policies()), (1, 1, 1));
    let metrics = rig.metrics();
    for line in [
        "istio_xds_message_total{url=\"type.googleapis.com/istio.workload.Address\"} 1\n",
        "istio_xds_message_total{url=\"type.googleapis.com/istio.security.Authorization\"} 1\n",
        "# UNIT istio_xds_message_bytes bytes\n",
        "# HELP istio_xds_message_bytes Total number of bytes received (unstable).\n",
        "culvert_xds_connected 1\n",
        "culvert_mesh_workloads 1\n",
        "# TYPE culvert_xds_last_success_age_seconds gauge\n",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
}

// CO-11.1-5: what is learned survives the stream; what vanished meanwhile is removed on the next.
#[tokio::test]
async fn a_stream_that_breaks_loses_nothing_and_the_next_brings_the_difference() {
    let control = FakeControl::start().await;
    control.put([workload(pod("a", [10, 0, 0, 1])), workload(pod("b", [10, 0, 0, 2])), policy("p")]);
    let rig = Rig::start(control, false);
    rig.synced().await;
    rig.control.refuse(Some(Status::unavailable("away")));
    rig.control.kill(Some(Status::unavailable("going away")));
    rig.control.remove(ADDRESS_TYPE, "c//Pod/ns/a");
    rig.control.put([workload(pod("new", [10, 0, 0, 3]))]);
    rig.control.attempted(3).await;
    assert_eq!(rig.mesh.current().n_workloads(), 2, "kept while away");
    rig.control.refuse(None);
    rig.until(|mesh| mesh.workload("c//Pod/ns/a").is_none() && mesh.workload("c//Pod/ns/new").is_some())
        .await;
    let requests = rig.control.until(|requests| opening(requests, 2).len() == 2).await;
    let opening = opening(&requests, 2);
    let claimed: Vec<&String> = opening[0].initial_resource_versions.keys().collect();
    assert_eq!(claimed, ["c//Pod/ns/a", "c//Pod/ns/b"]);
    assert!(opening[0].initial_resource_versions.values().all(|version| !version.is_empty()));
    assert_eq!(opening[1].initial_resource_versions.len(), 1, "policies have versions too");
    assert!(rig.metrics().contains("istio_xds_connection_terminations_total{reason=\"Error\"} 1\n"));
    assert!(rig.metrics().contains("istio_xds_connection_terminations_total{reason=\"ConnectionError\"}"));
}

// CO-11.1-3
#[tokio::test]
async fn exactly_the_bad_resource_is_refused() {
    let rig = Rig::start(FakeControl::start_silent().await, false);
    rig.control.until(|requests| opening(requests, 1).len() == 2).await;
    let bad = wrapped(Workload { addresses: vec![vec![1, 2, 3]], ..pod("bad", [0; 4]) });
    rig.control.send(DeltaDiscoveryResponse {
        type_url: ADDRESS_TYPE.to_owned(),
        nonce: "n".to_owned(),
        resources: vec![
            resource("c//Pod/ns/foo0", "0.0.1", &wrapped(pod("foo0", [10, 0, 0, 1])), ADDRESS_TYPE),
            resource("c//Pod/ns/bad", "0.0.2", &bad, ADDRESS_TYPE),
            resource("neither", "0.0.3", &Address::default(), ADDRESS_TYPE),
            wire::discovery::Resource { name: "empty".to_owned(), ..Default::default() },
        ],
        ..Default::default()
    });
    let requests = rig.control.until(|requests| requests.iter().any(|(_, r)| r.response_nonce == "n")).await;
    let nack = requests.iter().find(|(_, request)| request.response_nonce == "n").unwrap();
    assert_eq!(
        nack.1.error_detail.as_ref().unwrap().message,
        "c//Pod/ns/bad: failed to parse address, had 3 bytes; neither: unknown address type; \
         empty: XDS payload without resource"
    );
    assert_eq!(rig.mesh.current().n_workloads(), 1);
    rig.control.kill(None);
    let requests = rig.control.until(|requests| opening(requests, 2).len() == 2).await;
    let claimed = &opening(&requests, 2)[0].initial_resource_versions;
    assert_eq!(claimed.iter().collect::<Vec<_>>(), [(&"c//Pod/ns/foo0".to_owned(), &"0.0.1".to_owned())]);
}

// CO-11.1-4: woken only after the whole response is applied.
#[tokio::test]
async fn a_demand_returns_after_ten_thousand_resources_are_applied() {
    let control = FakeControl::start().await;
    let members = (0..10_000_u32).map(|n| {
        let [_, b, c, d] = (n + 1).to_be_bytes();
        workload(pod(&format!("p{n:05}"), [10, b, c, d]))
    });
    control.put(members.chain([service(svc())]));
    let rig = Rig::start(control, true);
    rig.synced().await;
    assert_eq!(rig.mesh.current().n_workloads(), 0, "nothing is sent unasked");
    // By the service's address: the answer comes under the service's name.
    let address = state::NetworkAddress { network: "".into(), ip: "10.96.0.1".parse::<IpAddr>().unwrap() };
    let key = state::MissingKey::Address(address.clone());
    assert_eq!(rig.mesh.demand(&key).await, Ok(Answer::Present));
    let mesh = rig.mesh.current();
    assert_eq!(mesh.n_workloads(), 10_000);
    assert!(mesh.service_by_address(&address, None).is_some());
    // It is known now: no more requests.
    assert_eq!(rig.mesh.demand(&key).await, Ok(Answer::Present));
}

// CO-2.4, CO-12.1-1
#[tokio::test]
async fn what_does_not_exist_is_absent_and_waiters_do_not_disturb_each_other() {
    let rig = Rig::start(FakeControl::start().await, true);
    rig.synced().await;
    let key = state::MissingKey::Hostname(state::ServiceKey::new("ns", "later.example"));
    let (one, two) = tokio::join!(rig.mesh.demand(&key), rig.mesh.demand(&key));
    assert_eq!((one, two), (Ok(Answer::Absent), Ok(Answer::Absent)));
    // It comes into being: the name is subscribed, so it is sent by itself.
    rig.control.put([service(Service { hostname: "later.example".to_owned(), ..svc() })]);
    rig.until(|mesh| mesh.service(&state::ServiceKey::new("ns", "later.example")).is_some()).await;
}

#[tokio::test]
async fn a_demand_that_nobody_answers_ends() {
    let control = FakeControl::start_silent().await;
    let mut registry = Registry::default();
    let mut config = config(true);
    config.demand_limit = Duration::from_millis(50);
    let url = control.url();
    let sync = Sync::with(config, Some((Plain(url.clone()), url)), &mut registry, ()).unwrap();
    let mesh = sync.mesh();
    let key = state::MissingKey::Hostname(state::ServiceKey::new("ns", "x"));
    let demanding = async {
        // The stream may not be up yet, or be up and silent: both end.
        for _ in 0..3 {
            assert_eq!(mesh.demand(&key).await, Err(DemandError::TimedOut));
        }
    };
    tokio::select! {
        () = sync.run() => panic!("it ended"),
        () = demanding => {}
    }
}

// CO-2.8
#[tokio::test]
async fn a_local_source_is_there_at_once_and_without_control_we_are_in_step() {
    let mut local = config(false);
    local.local = Some(LocalSource::Inline(
        "workloads: [{uid: c1, name: a, namespace: ns, workloadIps: [10.1.0.7], services: {}}]".to_owned(),
    ));
    let sync = Sync::new(local.clone(), &mut Registry::default(), ()).unwrap();
    assert!(sync.mesh().is_synced());
    assert_eq!(sync.mesh().current().n_workloads(), 1);
    local.local = Some(LocalSource::Inline("workloads: 7".to_owned()));
    assert_eq!(
        Sync::new(local.clone(), &mut Registry::default(), ()).unwrap_err().code(),
        "sync-local-invalid"
    );
    local.local = Some(LocalSource::File("/nonexistent".into()));
    assert_eq!(Sync::new(local, &mut Registry::default(), ()).unwrap_err().code(), "sync-local-unreadable");
}

// CO-2.1: over TLS, with roots and credentials, against a control plane of the same protocol.
#[tokio::test]
async fn the_real_connector_reaches_a_control_plane_over_tls() {
    use crate::certs::channel::{Credential, RootSource};
    let ca = kit::fake_ca::FakeCa::new();
    let control = FakeControl::start_tls(&ca).await;
    control.put([policy("p")]);
    let mut config = config(false);
    config.control = Some(ControlConfig {
        address: control.url(),
        alternative_name: None,
        roots: RootSource::Static(ca.bundle().to_owned()),
        credential: Credential::Literal("secret".to_owned()),
        cluster_id: "Kubernetes".to_owned(),
        headers: vec![("x-extra".to_owned(), "1".to_owned())],
        tls: identity::TlsOptions::default(),
        node: None,
    });
    let sync = Sync::new(config, &mut Registry::default(), ()).unwrap();
    let mesh = sync.mesh();
    let in_step = tokio::time::timeout(LIMIT, mesh.synced());
    tokio::select! {
        () = sync.run() => panic!("it ended"),
        synced = in_step => synced.expect("in step"),
    }
    let headers = &control.headers()[0];
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(headers["clusterid"], "Kubernetes");
    assert_eq!(headers["x-extra"], "1");
}
