use std::time::Duration;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn panic_of_a_grandchild_reaches_the_root() {
    let root = TaskGroup::new("root");
    root.child("pods").spawn("worker", async { panic!("boom") });
    let failure = tokio::time::timeout(LIMIT, root.failed()).await.unwrap();
    assert_eq!(failure, TaskFailure { group: "pods", task: "worker", cause: FailureCause::Panicked });
    assert_eq!(failure.code(), "task-panicked");
}

#[tokio::test]
async fn early_exit_of_an_essential_task_is_a_failure_but_not_after_cancel() {
    let group = TaskGroup::new("group");
    group.spawn_essential("loop", async { std::future::pending().await });
    group.cancel();
    assert_eq!(tokio::time::timeout(LIMIT, group.join()).await.unwrap(), Ok(()));

    let group = TaskGroup::new("group");
    group.spawn_essential("loop", async {});
    let failure = tokio::time::timeout(LIMIT, group.join()).await.unwrap().unwrap_err();
    assert_eq!(failure.to_string(), "task loop of group ended early");
}

#[tokio::test]
async fn error_of_a_fallible_task_is_the_failure_and_the_first_one_counts() {
    let group = TaskGroup::new("group");
    group.spawn_fallible("a", async { Err::<(), _>("no socket") });
    group.join().await.unwrap_err();
    group.spawn_fallible("b", async { Err::<(), _>("later") });
    let failure = group.join().await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::Failed("no socket".into()));
}

#[tokio::test]
async fn cancel_drops_local_tasks_of_child_groups() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let root = TaskGroup::new("root");
            let child = root.child("child");
            let held = std::rc::Rc::new(());
            let weak = std::rc::Rc::downgrade(&held);
            child.spawn_local("holder", async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            assert_eq!((child.n_running(), root.n_alive()), (1, 1));
            root.cancel();
            tokio::time::timeout(LIMIT, child.join()).await.unwrap().unwrap();
            assert!(weak.upgrade().is_none());
            assert_eq!(root.n_alive(), 0);
        })
        .await;
}
