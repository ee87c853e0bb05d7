//! The pool of outbound connections of one source workload.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;

use crate::{ClientConnection, ConnectRequest, OpenError, ResponseHead, Tunnel};

/// Dials one request takes part in before it takes what it gets.
const ATTEMPTS: usize = 4;

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
pub struct Pool<K, E> {
    streams: u32,
    idle: Duration,
    closed: Cell<bool>,
    entries: RefCell<HashMap<K, Entry<E>>>,
    /// Entries after the last sweep; the next comes at twice as many.
    swept: Cell<usize>,
}

struct Entry<E> {
    /// Oldest first.
    connections: Vec<ClientConnection>,
    /// The dial in progress, as long as somebody wants its result.
    dial: Weak<SharedDial<E>>,
}

impl<E> Default for Entry<E> {
    fn default() -> Self {
        Self { connections: Vec::new(), dial: Weak::new() }
    }
}

impl<K, E> fmt::Debug for Pool<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("streams", &self.streams)
            .field("keys", &self.entries.borrow().len())
            .finish()
    }
}

impl<K, E> Pool<K, E> {
    /// `streams` per connection at most (less where the peer says so); a connection without streams is released
    /// after `idle`.
    pub fn new(streams: u32, idle: Duration) -> Self {
        Self {
            streams: streams.max(1),
            idle,
            closed: Cell::new(false),
            entries: RefCell::default(),
            swept: Cell::new(64),
        }
    }

    /// Refuses further requests and closes every connection with GOAWAY and close_notify.
    pub fn close(&self) {
        self.closed.set(true);
        for entry in self.entries.take().into_values() {
            if let Some(dial) = entry.dial.upgrade() {
                dial.wake_all();
            }
            for connection in entry.connections {
                connection.close();
            }
        }
    }

    /// Connections that may still be used.
    pub fn connections(&self) -> usize {
        let entries = self.entries.borrow();
        entries
            .values()
            .flat_map(|entry| &entry.connections)
            .filter(|connection| !connection.is_spent())
            .count()
    }
}

impl<K, E> Drop for Pool<K, E> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<K: Hash + Eq + Clone, E: std::error::Error + 'static> Pool<K, E> {
    /// Opens a tunnel for `key` on the oldest connection that has room, else on a new one from `dial`.
    ///
    /// One dial per key is in progress at a time; requests that come meanwhile share its result, failure included.
    /// The dial goes on as long as one of them waits, whoever began it.
    pub async fn open<D, F>(
        &self,
        key: &K,
        dial: D,
        request: ConnectRequest,
    ) -> Result<(ResponseHead, Tunnel), PoolError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        self.open_with(key, dial, request, None).await
    }

    /// The same for an application whose first bytes need not wait for the answer; see [`ClientConnection::open_for`].
    pub async fn open_for<D, F>(
        &self,
        key: &K,
        dial: D,
        request: ConnectRequest,
        app: &TcpStream,
    ) -> Result<(ResponseHead, Tunnel), PoolError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        self.open_with(key, dial, request, Some(app)).await
    }

    async fn open_with<D, F>(
        &self,
        key: &K,
        dial: D,
        request: ConnectRequest,
        app: Option<&TcpStream>,
    ) -> Result<(ResponseHead, Tunnel), PoolError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            if self.closed.get() {
                return Err(PoolError::Draining);
            }
            if let Some(connection) = self.pick(key) {
                // Takes its place on the connection in its first step, before anybody else can.
                return connection.open_with(request, app).await.map_err(PoolError::Open);
            }
            let wait = DialWait(self.join_dial(key, &dial));
            let result =
                poll_fn(|cx| if self.closed.get() { Poll::Ready(None) } else { wait.0.poll(cx).map(Some) });
            match result.await {
                None => return Err(PoolError::Draining),
                Some(Err(error)) => return Err(PoolError::Dial(error)),
                Some(Ok(connection)) => {
                    self.admit(key, &connection);
                    last = Some(connection);
                }
            }
        }
        // Connections come up but never have room: the peer's limit is for the connection to wait for.
        match last {
            Some(connection) => connection.open_with(request, app).await.map_err(PoolError::Open),
            None => Err(PoolError::Draining),
        }
    }

    /// The oldest connection with room. Those that are spent leave the pool; their tunnels go on.
    fn pick(&self, key: &K) -> Option<ClientConnection> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry.connections.retain(|connection| !connection.is_spent());
        entry.connections.iter().find(|connection| connection.has_room(self.streams)).cloned()
    }

    fn join_dial<D, F>(&self, key: &K, dial: &D) -> Rc<SharedDial<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        self.sweep();
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        if let Some(shared) = entry.dial.upgrade().filter(|shared| !shared.is_done()) {
            return shared;
        }
        let shared = Rc::new(SharedDial::new(Box::pin(dial())));
        entry.dial = Rc::downgrade(&shared);
        shared
    }

    /// Takes up a new connection, once, however many waited for it.
    fn admit(&self, key: &K, connection: &ClientConnection) {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        if !connection.is_spent() && !entry.connections.iter().any(|known| known.is_same(connection)) {
            connection.close_when_idle(self.idle);
            entry.connections.push(connection.clone());
        }
    }

    /// Drops entries of which nothing is left, each time their number has doubled.
    fn sweep(&self) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() < self.swept.get() * 2 {
            return;
        }
        entries.retain(|_, entry| {
            entry.connections.retain(|connection| !connection.is_spent());
            !entry.connections.is_empty() || entry.dial.strong_count() > 0
        });
        self.swept.set(entries.len().max(64));
    }
}

type Dial<E> = Pin<Box<dyn Future<Output = Result<ClientConnection, E>>>>;

/// A dial that several requests wait for. Whoever is polled drives it.
struct SharedDial<E> {
    state: RefCell<DialState<E>>,
    waiting: RefCell<Vec<Waker>>,
}

/// One request's part in a dial. The dial knows only the request that drove it last: when one leaves, the others
/// take over.
struct DialWait<E>(Rc<SharedDial<E>>);

impl<E> Drop for DialWait<E> {
    fn drop(&mut self) {
        self.0.wake_all();
    }
}

enum DialState<E> {
    Running(Dial<E>),
    Done(Result<ClientConnection, Rc<E>>),
}

impl<E> SharedDial<E> {
    fn new(dial: Dial<E>) -> Self {
        Self { state: RefCell::new(DialState::Running(dial)), waiting: RefCell::default() }
    }

    fn is_done(&self) -> bool {
        matches!(*self.state.borrow(), DialState::Done(_))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<ClientConnection, Rc<E>>> {
        let mut state = self.state.borrow_mut();
        if let DialState::Running(dial) = &mut *state {
            // Any of the requests may go away: the dial wakes all of them.
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            drop(waiting);
            match dial.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => *state = DialState::Done(result.map_err(Rc::new)),
            }
            drop(state);
            self.wake_all();
            state = self.state.borrow_mut();
        }
        match &*state {
            DialState::Done(result) => Poll::Ready(result.clone()),
            DialState::Running(_) => Poll::Pending,
        }
    }

    fn wake_all(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}
