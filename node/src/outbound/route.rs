//! Step 3: the route, decided again whenever something that was missing has been fetched.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use state::{MissingKey, Route, RouteRequest, Unrouted, Workload};
use xds::client::Answer;

use crate::context::Who;
use crate::failure::ConnectionError;
use crate::metrics::{OnDemandDnsLabels, Party};
use crate::threads::Thread;

/// Things fetched for one decision: a service, its waypoint, the waypoint's service and so on.
const MAX_FETCHES: usize = 8;

/// Decides the route, fetching what the decision lacks.
pub(crate) async fn decide(
    thread: &Thread,
    source: &Arc<Workload>,
    client: IpAddr,
    destination: SocketAddr,
) -> Result<Route, ConnectionError> {
    let seed = rand::random();
    let (mut resolved, mut absent): (Vec<_>, Vec<MissingKey>) = (Vec::new(), Vec::new());
    let mut fetches_left = MAX_FETCHES;
    loop {
        let request =
            RouteRequest { source, client, destination, seed, resolved: &resolved, absent: &absent };
        let unrouted = match thread.mesh.current().route(&request) {
            Ok(route) => return Ok(route),
            Err(unrouted) => unrouted,
        };
        match unrouted {
            Unrouted::Refused(refusal) => return Err(ConnectionError::Unroutable(refusal.reason)),
            Unrouted::Missing(key) => {
                let fetched = fetches_left > 0
                    && matches!(thread.mesh.demand(&key).await, Ok(Answer::Present))
                    && !absent.contains(&key);
                if !fetched {
                    absent.push(key);
                }
            }
            Unrouted::NeedsDns { uid, hostname } => {
                let mut party: Party = Who::Workload(Arc::clone(source)).party();
                source.identity.as_str().clone_into(&mut party.principal);
                let labels = OnDemandDnsLabels { source: party, hostname: hostname.to_string() };
                thread.counters.on_demand_dns(labels);
                resolved.push((uid, thread.hostnames.resolve(&hostname).await));
            }
        }
        fetches_left = fetches_left.saturating_sub(1);
        // Every turn adds an answer that the next one has to respect; this is against a fault.
        if absent.len() + resolved.len() > 4 * MAX_FETCHES {
            let refusal = state::RouteRefusal::NoHealthyUpstream(destination);
            return Err(ConnectionError::Unroutable(refusal));
        }
    }
}
