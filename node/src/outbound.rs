//! The outbound path: what a local workload's application connects to.
//!
//! 1. accept the captured connection and ask the kernel where it was going
//! 2. find the source workload: the pod's own, known to discovery within 5 s
//! 3. decide the route on one snapshot of the mesh
//! 4. list and count the connection
//! 5. dial the next hop: plainly, or by a tunnel from the pool
//! 6. relay until both directions have ended
//! 7. record how it ended
//!
//! Until step 4 a failure is a warning and nothing is counted; afterwards the record tells it.

mod headers;
mod route;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use net::socket::{FoundBy, original_destination};
use state::{Protocol, Route, Workload};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::access_log::{Direction, Failure};
use crate::carried::{Entry, Established};
use crate::connections::{OutboundEntry, OutboundKey};
use crate::context::{Facts, Who};
use crate::failure::{Broken, ConnectionError};
use crate::metrics::{LiveBytes, Security};
use crate::pods::proxy::{Accepted, PodProxy};
use crate::record::{Endpoints, Record};
use crate::relay::{self, Relay};
pub(crate) use tunnel::PoolKey;

/// Takes one captured connection to its relay.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    // What the way to the relay needs is large and short-lived: a box of its own.
    let Some((relay, established)) = Box::pin(establish(&proxy, accepted)).await else { return };
    proxy.carried.outbound.carry(&proxy.shared.connections, relay, established);
}

/// Steps 1 to 5; whatever fails is told.
async fn establish(proxy: &PodProxy, accepted: Accepted) -> Option<(Relay, Established)> {
    let captured = Captured::from(accepted);
    let (source, destination) = (captured.accepted.peer, captured.destination);
    match captured.route(proxy).await {
        Ok(routed) => routed.connect(proxy).await,
        Err(error) => {
            let text = error.to_string();
            let failure = Failure { text: &text, code: error.code() };
            proxy.thread.log.failed(source, destination, Direction::Outbound, failure);
            None
        }
    }
}

/// A connection taken from its application, and where it was going.
#[derive(Debug)]
struct Captured {
    accepted: Accepted,
    destination: SocketAddr,
}

/// A connection with a route, listed and counted.
#[derive(Debug)]
struct Routed {
    accepted: Accepted,
    source: Arc<Workload>,
    route: Route,
    record: Record,
    listed: OutboundEntry,
}

impl From<Accepted> for Captured {
    fn from(accepted: Accepted) -> Self {
        let destination = captured_destination(&accepted);
        Self { accepted, destination }
    }
}

/// The destination the client dialled, as the kernel remembers it.
pub(crate) fn captured_destination(accepted: &Accepted) -> SocketAddr {
    let peer = accepted.peer;
    match original_destination(&accepted.stream) {
        Ok(found) => {
            if found.found_by == FoundBy::LocalAddress {
                let local = found.address;
                tracing::warn!(target: "ztunnel::proxy", %peer, %local, "failed to read SO_ORIGINAL_DST");
            }
            found.address
        }
        // The connection is gone already; whatever follows will find out.
        Err(_) => SocketAddr::new(peer.ip(), 0),
    }
}

impl Captured {
    async fn route(self, proxy: &PodProxy) -> Result<Routed, ConnectionError> {
        let Self { accepted, destination } = self;
        let source = proxy.local_workload().await?;
        let client = accepted.peer;
        let route = route::decide(&proxy.thread, &source, client.ip(), destination).await?;
        if route.protocol == Protocol::DoubleHbone {
            return Err(ConnectionError::OtherNetwork(destination));
        }
        let key = Arc::new(OutboundKey {
            source: client.into(),
            original: destination.into(),
            actual: route.next_hop.into(),
            protocol: route.protocol,
        });
        let listed = proxy.connections.outbound(Arc::clone(&key));
        let tunnelled = route.protocol == Protocol::Hbone;
        let facts = Facts {
            direction: Direction::Outbound,
            security: if tunnelled { Security::MutualTls } else { Security::Unknown },
            source: Who::Workload(Arc::clone(&source)),
            source_identity: tunnelled.then(|| source.identity.clone()),
            destination: route.workload.clone().map_or(Who::Unknown, Who::Workload),
            service: route.service.clone(),
        };
        let authority = route.authority.as_ref().map(|authority| authority.to_string().into());
        let endpoints = Endpoints::Listed(key, authority);
        let record = Record::open(&proxy.thread, facts, endpoints, accepted.since);
        Ok(Routed { accepted, source, route, record, listed })
    }
}

impl Routed {
    async fn connect(self, proxy: &PodProxy) -> Option<(Relay, Established)> {
        let Self { accepted, source, route, mut record, listed } = self;
        let relay = match &route.authority {
            Some(authority) => {
                let request = headers::connect(authority, &source, &route, accepted.peer);
                let opened = tokio::select! {
                    biased;
                    opened = tunnel::open(proxy, &source, &accepted, &route, request) => opened,
                    error = gone(&accepted.stream) => Err(error),
                };
                match opened {
                    Ok(tunnel) => {
                        let counters = Arc::new(hbone::Counters::default());
                        record.follow(LiveBytes::FromApplication(Arc::clone(&counters)));
                        Ok(Relay::FromApplication(hbone::relay(tunnel, accepted.stream, &counters)))
                    }
                    Err(error) => Err(error),
                }
            }
            None => match proxy.dial(route.next_hop, None).await {
                Ok(upstream) => {
                    let counts = Arc::new(net::ByteCounts::default());
                    record.follow(LiveBytes::Joined(Arc::clone(&counts)));
                    Ok(relay::joined(accepted.stream, upstream, &counts))
                }
                Err(error) => Err(ConnectionError::Dial(error)),
            },
        };
        match relay {
            Ok(relay) => {
                let Accepted { open, guard, .. } = accepted;
                let entry = Entry::Outbound(listed);
                Some((relay, Established { record, entry, open: Some(open), span: None, guard }))
            }
            Err(error) => {
                // Listed until its last line is written.
                record.finish(Err(&error));
                drop(listed);
                None
            }
        }
    }
}

/// Resolves when the application has cut its connection: then nobody wants the answer. An orderly end of its side says
/// nothing yet, it may have sent all it wants to say.
async fn gone(application: &TcpStream) -> ConnectionError {
    let error = match application.ready(Interest::ERROR).await {
        Ok(_) => {
            application.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
        }
        Err(error) => error,
    };
    ConnectionError::Sending(Broken::Socket(error))
}
