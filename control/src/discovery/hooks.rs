//! What one stream counts, logs and does with types it is not offered.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use xds::server::Hooks;

use super::{Connection, Discovery, is_health};

/// Types of the reference that no node proxy is ever answered.
const ENVOY_TYPES: &str = "type.googleapis.com/envoy.";

/// The hooks of one stream; dropping them closes its entry.
pub(super) struct StreamHooks {
    connection: Arc<Connection>,
    discovery: Discovery,
}

impl StreamHooks {
    pub(super) fn new(connection: Arc<Connection>, discovery: Discovery) -> Self {
        discovery.shared.metrics.stream_opened();
        Self { connection, discovery }
    }
}

impl Drop for StreamHooks {
    fn drop(&mut self) {
        self.discovery.shared.connections.close(&self.connection);
        self.discovery.shared.metrics.stream_closed();
        tracing::info!(target: "ads", connection = self.connection.id(), "terminated");
    }
}

impl Hooks for StreamHooks {
    fn received(&mut self, request: &DeltaDiscoveryRequest) {
        self.discovery.shared.metrics.received(request.encoded_len());
    }

    fn sending(&mut self, kind: &'static str, response: &DeltaDiscoveryResponse, took: Duration) {
        let shared = &self.discovery.shared;
        self.connection.sends(&response.type_url, shared.clock.wall());
        let size = response.encoded_len();
        shared.metrics.sent(kind, &response.type_url, size, took);
        tracing::debug!(
            target: "ads",
            connection = self.connection.id(),
            kind,
            resources = response.resources.len(),
            removed = response.removed_resources.len(),
            size,
            "push"
        );
    }

    fn refused(&mut self, kind: &'static str, message: &str) {
        self.discovery.shared.metrics.refused(kind);
        tracing::warn!(target: "ads", connection = self.connection.id(), kind, error = %message, "NACK");
    }

    fn stale(&mut self, kind: &'static str) {
        self.discovery.shared.metrics.stale(kind);
    }

    fn pushed(&mut self) {
        let built = self.connection.session().lock().world().built();
        let age = self.discovery.shared.clock.wall().duration_since(built.into()).unwrap_or_default();
        self.discovery.shared.metrics.converged(age);
    }

    fn unknown(
        &mut self,
        request: &DeltaDiscoveryRequest,
    ) -> Result<Option<DeltaDiscoveryResponse>, Box<Status>> {
        let type_url = request.type_url.as_str();
        if is_health(type_url) || type_url.starts_with(ENVOY_TYPES) {
            return Ok(None);
        }
        let is_debug = type_url.starts_with("istio.io/debug");
        if self.connection.is_authenticated() {
            // Known to the reference, not offered here: silence keeps the stream alive.
            return Ok(None);
        }
        let text = if is_debug {
            "authentication required"
        } else {
            "the api generator requires an authenticated control-plane identity"
        };
        Err(Box::new(Status::unauthenticated(text)))
    }

    async fn turn(&mut self) -> Option<OwnedSemaphorePermit> {
        let waiting = tokio::time::Instant::now();
        let permit = Arc::clone(&self.discovery.shared.throttle).acquire_owned().await.ok();
        self.discovery.shared.metrics.queued(waiting.elapsed());
        permit
    }
}
