//! Certificates, sockets and a thread's runtime for the tests of this crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that fails says so"
)]
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod process;
pub(crate) mod traffic;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use culvert_hbone::{ConnectRequest, RelayEnd};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};

/// TLS of both sides, trusting each other.
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) anonymous: Arc<ClientConfig>,
    /// For a peer of another make.
    pub(crate) pem: Pem,
}

/// The roots, and a certificate of its own with its key, as PEM.
pub(crate) struct Pem {
    pub(crate) roots: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Accepts any certificate under the roots, whatever its name: identities are not this crate's business.
#[derive(Debug)]
struct AnyName(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

pub(crate) fn tls() -> Tls {
    tls_of(&rustls::version::TLS13)
}

/// Configurations of client and server that speak TLS 1.2 only.
pub(crate) fn tls12() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let tls = tls_of(&rustls::version::TLS12);
    (tls.client, tls.server)
}

fn tls_of(version: &'static SupportedProtocolVersion) -> Tls {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Another name than the leaves have by default: to BoringSSL they would be their own issuers.
    ca.distinguished_name.push(DnType::CommonName, "roots");
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |id: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let leaf = |id: &str| {
        let (cert, key) = issue(id);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![cert.der().clone()], key)
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let versions = [version];
    let (chain, key) = leaf("spiffe://cluster.local/ns/default/sa/server");
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let client = |with_cert: bool| {
        let any = AnyName(
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .unwrap(),
        );
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any));
        let mut config = if with_cert {
            let (chain, key) = leaf("spiffe://cluster.local/ns/default/sa/client");
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_sni = false;
        Arc::new(config)
    };
    let (cert, key) = issue("spiffe://cluster.local/ns/default/sa/other");
    let pem = Pem { roots: ca_cert.pem(), certificate: cert.pem(), key: key.serialize_pem() };
    Tls { client: client(true), server: Arc::new(server), anonymous: client(false), pem }
}

/// Runs a test on one thread, as traffic does, and ends it after 20 seconds.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    run_within(Duration::from_secs(20), test)
}

/// The same with another limit.
pub(crate) fn run_within<F: Future>(limit: Duration, test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test).await.expect("the test is over in time")
    })
}

pub(crate) fn spawn<F: Future + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    #[expect(clippy::disallowed_methods, reason = "the test is the parent")]
    tokio::task::spawn_local(task)
}

/// Two ends of a TCP connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (a, b) = (a.unwrap(), b.unwrap().0);
    for end in [&a, &b] {
        end.set_nodelay(true).unwrap();
    }
    (a, b)
}

/// Polls until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never: {what}");
}

/// What a client asks for.
pub(crate) fn request() -> ConnectRequest {
    ConnectRequest {
        authority: "10.0.0.1:80".into(),
        headers: vec![
            ("baggage".into(), "service.name=client".into()),
            ("forwarded".into(), "for=\"1.2.3.4:5\"".into()),
        ],
    }
}

/// Shows in the output of a failed test how its relays ended.
pub(crate) async fn told(name: &str, relay: impl Future<Output = RelayEnd>) -> RelayEnd {
    let end = relay.await;
    println!("{name}: {end:?}");
    end
}

/// Octets that no two places have in common.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Ends it by a reset.
pub(crate) fn reset(app: TcpStream) {
    socket2::SockRef::from(&app).set_linger(Some(Duration::ZERO)).unwrap();
}
