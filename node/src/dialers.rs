//! Who dials for the pods of a traffic thread.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use net::socket::Dialer;
use tokio::sync::Notify;

/// For a pod that has not dialled for this long, and twice as long at most, no sockets are ready.
const IDLE: Duration = Duration::from_secs(5);

/// The dialers of one thread, one for each of its pods. They end with their pods.
#[derive(Debug, Default)]
pub(crate) struct Dialers {
    dialers: RefCell<Vec<Weak<Dialer>>>,
    dialled: Notify,
}

impl Dialers {
    /// The dialer of one more pod.
    pub(crate) fn add(&self, dialer: Dialer) -> Rc<Dialer> {
        let dialer = Rc::new(dialer);
        let mut dialers = self.dialers.borrow_mut();
        dialers.retain(|dialer| dialer.strong_count() > 0);
        dialers.push(Rc::downgrade(&dialer));
        dialer
    }

    /// Somebody dials: sockets that are then ready are looked after.
    pub(crate) fn note_use(&self) {
        self.dialled.notify_one();
    }

    /// Closes sockets that are ready and that nobody has asked for, for ever. Does nothing while there are none.
    pub(crate) async fn close_idle_sockets(&self) {
        loop {
            self.dialled.notified().await;
            loop {
                tokio::time::sleep(IDLE).await;
                if !self.let_idle_sockets_go() {
                    break;
                }
            }
        }
    }

    /// Closes the sockets that are ready for pods that have not dialled since the last call. `false` when there will be
    /// nothing to do the next time.
    fn let_idle_sockets_go(&self) -> bool {
        let dialers = self.dialers.borrow();
        dialers.iter().filter_map(Weak::upgrade).fold(false, |left, dialer| dialer.let_idle_go() | left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kit::sandbox::sandboxed;
    use net::socket::DialOptions;

    use super::*;

    #[test]
    fn idle_sockets_go_and_pods_that_are_gone_leave_nothing() {
        sandboxed(|mut sandbox| {
            let pod = sandbox.host("pod", &["10.0.0.1"]);
            let namespace = || Some(Arc::new(pod.namespace.try_clone().unwrap()));
            let dialers = Dialers::default();
            let gone = dialers.add(Dialer::new(namespace(), DialOptions::default()));
            drop(gone);
            let dialer = dialers.add(Dialer::new(namespace(), DialOptions::default()));
            assert_eq!(dialers.dialers.borrow().len(), 1);
            let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            event_loop.block_on(async {
                let dial = async || {
                    for _ in 0..2 {
                        // Nobody listens, and a socket was used all the same.
                        dialer.dial(([10, 0, 0, 1], 1).into(), None).await.unwrap_err();
                        dialers.note_use();
                    }
                    assert_eq!(dialer.n_ready(), 1);
                };
                let dialling = async {
                    // The second time the closing has long come to an end.
                    for _ in 0..2 {
                        dial().await;
                        tokio::time::pause();
                        tokio::time::sleep(IDLE * 3 / 2).await;
                        assert_eq!(dialer.n_ready(), 1, "not so soon");
                        tokio::time::sleep(IDLE * 10).await;
                        assert_eq!(dialer.n_ready(), 0);
                        tokio::time::resume();
                    }
                };
                tokio::select! {
                    () = dialers.close_idle_sockets() => {}
                    () = dialling => {}
                }
            });
        });
    }
}
