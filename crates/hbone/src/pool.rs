//! The pool of outbound connections of one source workload.

use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::{ClientConnection, ConnectRequest, OpenError, ResponseHead, Tunnel};

/// Why the pool had no tunnel to give. `E` is the caller's error of its own dial.
#[derive(Debug, Error)]
pub enum PoolError<E: std::error::Error + 'static> {
    /// The dial failed; all who waited for it get the same error.
    #[error("{0}")]
    Dial(Rc<E>),
    /// The connection is there, the CONNECT failed.
    #[error("{0}")]
    Open(#[source] OpenError),
    /// The pool is going away.
    #[error("pool draining")]
    Draining,
}

/// Connections by key: source identity, expected identities, address, whatever makes two requests able to share.
///
/// Lives on one thread. Dropping it closes every connection with GOAWAY and close_notify.
#[derive(Debug)]
pub struct Pool<K> {
    _keys: std::marker::PhantomData<K>,
}

impl<K: Hash + Eq + Clone + 'static> Pool<K> {
    /// `streams` per connection at most (less where the peer says so); a connection without streams is released
    /// after `idle`.
    pub fn new(streams: u32, idle: Duration) -> Self {
        let _ = (streams, idle);
        unimplemented!()
    }

    /// Opens a tunnel for `key` on the oldest connection that has room, else on a new one from `dial`.
    ///
    /// One dial per key is in progress at a time; requests that come meanwhile share its result, failure included.
    pub async fn open<E, D, F>(
        &self,
        key: &K,
        dial: D,
        request: ConnectRequest,
    ) -> Result<(ResponseHead, Tunnel), PoolError<E>>
    where
        E: std::error::Error + 'static,
        D: FnOnce() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        let _ = (key, dial, request);
        unimplemented!()
    }

    /// Refuses further requests and closes every connection with GOAWAY and close_notify.
    pub fn close(&self) {
        unimplemented!()
    }
}
