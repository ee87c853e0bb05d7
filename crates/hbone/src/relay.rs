//! Joins a tunnel and an application's socket until both directions have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;

use crate::{Tunnel, TunnelError};

/// Bytes moved by one relay, exact at any moment and readable from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    to_peer: AtomicU64,
    to_app: AtomicU64,
}

impl Counters {
    /// Bytes read from the application and handed to the tunnel.
    pub fn to_peer(&self) -> u64 {
        self.to_peer.load(Ordering::Relaxed)
    }

    /// Bytes received from the tunnel and written to the application.
    pub fn to_app(&self) -> u64 {
        self.to_app.load(Ordering::Relaxed)
    }
}

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides said they were done, and everything was delivered.
    Clean,
    /// Something was cut; what was transferred may be incomplete. The other side has been told by a reset.
    Broken(TunnelError),
}

/// Moves bytes both ways until both directions have ended, half-closing each side when the other ends.
///
/// An abort stays an abort: a reset from the application becomes RST_STREAM, a reset or loss of the tunnel
/// becomes a TCP reset. Dropping the future cuts the tunnel with CANCEL and closes the application's socket.
pub async fn relay(tunnel: Tunnel, app: TcpStream, counters: &Arc<Counters>) -> RelayEnd {
    let _ = (tunnel, app, counters);
    unimplemented!()
}
