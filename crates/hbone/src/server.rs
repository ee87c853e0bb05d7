//! The server role: one inbound HBONE connection and the CONNECT requests that arrive on it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::{AcceptError, ConnectionEnd, Settings, Tunnel};

/// An inbound HBONE connection. Dropping it cuts all its tunnels.
#[derive(Debug)]
pub struct ServerConnection {}

/// Performs TLS on `tcp` (with the client's certificate as the configuration demands) and starts HTTP/2.
///
/// Must run inside a `LocalSet`: the connection's driver is a task of that thread.
pub async fn accept(
    tcp: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    settings: &Settings,
) -> Result<ServerConnection, AcceptError> {
    let _ = (tcp, tls, settings);
    unimplemented!()
}

impl ServerConnection {
    /// The certificates the peer presented, leaf first. Verified by the TLS configuration.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        unimplemented!()
    }

    /// Our address of the TCP connection.
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// The peer's address of the TCP connection.
    pub fn peer_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// The next request. `None` once the connection has ended: then [`ServerConnection::ended`] tells why.
    pub async fn next(&self) -> Option<IncomingConnect> {
        unimplemented!()
    }

    /// Why the connection ended, once it has.
    pub fn ended(&self) -> Option<ConnectionEnd> {
        unimplemented!()
    }

    /// Graceful drain: GOAWAY, PING, final GOAWAY. Running tunnels go on, requests that come in the meantime are
    /// refused, and the connection closes when the last tunnel has ended; then `next` returns `None`.
    pub fn drain(&self) {
        unimplemented!()
    }

    /// Cuts every tunnel and closes with GOAWAY and close_notify.
    pub fn close(&self) {
        unimplemented!()
    }
}

/// A request that waits for its answer. Dropping it resets the stream with CANCEL.
#[derive(Debug)]
pub struct IncomingConnect {
    /// Value of `:method`; anything but `CONNECT` deserves 400.
    pub method: String,
    /// Value of `:authority`, if there was one. Well-formed as an authority, nothing more.
    pub authority: Option<String>,
    /// Ordinary headers in the order received; values as bytes, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl IncomingConnect {
    /// First value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()
    }

    /// Answers 200: the stream is a tunnel from here on.
    pub fn accept(self, headers: &[(&str, &str)]) -> Tunnel {
        let _ = headers;
        unimplemented!()
    }

    /// Answers with `status` and END_STREAM; a client that has not ended its side is told to stop.
    pub fn refuse(self, status: u16) {
        let _ = status;
        unimplemented!()
    }

    /// Resolves when the client has given up on the request (reset, or connection ended).
    pub async fn cancelled(&self) {
        unimplemented!()
    }
}
