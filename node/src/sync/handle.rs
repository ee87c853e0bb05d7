//! The current snapshot of the mesh, for every thread.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use state::{Mesh, MissingKey};
use tokio::sync::watch;
use xds::client::{Answer, Demand, DemandError};

/// Counts snapshots, and those in which policies changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    /// Snapshots so far.
    pub(crate) mesh: u64,
    /// Snapshots so far that changed a policy.
    pub(crate) policies: u64,
    /// The first answers of the control plane are in place.
    pub(crate) synced: bool,
}

/// Reads snapshots and asks for what is missing. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MeshHandle {
    current: Arc<ArcSwap<Mesh>>,
    generation: watch::Receiver<Generation>,
    demand: Option<(Demand, Duration)>,
}

/// Where new snapshots come from. There is one.
#[derive(Debug)]
pub(super) struct Publisher {
    current: Arc<ArcSwap<Mesh>>,
    generation: watch::Sender<Generation>,
}

impl MeshHandle {
    /// The mesh as it is now. Hold it for the length of one decision.
    pub(crate) fn current(&self) -> Arc<Mesh> {
        self.current.load_full()
    }

    /// Waits for a snapshot newer than the last one this clone has waited for. Never returns once discovery stopped.
    pub(crate) async fn changed(&mut self) -> Generation {
        match self.generation.changed().await {
            Ok(()) => *self.generation.borrow_and_update(),
            Err(_stopped) => std::future::pending().await,
        }
    }

    /// Waits until the first answers of the control plane are in place.
    pub(crate) async fn synced(&self) {
        self.until(|generation| generation.synced).await;
    }

    /// Whether the first answers of the control plane are in place. Never reverts.
    #[cfg(test)]
    pub(crate) fn is_synced(&self) -> bool {
        self.generation.borrow().synced
    }

    /// Asks the control plane for what a decision lacked and returns when the answer is in the snapshot.
    ///
    /// Without on-demand discovery everything there is has been sent, so the answer is that it is absent.
    pub(crate) async fn demand(&self, key: &MissingKey) -> Result<Answer, DemandError> {
        match &self.demand {
            Some((demand, limit)) => demand.wait(&key.to_string(), *limit).await,
            None => Ok(Answer::Absent),
        }
    }

    async fn until(&self, condition: impl FnMut(&Generation) -> bool) -> Generation {
        match self.generation.clone().wait_for(condition).await {
            Ok(generation) => *generation,
            Err(_stopped) => std::future::pending().await,
        }
    }

    /// A handle and what changes its mesh.
    #[cfg(test)]
    pub(crate) fn scripted(mesh: Mesh) -> (Self, impl Fn(Mesh) + Clone + Send + 'static) {
        let (publisher, handle) = Publisher::new(mesh, None);
        publisher.synced();
        let publisher = Arc::new(publisher);
        (handle, move |mesh| publisher.publish(Arc::new(mesh), true))
    }
}

impl Publisher {
    pub(super) fn new(mesh: Mesh, demand: Option<(Demand, Duration)>) -> (Self, MeshHandle) {
        let current = Arc::new(ArcSwap::from_pointee(mesh));
        let (sender, receiver) = watch::channel(Generation::default());
        let handle = MeshHandle { current: Arc::clone(&current), generation: receiver, demand };
        (Self { current, generation: sender }, handle)
    }

    pub(super) fn publish(&self, mesh: Arc<Mesh>, policies_changed: bool) {
        self.current.store(mesh);
        self.generation.send_modify(|generation| {
            generation.mesh += 1;
            generation.policies += u64::from(policies_changed);
        });
    }

    pub(super) fn synced(&self) {
        self.generation.send_modify(|generation| generation.synced = true);
    }
}
