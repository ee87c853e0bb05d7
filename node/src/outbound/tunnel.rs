//! Step 5 for HBONE: a tunnel on a pooled connection, or on a new one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use hbone::{ClientConnection, ConnectRequest, OpenError, PoolError, Tunnel};
use identity::{Judged, SpiffeId};
use state::{Route, Workload};

use crate::certs::Priority;
use crate::failure::{Broken, ConnectionError};
use crate::pods::proxy::{Accepted, PodProxy, dial_from};

/// Requests that may share a connection (data-path 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    source: SpiffeId,
    /// The application's address: those of one pod's families do not share.
    source_ip: IpAddr,
    /// In order.
    expected: Vec<SpiffeId>,
    next_hop: SocketAddr,
}

/// Opens a tunnel along the route.
pub(super) async fn open(
    proxy: &PodProxy,
    source: &Workload,
    accepted: &Accepted,
    route: &Route,
    request: ConnectRequest,
) -> Result<Tunnel, ConnectionError> {
    let key = PoolKey {
        source: source.identity.clone(),
        source_ip: accepted.peer.ip(),
        expected: route.expected.clone(),
        next_hop: route.next_hop,
    };
    let dial = || connect(proxy, key.clone());
    match proxy.pool.open_for(&key, dial, request, &accepted.stream).await {
        Ok((_head, tunnel)) => Ok(tunnel),
        Err(PoolError::Dial(error)) => Err(Rc::try_unwrap(error).unwrap_or_else(ConnectionError::Shared)),
        // As if the relay had begun: nobody wants the answer.
        Err(PoolError::Open(OpenError::AppRead(text, kind))) => {
            Err(ConnectionError::Sending(Broken::Socket(io::Error::new(kind, text))))
        }
        Err(PoolError::Open(error)) => Err(ConnectionError::Open(error)),
        Err(PoolError::Draining) => Err(ConnectionError::PoolDraining),
    }
}

/// Dials a next hop and performs TLS with the source's certificate. Owns what it needs: those who
/// wait for a dial may outlive the one that began it.
fn connect(
    proxy: &PodProxy,
    key: PoolKey,
) -> impl Future<Output = Result<ClientConnection, ConnectionError>> + 'static {
    let (thread, shared) = (Rc::clone(&proxy.thread), std::sync::Arc::clone(&proxy.shared));
    async move {
        let certificate = thread.certificates.certificate(&key.source, Priority::RealTime).await;
        let certificate = certificate.map_err(ConnectionError::NoCertificate)?;
        let tcp = dial_from(shared.netns.as_deref(), &thread, key.next_hop).await;
        let tcp = tcp.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ConnectionError::HboneDialTimeout(error),
            _ => ConnectionError::Dial(error),
        })?;
        let (tls, revision) = (certificate.client_config(&key.expected), thread.peers.revision());
        let connected = hbone::client::connect(tcp, tls, &thread.settings.hbone).await;
        let connection = connected.map_err(ConnectionError::Connect)?;
        thread.peers.note(Judged::Server, connection.weak(), &certificate, revision);
        Ok(connection)
    }
}
