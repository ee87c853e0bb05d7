//! The client against a fake authority over TLS.
use std::time::Duration;

use kit::fake_ca::{Answer, FakeCa, FakeCaServer};

use super::*;
use crate::certs::Limits;
use crate::certs::channel::{ControlConfig, Credential, RootSource};

fn config(server: &FakeCaServer) -> Config {
    Config {
        ca: ControlConfig {
            address: server.url(),
            alternative_name: None,
            roots: RootSource::Static(server.ca().bundle().to_owned()),
            credential: Credential::Literal("secret".to_owned()),
            cluster_id: "Kubernetes".to_owned(),
            headers: vec![("x-extra".to_owned(), "yes".to_owned())],
            tls: TlsOptions::default(),
            node: None,
        },
        secret_ttl: Duration::from_secs(86_400),
        tls: TlsOptions::default(),
        impersonate: true,
        limits: Limits::default(),
    }
}

fn cart() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "cart").unwrap()
}

async fn ask(client: &CaClient) -> Result<WorkloadCertificate, CertificateError> {
    tokio::time::timeout(Duration::from_secs(20), client.ask(&cart())).await.unwrap()
}

#[tokio::test]
async fn a_request_names_the_identity_and_carries_the_headers() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let client = CaClient::new(&config(&server)).unwrap();
    let certificate = ask(&client).await.unwrap();
    assert_eq!(certificate.identity(), &cart());
    let asked = server.asked().remove(0);
    assert_eq!((asked.what.as_str(), asked.validity), ("spiffe://cluster.local/ns/shop/sa/cart", 86_400));
    assert_eq!(asked.header("authorization"), Some("Bearer secret"));
    assert_eq!((asked.header("clusterid"), asked.header("x-extra")), (Some("Kubernetes"), Some("yes")));
}

// A-MI-04, CO-11.3
#[tokio::test]
async fn answers_that_cannot_be_used_are_refused() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let client = CaClient::new(&config(&server)).unwrap();
    let other = SpiffeId::new("cluster.local", "shop", "other").unwrap();
    for (answer, text, code) in [
        (
            Answer::Empty,
            "chain returned from CA is empty for: spiffe://cluster.local/ns/shop/sa/cart",
            "ca-chain-empty",
        ),
        (
            Answer::For(other),
            "did not find expected SAN: spiffe://cluster.local/ns/shop/sa/cart",
            "ca-other-identity",
        ),
        (Answer::LeafOnly, "invalid root certificate: no root certificate present", "ca-chain-without-root"),
        (
            Answer::Refuse(tonic::Status::unauthenticated("request authenticate failure")),
            "signing gRPC error (The request does not have valid authentication credentials): request authenticate failure",
            "ca-unauthenticated",
        ),
    ] {
        server.answer(answer);
        let error = ask(&client).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.code()), (text, code));
    }
}

// Control-and-operations 4.4: a dedicated proxy sends no metadata and compares nothing.
#[tokio::test]
async fn a_dedicated_proxy_takes_what_it_gets() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let client = CaClient::new(&Config { impersonate: false, ..config(&server) }).unwrap();
    assert_eq!(ask(&client).await.unwrap().identity().service_account(), "ztunnel");
    assert_eq!(server.asked()[0].what, "");
}

#[tokio::test]
async fn a_server_under_another_root_gets_no_token() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let mut config = config(&server);
    config.ca.roots = RootSource::Static(FakeCa::new().bundle().to_owned());
    let error = ask(&CaClient::new(&config).unwrap()).await.unwrap_err();
    assert_eq!(error.code(), "control-unreachable");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(server.asked().is_empty());
}

// CO-11.3: a changed root file is taken up by the next request; a broken one keeps the old channel.
#[tokio::test]
async fn a_changed_root_file_makes_a_new_channel() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("root-cert.pem");
    std::fs::write(&roots, server.ca().bundle()).unwrap();
    let mut config = config(&server);
    config.ca.roots = RootSource::File(roots.clone());
    let client = CaClient::new(&config).unwrap();
    ask(&client).await.unwrap();
    let fingerprint = async || client.channel.lock().await.as_ref().unwrap().fingerprint;
    let first = fingerprint().await;
    ask(&client).await.unwrap();
    assert_eq!(fingerprint().await, first, "unchanged");
    std::fs::write(&roots, format!("{}{}", server.ca().bundle(), FakeCa::new().bundle())).unwrap();
    ask(&client).await.unwrap();
    let second = fingerprint().await;
    assert_ne!(second, first);
    for broken in ["", "garbage"] {
        std::fs::write(&roots, broken).unwrap();
        ask(&client).await.unwrap();
        assert_eq!(fingerprint().await, second, "the old channel goes on");
    }
}

#[tokio::test]
async fn the_alternative_name_counts_when_the_first_does_not() {
    let server = FakeCaServer::start(FakeCa::new()).await;
    let mut config = config(&server);
    config.ca.address = server.url().replace("localhost", "127.0.0.1");
    assert_eq!(ask(&CaClient::new(&config).unwrap()).await.unwrap_err().code(), "control-unreachable");
    config.ca.alternative_name = Some("localhost".to_owned());
    assert!(ask(&CaClient::new(&config).unwrap()).await.is_ok());
}
