//! Scripted TLS against the mesh's real configurations over sockets: ClientHellos and records of the test's own against
//! a server, bad servers against a client. After each, a tunnel that was there before still carries bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says so")]

mod bad_server;
mod hello;
mod hellos;
mod sealed;
#[path = "../support/mod.rs"]
mod support;

use std::rc::Rc;
use std::sync::Arc;

use culvert_hbone::{ClientConnection, ConnectRequest, Settings, Tunnel, client, server};
use identity::{TlsOptions, WorkloadCertificate};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use support::{pair, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What the authority of a mesh issues.
fn certificate(options: TlsOptions) -> WorkloadCertificate {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let chain = [leaf.signed_by(&key, &ca).unwrap().pem(), ca.pem()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    WorkloadCertificate::new(&chain, key, options).unwrap()
}

/// How the server saw a connection end: the code of the refused handshake, or of the connection.
type Verdict = tokio::task::JoinHandle<&'static str>;

/// A mesh's certificate, and a tunnel that must not notice anything.
struct Bench {
    certificate: WorkloadCertificate,
    neighbour: (ClientConnection, Tunnel),
}

impl Bench {
    async fn new() -> Rc<Self> {
        Self::with(TlsOptions::default()).await
    }

    async fn with(options: TlsOptions) -> Rc<Self> {
        let certificate = certificate(options);
        let (near, _) = serve(&certificate).await;
        let config = certificate.client_config(&[ID.parse().unwrap()]);
        let connection = client::connect(near, config, &Settings::default()).await.unwrap();
        let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
        let (_, tunnel) = connection.open(request).await.unwrap();
        Rc::new(Self { certificate, neighbour: (connection, tunnel) })
    }

    /// A connection to the server, before TLS.
    async fn dial(&self) -> (TcpStream, Verdict) {
        serve(&self.certificate).await
    }

    /// The neighbour still echoes.
    async fn neighbour_is_well(self: &mut Rc<Self>) {
        let (_, tunnel) = &mut Rc::get_mut(self).unwrap().neighbour;
        tunnel.write_all(b"still here").await.unwrap();
        let mut echo = [0; 10];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"still here");
    }
}

/// One connection of the product's server, whose tunnels echo.
async fn serve(certificate: &WorkloadCertificate) -> (TcpStream, Verdict) {
    let (near, far) = pair().await;
    let config: Arc<rustls::ServerConfig> = certificate.server_config();
    let verdict = spawn(async move {
        let connection = match server::accept(far, config, &Settings::default()).await {
            Ok(connection) => connection,
            Err(error) => return error.code(),
        };
        while let Some(request) = connection.next().await {
            let tunnel = request.accept(&[]);
            spawn(async move {
                let (mut read, mut write) = tokio::io::split(tunnel);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
        connection.ended().unwrap().code()
    });
    (near, verdict)
}

/// Sends all and reads until the other side closes.
async fn exchange(near: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let _ = near.write_all(bytes).await;
    let _ = near.shutdown().await;
    let mut got = Vec::new();
    let _ = near.read_to_end(&mut got).await;
    got
}

/// Code of a fatal alert in the clear.
fn alert(got: &[u8]) -> Option<u8> {
    match got {
        [21, 3, 3, 0, 2, 2, code] => Some(*code),
        _ => None,
    }
}
