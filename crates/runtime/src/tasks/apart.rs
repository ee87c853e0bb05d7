//! The part of a task that is woken often, as a task of its own.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

/// Starts `work` as a task of its own on this thread; the result waits for it. When that is dropped the work is too, with
/// the next turn of the event loop.
///
/// A task of a group looks at each wake whether its group, a drain or a policy ends it: these are shared by threads,
/// and each look takes a lock. A relay is woken for every message; apart, it looks at nothing but its sockets. What
/// ends it is asked once more when it has ended, as for any other work. Needs a `LocalSet` around it.
pub fn apart<F>(work: F) -> Apart<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one that waits is the parent")]
    let task = tokio::task::spawn_local(work);
    Apart(task)
}

/// Waits for work that runs [`apart`], and ends it when dropped. No larger than a pointer, whatever the work.
#[derive(Debug)]
pub struct Apart<T>(JoinHandle<T>);

impl<T> Future for Apart<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(output) => output,
            // Only its parent could have cancelled it, and that is gone then.
            Err(error) => resume_unwind(error.into_panic()),
        })
    }
}

impl<T> Drop for Apart<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::rc::Rc;
    use std::task::Poll;

    use tokio::task::{LocalSet, yield_now};

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
    async fn it_ends_with_who_waits_for_it() {
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
                while Rc::strong_count(&held) > 1 {
                    yield_now().await;
                }
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
