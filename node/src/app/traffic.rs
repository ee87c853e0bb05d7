//! What carries traffic: bound while the node starts, serving once the mesh is known, drained at the end.

use runtime::health::{Readiness, ReadinessTask};

use super::{StartError, names, self_test};
use crate::certs::{CertificateManager, Hold};
use crate::config::Config;
use crate::pods::{Bound, Environment, Pods};
use crate::sync::MeshHandle;

/// The readiness tasks of traffic; each is there only if it has something to do.
#[derive(Debug)]
pub(super) struct Tasks {
    state: ReadinessTask,
    proxy: Option<ReadinessTask>,
    dns: Option<ReadinessTask>,
    pods: Option<ReadinessTask>,
}

impl Tasks {
    pub(super) fn register(config: &Config, readiness: &Readiness) -> Self {
        Self {
            state: readiness.register("state manager"),
            proxy: config.proxy.then(|| readiness.register("proxy")),
            dns: config.dns_proxy.then(|| readiness.register("dns proxy")),
            pods: config.is_shared().then(|| readiness.register("workload proxy manager")),
        }
    }
}

/// Bound, not yet serving.
#[derive(Debug)]
pub(super) struct Traffic {
    environment: Environment,
    own: Option<(Bound, Hold)>,
    carried: Carried,
    state: ReadinessTask,
}

/// Whose traffic is carried.
#[derive(Debug)]
enum Carried {
    Pods(Box<Pods>),
    Dedicated(Bound),
}

impl Traffic {
    /// Binds what is served where the proxy is.
    pub(super) fn bind(
        config: &Config,
        environment: Environment,
        certificates: &CertificateManager,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        let Tasks { state, proxy, dns, pods } = tasks;
        let (own, carried) = match pods {
            Some(ready) => {
                tracing::info!(target: "ztunnel::app", "shared proxy mode - in-pod mode enabled");
                let own = names::own_pod(config)?.map(|(pod, identity)| {
                    let held = certificates.hold(&identity);
                    Bound::own(&environment, pod, identity).map(|bound| (bound, held))
                });
                let own = own.transpose().map_err(StartError::Listen)?;
                self_test(config.packet_mark)?;
                (own, Carried::Pods(Box::new(Pods::new(environment.clone(), ready))))
            }
            None => {
                let bound = Bound::dedicated(&environment, names::dedicated_pod(config));
                (None, Carried::Dedicated(bound.map_err(StartError::Listen)?))
            }
        };
        for bound in [dns, proxy].into_iter().flatten() {
            bound.done();
        }
        Ok(Self { environment, own, carried, state })
    }

    /// Carries traffic once the mesh is known, until drained.
    pub(super) async fn carry(self, config: Config, mesh: MeshHandle) -> Result<(), StartError> {
        let Self { environment, own, carried, state } = self;
        let drain = environment.drain.clone();
        tokio::select! {
            biased;
            // Stopped before it began.
            () = drain.draining() => return Ok(()),
            () = mesh.synced() => state.done(),
        }
        let serve = async |bound: Bound| {
            let instance = bound.serve(&environment).await.map_err(StartError::Listen)?;
            drain.draining().await;
            instance.drain(config.termination_deadline).await;
            Ok(())
        };
        let own = async {
            let Some((bound, _held)) = own else { return Ok(()) };
            tracing::info!(target: "ztunnel::app", "Starting ztunnel inbound listener task");
            serve(bound).await
        };
        let carried = async {
            match carried {
                Carried::Pods(pods) => {
                    pods.run(config.inpod_uds.clone()).await;
                    Ok(())
                }
                Carried::Dedicated(bound) => serve(bound).await,
            }
        };
        futures::future::try_join(own, carried).await.map(|((), ())| ())
    }
}
