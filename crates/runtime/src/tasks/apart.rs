//! The part of a task that is woken often, as a task of its own.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

/// Starts `work` as a task of its own on this thread; the result waits for it. When that is dropped the work is too, in
/// the same moment.
///
/// A task of a group looks at each wake whether its group, a drain or a policy ends it: these are shared by threads,
/// and each look takes a lock. A relay is woken for every message; apart, it looks at nothing but its sockets. What
/// ends it is asked once more when it has ended, as for any other work. Needs a `LocalSet` around it.
pub fn apart<F>(work: F) -> Apart<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let work: Work<F::Output> = Rc::new(RefCell::new(Some(Box::pin(work))));
    let running = Rc::clone(&work);
    let running = poll_fn(move |context| {
        let mut work = running.borrow_mut();
        let polled = work.as_mut().map_or(Poll::Pending, |work| work.as_mut().poll(context));
        if polled.is_ready() {
            *work = None;
        }
        polled
    });
    #[expect(clippy::disallowed_methods, reason = "the one that waits is the parent")]
    let task = tokio::task::spawn_local(running);
    Apart { task, work }
}

/// The work until it is done. Its parent, which can take it away, and its task share it.
type Work<T> = Rc<RefCell<Option<Pin<Box<dyn Future<Output = T>>>>>>;

/// Waits for work that runs [`apart`], and ends it when dropped. No larger than two pointers, whatever the work.
pub struct Apart<T> {
    task: JoinHandle<T>,
    work: Work<T>,
}

impl<T> fmt::Debug for Apart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apart")
    }
}

impl<T> Future for Apart<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.task).poll(context).map(|ended| match ended {
            Ok(output) => output,
            // Only its parent could have cancelled it, and that is gone then.
            Err(error) => resume_unwind(error.into_panic()),
        })
    }
}

impl<T> Drop for Apart<T> {
    fn drop(&mut self) {
        // An aborted task lets go of its work with the next turn of the event loop only: by then others could have moved
        // bytes that nobody counts any more.
        let work = self.work.try_borrow_mut().ok().and_then(|mut work| work.take());
        drop(work);
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn its_wakes_are_its_own() {
        let (steps, looks) = (Rc::new(Cell::new(0)), Cell::new(0));
        let counted = Rc::clone(&steps);
        let work = poll_fn(move |context| {
            counted.set(counted.get() + 1);
            context.waker().wake_by_ref();
            if counted.get() == 100 { Poll::Ready(7) } else { Poll::Pending }
        });
        let looking = async {
            let mut waiting = apart(work);
            poll_fn(|context| {
                looks.set(looks.get() + 1);
                Pin::new(&mut waiting).poll(context)
            })
            .await
        };
        assert_eq!(LocalSet::new().run_until(looking).await, 7);
        assert_eq!(steps.get(), 100);
        assert!(looks.get() < 5, "to begin, and when it had ended: {}", looks.get());
    }

    #[tokio::test]
    async fn it_ends_at_once_with_who_waits_for_it() {
        let held = Rc::new(());
        let work = {
            let held = Rc::clone(&held);
            async move {
                let _held = held;
                pending::<()>().await;
            }
        };
        LocalSet::new()
            .run_until(async {
                let mut waiting = apart(work);
                assert!(poll_once(&mut waiting).await.is_none());
                assert_eq!(Rc::strong_count(&held), 2);
                drop(waiting);
                assert_eq!(Rc::strong_count(&held), 1);
            })
            .await;
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        poll_fn(|context| match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
