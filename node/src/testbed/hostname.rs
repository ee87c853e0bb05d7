//! CONNECT by the name of a service that the pod backs.

use std::net::IpAddr;
use std::sync::Arc;

use hbone::{ConnectRequest, OpenError};
use kit::echo::Application;
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, sandboxed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends `said` through a tunnel to this authority of the server, and ends; what comes back, or the status.
pub(super) async fn through(
    host: &Host,
    certificate: WorkloadCertificate,
    authority: &str,
    said: &'static [u8],
) -> Result<Vec<u8>, u16> {
    let server =
        if host.addresses.iter().any(IpAddr::is_ipv4) { "10.1.0.2:15008" } else { "[fd00::2]:15008" };
    let authority = authority.to_owned();
    let thread = host.spawn_async(move || async move {
        let tcp = tokio::net::TcpStream::connect(server).await.unwrap();
        let tls = certificate.client_config(&[identity("server")]);
        let connection = hbone::client::connect(tcp, tls, &hbone::Settings::default()).await.unwrap();
        let request = ConnectRequest { authority, headers: Vec::new() };
        let tunnel = match connection.open(request).await {
            Ok((_, tunnel)) => tunnel,
            Err(OpenError::Status(status)) => return Err(status),
            Err(other) => panic!("{other}"),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let counters = Arc::default();
        let exchange = async {
            near.write_all(said).await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        };
        Ok(tokio::join!(hbone::relay(tunnel, far, &counters), exchange).1)
    });
    until("the exchange", || thread.is_finished()).await;
    Host::join(thread)
}

// A-NS-21: the numeric target port of the service, and a named one, which only the endpoint knows.
#[test]
fn a_hostname_leads_to_the_target_port() {
    sandboxed(|mut sandbox| {
        run(async {
            let ca = Arc::new(FakeCa::new());
            let world = WORLD.replace(
                "services: {\"ns/server.ns.svc.cluster.local\": {80: 8080}}",
                "services: {\"ns/server.ns.svc.cluster.local\": {80: 8080}, \"ns/named.ns.svc.cluster.local\": {90: 8081}}",
            ) + "- {name: named, namespace: ns, hostname: named.ns.svc.cluster.local, vips: [\"/10.96.0.2\"], \
                 ports: {90: 0}, canonical: true}\n";
            let b = Node::start("b", &world, &ca).await;
            let (server, client) =
                (sandbox.host("server", &["10.1.0.2"]), sandbox.host("client", &["10.1.0.1"]));
            b.enrol(&server).await;
            let applications = ["10.1.0.2:8080", "10.1.0.2:8081"]
                .map(|at| server.run(|| Application::doubling(address(at))).unwrap());
            for (authority, target) in [
                ("server.ns.svc.cluster.local:80", &applications[0]),
                ("named.ns.svc.cluster.local:90", &applications[1]),
            ] {
                let certificate = ca.issue(&identity("client"), Duration::from_secs(60));
                let answer = through(&client, certificate, authority, b"hello world").await;
                assert_eq!(answer.unwrap(), b"hello worldhello world", "{authority}");
                assert_eq!(target.client().ip().to_string(), "10.1.0.1");
                b.line(&[
                    "info\taccess",
                    &format!("dst.hbone_addr={authority}"),
                    "bytes_sent=22 bytes_recv=11",
                ])
                .await;
            }
        });
    });
}
