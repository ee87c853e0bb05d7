//! Connections to the control plane: one TLS channel with its root source, name check and credentials,
//! shared by the certificate client and the discovery client (control-and-operations 2.1, 4.4).
//!
//! [`ControlEndpoint::connect`] opens a channel; [`ControlEndpoint::authorize`] adds the headers of one
//! request. Roots and tokens are read anew each time: files change under a running proxy.
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::{TlsOptions, crypto_provider};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use super::join::NodeIdentity;

mod credential;
mod roots;
mod verify;

pub(crate) use credential::{Credential, CredentialError};
pub(crate) use roots::{RootSource, RootsError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connect, handshake and HTTP/2 preface together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE: net::socket::Keepalive =
    net::socket::Keepalive { time: Duration::from_secs(300), interval: Duration::from_secs(75), retries: 9 };
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Tells our own control plane to send its root along, so that a joining node can check its hash.
pub(super) const ALPN_SHOW_ROOT: &[u8] = b"culvert-join";

/// How to reach one service of the control plane.
#[derive(Debug, Clone)]
pub(crate) struct ControlConfig {
    /// `https://host:port`; a missing scheme is `https`.
    pub address: String,
    /// Accepted besides the address's host (`ALT_XDS_HOSTNAME`, `ALT_CA_HOSTNAME`).
    pub alternative_name: Option<String>,
    /// Which roots the server's certificate must chain to.
    pub roots: RootSource,
    /// The bearer token (`AUTH_TOKEN`).
    pub credential: Credential,
    /// Sent as `clusterid` beside the token.
    pub cluster_id: String,
    /// `XDS_HEADER_*`, `CA_HEADER_*`: names in lower case.
    pub headers: Vec<(String, String)>,
    /// Protocol versions and key exchange.
    pub tls: TlsOptions,
    /// The node's own certificate, when this node joins by token.
    pub node: Option<NodeIdentity>,
}

/// Why no channel to the control plane could be opened, or a request not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The address is not an `https` URL with a host.
    #[error("invalid address {address}: {reason}")]
    Address { address: String, reason: &'static str },
    /// The roots cannot be had.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The token cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A configured header cannot be sent.
    #[error("invalid header {name}")]
    Header { name: String },
    /// Nothing usable answered in time.
    #[error("connecting to {address}: timed out")]
    Timeout { address: String },
    /// The server cannot be reached or does not prove itself.
    #[error("connecting to {address}: {}", causes(source))]
    Connect { address: String, source: tonic::transport::Error },
}

impl ChannelError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "control-invalid-address",
            Self::Roots(error) => error.code(),
            Self::Credential(error) => error.code(),
            Self::Header { .. } => "control-invalid-header",
            Self::Timeout { .. } | Self::Connect { .. } => "control-unreachable",
        }
    }
}

/// The library's text says only "transport error"; the cause is further down.
fn causes(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// One service of the control plane. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ControlEndpoint {
    config: Arc<ControlConfig>,
    uri: Uri,
    host: String,
    port: u16,
}

impl ControlEndpoint {
    /// Checks the address; connects to nothing yet.
    pub(crate) fn new(config: ControlConfig) -> Result<Self, ChannelError> {
        let invalid = |reason| ChannelError::Address { address: config.address.clone(), reason };
        let address = if config.address.contains("://") {
            config.address.clone()
        } else {
            format!("https://{}", config.address)
        };
        let uri: Uri = address.parse().map_err(|_| invalid("not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(invalid("only https is usable"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        Ok(Self { config: Arc::new(config), uri, host, port })
    }

    /// The address connected to, as a URL.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Opens a channel: one HTTP/2 connection over TLS, opened anew by the channel when it breaks.
    pub(crate) async fn connect(&self) -> Result<Channel, ChannelError> {
        // A missing file has a better error than the transport would make of it.
        self.config.roots.load(self.config.node.as_ref()).await?;
        let endpoint = Endpoint::from(self.uri.clone())
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .connect_timeout(OPEN_TIMEOUT);
        let connector = Connector { endpoint: self.clone() };
        let address = || self.uri.to_string();
        match tokio::time::timeout(OPEN_TIMEOUT, endpoint.connect_with_connector(connector)).await {
            Ok(result) => result.map_err(|source| ChannelError::Connect { address: address(), source }),
            Err(_) => Err(ChannelError::Timeout { address: address() }),
        }
    }

    /// Adds `authorization`, `clusterid` and the configured headers to a request.
    pub(crate) async fn authorize(&self, metadata: &mut MetadataMap) -> Result<(), ChannelError> {
        if let Some(token) = self.config.credential.read().await? {
            let invalid = |_| CredentialError::Unusable;
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(invalid)?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
            let cluster = self.config.cluster_id.parse();
            metadata.insert(
                "clusterid",
                cluster.map_err(|_| ChannelError::Header { name: "clusterid".to_owned() })?,
            );
        }
        for (name, value) in &self.config.headers {
            let invalid = || ChannelError::Header { name: name.clone() };
            let key: MetadataKey<Ascii> = name.parse().map_err(|_| invalid())?;
            metadata.insert(key, value.parse().map_err(|_| invalid())?);
        }
        Ok(())
    }

    /// Waits until the node has joined, if it is one that joins.
    pub(crate) async fn joined(&self) {
        if let Some(node) = &self.config.node {
            node.clone().joined().await;
        }
    }

    /// Changes when a new channel would trust other roots or present another certificate.
    pub(crate) async fn fingerprint(&self) -> Result<u64, ChannelError> {
        let roots = self.config.roots.fingerprint().await?;
        let node = self.config.node.as_ref().map_or(0, NodeIdentity::generation);
        Ok(roots ^ node.rotate_left(32))
    }

    async fn open(&self) -> io::Result<TlsStream<TcpStream>> {
        let config = self.tls().await.map_err(io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let dialled =
            tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)));
        let stream = dialled.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        net::socket::set_keepalive(&stream, TCP_KEEPALIVE, false)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn tls(&self) -> Result<ClientConfig, ChannelError> {
        let provider = Arc::new(crypto_provider(&self.config.tls));
        let alternative = self.config.alternative_name.as_deref();
        let trust = self.config.roots.load(self.config.node.as_ref()).await?;
        let verifier = verify::ControlVerifier::new(trust, alternative, &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.config.tls.versions())
            .expect("the provider has suites and groups for these versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.config.node.as_ref().and_then(NodeIdentity::client_key) {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        if matches!(self.config.roots, RootSource::Pinned(_)) {
            config.alpn_protocols.push(ALPN_SHOW_ROOT.to_vec());
        }
        Ok(config)
    }
}

/// What the channel calls whenever it needs a connection.
#[derive(Clone)]
struct Connector {
    endpoint: ControlEndpoint,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.endpoint.clone();
        Box::pin(async move { Ok(TokioIo::new(endpoint.open().await?)) })
    }
}

#[cfg(test)]
mod tests;
