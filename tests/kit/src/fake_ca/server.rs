//! The fake authority behind gRPC and TLS, as a control plane offers it on port 15012.
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use identity::SpiffeId;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use wire::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use wire::ca::{IstioCertificateRequest, IstioCertificateResponse};
use wire::join::join_service_server::{JoinService, JoinServiceServer};
use wire::join::{JoinRequest, JoinResponse, RenewRequest};

use super::{FakeCa, Leaf};

/// How the server answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What was asked for, with this lifetime.
    Honest(Duration),
    /// An empty chain.
    Empty,
    /// A leaf without roots.
    LeafOnly,
    /// A certificate for somebody else.
    For(SpiffeId),
    /// A refusal.
    Refuse(Status),
    /// Nothing, ever.
    Hang,
}

/// A call as it came in.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The identity asked for, or the join token.
    pub what: String,
    /// The lifetime asked for, in seconds.
    pub validity: i64,
    /// Headers: `authorization`, `clusterid` and any other text header.
    pub headers: Vec<(String, String)>,
    /// The first URI name of the caller's certificate.
    pub certificate: Option<SpiffeId>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A running fake authority; stops when dropped.
#[derive(Debug)]
pub struct FakeCaServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    ca: FakeCa,
    answer: Mutex<Answer>,
    asked: Mutex<Vec<Asked>>,
    node: Mutex<(String, SpiffeId)>,
}

impl FakeCaServer {
    /// Serves `ca` on a port of its own; the server certificate is for `localhost`.
    pub async fn start(ca: FakeCa) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = ("n1".to_owned(), SpiffeId::new("cluster.local", "istio-system", "ztunnel").unwrap());
        let answer = Answer::Honest(Duration::from_secs(3600));
        let tls = TlsAcceptor::from(Arc::new(tls(&ca)));
        let shared = Arc::new(Shared {
            ca,
            answer: Mutex::new(answer),
            asked: Mutex::default(),
            node: Mutex::new(node),
        });
        let service = Service(shared.clone());
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let incoming = incoming.filter_map(move |stream| {
            let tls = tls.clone();
            async move { Some(Ok::<_, io::Error>(Stream(tls.accept(stream.ok()?).await.ok()?))) }
        });
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(IstioCertificateServiceServer::new(service.clone()))
                .add_service(JoinServiceServer::new(service));
            server.serve_with_incoming(Box::pin(incoming)).await.unwrap();
        });
        Self { shared, address, task }
    }

    /// Its address as a client's setting.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The authority behind it.
    pub fn ca(&self) -> &FakeCa {
        &self.shared.ca
    }

    /// Changes how it answers from now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Changes which node a join stands for.
    pub fn node(&self, name: &str, identity: SpiffeId) {
        *self.shared.node.lock().unwrap() = (name.to_owned(), identity);
    }

    /// The calls so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeCaServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<Shared>);

impl Service {
    fn note<T>(&self, request: &Request<T>, what: String, validity: i64) {
        let headers = request.metadata().clone().into_headers();
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let chain = request.extensions().get::<Arc<Vec<CertificateDer<'static>>>>();
        let certificate = chain.and_then(|chain| identity::peer_identity(chain));
        let asked = Asked { what, validity, headers: headers.collect(), certificate };
        self.0.asked.lock().unwrap().push(asked);
    }

    async fn chain(&self, csr: &str, wanted: &SpiffeId) -> Result<Vec<String>, Status> {
        let answer = self.0.answer.lock().unwrap().clone();
        let leaf_only = matches!(answer, Answer::LeafOnly);
        let (id, ttl) = match answer {
            Answer::Honest(ttl) => (wanted.clone(), ttl),
            Answer::For(other) => (other, Duration::from_secs(3600)),
            Answer::LeafOnly => (wanted.clone(), Duration::from_secs(3600)),
            Answer::Empty => return Ok(Vec::new()),
            Answer::Refuse(status) => return Err(status),
            Answer::Hang => std::future::pending().await,
        };
        let signed = self.0.ca.sign_request(csr, &Leaf::of(&id, ttl));
        let mut chain = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if leaf_only {
            chain.truncate(1);
        }
        Ok(chain)
    }

    async fn node(&self, csr: &str) -> Result<Response<JoinResponse>, Status> {
        let (node, identity) = self.0.node.lock().unwrap().clone();
        let cert_chain = self.chain(csr, &identity).await?;
        let account = format!("{}/{}", identity.namespace(), identity.service_account());
        Ok(Response::new(JoinResponse { cert_chain, node, account }))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let message = request.get_ref();
        let fields = message.metadata.as_ref().map(|metadata| &metadata.fields);
        let kind = fields.and_then(|fields| fields.get("ImpersonatedIdentity")?.kind.clone());
        let what = match kind {
            Some(prost_types::value::Kind::StringValue(text)) => text,
            _ => String::new(),
        };
        self.note(&request, what.clone(), message.validity_duration);
        let own = SpiffeId::new("cluster.local", "istio-system", "ztunnel").unwrap();
        let wanted = if what.is_empty() { own } else { what.parse().unwrap() };
        let cert_chain = self.chain(&request.get_ref().csr, &wanted).await?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

#[tonic::async_trait]
impl JoinService for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.note(&request, request.get_ref().token.clone(), 0);
        self.node(&request.get_ref().csr).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<JoinResponse>, Status> {
        self.note(&request, "renew".to_owned(), 0);
        self.node(&request.get_ref().csr).await
    }
}

/// Asks for a client certificate without insisting, and shows the root to who offers `culvert-join`.
pub(crate) fn tls(ca: &FakeCa) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let localhost = SpiffeId::new("cluster.local", "istio-system", "istiod").unwrap();
    let leaf =
        Leaf { dns: vec!["localhost".to_owned()], ..Leaf::of(&localhost, Duration::from_secs(86_400)) };
    let issued = ca.sign(&leaf);
    let key = provider.key_provider.load_private_key(issued.key).unwrap();
    let ders = |pems: &[String]| -> Vec<CertificateDer<'static>> {
        pems.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect()
    };
    let (_, without_root) = issued.chain.split_last().unwrap();
    let resolver = Certificates {
        usual: Arc::new(CertifiedKey::new(ders(without_root), key.clone())),
        with_root: Arc::new(CertifiedKey::new(ders(&issued.chain), key)),
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(ca.bundle().as_bytes()).map(Result::unwrap),
    );
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct Certificates {
    usual: Arc<CertifiedKey>,
    with_root: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joining =
            hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == b"culvert-join"));
        Some(if joining { self.with_root.clone() } else { self.usual.clone() })
    }
}

/// A connection that knows its caller's certificate.
pub(crate) struct Stream(pub(crate) TlsStream<TcpStream>);

impl Connected for Stream {
    type ConnectInfo = Arc<Vec<CertificateDer<'static>>>;

    fn connect_info(&self) -> Self::ConnectInfo {
        let chain = self.0.get_ref().1.peer_certificates().unwrap_or_default();
        Arc::new(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
