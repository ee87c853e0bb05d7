//! Certificates, sockets and a thread's runtime for the targets that need a whole connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use identity::{TlsOptions, WorkloadCertificate};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// TLS of both sides, as the mesh configures it.
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

pub(crate) fn tls() -> Tls {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a root");
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(ID.try_into().expect("a name"))];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let chain = [leaf.signed_by(&key, &ca).expect("a leaf").pem(), ca.pem()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let certificate = WorkloadCertificate::new(&chain, key, TlsOptions::default()).expect("a certificate");
    Tls {
        client: certificate.client_config(&[ID.parse().expect("an identity")]),
        server: certificate.server_config(),
    }
}

/// Runs on one thread, as traffic does, and ends after 15 seconds.
pub(crate) fn run<F: Future>(task: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(15), task).await.expect("it is over in time")
    })
}

pub(crate) fn spawn<F: Future + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    tokio::task::spawn_local(task)
}

/// Two ends of a TCP connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("a connection"), far.expect("a connection").0)
}
