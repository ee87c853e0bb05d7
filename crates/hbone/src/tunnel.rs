//! One stream as its owner sees it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An established tunnel. Dropping it before both directions have ended resets the stream with CANCEL
/// (NO_ERROR from a server that has said all it had to say).
#[derive(Debug)]
pub struct Tunnel {}

impl Tunnel {
    /// Cuts the tunnel with RST_STREAM CANCEL.
    pub fn abort(self) {}

    /// The certificates of the peer of the connection below, leaf first.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        unimplemented!()
    }

    /// Our address of the TCP connection below.
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// The peer's address of the TCP connection below.
    pub fn peer_addr(&self) -> SocketAddr {
        unimplemented!()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        unimplemented!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
}
