//! What is served where the proxy itself is: its own pod, or the one workload of dedicated mode.

use identity::SpiffeId;
use state::Pod;

use super::instance::{Environment, Instance, announce};
use super::netns::{self, Sockets, StartError};

/// Bound at start-up, served once the mesh is known; until then connections wait in the sockets.
#[derive(Debug)]
pub(crate) struct Bound {
    pod: Pod,
    own: Option<SpiffeId>,
    sockets: Sockets,
}

impl Bound {
    /// The one workload of dedicated mode.
    pub(crate) fn dedicated(environment: &Environment, pod: Pod) -> Result<Self, StartError> {
        let Environment { settings, threads, .. } = environment;
        let sockets = netns::sockets(None, settings, threads.count())?;
        announce(settings, &sockets);
        Ok(Self { pod, own: None, sockets })
    }

    /// The proxy's own pod: only HBONE, so that its ports can be reached through the mesh.
    pub(crate) fn own(environment: &Environment, pod: Pod, identity: SpiffeId) -> Result<Self, StartError> {
        let Environment { settings, threads, .. } = environment;
        let (domain, namespace, account) =
            (identity.trust_domain(), identity.namespace(), identity.service_account());
        tracing::info!(target: "ztunnel::proxyfactory", "creating ztunnel self-proxy listener with identity: Spiffe {{ trust_domain: {:?}, namespace: {namespace:?}, service_account: {account:?} }}", domain.as_str());
        let sockets = netns::own_sockets(settings, threads.count())?;
        announce(settings, &sockets);
        Ok(Self { pod, own: Some(identity), sockets })
    }

    /// Serves it on every traffic thread.
    pub(crate) async fn serve(self, environment: &Environment) -> Result<Instance, StartError> {
        Instance::here(environment, self.pod, self.own, self.sockets).await
    }
}
