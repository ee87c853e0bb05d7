use super::*;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn drain_waits_for_guards_of_children_and_ends_when_they_go() {
    let (trigger, drain) = Drain::new();
    let (_child_trigger, child) = drain.child();
    let guard = child.guard();
    let draining = tokio::time::timeout(LONG, trigger.drain(LONG));
    let watcher = async {
        child.draining().await;
        tokio::task::yield_now().await;
        assert!(!child.is_cut());
        drop(guard);
    };
    let (outcome, ()) = tokio::join!(draining, watcher);
    assert_eq!(outcome.unwrap(), Outcome::Drained);
}

// CO-11.5-6: a connection that never ends is cut at the deadline.
#[tokio::test]
async fn guards_left_at_the_deadline_are_counted_and_cut() {
    let (trigger, drain) = Drain::new();
    let held = drain.guard();
    let deadline = Duration::from_millis(30);
    let begin = crate::clock::monotonic();
    let holder = async {
        tokio::time::timeout(LONG, drain.cut()).await.unwrap();
        let waited = begin.elapsed();
        drop(held);
        waited
    };
    let (outcome, waited) = tokio::join!(trigger.drain(deadline), holder);
    assert_eq!(outcome, Outcome::Expired { n_pending: 1 });
    assert!(waited >= deadline, "{waited:?}");
}

#[tokio::test]
async fn a_child_drains_alone_and_a_zero_deadline_cuts_at_once() {
    let (_trigger, parent) = Drain::new();
    let (child_trigger, child) = parent.child();
    let _guard = child.guard();
    let _other = parent.guard();
    assert_eq!(parent.n_guards(), 2);
    let outcome = tokio::time::timeout(LONG, child_trigger.drain(Duration::ZERO)).await.unwrap();
    assert_eq!(outcome, Outcome::Expired { n_pending: 1 });
    assert!(child.is_cut() && child.is_draining());
    assert!(!parent.is_draining());
}
