//! Steps 3 and 4: where a request leads, and whether policy allows it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use state::{Admission, Authority, InboundRequest, NotAdmitted, Workload};
use xds::client::Answer;

use crate::connections::{InboundEntry, InboundKey};
use crate::failure::ConnectionError;
use crate::pods::proxy::PodProxy;
use crate::threads::Thread;

/// How long a connection waits for a policy that its workload names and that has not arrived: a
/// control plane sends workloads before their policies.
const POLICY_WAIT: Duration = Duration::from_secs(1);

/// Decides which port of the pod a request means, fetching what the decision lacks.
pub(super) async fn destination(
    thread: &Thread,
    local: &Workload,
    connection_ip: IpAddr,
    authority: &Authority,
    forwarded_host: Option<&str>,
) -> Result<Admission, ConnectionError> {
    let mut absent = Vec::new();
    let mut fetches_left = 4;
    loop {
        let request = InboundRequest { local, connection_ip, authority, forwarded_host, absent: &absent };
        let missing = match thread.mesh.current().admit(&request) {
            Ok(admission) => return Ok(admission),
            Err(NotAdmitted::Refused(refusal)) => return Err(ConnectionError::NotAdmitted(refusal)),
            Err(NotAdmitted::Missing(key)) => key,
        };
        let fetched = fetches_left > 0 && matches!(thread.mesh.demand(&missing).await, Ok(Answer::Present));
        fetches_left -= 1;
        if !fetched {
            absent.push(missing);
        }
        if fetches_left < -4 {
            let requested = match authority {
                Authority::Address(address) => address.ip(),
                Authority::Hostname { .. } => connection_ip,
            };
            let refusal = state::InboundRefusal::IpMismatch { connection: connection_ip, requested };
            return Err(ConnectionError::NotAdmitted(refusal));
        }
    }
}

/// Lists the connection, which makes it subject to every change of policy, and then asks policy.
pub(super) async fn by_policy(
    proxy: &PodProxy,
    local: &Arc<Workload>,
    key: Arc<InboundKey>,
) -> Result<InboundEntry, ConnectionError> {
    let facts = key.facts();
    let entry = proxy.connections.inbound(key);
    let thread = &proxy.thread;
    thread.unknown_policies.arrive(proxy, local).await;
    let mesh = thread.mesh.current();
    // The workload as it is now, not as it was when the request began.
    let local = mesh.local_workload(&proxy.shared.pod).unwrap_or(local);
    let decision = mesh.evaluate(local, &facts);
    for note in decision.notes() {
        log(&note, thread.settings.policy_info_logging);
    }
    match decision.denial() {
        None => Ok(entry),
        Some(denial) => Err(ConnectionError::Denied(denial.clone())),
    }
}

/// Does `work` unless policy comes to forbid the connection.
pub(super) async fn while_allowed<T>(
    entry: &InboundEntry,
    work: impl Future<Output = T>,
) -> Result<T, ConnectionError> {
    tokio::select! {
        biased;
        () = entry.disallowed() => Err(ConnectionError::PolicyChanged),
        done = work => Ok(done),
    }
}

fn log(note: &policy::Note, at_info: bool) {
    let (message, key) = (note.message(), note.policy());
    match (at_info, key) {
        (true, Some(policy)) => tracing::info!(target: "ztunnel::state::policy", policy, "{message}"),
        (true, None) => tracing::info!(target: "ztunnel::state::policy", "{message}"),
        (false, Some(policy)) => tracing::debug!(target: "ztunnel::state::policy", policy, "{message}"),
        (false, None) => tracing::debug!(target: "ztunnel::state::policy", "{message}"),
    }
}

/// Policies that workloads name and that did not arrive in time: warned about once, and not waited
/// for again until they have been known.
#[derive(Debug, Default)]
pub(crate) struct UnknownPolicies(RefCell<HashSet<Arc<str>>>);

impl UnknownPolicies {
    /// Those that are known now are waited for again, should they go and come back.
    pub(crate) fn forget_known(&self, mesh: &state::Mesh) {
        let mut given_up = self.0.borrow_mut();
        if !given_up.is_empty() {
            given_up.retain(|key| mesh.policy(key).is_none());
        }
    }

    /// Waits, within the limit, until every policy that applies is known.
    async fn arrive(&self, proxy: &PodProxy, local: &Arc<Workload>) {
        let missing = |mesh: &state::Mesh| -> Vec<Arc<str>> {
            let now = mesh.local_workload(&proxy.shared.pod).unwrap_or(local);
            now.authorization_policies
                .iter()
                .filter(|key| mesh.policy(key).is_none() && !self.0.borrow().contains(*key))
                .cloned()
                .collect()
        };
        if missing(&proxy.thread.mesh.current()).is_empty() {
            return;
        }
        let mut mesh = proxy.thread.mesh.clone();
        let arrived = async {
            loop {
                mesh.changed().await;
                if missing(&mesh.current()).is_empty() {
                    return;
                }
            }
        };
        if tokio::time::timeout(POLICY_WAIT, arrived).await.is_ok() {
            return;
        }
        let now = proxy.thread.mesh.current();
        let mut given_up = self.0.borrow_mut();
        for key in local.authorization_policies.iter().filter(|key| now.policy(key).is_none()) {
            if given_up.insert(Arc::clone(key)) {
                tracing::warn!(target: "ztunnel::state::policy", "skipping unknown policy {key}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that was given up, came, went and is named again must not let anybody through at once.
    #[test]
    fn a_policy_that_has_been_known_is_waited_for_again() {
        let given_up = UnknownPolicies(RefCell::new(HashSet::from(["ns/late".into()])));
        let empty = state::Mesh::new(state::MeshConfig::default());
        given_up.forget_known(&empty);
        assert_eq!(given_up.0.borrow().len(), 1);
        let policy = "policies: [{name: late, namespace: ns, scope: WorkloadSelector, action: Allow, dryRun: false, rules: []}]";
        let known = empty.apply(state::local_file::parse(policy).unwrap()).0;
        given_up.forget_known(&known);
        assert!(given_up.0.borrow().is_empty());
    }
}
