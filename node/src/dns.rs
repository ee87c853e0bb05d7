//! The DNS proxy of one pod: names of the mesh are answered here, everything else is forwarded untouched to the
//! pod's own resolvers.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use tokio::net::TcpStream;
use tokio::sync::watch;

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

/// Counters of the DNS proxies; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics;

impl Metrics {
    /// Registers the families.
    pub(crate) fn new(registry: &mut prometheus_client::registry::Registry) -> Self {
        let _ = registry;
        Self
    }
}

/// Serves one pod until dropped. Runs on a `LocalSet` or `block_on` of one thread; spawns nothing.
pub(crate) async fn serve(sockets: Sockets, dependencies: Dependencies) {
    let _ = (sockets, dependencies);
    std::future::pending().await
}
