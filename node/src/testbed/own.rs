//! What is served in the proxy's own namespace: the proxy's own pod, and the workload of dedicated mode.

use std::sync::Arc;

use kit::echo::{Application, exchange};
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, sandboxed};
use state::Pod;

use super::*;
use crate::pods::Bound;

/// The nodes' own address, as the pods see it.
const HERE: &str = "169.254.1.1";

// A-NS-28: the proxy's own ports through the mesh.
#[test]
fn the_proxys_own_ports_are_reached_by_hbone() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let proxy = format!(
                "- {{uid: c1//Pod/istio-system/zt, name: zt, namespace: istio-system, serviceAccount: ztunnel, \
                 trustDomain: cluster.local, workloadIps: [\"{HERE}\"], protocol: HBONE, node: b, clusterId: c1, \
                 workloadName: zt, workloadType: pod, canonicalName: zt, canonicalRevision: v1, services: {{}}}}\n"
            );
            let world = WORLD.replace("services:\n-", &format!("{proxy}services:\n-"));
            let a = Node::start("a", &world, &ca).await;
            let b = Node::start("b", &world, &ca).await;
            let client = sandbox.host("client", &["10.1.0.1"]);
            a.enrol(&client).await;
            let _page =
                Application::http(address("169.254.1.1:15020"), "# TYPE istio_build gauge\n").unwrap();
            let pod = Pod {
                namespace: "istio-system".into(),
                name: "zt".into(),
                service_account: "ztunnel".into(),
            };
            let identity = SpiffeId::new("cluster.local", "istio-system", "ztunnel").unwrap();
            let own = Bound::own(&b.environment, pod, identity).unwrap().serve(&b.environment).await.unwrap();

            let request = b"GET /metrics HTTP/1.1\r\nhost: zt\r\n\r\n";
            let answer = inside(&client, || exchange(address("169.254.1.1:15020"), request)).await;
            let answer = String::from_utf8(answer.unwrap()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("# TYPE"), "{answer}");
            b.line(&[
                "connection complete",
                "src.identity=\"spiffe://cluster.local/ns/ns/sa/client\"",
                "dst.addr=169.254.1.1:15008 dst.hbone_addr=169.254.1.1:15020 dst.workload=\"zt\"",
                "direction=\"inbound\"",
            ])
            .await;
            for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
                let labels = [name, "reporter=\"destination\"", "destination_workload=\"zt\""];
                assert_eq!(b.counted(&labels), 1, "{name}");
            }
            own.cut().await;
        });
    });
}

// Data-path 1.1: dedicated mode; what comes before the mesh is known waits in the sockets.
#[test]
fn the_one_workload_of_dedicated_mode_is_served_where_the_proxy_is() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = WORLD.replace("[\"10.1.0.2\"]", &format!("[\"{HERE}\"]"));
            // To keep the client's address, answers to it would have to be led back to the proxy by rules.
            let variables = [
                ("PROXY_MODE", "dedicated"),
                ("PROXY_WORKLOAD_INFO", "ns/server/server"),
                ("ENABLE_ORIG_SRC", "false"),
            ];
            let b = Node::start_with("b", &world, &ca, &variables).await;
            let a = Node::start("a", &world, &ca).await;
            let client = sandbox.host("client", &["10.1.0.1"]);
            a.enrol(&client).await;
            let application = Application::doubling(address("169.254.1.1:8080")).unwrap();
            let pod = Pod { namespace: "ns".into(), name: "server".into(), service_account: "server".into() };
            let bound = Bound::dedicated(&b.environment, pod).unwrap();

            let early = client.spawn(|| exchange(address("10.96.0.1:80"), b"hello world"));
            let connecting = || {
                let pods = a.list.dump();
                let lists = pods.values().filter_map(|pod| pod.connections.as_ref());
                lists.flat_map(|lists| &lists.outbound).count() == 1
            };
            until("it is on its way", connecting).await;
            assert!(!early.is_finished());
            let served = bound.serve(&b.environment).await.unwrap();
            until("the early connection", || early.is_finished()).await;
            assert_eq!(Host::join(early).unwrap().len(), 22);
            b.line(&["connection complete", "dst.addr=169.254.1.1:15008", "dst.workload=\"server\""]).await;
            drop(application);

            served.drain(Duration::from_secs(1)).await;
            let refused = std::net::TcpStream::connect(address("169.254.1.1:15008"));
            assert!(refused.is_err(), "its ports are closed");
        });
    });
}
