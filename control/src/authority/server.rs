//! TLS of port 15012: our certificate, the caller's optional one, and what the services learn of both.
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Request;
use tonic::transport::server::Connected;

use super::Config;
use super::leaf::Leaf;
use super::material::{Material, MaterialError};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// As long as the root may live; the signer's end is its end anyway.
const SERVER_TTL: Duration = Duration::from_secs(3650 * 86_400);
/// A joining node offers this besides `h2`: it knows only the root's hash and must see the root.
const ALPN_SHOW_ROOT: &[u8] = b"culvert-join";

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What one set of signing material serves with.
#[derive(Debug)]
pub(super) struct Serving {
    config: Arc<ServerConfig>,
}

impl Serving {
    pub(super) fn new(material: &Material, config: &Config, now: SystemTime) -> Result<Self, MaterialError> {
        let failed = |error: &dyn std::fmt::Display| MaterialError::Sign(error.to_string());
        // The key is of the signer's kind: RSA for RSA, its curve otherwise.
        let algorithm = material.issuer().key().algorithm();
        let key = if algorithm == &PKCS_RSA_SHA256 {
            KeyPair::generate_for(&PKCS_RSA_SHA256)
        } else {
            KeyPair::generate_for(algorithm)
        };
        let key = key.map_err(|error| failed(&error))?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let leaf = Leaf::server(&config.server_names, key, now, SERVER_TTL).sign_leaf(material);
        let leaf = leaf.map_err(|error| failed(&error))?;
        let mut chain = vec![leaf.der().clone()];
        for link in material.intermediates() {
            chain.push(CertificateDer::from_pem_slice(link.as_bytes()).map_err(|error| failed(&error))?);
        }
        let with_roots = chain.iter().chain(material.roots()).cloned().collect();
        let provider = provider();
        let key = provider.key_provider.load_private_key(der).map_err(|error| failed(&error))?;
        let certificates = ServerCertificates {
            usual: Arc::new(CertifiedKey::new(chain, key.clone())),
            with_roots: Arc::new(CertifiedKey::new(with_roots, key)),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(material.roots().iter().cloned());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| failed(&error))?;
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        tls.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would carry on an identity that may have ended.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(tls) })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

#[derive(Debug)]
struct ServerCertificates {
    usual: Arc<CertifiedKey>,
    with_roots: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joining =
            hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ALPN_SHOW_ROOT));
        Some(if joining { self.with_roots.clone() } else { self.usual.clone() })
    }
}

/// Who is at the other end of a connection, as far as TLS knows.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    address: Option<SocketAddr>,
    chain: Option<Arc<[CertificateDer<'static>]>>,
}

impl Caller {
    /// Of a request that came in through a [`SecureStream`]; otherwise a caller without TLS.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or(Self { address: None, chain: None })
    }

    /// A caller whom TLS has verified, without a connection.
    #[cfg(test)]
    pub(super) fn with_chain(chain: &[CertificateDer<'static>]) -> Self {
        Self { address: None, chain: Some(chain.into()) }
    }

    /// The chain TLS has verified, empty for a caller without certificate; nothing without TLS.
    pub(crate) fn verified_chain(&self) -> Option<&[CertificateDer<'static>]> {
        self.chain.as_deref()
    }

    /// Where it calls from, for the log.
    pub(crate) fn address(&self) -> String {
        self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }
}

/// An accepted connection of port 15012; its requests carry a [`Caller`].
#[derive(Debug)]
pub(crate) struct SecureStream {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl SecureStream {
    pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<Self> {
        let address = stream.peer_addr().ok().map(canonical);
        stream.set_nodelay(true)?;
        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(config).accept(stream));
        let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok(Self { stream, caller: Caller { address, chain: Some(chain) } })
    }
}

/// An IPv4 caller of a socket for both families, as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Connected for SecureStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_shown_by_the_address_they_have() {
        let shown = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(shown("[::ffff:10.0.0.11]:38062"), "10.0.0.11:38062");
        assert_eq!(shown("[fd00::1]:1"), "[fd00::1]:1");
    }
}
