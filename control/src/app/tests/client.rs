//! The other side of the ports.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use prost_types::value::Kind;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

use super::{LIMIT, Rig};

/// A channel with what to send along.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) channel: Channel,
    pub(super) token: Option<String>,
}

pub(super) async fn plaintext(rig: &Rig) -> Client {
    let address = rig.control.addresses().grpc.unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    Client { channel, token: None }
}

pub(super) async fn secure(rig: &Rig, token: Option<String>) -> Client {
    let address = rig.control.addresses().secure_grpc.unwrap();
    let roots = std::fs::read(rig.state().join("root-cert.pem")).unwrap();
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&roots) {
        store.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(Tls(tls)).await.unwrap();
    Client { channel, token }
}

#[derive(Clone)]
struct Tls(tokio_rustls::TlsConnector);

impl Service<Uri> for Tls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            // The name a node in a cluster dials.
            let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

/// An open stream.
pub(super) struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    node: Option<Node>,
}

pub(super) fn node(node_name: &str, extra: &[(&str, &str)]) -> Node {
    let text = |value: &str| prost_types::Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let mut fields = std::collections::BTreeMap::from([
        ("NODE_NAME".to_owned(), text(node_name)),
        ("NAMESPACE".to_owned(), text("istio-system")),
        ("CLUSTER_ID".to_owned(), text("Kubernetes")),
    ]);
    fields.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), text(value))));
    Node {
        id: "ztunnel~10.0.0.11~zt1.istio-system~istio-system.svc.cluster.local".to_owned(),
        metadata: Some(prost_types::Struct { fields: fields.into_iter().collect() }),
        ..Default::default()
    }
}

impl Client {
    pub(super) async fn open(&self, node_name: &str) -> Stream {
        self.open_as(Some(node(node_name, &[]))).await.unwrap()
    }

    pub(super) async fn open_as(&self, node: Option<Node>) -> Result<Stream, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut rpc = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let opened = tokio::time::timeout(LIMIT, rpc.delta_aggregated_resources(request)).await.unwrap()?;
        Ok(Stream { requests, responses: opened.into_inner(), node })
    }
}

impl Stream {
    pub(super) async fn send(&mut self, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { node: self.node.take(), ..request };
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn ask(&mut self, type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
            resource_names_unsubscribe: unsubscribe.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        })
        .await;
    }

    /// The next response, acknowledged.
    pub(super) async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next_unanswered().await;
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        })
        .await;
        response
    }

    pub(super) async fn next_unanswered(&mut self) -> DeltaDiscoveryResponse {
        tokio::time::timeout(LIMIT, self.responses.message()).await.unwrap().unwrap().unwrap()
    }

    /// How the stream ends: cleanly, or with a status.
    pub(super) async fn ended(&mut self) -> Option<Status> {
        match tokio::time::timeout(LIMIT, self.responses.message()).await.unwrap() {
            Ok(None) => None,
            Ok(Some(response)) => panic!("not the end: {response:?}"),
            Err(status) => Some(status),
        }
    }
}

pub(super) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// One HTTP request; status, content type and body.
pub(super) async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned))
        .unwrap_or_default();
    (status, content_type, body.to_owned())
}
