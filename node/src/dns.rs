//! The DNS proxy of one pod: names of the mesh are answered here, everything else is forwarded untouched to the
//! pod's own resolvers.
//!
//! A query: read it ([`query`]) → find its name in the mesh ([`answer`]) → answer, or pass its bytes on
//! ([`forward`]) → count and log.

mod answer;
mod forward;
mod metrics;
mod query;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use runtime::drain::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use answer::Outcome;
pub(crate) use metrics::Metrics;
use metrics::RequestLabels;
use query::{Query, Read};

/// Queries of one socket that may wait at the same time, for a workload or a resolver. Beyond it those that would
/// have to wait get SERVFAIL; names of the mesh are answered all the same.
const MAX_WAITING: usize = 512;
/// Connections of one listener; further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 128;
/// How long a connection may be silent between queries.
const CONNECTION_IDLE: Duration = Duration::from_secs(5);
/// How long a query waits for the pod's workload to arrive from discovery.
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);

/// Where queries come in: bound inside the pod's namespace, loopback addresses only.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

/// What the proxy of one pod works with.
#[derive(Clone)]
pub(crate) struct Dependencies {
    /// The mesh.
    pub(crate) mesh: watch::Receiver<Arc<state::Mesh>>,
    /// The pod: its workload is the client of every query.
    pub(crate) pod: state::Pod,
    /// What holds for all pods.
    pub(crate) settings: Arc<Settings>,
    /// The pod's own resolvers, in order.
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Makes sockets in the pod's namespace, marked.
    pub(crate) upstream: Upstream,
    /// Counters of all pods.
    pub(crate) metrics: Metrics,
    /// Begins when the pod's clients are to be served no more.
    pub(crate) drain: Drain,
}

/// What holds for the DNS proxies of all pods.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `CLUSTER_DOMAIN`.
    pub(crate) cluster_domain: String,
    /// `PREFERED_SERVICE_NAMESPACE`.
    pub(crate) preferred_namespace: Option<String>,
    /// `IPV6_ENABLED`.
    pub(crate) ipv6: bool,
    /// Search domains instead of those of Kubernetes: in dedicated mode those of `/etc/resolv.conf`.
    pub(crate) search: Option<Vec<String>>,
}

/// Sockets towards a resolver.
#[derive(Clone)]
pub(crate) struct Upstream {
    /// An unconnected socket of the resolver's address family.
    pub(crate) udp: Rc<dyn Fn(SocketAddr) -> io::Result<UdpSocket>>,
    /// A connection to the resolver.
    pub(crate) tcp: Rc<dyn Fn(SocketAddr) -> LocalBoxFuture<'static, io::Result<TcpStream>>>,
}

/// How a query came, and how it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Serves one pod until it drains, then answers what was asked before; dropped, it answers nothing more. Spawns
/// nothing: all queries are part of this future.
pub(crate) async fn serve(sockets: Sockets, dependencies: Dependencies) {
    let dependencies = &dependencies;
    let udp = sockets.udp.into_iter().map(|socket| serve_udp(socket, dependencies));
    let tcp = sockets.tcp.into_iter().map(|listener| serve_tcp(listener, dependencies));
    let drained = async {
        dependencies.drain.draining().await;
        tracing::info!(target: "ztunnel::dns::server", "shutting down the DNS server");
    };
    future::join3(future::join_all(udp), future::join_all(tcp), drained).await;
}

async fn serve_udp(socket: UdpSocket, dependencies: &Dependencies) {
    let socket = match socket.set_nonblocking(true).and_then(|()| tokio::net::UdpSocket::from_std(socket)) {
        Ok(socket) => socket,
        Err(error) => return unusable("udp", &error),
    };
    let mut buffer = vec![0; 65_535];
    let mut waiting = FuturesUnordered::new();
    loop {
        // Both are cancel-safe: a dropped receive has taken nothing, a dropped `next` leaves its futures in the set.
        tokio::select! {
            biased;
            Some(()) = waiting.next(), if !waiting.is_empty() => {}
            () = dependencies.drain.draining() => break,
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else {
                    // An ICMP error of an earlier reply, or memory is short: neither may end the service.
                    sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let Some(packet) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
                let may_wait = waiting.len() < MAX_WAITING;
                let socket = &socket;
                waiting.push(async move {
                    if let Some(reply) = reply(&packet, Transport::Udp, may_wait, dependencies).await {
                        // The client may be gone; it will ask again if not.
                        let _ = socket.send_to(&reply, client).await;
                    }
                });
            }
        }
    }
    while waiting.next().await.is_some() {}
}

async fn serve_tcp(listener: TcpListener, dependencies: &Dependencies) {
    let listener =
        match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
            Ok(listener) => listener,
            Err(error) => return unusable("tcp", &error),
        };
    let mut connections = FuturesUnordered::new();
    loop {
        // Cancel-safe as above.
        tokio::select! {
            biased;
            Some(_) = connections.next(), if !connections.is_empty() => {}
            () = dependencies.drain.draining() => break,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => connections.push(serve_connection(stream, dependencies)),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    drop(listener);
    while connections.next().await.is_some() {}
}

/// Queries of one connection, one after the other, until the pod drains.
async fn serve_connection(mut stream: TcpStream, dependencies: &Dependencies) -> io::Result<()> {
    // A late small answer is worse than a small packet; failing changes nothing else.
    let _ = stream.set_nodelay(true);
    loop {
        let packet = tokio::select! {
            biased;
            packet = timeout(CONNECTION_IDLE, read_message(&mut stream)) => packet??,
            // What is half read is half asked.
            () = dependencies.drain.draining() => return Ok(()),
        };
        let Some(reply) = reply(&packet, Transport::Tcp, true, dependencies).await else { continue };
        timeout(CONNECTION_IDLE, write_message(&mut stream, &reply)).await??;
    }
}

/// A message behind its two bytes of length.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

/// The reply to one packet; none if it deserves none.
async fn reply(packet: &[u8], transport: Transport, may_wait: bool, deps: &Dependencies) -> Option<Vec<u8>> {
    let query = match query::read(packet) {
        Read::Query(query) => query,
        Read::Refused(reply) => {
            tracing::debug!(target: "dns", "refused a malformed query");
            return Some(reply);
        }
        Read::NotForUs => return None,
    };
    let (mesh, client) = client(deps, may_wait).await;
    let labels = RequestLabels::new(&query, transport, client.as_deref());
    deps.metrics.requests.get_or_create(&labels).inc();
    let Some(client) = client else { return query.servfail() };
    match answer::answer(&mesh, &client, &query, &deps.settings, rand::random()) {
        Outcome::Answered { message, n_endpoints } => {
            let result = if n_endpoints == 0 { "no records" } else { "success" };
            log(&client, &query, result, n_endpoints);
            let limit = if transport == Transport::Udp { query.udp_limit() } else { usize::from(u16::MAX) };
            answer::encode(message, limit)
        }
        Outcome::NotOurs => {
            // The snapshot is not needed while a resolver thinks.
            drop(mesh);
            if !may_wait {
                return query.servfail();
            }
            deps.metrics.upstream_requests.get_or_create(&labels).inc();
            let asked = tokio::time::Instant::now();
            let forwarded =
                forward::forward(packet, &query, transport, &deps.resolvers, &deps.upstream).await;
            deps.metrics.upstream_duration.get_or_create(&labels).observe(asked.elapsed().as_secs_f64());
            match forwarded {
                Ok(reply) => {
                    if query::response_code(&reply) != 0 {
                        deps.metrics.upstream_failures.get_or_create(&labels).inc();
                    }
                    log(&client, &query, "forwarded", 0);
                    Some(reply)
                }
                Err(error) => {
                    deps.metrics.upstream_failures.get_or_create(&labels).inc();
                    log(&client, &query, &format!("forwarding failed ({error})"), 0);
                    query.servfail()
                }
            }
        }
    }
}

/// The workload that asks, with the snapshot it is from; it may still be on its way from discovery.
async fn client(deps: &Dependencies, may_wait: bool) -> (Arc<state::Mesh>, Option<Arc<state::Workload>>) {
    let snapshot = |mesh: &Arc<state::Mesh>| (mesh.clone(), mesh.local_workload(&deps.pod).cloned());
    let now = snapshot(&deps.mesh.borrow());
    if now.1.is_some() || !may_wait {
        return now;
    }
    let mut mesh = deps.mesh.clone();
    let arrival = mesh.wait_for(|mesh| mesh.local_workload(&deps.pod).is_some());
    match timeout(WORKLOAD_WAIT, arrival).await {
        Ok(Ok(mesh)) => snapshot(&mesh),
        Ok(Err(_)) | Err(_) => now,
    }
}

fn log(client: &state::Workload, query: &Query, result: &str, endpoints: usize) {
    tracing::event!(
        target: "dns",
        tracing::Level::DEBUG,
        src.workload = %client.name,
        src.namespace = %client.namespace,
        query = %query.record_type(),
        domain = %query.name(),
        result = %result,
        endpoints = endpoints
    );
}

fn unusable(protocol: &'static str, error: &io::Error) {
    tracing::error!(component = "dns", protocol, %error, "cannot serve on the socket");
}

#[cfg(test)]
mod tests;
