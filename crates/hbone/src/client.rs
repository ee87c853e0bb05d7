//! The client role: one outbound HBONE connection and its CONNECT requests.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::{ConnectError, OpenError, Settings, Tunnel};

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
pub struct ClientConnection {}

/// Performs TLS on `tcp` and starts HTTP/2. Returns as soon as the first frames are under way.
///
/// Must run inside a `LocalSet`: the connection's driver is a task of that thread.
pub async fn connect(
    tcp: TcpStream,
    tls: Arc<rustls::ClientConfig>,
    settings: &Settings,
) -> Result<ClientConnection, ConnectError> {
    let _ = (tcp, tls, settings);
    unimplemented!()
}

impl ClientConnection {
    /// Sends a CONNECT and waits for its answer. Dropping the future resets the stream with CANCEL.
    pub async fn open(&self, request: ConnectRequest) -> Result<(ResponseHead, Tunnel), OpenError> {
        let _ = request;
        unimplemented!()
    }

    /// The certificates the peer presented, leaf first.
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

    /// Cuts every tunnel and closes with GOAWAY and close_notify.
    pub fn close(&self) {
        unimplemented!()
    }
}
