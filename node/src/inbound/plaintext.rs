//! Captured plaintext (data-path 6): delivered to where it was going, if policy allows a client
//! without identity.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use state::{InboundRefusal, Workload};

use super::admit::{self, Asking};
use crate::access_log::Direction;
use crate::connections::InboundEntry;
use crate::context::{Facts, Who};
use crate::failure::ConnectionError;
use crate::metrics::Security;
use crate::outbound::captured_destination;
use crate::pods::proxy::{Accepted, PodProxy};
use crate::record::{Endpoints, Joined, Record};
use crate::relay;

/// Carries one captured connection to its end.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    let destination = captured_destination(&accepted);
    let local = match find(&proxy, destination).await {
        Ok(local) => local,
        Err(error) => return super::refused(&proxy, accepted.peer, destination, &error),
    };
    let mesh = proxy.thread.mesh.current();
    let source = mesh.source_workload(accepted.peer.ip(), None).cloned();
    let facts = Facts {
        direction: Direction::Inbound,
        security: Security::Unknown,
        source: source.map_or(Who::Unknown, Who::Workload),
        source_identity: None,
        destination: Who::Workload(Arc::clone(&local)),
        service: mesh.attributed(&local, destination.port(), None),
    };
    let endpoints = Endpoints { source: accepted.peer, destination, hbone: None };
    let mut record = Record::open(&proxy.thread, facts, endpoints, accepted.since);
    let asking = Asking { source: accepted.peer, identity: None, target: destination, forwarded_host: None };
    let result = match admit::by_policy(&proxy, &local, asking).await {
        Ok(entry) => deliver(&proxy, accepted, destination, &entry, &mut record).await,
        Err(error) => {
            drop(accepted);
            Err(error)
        }
    };
    record.finish(result.as_ref().copied());
}

async fn find(proxy: &PodProxy, destination: SocketAddr) -> Result<Arc<Workload>, ConnectionError> {
    if proxy.thread.settings.illegal_ports.contains(&destination.port()) {
        return Err(ConnectionError::NotAdmitted(InboundRefusal::SelfCall));
    }
    proxy.local_workload().await
}

async fn deliver(
    proxy: &PodProxy,
    accepted: Accepted,
    destination: SocketAddr,
    entry: &InboundEntry,
    record: &mut Record,
) -> Result<(), ConnectionError> {
    let carried = async {
        let source = accepted.transparent.then_some(accepted.peer.ip());
        let application = proxy.dial(destination, source).await;
        let application = application.map_err(ConnectionError::Application)?;
        let counts = Arc::new(net::ByteCounts::default());
        record.follow(Arc::new(Joined(Arc::clone(&counts))));
        relay::joined(accepted.stream, application, &counts).await
    };
    // Dropping the transfer closes both sides.
    tokio::select! {
        biased;
        () = entry.disallowed() => Err(ConnectionError::PolicyChanged),
        result = carried => result,
    }
}
