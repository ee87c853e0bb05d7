//! Names that parts are started with.

use identity::{InvalidSpiffeId, SpiffeId};
use state::Pod;

use crate::config::{Config, Mode, WorkloadName};

fn pod(name: &WorkloadName) -> Pod {
    Pod {
        namespace: name.namespace.as_str().into(),
        name: name.name.as_str().into(),
        service_account: name.service_account.as_str().into(),
    }
}

/// The proxy's own pod and identity, if known.
pub(super) fn own_pod(config: &Config) -> Result<Option<(Pod, SpiffeId)>, InvalidSpiffeId> {
    let Some(own) = &config.own.workload else { return Ok(None) };
    let WorkloadName { namespace, service_account, .. } = &own.workload;
    let identity = SpiffeId::new(&own.trust_domain, namespace, service_account)?;
    Ok(Some((pod(&own.workload), identity)))
}

/// The one workload of dedicated mode.
pub(super) fn dedicated_pod(config: &Config) -> Pod {
    match &config.mode {
        Mode::Dedicated(name) => pod(name),
        // Never asked in shared mode; nobody has this name.
        Mode::Shared => Pod { namespace: "".into(), name: "".into(), service_account: "".into() },
    }
}
