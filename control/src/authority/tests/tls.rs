//! Port 15012 as a TLS client meets it.
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::server::Connected;

use super::*;

async fn handshake(
    world: &World,
    config: ClientConfig,
    name: &str,
) -> (std::io::Result<SecureStream>, Option<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        stream.get_ref().1.peer_certificates().map(<[_]>::len)
    };
    let server = async { world.authority.accept(listener.accept().await.unwrap().0).await };
    let both = async { tokio::join!(server, client) };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap()
}

fn trusting(world: &World) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(ders(&[world.authority.root_bundle()]).remove(0)).unwrap();
    ClientConfig::builder_with_provider(server::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
}

#[tokio::test]
async fn a_client_verifies_every_name_of_the_server() {
    let world = World::with(|config| {
        config.server_names = server_names("istio-system", &["mine.example".to_owned()])
    });
    for name in [
        "istiod.istio-system.svc",
        "istiod-remote.istio-system.svc",
        "localhost",
        "127.0.0.1",
        "::1",
        "mine.example",
    ] {
        let (stream, chain) = handshake(&world, trusting(&world).with_no_client_auth(), name).await;
        assert!(stream.unwrap().connect_info().verified_chain().unwrap().is_empty());
        assert_eq!(chain, Some(1), "leaf alone, {name}");
    }
    let (_, chain) = handshake(&world, trusting(&world).with_no_client_auth(), "other.example").await;
    assert_eq!(chain, None);
}

#[tokio::test]
async fn a_joining_client_is_shown_the_root() {
    let world = World::new();
    let mut config = trusting(&world).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"culvert-join".to_vec()];
    assert_eq!(handshake(&world, config, "localhost").await.1, Some(2));
}

#[tokio::test]
async fn a_client_certificate_of_ours_is_handed_on_and_any_other_refused() {
    let world = World::new();
    let id = SpiffeId::new("x", "y", "z").unwrap();
    let request = CertificateRequest::new(&id).unwrap();
    let token = world.token(TokenKind::Join, "n1", "istio-system/ztunnel");
    let answer = world.join(&token, request.pem()).await.unwrap();
    let leaf = ders(&answer.cert_chain[..1]);
    let config = trusting(&world).with_client_auth_cert(leaf.clone(), request.key()).unwrap();
    let stream = handshake(&world, config, "localhost").await.0.unwrap();
    assert_eq!(stream.connect_info().verified_chain().unwrap(), leaf);

    let stranger = kit::fake_ca::FakeCa::new().sign(&kit::fake_ca::Leaf::of(&id, Duration::from_secs(60)));
    let config = trusting(&world).with_client_auth_cert(ders(&stranger.chain[..1]), stranger.key).unwrap();
    assert!(handshake(&world, config, "localhost").await.0.is_err());
}

/// A client that believes anybody.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        server::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let world = World::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(server::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_no_client_auth();
        assert!(handshake(&world, config, "localhost").await.0.is_ok());
    }
}
