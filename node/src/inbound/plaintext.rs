//! Captured plaintext (data-path 6): delivered to where it was going, if policy allows a client
//! without identity.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use state::{InboundRefusal, Workload};

use super::admit::{self, while_allowed};
use crate::access_log::Direction;
use crate::carried::{Entry, Established};
use crate::connections::InboundKey;
use crate::context::{Facts, Who};
use crate::failure::ConnectionError;
use crate::metrics::{LiveBytes, Security};
use crate::outbound::captured_destination;
use crate::pods::proxy::{Accepted, PodProxy};
use crate::record::{Endpoints, Ends, Record};
use crate::relay::{self, Relay};

/// Takes one captured connection to its relay.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    // What the way to the relay needs is large and short-lived: a box of its own.
    let Some((relay, established)) = Box::pin(establish(&proxy, accepted)).await else { return };
    proxy.carried.plaintext.carry(&proxy.shared.connections, relay, established);
}

async fn establish(proxy: &PodProxy, accepted: Accepted) -> Option<(Relay, Established)> {
    let destination = captured_destination(&accepted);
    let local = match find(proxy, destination).await {
        Ok(local) => local,
        Err(error) => {
            super::refused(proxy, accepted.peer, destination, &error);
            return None;
        }
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
    let endpoints = Endpoints::Shared(Rc::new(Ends { source: accepted.peer, destination, hbone: None }));
    let mut record = Record::open(&proxy.thread, facts, endpoints, accepted.since);
    let key = InboundKey { source: accepted.peer, target: destination, identity: None, forwarded_host: None };
    let Accepted { stream, peer, transparent, open, guard, .. } = accepted;
    let source = transparent.then_some(peer.ip());
    let dialed = match admit::by_policy(proxy, &local, Arc::new(key)).await {
        Ok(entry) => while_allowed(&entry, proxy.dial(destination, source)).await.and_then(|dialed| {
            let application = dialed.map_err(ConnectionError::Application)?;
            Ok((entry, application))
        }),
        Err(error) => Err(error),
    };
    match dialed {
        Ok((entry, application)) => {
            let counts = Arc::new(net::ByteCounts::default());
            record.follow(LiveBytes::Joined(Arc::clone(&counts)));
            let relay = relay::joined(stream, application, &counts);
            let entry = Entry::Inbound(entry);
            Some((relay, Established { record, entry, open: Some(open), span: None, guard }))
        }
        Err(error) => {
            drop(stream);
            record.finish(Err(&error));
            None
        }
    }
}

async fn find(proxy: &PodProxy, destination: SocketAddr) -> Result<Arc<Workload>, ConnectionError> {
    if proxy.thread.settings.illegal_ports.contains(&destination.port()) {
        return Err(ConnectionError::NotAdmitted(InboundRefusal::SelfCall));
    }
    proxy.local_workload().await
}
