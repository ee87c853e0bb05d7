//! The discovery service: who may open a stream, and what runs on it.
//!
//! A stream's first request names the client ([`ClientNode`]); with its credentials that decides whether it is served
//! at all. After that the stream belongs to an [`xds::server::Session`] that stands on the newest [`Catalog`].
//! Nobody but a trusted node account is shown anything of the mesh (see [`Access`]).

mod access;
mod admission;
mod connections;
mod hooks;
mod node;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use runtime::clock::Clock;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};
use wire::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use crate::catalog::{Catalog, KINDS};
use crate::metrics::Metrics;
pub(crate) use access::{Access, Plaintext, is_loopback};
use access::{Door, Identified};
use admission::Admission;
pub(crate) use connections::{Connection, Connections};
use hooks::StreamHooks;
pub(crate) use node::{ClientNode, NodeError};

/// Largest request accepted: a reconnecting client names everything it holds.
const LARGEST_REQUEST: usize = 32 * 1024 * 1024;
/// How long a stream may take to say who it is.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// Sent by some clients before anything else; means nothing here.
const HEALTH_TYPE: &str = "type.googleapis.com/istio.v1.HealthInformation";
const HEALTH_TYPE_SHORT: &str = "istio.v1.HealthInformation";

/// Limits of the discovery service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// `PILOT_MAX_REQUESTS_PER_SECOND`: new streams per second.
    pub(crate) streams_per_second: f64,
    /// `PILOT_PUSH_THROTTLE`: pushes generated at once.
    pub(crate) concurrent_pushes: usize,
}

/// The discovery service. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    worlds: watch::Receiver<Arc<Catalog>>,
    connections: Connections,
    access: Access,
    admission: Admission,
    throttle: Arc<Semaphore>,
    metrics: Metrics,
    clock: Clock,
}

impl Discovery {
    /// Serves the newest catalog of `worlds`.
    pub(crate) fn new(
        worlds: watch::Receiver<Arc<Catalog>>,
        access: Access,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let shared = Shared {
            worlds,
            connections: Connections::default(),
            access,
            admission: Admission::new(limits.streams_per_second),
            throttle: Arc::new(Semaphore::new(limits.concurrent_pushes.max(1))),
            metrics,
            clock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The open streams.
    pub(crate) fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// The newest catalog.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.shared.worlds.borrow())
    }

    /// The gRPC service for the port with TLS.
    pub(crate) fn secure(&self) -> AggregatedDiscoveryServiceServer<Ads> {
        self.service(Door::Secure)
    }

    /// The gRPC service for the port without.
    pub(crate) fn plaintext(&self) -> AggregatedDiscoveryServiceServer<Ads> {
        self.service(Door::Plaintext)
    }

    fn service(&self, door: Door) -> AggregatedDiscoveryServiceServer<Ads> {
        AggregatedDiscoveryServiceServer::new(Ads { discovery: self.clone(), door })
            .max_decoding_message_size(LARGEST_REQUEST)
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

/// The service on one port.
#[derive(Debug)]
pub(crate) struct Ads {
    discovery: Discovery,
    door: Door,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only delta discovery is served"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let shared = &self.discovery.shared;
        let identified = shared.access.identify(self.door, &request).map_err(|status| *status)?;
        shared.admission.admit().await.map_err(|status| *status)?;
        let discovery = self.discovery.clone();
        // Answering the headers at once lets clients send their first request after them.
        let stream = futures::stream::once(open(discovery, identified, request.into_inner())).flat_map(
            |opened| -> Responses {
                match opened {
                    Ok(responses) => responses,
                    Err(status) => Box::pin(futures::stream::once(async move { Err(*status) })),
                }
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Reads the first request, decides, and gives the stream of responses.
async fn open(
    discovery: Discovery,
    identified: Identified,
    mut requests: Streaming<DeltaDiscoveryRequest>,
) -> Result<Responses, Box<Status>> {
    let shared = &discovery.shared;
    let first = tokio::time::timeout(FIRST_REQUEST, first_request(&mut requests)).await;
    let Some(first) = first.map_err(|_| Status::deadline_exceeded("no request"))?? else {
        return Ok(Box::pin(futures::stream::empty()));
    };
    let node = first.node.as_ref().ok_or(NodeError::Missing).and_then(ClientNode::parse);
    let node = node.map_err(|error| {
        tracing::info!(target: "ads", code = error.code(), peer = %identified.peer, %error, "stream refused");
        Box::new(Status::invalid_argument(error.to_string()))
    })?;
    shared.access.authorize(&identified, &node)?;

    let place = match (&node.node_name, &identified.principal) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(principal)) => Some(principal.node.clone()),
        (None, None) => None,
    };
    let mut worlds = shared.worlds.clone();
    let world = Arc::clone(&worlds.borrow_and_update());
    let session = xds::server::Session::new(KINDS, world, place, rand::random());
    let lifetime = identified.lifetime(shared.clock.wall());
    let connection = shared.connections.open(node, identified, session, shared.clock.wall());
    tracing::info!(
        target: "ads", connection = connection.id(), peer = connection.peer(), "new delta connection for node"
    );
    let hooks = StreamHooks::new(Arc::clone(&connection), discovery.clone());
    let session = Arc::clone(connection.session());
    let requests = futures::stream::once(async move { Ok(first) }).chain(requests).boxed();
    let responses = xds::server::serve(session, requests, worlds, hooks);
    Ok(match lifetime {
        // Credentials end: the client comes back with newer ones or not at all.
        Some(lifetime) => Box::pin(responses.take_until(Box::pin(tokio::time::sleep(lifetime)))),
        None => Box::pin(responses),
    })
}

async fn first_request(
    requests: &mut Streaming<DeltaDiscoveryRequest>,
) -> Result<Option<DeltaDiscoveryRequest>, Box<Status>> {
    loop {
        match requests.message().await.map_err(Box::new)? {
            Some(request) if is_health(&request.type_url) => {}
            request => return Ok(request),
        }
    }
}

fn is_health(type_url: &str) -> bool {
    type_url == HEALTH_TYPE || type_url == HEALTH_TYPE_SHORT
}
