//! HBONE connections among the threads of a node.

use std::net::TcpStream;
use std::sync::Arc;

use hbone::ConnectRequest;
use kit::echo::{Application, connect};
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, Sandbox, sandboxed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const HBONE: &str = "10.1.0.2:15008";

/// A node with one pod, and a host that is in no mesh.
async fn node(sandbox: &mut Sandbox, ca: &Arc<FakeCa>) -> (Node, Host, Host) {
    let b = Node::start("b", WORLD, ca).await;
    let (server, outside) = (sandbox.host("server", &["10.1.0.2"]), sandbox.host("outside", &["10.1.0.3"]));
    b.enrol(&server).await;
    (b, server, outside)
}

#[test]
fn threads_share_the_connections_of_one_peer() {
    sandboxed(|mut sandbox| {
        run(async {
            let (b, _server, outside) = node(&mut sandbox, &Arc::new(FakeCa::new())).await;
            let loads = b.environment.threads.loads();
            // Not even their handshake has begun.
            let open = || (0..8).map(|_| connect(address(HBONE))).collect::<io::Result<Vec<TcpStream>>>();
            let connections = inside(&outside, open).await.unwrap();
            until("half of them on each thread", || loads.counts() == [4, 4]).await;
            drop(connections);
            until("none", || loads.counts() == [0, 0]).await;
        });
    });
}

#[test]
fn a_connection_that_was_handed_over_is_served() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let (b, server, outside) = node(&mut sandbox, &ca).await;
            let _application = server.run(|| Application::doubling(address("10.1.0.2:8080"))).unwrap();
            let loads = b.environment.threads.loads();
            // Whatever the kernel gives to the first thread goes to the second.
            let busy: Vec<_> = (0..100).map(|_| loads.place(0)).collect();
            let certificate = ca.issue(&identity("client"), Duration::from_secs(60));
            let (seen, wait) = tokio::sync::oneshot::channel::<()>();
            let answers = outside.spawn_async(move || async move {
                let tls = certificate.client_config(&[identity("server")]);
                let mut connections = Vec::new();
                for _ in 0..8 {
                    let tcp = tokio::net::TcpStream::connect(HBONE).await.unwrap();
                    let settings = hbone::Settings::default();
                    let connection = hbone::client::connect(tcp, Arc::clone(&tls), &settings).await.unwrap();
                    let authority = "10.1.0.2:8080".to_owned();
                    let request = ConnectRequest { authority, headers: Vec::new() };
                    let (_, mut tunnel) = connection.open(request).await.unwrap();
                    tunnel.write_all(b"hello").await.unwrap();
                    tunnel.shutdown().await.unwrap();
                    let mut answer = Vec::new();
                    tunnel.read_to_end(&mut answer).await.unwrap();
                    assert_eq!(answer.len(), 10);
                    connections.push(connection);
                }
                wait.await.unwrap();
            });
            until("all on the second thread", || loads.counts() == [100, 8]).await;
            seen.send(()).unwrap();
            until("the end", || answers.is_finished()).await;
            Host::join(answers);
            assert_eq!(b.counted(&["istio_tcp_connections_opened_total"]), 8);
            drop(busy);
            until("none", || loads.counts() == [0, 0]).await;
        });
    });
}
