//! Routes of calls follow the routing of their namespaces.
//!
//! An enrolled namespace has a copy of its routes for what applications call (`net::capture`). Routes come and go while a
//! pod lives; so each namespace has somebody who is told, for as long as it is enrolled.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use net::NetNamespace;
use net::links::RoutingChanges;
use runtime::tasks::TaskGroup;
use tokio::task::AbortHandle;

use crate::enrollment::Enrollment;

/// Changes come in groups, some of them our own.
const SETTLING: Duration = Duration::from_millis(100);
/// Who cannot be told looks by himself.
const LOOKING: Duration = Duration::from_secs(60);

/// Follows the routing of all enrolled namespaces for as long as the agent lives.
pub(crate) async fn follow(enrollment: Arc<Enrollment>, tasks: TaskGroup) {
    let mut changes = enrollment.changes();
    let mut followed: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let mut enrolled: BTreeMap<u64, (String, Arc<NetNamespace>)> = {
            let ledger = enrollment.ledger();
            let living = ledger.pods().filter_map(|pod| {
                let namespace = Arc::clone(pod.namespace.as_ref()?);
                Some((pod.generation, (pod.record.uid.clone(), namespace)))
            });
            living.collect()
        };
        followed.retain(|generation, following| {
            let stays = enrolled.remove(generation).is_some();
            if !stays {
                following.abort();
            }
            stays
        });
        for (generation, (uid, namespace)) in enrolled {
            let following = follow_one(Arc::clone(&enrollment), uid, generation, namespace);
            followed.insert(generation, tasks.spawn("routing", following));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_one(enrollment: Arc<Enrollment>, uid: String, generation: u64, namespace: Arc<NetNamespace>) {
    let mut changes = match RoutingChanges::open(&namespace) {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!(uid, %error, "changes of a pod's routing are noticed late");
            None
        }
    };
    drop(namespace);
    loop {
        // Whatever has changed between the rules and now is seen by the first look.
        enrollment.follow_routing(&uid, generation).await;
        if let Some(told) = &mut changes
            && let Err(error) = told.changed().await
        {
            tracing::warn!(uid, %error, "changes of a pod's routing are noticed late");
            changes = None;
        }
        let pause = if changes.is_some() { SETTLING } else { LOOKING };
        tokio::time::sleep(pause).await;
    }
}
