use super::*;

#[tokio::test(start_paused = true)]
async fn drain_waits_for_guards_of_children_and_ends_when_they_go() {
    let (trigger, drain) = Drain::new();
    let (_child_trigger, child) = drain.child();
    let guard = child.guard();
    let draining = tokio::time::timeout(Duration::from_secs(60), trigger.drain(Duration::from_secs(30)));
    let watcher = async {
        child.draining().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!child.is_cut());
        drop(guard);
    };
    let (outcome, ()) = tokio::join!(draining, watcher);
    assert_eq!(outcome.unwrap(), Outcome::Drained);
}

// CO-11.5-6: a connection that never ends is cut at the deadline.
#[tokio::test(start_paused = true)]
async fn guards_left_at_the_deadline_are_counted_and_cut() {
    let (trigger, drain) = Drain::new();
    let held = drain.guard();
    let begin = tokio::time::Instant::now();
    let holder = async {
        drain.cut().await;
        let waited = begin.elapsed();
        drop(held);
        waited
    };
    let (outcome, waited) = tokio::join!(trigger.drain(Duration::from_secs(5)), holder);
    assert_eq!(outcome, Outcome::Expired { n_pending: 1 });
    assert_eq!(waited, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_child_drains_alone_and_a_zero_deadline_cuts_at_once() {
    let (_trigger, parent) = Drain::new();
    let (child_trigger, child) = parent.child();
    let _guard = child.guard();
    let _other = parent.guard();
    assert_eq!(parent.n_guards(), 2);
    assert_eq!(child_trigger.drain(Duration::ZERO).await, Outcome::Expired { n_pending: 1 });
    assert!(child.is_cut() && child.is_draining());
    assert!(!parent.is_draining());
}
