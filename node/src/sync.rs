//! Keeps this node's picture of the mesh fresh.
//!
//! [`Sync`] loads the local source, then follows the control plane: each response is applied to the current
//! [`Mesh`] and the result published as the next snapshot. Everybody else holds a [`MeshHandle`]: a snapshot costs one
//! atomic load, from any thread. What is learned stays when the control plane is away.

mod connector;
mod handle;
mod identities;
mod metrics;
mod node_info;
#[cfg(test)]
mod plain;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use state::{Applied, Delta, Mesh, ResourceType, WorkloadChange};
use thiserror::Error;
use wire::security::AUTHORIZATION_TYPE;
use wire::workload::ADDRESS_TYPE;
use xds::client::{Kind, Options, Scope};

use crate::certs::channel::{ChannelError, ControlConfig, ControlEndpoint};
pub(crate) use connector::ControlConnector;
pub(crate) use handle::MeshHandle;
use handle::Publisher;
pub(crate) use identities::LocalIdentities;
use metrics::Metrics;
pub(crate) use node_info::NodeInfo;
#[cfg(test)]
pub(crate) use plain::Plain;

/// How long a lookup on demand may take unless configured.
pub(crate) const DEMAND_LIMIT: Duration = Duration::from_secs(5);

/// What discovery needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The control plane; `None` (`XDS_ADDRESS=""`): there is none, and we are in step at once.
    pub(crate) control: Option<ControlConfig>,
    /// What we tell the control plane about ourselves.
    pub(crate) node: NodeInfo,
    /// `XDS_ON_DEMAND`: addresses are asked for when they are needed.
    pub(crate) on_demand: bool,
    /// How long a lookup on demand may take.
    pub(crate) demand_limit: Duration,
    /// `LOCAL_XDS_PATH` or `LOCAL_XDS`: what the mesh is before the control plane has spoken.
    pub(crate) local: Option<LocalSource>,
    /// What the mesh has to know about this node.
    pub(crate) mesh: state::MeshConfig,
}

/// A mesh written down by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalSource {
    /// `LOCAL_XDS_PATH`
    File(PathBuf),
    /// `LOCAL_XDS`
    Inline(String),
}

/// Is told what a response changed, after the new snapshot is current.
pub(crate) trait Observer: Send + 'static {
    /// Workloads that came, changed or went.
    fn workloads(&mut self, mesh: &Mesh, changes: &[WorkloadChange]);
}

/// Nobody is told.
impl Observer for () {
    fn workloads(&mut self, _mesh: &Mesh, _changes: &[WorkloadChange]) {}
}

/// Why discovery cannot start.
#[derive(Debug, Error)]
pub(crate) enum SyncError {
    /// The address of the control plane, or its credentials, make no sense.
    #[error(transparent)]
    Control(#[from] ChannelError),
    /// The local source cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The local source makes no sense.
    #[error("failed to parse local xds: {0}")]
    Local(#[from] state::local_file::LocalFileError),
}

impl SyncError {
    /// A stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Control(error) => error.code(),
            Self::Unreadable { .. } => "sync-local-unreadable",
            Self::Local(_) => "sync-local-invalid",
        }
    }
}

/// The discovery client of this node.
#[derive(Debug)]
pub(crate) struct Sync<O, C = ControlConnector> {
    config: Config,
    /// Where streams come from, and its address for messages.
    control: Option<(C, String)>,
    publisher: Publisher,
    demands: xds::client::Demands,
    handle: MeshHandle,
    metrics: Metrics,
    observer: O,
}

impl<O: Observer> Sync<O> {
    /// Loads the local source; connects to nothing yet.
    pub(crate) fn new(config: Config, registry: &mut Registry, observer: O) -> Result<Self, SyncError> {
        let endpoint = config.control.clone().map(ControlEndpoint::new).transpose()?;
        let control = endpoint.map(|endpoint| {
            let url = endpoint.uri().to_string();
            (ControlConnector::new(endpoint), url)
        });
        Self::with(config, control, registry, observer)
    }
}

impl<O: Observer, C: xds::client::Connector> Sync<O, C> {
    /// The same over another transport.
    pub(crate) fn with(
        config: Config,
        control: Option<(C, String)>,
        registry: &mut Registry,
        mut observer: O,
    ) -> Result<Self, SyncError> {
        let mut mesh = Mesh::new(config.mesh.clone());
        if let Some(text) = config.local.as_ref().map(LocalSource::read).transpose()? {
            let (loaded, applied) = mesh.apply(state::local_file::parse(&text)?);
            mesh = loaded;
            observer.workloads(&mesh, &applied.workloads);
        }
        let (demand, demands) = xds::client::demands();
        let demand = config.on_demand.then_some((demand, config.demand_limit));
        let (publisher, handle) = Publisher::new(mesh, demand);
        if control.is_none() {
            publisher.synced();
        }
        let metrics = Metrics::new(registry, handle.clone());
        Ok(Self { config, control, publisher, demands, handle, metrics, observer })
    }

    /// Snapshots for everybody else.
    pub(crate) fn mesh(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Follows the control plane for as long as it is polled.
    pub(crate) async fn run(self) {
        let Some((connector, url)) = self.control else { return std::future::pending().await };
        let address_scope = if self.config.on_demand { Scope::OnDemand } else { Scope::Wildcard };
        let client = xds::Client::new(vec![
            Kind { type_url: ADDRESS_TYPE.to_owned(), scope: address_scope },
            Kind { type_url: AUTHORIZATION_TYPE.to_owned(), scope: Scope::Wildcard },
        ]);
        let options = Options { node: self.config.node.to_wire(), url, demand_type: ADDRESS_TYPE.to_owned() };
        let applier = Applier {
            publisher: self.publisher,
            handle: self.handle,
            metrics: self.metrics.clone(),
            observer: self.observer,
        };
        match xds::client::run(client, applier, connector, self.demands, options, self.metrics).await {}
    }
}

impl LocalSource {
    fn read(&self) -> Result<String, SyncError> {
        match self {
            Self::Inline(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|source| SyncError::Unreadable { path: path.clone(), source }),
        }
    }
}

/// Applies responses to the mesh and publishes the result.
struct Applier<O> {
    publisher: Publisher,
    handle: MeshHandle,
    metrics: Metrics,
    observer: O,
}

impl<O: Observer> xds::Handler for Applier<O> {
    fn apply(&mut self, update: &xds::Update) -> Vec<xds::Rejected> {
        let Some(kind) = ResourceType::from_url(&update.type_url) else { return Vec::new() };
        let resources = update.resources.iter().map(|resource| {
            (resource.name.as_str(), resource.resource.as_ref().map(|payload| payload.value.as_slice()))
        });
        let delta = Delta::decode(kind, resources, update.removed.iter().cloned());
        let (mesh, applied) = self.handle.current().apply(delta);
        let mesh = Arc::new(mesh);
        log(kind, update, &applied);
        self.publisher.publish(Arc::clone(&mesh), !applied.policies.is_empty());
        self.observer.workloads(&mesh, &applied.workloads);
        self.metrics.applied();
        applied.rejected.into_iter().map(rejected).collect()
    }

    fn answers(&self, type_url: &str, key: &str) -> bool {
        type_url == ADDRESS_TYPE && knows(&self.handle.current(), key)
    }

    fn synced(&mut self) {
        self.publisher.synced();
    }
}

/// Whether the mesh has something under a key as it is asked for on demand.
fn knows(mesh: &Mesh, key: &str) -> bool {
    if mesh.workload(key).is_some() {
        return true;
    }
    let Some((network, rest)) = key.split_once('/') else { return false };
    if let Ok(ip) = rest.parse() {
        let address = state::NetworkAddress { network: network.into(), ip };
        return mesh.workload_by_address(&address).is_some()
            || mesh.service_by_address(&address, None).is_some();
    }
    let name = state::ServiceKey::new(network, rest);
    mesh.service(&name).is_some() || mesh.workload_by_hostname(&name).is_some()
}

fn rejected(rejected: state::Rejected) -> xds::Rejected {
    let reason = match rejected.reason {
        state::RejectReason::NoPayload => xds::Refusal::NoPayload,
        reason @ state::RejectReason::Undecodable(_) => xds::Refusal::Unreadable(Box::new(reason)),
        reason => xds::Refusal::Invalid(Box::new(reason)),
    };
    xds::Rejected { name: rejected.name, reason }
}

/// One line per policy, as the reference logs them; addresses are too many for that.
fn log(kind: ResourceType, update: &xds::Update, applied: &Applied) {
    const TARGET: &str = "ztunnel::xds";
    match kind {
        ResourceType::Authorization => {
            for resource in &update.resources {
                let name = resource.name.rsplit('/').next().unwrap_or_default();
                tracing::info!(target: TARGET, "handling RBAC update {name}");
            }
            for name in &update.removed {
                tracing::info!(target: TARGET, "handling RBAC delete {name}");
            }
        }
        ResourceType::Address => tracing::debug!(
            target: TARGET,
            n_workloads = applied.workloads.len(),
            n_services = applied.services.len(),
            n_removed = update.removed.len(),
            "addresses applied"
        ),
    }
}
