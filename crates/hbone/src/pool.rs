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

use crate::client::{Failed, Next, Patience};
use crate::early::Early;
use crate::{ClientConnection, ConnectRequest, OpenError, ResponseHead, Tunnel};

/// Keys above which a table that is nearly empty is made smaller.
const FEW: usize = 16;

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
/// Lives on one thread. Dropping it closes every connection with GOAWAY and close_notify. Of a connection that has ended
/// it keeps nothing.
pub struct Pool<K, E> {
    shared: Rc<Shared<K, E>>,
}

/// What connections tell of their end.
struct Shared<K, E> {
    streams: u32,
    idle: Duration,
    closed: Cell<bool>,
    entries: RefCell<HashMap<Rc<K>, Entry<E>>>,
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

impl<E> Entry<E> {
    /// How many streams a connection takes whose peer has not said so yet: as many as others of the key did, the newest
    /// first.
    fn guess(&self) -> u32 {
        self.connections.iter().rev().find_map(ClientConnection::stream_limit).unwrap_or(u32::MAX)
    }
}

impl<K, E> fmt::Debug for Pool<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("streams", &self.shared.streams).field("keys", &self.keys()).finish()
    }
}

impl<K, E> Pool<K, E> {
    /// `streams` per connection at most (less where the peer says so); a connection without streams is released
    /// after `idle`.
    pub fn new(streams: u32, idle: Duration) -> Self {
        let (streams, closed) = (streams.max(1), Cell::new(false));
        Self { shared: Rc::new(Shared { streams, idle, closed, entries: RefCell::default() }) }
    }

    /// Refuses further requests and closes every connection with GOAWAY and close_notify.
    pub fn close(&self) {
        self.shared.closed.set(true);
        for entry in self.shared.entries.take().into_values() {
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
        let entries = self.shared.entries.borrow();
        entries
            .values()
            .flat_map(|entry| &entry.connections)
            .filter(|connection| !connection.is_spent())
            .count()
    }

    /// Keys of which anything is kept.
    pub fn keys(&self) -> usize {
        self.shared.entries.borrow().len()
    }
}

impl<K, E> Drop for Pool<K, E> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> Pool<K, E> {
    /// Opens a tunnel for `key` on the oldest connection that has room, else on a new one from `dial`.
    ///
    /// One dial per key is in progress at a time; requests that come meanwhile share its result, failure included.
    /// The dial goes on as long as one of them waits, whoever began it. A request the peer has not looked at
    /// (RFC 9113 section 8.7) is sent once more, on another connection.
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
        let pool = &self.shared;
        let mut early = app.map(Early::new);
        let mut refused: Option<Refused> = None;
        let mut was_sent_off = false;
        // One for all turns, whether others keep taking the room or peers keep going away.
        let mut patience: Option<Patience> = None;
        loop {
            if pool.closed.get() {
                return Err(PoolError::Draining);
            }
            let found = match pool.pick(key, refused.as_ref()) {
                Some(found) => found,
                None => match bound(patience, pool.dialled(key, &dial)).await?? {
                    Fresh::ForSome => continue,
                    Fresh::ForNobody(connection) => Found::Barred(connection),
                },
            };
            let (Found::Room(met) | Found::Barred(met)) = &found;
            let patience = *patience.get_or_insert_with(|| met.patience());
            let connection = match found {
                Found::Room(connection) => connection,
                Found::Barred(newest) => {
                    let room = pool.room(key, refused.as_ref(), &newest);
                    patience.bound(room).await.map_err(PoolError::Open)??
                }
            };
            // Takes its place on the connection in its first step, before anybody else can, unless something has to be
            // said again: then it may find the place taken.
            let attempt = connection.attempt(&request, early.as_mut(), patience, pool.streams);
            let Failed { error, next } = match attempt.await {
                Ok(opened) => return Ok(opened),
                Err(failed) => failed,
            };
            match (next, refused) {
                // Where there is room is known now.
                (Next::Room, before) if !connection.is_spent() => refused = before,
                (Next::Elsewhere, before) => refused = before,
                // Once: a peer may go away from whatever is dialled.
                (Next::Unsent, before) if !std::mem::replace(&mut was_sent_off, true) => refused = before,
                (Next::Room | Next::Another, None) if early.as_ref().is_none_or(Early::is_whole) => {
                    tracing::debug!(peer = %connection.peer_addr(), %error, "request goes to another connection");
                    refused = Some(Refused { connection, error });
                }
                (Next::Silence, Some(before)) => return Err(PoolError::Open(before.error)),
                _ => return Err(PoolError::Open(error)),
            }
        }
    }
}

/// Waits as long as there is patience; for ever before there was a connection to be patient with.
async fn bound<T, E: std::error::Error + 'static>(
    patience: Option<Patience>,
    work: impl Future<Output = T>,
) -> Result<T, PoolError<E>> {
    match patience {
        Some(patience) => patience.bound(work).await.map_err(PoolError::Open),
        None => Ok(work.await),
    }
}

/// What has become of a request's first attempt.
struct Refused {
    /// Not to be asked again.
    connection: ClientConnection,
    error: OpenError,
}

/// Where a request goes.
enum Found {
    /// There is room.
    Room(ClientConnection),
    /// To wait for room, here or on any other, as long as this one may be used. Further ones would be no better.
    Barred(ClientConnection),
}

/// For whom a new connection is.
enum Fresh {
    /// For those who waited, as far as they find room.
    ForSome,
    /// It has room for nobody, as far as is known: whoever waited for it goes on to wait for room.
    ForNobody(ClientConnection),
}

impl<K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> Shared<K, E> {
    /// The oldest connection with room; the newest, if its peer allows no streams at all. Those that are spent leave the
    /// pool; their tunnels go on.
    fn pick(&self, key: &K, refused: Option<&Refused>) -> Option<Found> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry.connections.retain(|connection| !connection.is_spent());
        let may_ask = |connection: &&ClientConnection| {
            refused.is_none_or(|refused| !refused.connection.is_same(connection))
        };
        let has_room = |connection: &&ClientConnection| {
            connection.has_room(self.streams)
                && (connection.stream_limit().is_some() || connection.has_room(entry.guess()))
        };
        if let Some(connection) = entry.connections.iter().filter(may_ask).find(has_room) {
            return Some(Found::Room(connection.clone()));
        }
        let newest = entry.connections.last().filter(may_ask);
        let barred = newest.filter(|connection| connection.stream_limit() == Some(0));
        barred.map(|connection| Found::Barred(connection.clone()))
    }

    /// Waits for room on any connection, or until `newest` takes no request any more; then it is that one.
    async fn room(
        &self,
        key: &K,
        refused: Option<&Refused>,
        newest: &ClientConnection,
    ) -> Result<ClientConnection, PoolError<E>> {
        let mut wait = RoomWait { pool: self, key, waker: None };
        poll_fn(|cx| {
            if self.closed.get() {
                return Poll::Ready(Err(PoolError::Draining));
            }
            if newest.is_spent() {
                return Poll::Ready(Ok(newest.clone()));
            }
            if let Some(Found::Room(connection)) = self.pick(key, refused) {
                return Poll::Ready(Ok(connection));
            }
            wait.register(cx);
            Poll::Pending
        })
        .await
    }

    /// Waits for the dial in progress, or for a new one.
    async fn dialled<D, F>(self: &Rc<Self>, key: &K, dial: &D) -> Result<Fresh, PoolError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        let wait = DialWait { pool: self, key, dial: self.join_dial(key, dial) };
        let result = poll_fn(|cx| {
            if self.closed.get() {
                return Poll::Ready(Err(PoolError::Draining));
            }
            wait.dial.poll(cx).map(|dialled| dialled.map_err(PoolError::Dial))
        });
        let connection = result.await?;
        let is_for_some = match wait.dial.is_for_some.get() {
            Some(known) => known,
            None => self.admit(key, &connection),
        };
        wait.dial.is_for_some.set(Some(is_for_some));
        Ok(if is_for_some { Fresh::ForSome } else { Fresh::ForNobody(connection) })
    }

    fn join_dial<D, F>(&self, key: &K, dial: &D) -> Rc<SharedDial<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<ClientConnection, E>> + 'static,
    {
        let mut entries = self.entries.borrow_mut();
        if !entries.contains_key(key) {
            entries.insert(Rc::new(key.clone()), Entry::default());
        }
        let entry = entries.get_mut(key);
        let running = entry.as_ref().and_then(|entry| entry.dial.upgrade());
        if let Some(shared) = running.filter(|shared| !shared.is_done()) {
            return shared;
        }
        let shared = Rc::new(SharedDial::new(Box::pin(dial())));
        if let Some(entry) = entry {
            entry.dial = Rc::downgrade(&shared);
        }
        shared
    }

    /// Takes up a new connection; says whether it has room for anybody.
    fn admit(self: &Rc<Self>, key: &K, connection: &ClientConnection) -> bool {
        let mut entries = self.entries.borrow_mut();
        let Some((key, _)) = entries.get_key_value(key) else { return false };
        let (key, pool) = (Rc::clone(key), Rc::downgrade(self));
        let Some(entry) = entries.get_mut(&key) else { return false };
        if connection.is_spent() {
            return false;
        }
        connection.close_when_idle(self.idle);
        connection.on_end(move || {
            if let Some(pool) = pool.upgrade() {
                pool.let_go(&key);
            }
        });
        let has_room = connection.has_room(self.streams.min(entry.guess()));
        // Some wait for room who have not dialled; this is one more to wait at.
        entry.connections.iter().for_each(ClientConnection::wake_all);
        entry.connections.push(connection.clone());
        has_room
    }

    /// Nobody wants the result of a dial any more.
    fn dial_is_over(&self, key: &K, dial: &Rc<SharedDial<E>>) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(key)
            && entry.dial.as_ptr() == Rc::as_ptr(dial)
        {
            entry.dial = Weak::new();
        }
        self.let_go(key);
    }

    /// Keeps nothing of connections that have ended, nor of a key that nobody asks for.
    fn let_go(&self, key: &K) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        entry.connections.retain(|connection| connection.ended().is_none());
        if entry.connections.is_empty() && entry.dial.strong_count() == 0 {
            entries.remove(key);
        }
        if entries.capacity() > 4 * entries.len().max(FEW) {
            entries.shrink_to_fit();
        }
    }
}

type Dial<E> = Pin<Box<dyn Future<Output = Result<ClientConnection, E>>>>;

/// A dial that several requests wait for. Whoever is polled drives it.
struct SharedDial<E> {
    state: RefCell<DialState<E>>,
    waiting: RefCell<Vec<Waker>>,
    /// Of the connection that came of it, once it is in the pool.
    is_for_some: Cell<Option<bool>>,
}

/// One request's part in a dial. The dial knows only the request that drove it last: when one leaves, the others
/// take over; with the last one it ends.
struct DialWait<'a, K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> {
    pool: &'a Shared<K, E>,
    key: &'a K,
    dial: Rc<SharedDial<E>>,
}

impl<K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> Drop for DialWait<'_, K, E> {
    fn drop(&mut self) {
        self.dial.wake_all();
        if Rc::strong_count(&self.dial) == 1 {
            self.pool.dial_is_over(self.key, &self.dial);
        }
    }
}

/// One request's wait for room on whatever connection. When it leaves, no connection keeps its waker.
struct RoomWait<'a, K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> {
    pool: &'a Shared<K, E>,
    key: &'a K,
    waker: Option<Waker>,
}

impl<K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> RoomWait<'_, K, E> {
    fn register(&mut self, cx: &Context<'_>) {
        // Who leaves is woken.
        if self.waker.as_ref().is_some_and(|waker| !waker.will_wake(cx.waker())) {
            self.unregister();
        }
        if let Some(entry) = self.pool.entries.borrow().get(self.key) {
            entry.connections.iter().for_each(|connection| connection.wait(cx));
        }
        self.waker = Some(cx.waker().clone());
    }

    fn unregister(&mut self) {
        let Some(waker) = self.waker.take() else { return };
        if let Some(entry) = self.pool.entries.borrow().get(self.key) {
            entry.connections.iter().for_each(|connection| connection.unwait(&waker));
        }
    }
}

impl<K: Hash + Eq + Clone + 'static, E: std::error::Error + 'static> Drop for RoomWait<'_, K, E> {
    fn drop(&mut self) {
        self.unregister();
    }
}

enum DialState<E> {
    Running(Dial<E>),
    Done(Result<ClientConnection, Rc<E>>),
}

impl<E> SharedDial<E> {
    fn new(dial: Dial<E>) -> Self {
        Self {
            state: RefCell::new(DialState::Running(dial)),
            waiting: RefCell::default(),
            is_for_some: Cell::new(None),
        }
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
