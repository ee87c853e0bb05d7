//! The server role: one inbound HBONE connection and the CONNECT requests that arrive on it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::core::fields::RequestHead;
use crate::core::{Core, Role};
use crate::handshake::{HandshakeError, handshake};
use crate::link::{Link, Owned, now};
use crate::live::{ExportError, ImportError, ImportedServer, LiveTunnel};
use crate::record::Library;
use crate::socket::Socket;
use crate::{AcceptError, ConnectionEnd, Settings, Tunnel, WeakConnection, driver};

/// An inbound HBONE connection. Dropping it cuts all its tunnels.
#[derive(Debug)]
pub struct ServerConnection {
    link: Rc<Link>,
}

/// Performs TLS on `tcp` (with the client's certificate as the configuration demands) and starts HTTP/2.
///
/// Must run inside a `LocalSet`: the connection's driver is a task of that thread.
pub async fn accept(
    tcp: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    settings: &Settings,
) -> Result<ServerConnection, AcceptError> {
    let socket = Socket::new(tcp);
    let library = Library::server(tls).map_err(AcceptError::Tls)?;
    let secured = handshake(&socket, library, settings).await?;
    let core = Core::server(settings.clone(), now());
    let link = Link::new(socket, core, secured, settings).map_err(AcceptError::Io)?;
    driver::start(link.clone());
    Ok(ServerConnection { link })
}

/// Goes on with a connection that was exported elsewhere, on the socket that came with it. Of `settings`, what was
/// promised to the peer (windows, frame size, header list, streams) is taken from the connection. The value is used up:
/// keys go on in one place only.
///
/// Must run inside a `LocalSet`, like [`accept`].
pub fn import(live: LiveTunnel, tcp: TcpStream, settings: &Settings) -> Result<ImportedServer, ImportError> {
    let (link, owned) = Link::import(live, tcp, Role::Server, settings)?;
    let tunnels = owned.into_iter().map(|Owned { cell, .. }| Tunnel { link: link.clone(), cell }).collect();
    Ok(ImportedServer { connection: ServerConnection { link }, tunnels })
}

impl From<HandshakeError> for AcceptError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => Self::Tls(error),
            HandshakeError::Io(error) => Self::Io(error),
            HandshakeError::Timeout(limit) => Self::Timeout(limit),
        }
    }
}

impl ServerConnection {
    /// The certificates the peer presented, leaf first. Verified by the TLS configuration.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        self.link.chain.clone()
    }

    /// Our address of the TCP connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.link.local
    }

    /// The peer's address of the TCP connection.
    pub fn peer_addr(&self) -> SocketAddr {
        self.link.peer
    }

    /// The next request. `None` once the connection has ended: then [`ServerConnection::ended`] tells why.
    /// Cancel-safe.
    pub async fn next(&self) -> Option<IncomingConnect> {
        poll_fn(|cx| {
            let mut state = self.link.state.borrow_mut();
            if let Some((cell, head)) =
                state.arrivals.pop_front().and_then(|cell| cell.request().map(|head| (cell, head)))
            {
                let tunnel = Tunnel { link: self.link.clone(), cell };
                return Poll::Ready(Some(IncomingConnect { head, tunnel }));
            }
            if state.ended.is_some() {
                return Poll::Ready(None);
            }
            state.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Why the connection ended, once it has.
    pub fn ended(&self) -> Option<ConnectionEnd> {
        self.link.state.borrow().ended.clone()
    }

    /// Graceful drain: GOAWAY, PING, final GOAWAY. Running tunnels go on, requests that were under way come out of `next`
    /// until the final GOAWAY and are refused after it, and the connection closes when the last tunnel has ended; then
    /// `next` returns `None`.
    pub fn drain(&self) {
        self.link.state.borrow_mut().core.drain(now());
        self.link.kick();
    }

    /// The connection, without holding it.
    pub fn weak(&self) -> WeakConnection {
        WeakConnection::new(&self.link)
    }

    /// Takes the connection out of this engine, together with its socket, to go on elsewhere by [`import`]. Its
    /// tunnels and requests here end with [`ConnectionEnd::Moved`], relays with [`crate::RelayEnd::Moved`].
    pub fn export(&self) -> Result<(LiveTunnel, std::net::TcpStream), ExportError> {
        self.link.export()
    }

    /// Cuts every tunnel and closes with GOAWAY and close_notify.
    pub fn close(&self) {
        self.link.close(ConnectionEnd::Closed);
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// A request that waits for its answer. Dropping it resets the stream with CANCEL.
#[derive(Debug)]
pub struct IncomingConnect {
    /// Shared with the stream, which takes it along if the connection moves.
    head: Rc<RequestHead>,
    tunnel: Tunnel,
}

impl IncomingConnect {
    /// Value of `:method`; anything but `CONNECT` deserves 400.
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// Value of `:authority`, if there was one. Well-formed as an authority, nothing more.
    pub fn authority(&self) -> Option<&str> {
        self.head.authority.as_deref()
    }

    /// Ordinary headers in the order received; values as bytes, names in lower case.
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.head.headers
    }

    /// First value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()
    }

    /// Answers 200: the stream is a tunnel from here on.
    pub fn accept(self, headers: &[(&str, &str)]) -> Tunnel {
        self.answer(200, headers, false);
        self.tunnel
    }

    /// Answers with `status` and END_STREAM; a client that has not ended its side is told to stop.
    pub fn refuse(self, status: u16) {
        self.answer(status, &[], true);
    }

    fn answer(&self, status: u16, headers: &[(&str, &str)], end_stream: bool) {
        let mut state = self.tunnel.link.state.borrow_mut();
        let cell = &self.tunnel.cell;
        cell.answered();
        if !end_stream && cell.may_be_held() {
            return state.hold(|core| core.answer(cell.id, status, headers, end_stream));
        }
        state.core.answer(cell.id, status, headers, end_stream);
        state.after_call();
    }

    /// Resolves when the client has given up on the request (reset, or connection ended).
    pub async fn cancelled(&self) {
        poll_fn(|cx| {
            if self.tunnel.cell.is_broken() {
                return Poll::Ready(());
            }
            self.tunnel.cell.wait_reader(cx);
            Poll::Pending
        })
        .await;
    }
}
