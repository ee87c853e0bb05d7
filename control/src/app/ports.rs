//! The four ports (control-plane 1.1), and what each serves.
//!
//! The certificate authority is on the port with TLS and nowhere else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request as HttpRequest;
use axum::middleware::{self, Next};
use axum::response::Response;
use http::StatusCode;
use runtime::drain::Drain;
use runtime::http::{Answer, Peer, Request, Server as HttpServer, text};
use runtime::tasks::TaskGroup;
use runtime::throttle::Throttle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;

use super::handshakes::{Handshakes, Place};
use super::{Addresses, StartError};
use crate::authority::{Authority, PodIndex, SecureStream};
use crate::config::{Config, Keepalive, Listen};
use crate::debug::{self, Debug};
use crate::discovery::Discovery;

/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
/// Failures to accept are told at most this often.
const REPORTS: Duration = Duration::from_secs(10);
/// Connections with a finished handshake that wait to be served.
const READY: usize = 64;
/// Streams of one connection. A node needs a handful.
const STREAMS_PER_CONNECTION: u32 = 1000;

/// Bound, not yet serving.
#[derive(Debug)]
pub(super) struct Ports {
    grpc: Option<TcpListener>,
    secure_grpc: Option<TcpListener>,
    monitoring: Option<HttpServer>,
    http: Option<HttpServer>,
    addresses: Addresses,
}

impl Ports {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, StartError> {
        let grpc = bind("grpc", listen.grpc).await?;
        let secure_grpc = bind("secure grpc", listen.secure_grpc).await?;
        let monitoring = bind_http("monitoring", listen.monitoring).await?;
        let http = bind_http("http", listen.http).await?;
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        let http_address =
            |server: &Option<HttpServer>| server.as_ref().and_then(|s| s.address().parse().ok());
        let addresses = Addresses {
            grpc: address(&grpc),
            secure_grpc: address(&secure_grpc),
            monitoring: http_address(&monitoring),
            http: http_address(&http),
        };
        Ok(Self { grpc, secure_grpc, monitoring, http, addresses })
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    #[expect(clippy::too_many_arguments, reason = "this is where all parts meet")]
    pub(super) fn serve(
        self,
        config: &Config,
        discovery: &Discovery,
        authority: &Authority,
        pods: Arc<dyn PodIndex>,
        debug: &Debug,
        tasks: &TaskGroup,
        drain: &Drain,
    ) {
        if let Some(listener) = self.grpc {
            let routes = only_grpc(Routes::new(discovery.plaintext()));
            let served = server(config.keepalive)
                .add_routes(routes)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), draining(drain.clone()));
            spawn(tasks, drain, "grpc", served);
        }
        if let Some(listener) = self.secure_grpc {
            let routes = Routes::new(discovery.secure())
                .add_service(authority.service(pods))
                .add_service(authority.join_service());
            let incoming = secured(listener, authority.clone(), tasks.clone(), drain.clone());
            let served = server(config.keepalive)
                .add_routes(only_grpc(routes))
                .serve_with_incoming_shutdown(incoming, draining(drain.clone()));
            spawn(tasks, drain, "secure grpc", served);
        }
        let monitoring_on_http = self.monitoring.is_none();
        if let Some(server) = self.monitoring {
            let debug = debug.clone();
            let handler = move |request: Request| {
                let debug = debug.clone();
                async move {
                    let (parts, _) = request.into_parts();
                    let peer = peer(&parts);
                    debug.monitoring(&parts, peer)
                }
            };
            tasks.spawn("monitoring", server.serve(handler, tasks.clone(), drain.clone()));
        }
        if let Some(server) = self.http {
            let debug = debug.clone();
            let debug_on_http = config.debug_on_http;
            let handler = move |request: Request| {
                let debug = debug.clone();
                async move { readiness(&debug, request, debug_on_http, monitoring_on_http) }
            };
            tasks.spawn("http", server.serve(handler, tasks.clone(), drain.clone()));
        }
    }
}

/// Port 8080. It listens only when everything is loaded, so `/ready` has one answer.
fn readiness(debug: &Debug, request: Request, debug_here: bool, monitoring_here: bool) -> Answer {
    let (parts, _) = request.into_parts();
    match parts.uri.path() {
        "/ready" => {
            let mut answer = text(StatusCode::OK, "");
            answer.headers_mut().remove(http::header::CONTENT_TYPE);
            answer
        }
        _ if monitoring_here => debug.monitoring(&parts, peer(&parts)),
        path if debug_here && path.starts_with("/debug") => debug.answer(&parts, peer(&parts)),
        _ => debug::not_found(),
    }
}

fn peer(parts: &http::request::Parts) -> Option<SocketAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.0)
}

fn server(keepalive: Keepalive) -> Server {
    let server = Server::builder()
        .http2_keepalive_interval(Some(keepalive.interval).filter(|interval| !interval.is_zero()))
        .http2_keepalive_timeout(Some(keepalive.timeout))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .tcp_nodelay(true);
    match keepalive.connection_age {
        Some(age) => server.max_connection_age(age),
        None => server,
    }
}

/// Requests that are not gRPC are refused as the reference refuses them.
fn only_grpc(routes: Routes) -> Routes {
    async fn check(request: HttpRequest, next: Next) -> Response {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return next.run(request).await;
        }
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        response
    }
    Routes::from(routes.prepare().into_axum_router().layer(middleware::from_fn(check)))
}

async fn draining(drain: Drain) {
    drain.draining().await;
}

fn spawn(
    tasks: &TaskGroup,
    drain: &Drain,
    name: &'static str,
    served: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
) {
    let guard = drain.guard();
    let cut = drain.clone();
    tasks.spawn_fallible(name, async move {
        let _guard = guard;
        tokio::select! {
            served = served => served,
            () = cut.cut() => Ok(()),
        }
    });
}

/// Connections whose TLS handshake is done. A slow or bad one keeps nobody else waiting.
fn secured(
    listener: TcpListener,
    authority: Authority,
    tasks: TaskGroup,
    drain: Drain,
) -> ReceiverStream<io::Result<SecureStream>> {
    let (ready, incoming) = mpsc::channel(READY);
    let handshakes = tasks.clone();
    tasks.spawn("tls", async move {
        let under_way = Handshakes::new(HANDSHAKES);
        let mut failures = Throttle::new(REPORTS);
        loop {
            // Cancel safe: accept loses nothing when dropped.
            let accepted = tokio::select! {
                biased;
                () = drain.draining() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let place = under_way.enter(address.ip());
                    let (authority, ready) = (authority.clone(), ready.clone());
                    handshakes.spawn("tls handshake", async move {
                        secure(authority, stream, address, ready, place).await;
                    });
                }
                Err(error) => {
                    if let Some(unreported) = failures.report(runtime::clock::monotonic()) {
                        tracing::warn!(target: "control", %error, unreported, "failed to accept");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}

async fn secure(
    authority: Authority,
    stream: TcpStream,
    address: SocketAddr,
    ready: mpsc::Sender<io::Result<SecureStream>>,
    mut place: Place,
) {
    let accepted = tokio::select! {
        biased;
        accepted = authority.accept(stream) => accepted,
        () = place.lost() => return,
    };
    drop(place);
    match accepted {
        // Nobody receives any more: the server is stopping.
        Ok(stream) => _ = ready.send(Ok(stream)).await,
        Err(error) => tracing::debug!(target: "control", %address, %error, "TLS handshake failed"),
    }
}

/// `[::]` stands for every address of this machine, also where it has no IPv6.
fn fallback(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_missing = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(NO_SUCH_FAMILY);
    (is_missing && address.is_ipv6() && address.ip().is_unspecified())
        .then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
}

/// EAFNOSUPPORT on Linux.
const NO_SUCH_FAMILY: i32 = 97;

async fn bind(
    component: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let mut bound = TcpListener::bind(address).await;
    if let Some(other) = bound.as_ref().err().and_then(|error| fallback(address, error)) {
        bound = TcpListener::bind(other).await;
    }
    bound.map(Some).map_err(|source| StartError::Bind { component, address, source })
}

async fn bind_http(
    component: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<HttpServer>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let mut bound = HttpServer::bind_tcp(address, component).await;
    if let Some(other) = bound.as_ref().err().and_then(|error| fallback(address, &error.source)) {
        bound = HttpServer::bind_tcp(other, component).await;
    }
    bound.map(Some).map_err(|error| StartError::Bind { component, address, source: error.source })
}
