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
use tokio::time::{Instant, timeout};

use crate::enrollment::{Enrollment, Followed};

/// Changes come in groups, some of them our own.
const SETTLING: Duration = Duration::from_millis(100);
/// Of a pod whose routing changes without end.
const SETTLING_AT_MOST: Duration = Duration::from_secs(10);
/// After a look that failed, at first.
const RETRYING: Duration = Duration::from_secs(1);
/// Who cannot be told looks by himself, and so does who waits for what the kernel refuses.
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
    let (mut settling, mut retrying, mut said) = (SETTLING, RETRYING, String::new());
    loop {
        // Whatever has changed between the rules and now is seen by the first look.
        let followed = enrollment.follow_routing(&uid, generation, &mut said).await;
        let again = next_look(followed, &mut retrying);
        let Some(told) = &mut changes else {
            tokio::time::sleep(again.unwrap_or(LOOKING)).await;
            continue;
        };
        let looked = Instant::now();
        let change = match again {
            Some(again) => timeout(again, told.changed()).await.unwrap_or(Ok(())),
            None => told.changed().await,
        };
        if let Err(error) = change {
            tracing::warn!(uid, %error, "changes of a pod's routing are noticed late");
            changes = None;
        }
        settling = next_settling(settling, looked.elapsed());
        tokio::time::sleep(settling).await;
    }
}

/// When to look without having been told, if at all.
fn next_look(followed: Followed, retrying: &mut Duration) -> Option<Duration> {
    let now = *retrying;
    *retrying = match followed {
        Followed::Failed => (now * 2).min(LOOKING),
        Followed::InStep | Followed::Partly => RETRYING,
    };
    match followed {
        Followed::InStep => None,
        Followed::Partly => Some(LOOKING),
        Followed::Failed => Some(now),
    }
}

/// Who changes its routing without end is looked at ever less often: every look keeps others waiting.
fn next_settling(settling: Duration, quiet: Duration) -> Duration {
    if quiet > settling { SETTLING } else { (settling * 2).min(SETTLING_AT_MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod that changes its routing all the time costs a look in ten seconds.
    #[test]
    fn settling_takes_longer_while_changes_persist() {
        let mut settling = SETTLING;
        let mut sum = Duration::ZERO;
        for _ in 0..20 {
            settling = next_settling(settling, Duration::from_millis(1));
            sum += settling;
        }
        assert_eq!(settling, SETTLING_AT_MOST);
        assert!(sum > Duration::from_secs(120), "{sum:?}");
        assert_eq!(next_settling(settling, SETTLING_AT_MOST), SETTLING_AT_MOST);
        assert_eq!(next_settling(settling, Duration::from_secs(11)), SETTLING);
    }

    /// What could not be done is tried again without a change, ever later, and what the kernel refused once a minute.
    #[test]
    fn a_look_that_did_not_bring_all_into_step_is_followed_by_another() {
        let mut retrying = RETRYING;
        assert_eq!(next_look(Followed::InStep, &mut retrying), None);
        assert_eq!(next_look(Followed::Partly, &mut retrying), Some(LOOKING));
        let looks: Vec<_> = (0..8).map(|_| next_look(Followed::Failed, &mut retrying).unwrap()).collect();
        assert_eq!(looks[..3], [1, 2, 4].map(Duration::from_secs));
        assert_eq!(looks[7], LOOKING);
        assert_eq!(next_look(Followed::InStep, &mut retrying), None);
        assert_eq!(next_look(Followed::Failed, &mut retrying), Some(RETRYING));
    }
}
