//! Who dials for the pods of a traffic thread.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use net::socket::Dialer;

/// The dialers of one thread, one for each of its pods. They end with their pods.
#[derive(Debug, Default)]
pub(crate) struct Dialers(RefCell<Vec<Weak<Dialer>>>);

impl Dialers {
    /// The dialer of one more pod.
    pub(crate) fn add(&self, dialer: Dialer) -> Rc<Dialer> {
        let dialer = Rc::new(dialer);
        let mut dialers = self.0.borrow_mut();
        dialers.retain(|dialer| dialer.strong_count() > 0);
        dialers.push(Rc::downgrade(&dialer));
        dialer
    }

    /// Closes the sockets that are ready for pods that have not dialled since the last call.
    pub(crate) fn let_idle_sockets_go(&self) {
        self.0.borrow().iter().filter_map(Weak::upgrade).for_each(|dialer| dialer.let_idle_go());
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
            assert_eq!(dialers.0.borrow().len(), 1);
            let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            event_loop.block_on(async {
                for _ in 0..2 {
                    // Nobody listens, and a socket was used all the same.
                    dialer.dial(([10, 0, 0, 1], 1).into(), None).await.unwrap_err();
                }
            });
            assert_eq!(dialer.n_ready(), 1);
            dialers.let_idle_sockets_go();
            assert_eq!(dialer.n_ready(), 1);
            dialers.let_idle_sockets_go();
            assert_eq!(dialer.n_ready(), 0);
        });
    }
}
