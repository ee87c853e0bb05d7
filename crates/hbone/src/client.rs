//! The client role: one outbound HBONE connection and its CONNECT requests.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::core::{Core, Role, StreamFault};
use crate::early::Early;
use crate::handshake::{HandshakeError, handshake};
use crate::link::{Link, OnEnd, Owned, now};
use crate::live::{ExportError, ImportError, ImportedClient, LiveTunnel, PendingConnect};
use crate::record::Library;
use crate::socket::Socket;
use crate::stream::{Break, StreamCell};
use crate::{ConnectError, ConnectionEnd, ErrorCode, OpenError, Settings, Tunnel, WeakConnection, driver};

/// A CONNECT to be sent.
#[derive(Debug, Clone, Default)]
pub struct ConnectRequest {
    /// Value of `:authority`.
    pub authority: String,
    /// Further headers, in the order they are sent. Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// The answer's status and headers.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Always 200 where a tunnel came with it.
    pub status: u16,
    /// Headers in the order received; values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A handle on an outbound HBONE connection; cheap to clone. When the last handle and the last tunnel are gone
/// the connection says GOAWAY and close_notify.
#[derive(Debug, Clone)]
pub struct ClientConnection {
    handle: Rc<Handle>,
}

#[derive(Debug)]
struct Handle {
    link: Rc<Link>,
    answer_timeout: Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.release();
    }
}

/// Performs TLS on `tcp` and starts HTTP/2. Returns as soon as the first frames are under way.
///
/// Must run inside a `LocalSet`: the connection's driver is a task of that thread.
pub async fn connect(
    tcp: TcpStream,
    tls: Arc<rustls::ClientConfig>,
    settings: &Settings,
) -> Result<ClientConnection, ConnectError> {
    let socket = Socket::new(tcp);
    let library = Library::client(tls).map_err(ConnectError::Tls)?;
    let secured = handshake(&socket, library, settings).await?;
    let core = Core::client(settings.clone(), now());
    let link = Link::new(socket, core, secured, settings).map_err(ConnectError::Io)?;
    driver::start(link.clone());
    if let Some(end) = link.state.borrow().ended.clone() {
        return Err(ConnectError::Http2(end));
    }
    Ok(ClientConnection { handle: Rc::new(Handle { link, answer_timeout: settings.answer_timeout }) })
}

/// Goes on with a connection that was exported elsewhere, on the socket that came with it. Of `settings`, what was
/// promised to the peer (windows, frame size, header list) is taken from the connection. The value is used up: keys go
/// on in one place only.
///
/// Must run inside a `LocalSet`, like [`connect`].
pub fn import(live: LiveTunnel, tcp: TcpStream, settings: &Settings) -> Result<ImportedClient, ImportError> {
    let (link, owned) = Link::import(live, tcp, Role::Client, settings)?;
    let (mut tunnels, mut requests) = (Vec::new(), Vec::new());
    for Owned { cell, asked } in owned {
        let tunnel = Tunnel { link: link.clone(), cell };
        if asked {
            requests.push(PendingConnect { tunnel });
        } else {
            tunnels.push(tunnel);
        }
    }
    let handle = Rc::new(Handle { link, answer_timeout: settings.answer_timeout });
    Ok(ImportedClient { connection: ClientConnection { handle }, tunnels, requests })
}

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => Self::Tls(error),
            HandshakeError::Io(error) => Self::Io(error),
            HandshakeError::Timeout(limit) => Self::Timeout(limit),
        }
    }
}

impl ClientConnection {
    /// Sends a CONNECT and waits for its answer. Where the peer's limit of concurrent streams is reached, waits for
    /// room first. Dropping the future resets the stream with CANCEL.
    pub async fn open(&self, request: ConnectRequest) -> Result<(ResponseHead, Tunnel), OpenError> {
        self.open_with(request, None).await
    }

    /// The same for an application whose bytes need not wait for the answer: to a peer that takes them (it says so in
    /// its SETTINGS) the first ones go ahead of it, the application's end too. If the request fails after that, `app`
    /// will be reset when it is closed.
    pub async fn open_for(
        &self,
        request: ConnectRequest,
        app: &TcpStream,
    ) -> Result<(ResponseHead, Tunnel), OpenError> {
        self.open_with(request, Some(app)).await
    }

    async fn open_with(
        &self,
        request: ConnectRequest,
        app: Option<&TcpStream>,
    ) -> Result<(ResponseHead, Tunnel), OpenError> {
        let mut early = app.map(Early::new);
        let (patience, mut again) = (self.patience(), true);
        loop {
            match self.attempt(&request, early.as_mut(), patience, u32::MAX).await {
                Err(Failed { next: Next::Room, .. }) if std::mem::take(&mut again) => {}
                result => return result.map_err(|failed| failed.error),
            }
        }
    }

    /// How long a request that begins at this moment waits for its answer.
    pub(crate) fn patience(&self) -> Patience {
        let limit = self.handle.answer_timeout;
        Patience { until: now() + limit, limit }
    }

    /// Sends a request as soon as there is room, and waits for its answer. What `early` has said on another connection
    /// is said again: such a request goes once the peer is known to take that, and only if fewer than `limit` streams
    /// are open then.
    pub(crate) async fn attempt(
        &self,
        request: &ConnectRequest,
        early: Option<&mut Early<'_>>,
        patience: Patience,
        limit: u32,
    ) -> Result<(ResponseHead, Tunnel), Failed> {
        let answered = async {
            let again = early.as_ref().filter(|early| early.has_said()).map(|early| early.kept());
            if let Some(octets) = again {
                self.acquainted().await;
                // Nobody has a turn between this and sending.
                self.may_say_again(octets, limit)?;
            }
            let (tunnel, guess) = self.send(request).await?;
            // What may have to be sent again for want of room goes alone.
            let may = guess.is_none() && self.handle.link.state.borrow().core.may_send_early();
            let mut early = early.filter(|_| may);
            if let Some(early) = early.as_mut().filter(|_| again.is_some()) {
                early.say_again(&tunnel);
            }
            answer(tunnel, early).await.map_err(|error| {
                let next = match error {
                    OpenError::Reset(ErrorCode::REFUSED_STREAM) if self.was_too_many(guess) => Next::Room,
                    OpenError::Reset(ErrorCode::REFUSED_STREAM) | OpenError::NotProcessed(_) => Next::Another,
                    _ => Next::Nothing,
                };
                Failed { error, next }
            })
        };
        patience.bound(answered).await.unwrap_or_else(|error| Err(Failed { error, next: Next::Nothing }))
    }

    fn was_too_many(&self, guess: Option<u32>) -> bool {
        guess.is_some_and(|streams| streams > self.handle.link.state.borrow().core.stream_limit())
    }

    /// Whether a request may be sent with so many octets behind it. Why a connection takes no request any more is for
    /// [`Self::send`] to say.
    fn may_say_again(&self, octets: usize, limit: u32) -> Result<(), Failed> {
        let unsent = |next| Err(Failed { error: OpenError::NotProcessed(ErrorCode::NO_ERROR), next });
        if self.is_spent() {
            return Ok(());
        }
        if !self.has_room(limit) {
            return unsent(Next::Elsewhere);
        }
        let core = &self.handle.link.state.borrow().core;
        if core.may_send_early() && core.first_capacity() >= octets { Ok(()) } else { unsent(Next::Silence) }
    }

    /// Waits for the peer's SETTINGS, or the end.
    async fn acquainted(&self) {
        poll_fn(|cx| {
            let mut state = self.handle.link.state.borrow_mut();
            if state.core.peer_known() || state.ended.is_some() {
                return Poll::Ready(());
            }
            state.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Sends a request as soon as there is room. With the tunnel comes the number of open streams if it was sent
    /// before the peer said how many it allows.
    async fn send(&self, request: &ConnectRequest) -> Result<(Tunnel, Option<u32>), Failed> {
        let link = &self.handle.link;
        let unsent = |error, next| Poll::Ready(Err(Failed { error, next }));
        poll_fn(|cx| {
            let mut state = link.state.borrow_mut();
            if let Some(end) = &state.ended {
                let end = end.clone();
                return if state.core.peer_known() {
                    unsent(OpenError::ConnectionEnded(end), Next::Unsent)
                } else {
                    unsent(OpenError::Http2(end), Next::Nothing)
                };
            }
            if state.core.is_going_away() {
                return unsent(OpenError::NotProcessed(ErrorCode::NO_ERROR), Next::Unsent);
            }
            // The connection may have been silent since the process ran short of memory, or has it again.
            link.note_memory(&mut state);
            if state.core.is_pressed() {
                state.core.note_pressed();
                state.kick();
                return unsent(OpenError::OutOfMemory, Next::Nothing);
            }
            if !state.core.fits(&request.authority, &request.headers) {
                return unsent(OpenError::RequestTooLarge, Next::Nothing);
            }
            let Some(id) = state.core.open(&request.authority, &request.headers, now()) else {
                state.wait(cx);
                return Poll::Pending;
            };
            let cell = StreamCell::asked(id);
            state.streams.insert(id, cell.clone());
            state.idle_since = None;
            state.kick();
            let guess = (!state.core.peer_known()).then(|| state.core.open_streams());
            Poll::Ready(Ok((Tunnel { link: link.clone(), cell }, guess)))
        })
        .await
    }

    /// The certificates the peer presented, leaf first.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        self.handle.link.chain.clone()
    }

    /// Our address of the TCP connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.link.local
    }

    /// The peer's address of the TCP connection.
    pub fn peer_addr(&self) -> SocketAddr {
        self.handle.link.peer
    }

    /// The connection, without holding it.
    pub fn weak(&self) -> WeakConnection {
        WeakConnection::new(&self.handle.link)
    }

    /// Takes the connection out of this engine, together with its socket, to go on elsewhere by [`import`]. Its
    /// tunnels and requests here end with [`ConnectionEnd::Moved`], relays with [`crate::RelayEnd::Moved`].
    pub fn export(&self) -> Result<(LiveTunnel, std::net::TcpStream), ExportError> {
        self.handle.link.export()
    }

    /// Cuts every tunnel and closes with GOAWAY and close_notify.
    pub fn close(&self) {
        self.handle.link.close(ConnectionEnd::Closed);
    }

    /// Why the connection ended, once it has.
    pub fn ended(&self) -> Option<ConnectionEnd> {
        self.handle.link.state.borrow().ended.clone()
    }

    /// A request can be sent at once, with at most `limit` streams open.
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        let state = self.handle.link.state.borrow();
        state.ended.is_none() && state.core.has_room() && state.core.open_streams() < limit
    }

    /// How many streams may be open at a time, once the peer has said so.
    pub(crate) fn stream_limit(&self) -> Option<u32> {
        let state = self.handle.link.state.borrow();
        state.core.peer_known().then(|| state.core.stream_limit())
    }

    /// Registers somebody to be woken when there may be room, or the connection takes no request any more.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.handle.link.state.borrow_mut().wait(cx);
    }

    /// One who was registered has left. If others wait in the same task, they register again.
    pub(crate) fn unwait(&self, waker: &Waker) {
        self.handle.link.state.borrow_mut().unwait(waker);
    }

    /// Has those who wait for room look again.
    pub(crate) fn wake_all(&self) {
        self.handle.link.state.borrow_mut().wake_all();
    }

    /// Has `call` called when the connection has ended and its socket is closed.
    pub(crate) fn on_end(&self, call: impl FnOnce() + 'static) {
        self.handle.link.state.borrow_mut().on_end = Some(OnEnd::new(call));
    }

    /// No request can be sent any more.
    pub(crate) fn is_spent(&self) -> bool {
        let state = self.handle.link.state.borrow();
        state.ended.is_some() || state.core.is_going_away()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.handle, &other.handle)
    }

    /// Closes after `limit` without streams.
    pub(crate) fn close_when_idle(&self, limit: Duration) {
        let mut state = self.handle.link.state.borrow_mut();
        state.idle_limit = Some(limit);
        state.kick();
    }
}

/// How long a request may take that has met its first connection, on whatever connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Instant,
    limit: Duration,
}

impl Patience {
    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, OpenError> {
        let result = tokio::time::timeout_at(self.until.into(), work).await;
        result.map_err(|_| OpenError::AnswerTimeout(self.limit))
    }
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: OpenError,
    pub(crate) next: Next,
}

/// What may be done after an attempt that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the peer may have acted on the request.
    Nothing,
    /// It was sent before the peer's limit was known, and above it: not processed, so it may wait for room.
    Room,
    /// The peer has not looked at it (RFC 9113 section 8.7): another connection may carry it.
    Another,
    /// Nothing was sent, and this connection takes no request any more: another one may carry it.
    Unsent,
    /// Nothing was sent, as others took the room: to be looked for again.
    Elsewhere,
    /// Nothing, and nothing was sent: this connection cannot carry what has been said on another one.
    Silence,
}

/// Waits for the answer to a request; what becomes no tunnel is reset with CANCEL as `tunnel` is dropped.
pub(crate) async fn answer(
    tunnel: Tunnel,
    mut early: Option<&mut Early<'_>>,
) -> Result<(ResponseHead, Tunnel), OpenError> {
    let head = poll_fn(|cx| {
        if let Some(head) = tunnel.cell.take_answer() {
            return Poll::Ready(Ok(head));
        }
        match tunnel.cell.broken() {
            Some(why) => {
                if let Break::Connection(ConnectionEnd::Moved) = why {
                    // The request goes on elsewhere, and so do the bytes.
                    early.as_mut().into_iter().for_each(|early| early.settle());
                }
                Poll::Ready(Err(open_error(why, &tunnel)))
            }
            None => {
                tunnel.cell.wait_reader(cx);
                match early.as_mut().map_or(Ok(()), |early| early.pump(&tunnel, cx)) {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(OpenError::AppRead(error.to_string(), error.kind()))),
                }
            }
        }
    })
    .await?;
    if head.status != 200 {
        return Err(OpenError::Status(head.status));
    }
    if let Some(early) = early {
        early.settle();
    }
    Ok((ResponseHead { status: head.status, headers: head.headers }, tunnel))
}

fn open_error(why: Break, tunnel: &Tunnel) -> OpenError {
    match why {
        Break::Stream(StreamFault::Reset(code)) => OpenError::Reset(code),
        Break::Stream(StreamFault::Fault { what, .. }) => OpenError::BadAnswer { what },
        Break::Stream(StreamFault::NotProcessed(code)) => OpenError::NotProcessed(code),
        Break::Stream(StreamFault::Unread) => OpenError::OutOfMemory,
        Break::Connection(end) if tunnel.link.state.borrow().core.peer_known() => {
            OpenError::ConnectionEnded(end)
        }
        Break::Connection(end) => OpenError::Http2(end),
    }
}
