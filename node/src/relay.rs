//! Joins the two legs of a connection, and says from which side it broke, as the log tells it:
//! `send` is from the originator towards the destination, `receive` the way back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hbone::{ConnectionEnd, Counters, RelayEnd, Tunnel, TunnelError};
use net::{ByteCounts, RelayError};
use tokio::net::TcpStream;

use crate::failure::{Broken, ConnectionError};

/// A relay; dropping it cuts both legs.
pub(crate) type Relay = Pin<Box<dyn Future<Output = Result<(), ConnectionError>>>>;

/// The originator's socket and the tunnel to the destination.
pub(crate) fn from_application(tunnel: Tunnel, application: TcpStream, counters: &Arc<Counters>) -> Relay {
    let relay = hbone::relay(tunnel, application, counters);
    Box::pin(async move {
        match relay.await {
            // What moved ends elsewhere.
            RelayEnd::Clean | RelayEnd::Moved(_) => Ok(()),
            RelayEnd::Broken(TunnelError::ConnectionEnded(ConnectionEnd::Revoked)) => {
                Err(ConnectionError::Revoked)
            }
            RelayEnd::Broken(error @ TunnelError::AppRead(..)) => Err(ConnectionError::Sending(error.into())),
            RelayEnd::Broken(error) => Err(ConnectionError::Receiving(error.into())),
        }
    })
}

/// The tunnel from the originator and the destination's socket.
pub(crate) fn from_peer(tunnel: Tunnel, application: TcpStream, counters: &Arc<Counters>) -> Relay {
    let relay = hbone::relay(tunnel, application, counters);
    Box::pin(async move {
        match relay.await {
            // What moved ends elsewhere.
            RelayEnd::Clean | RelayEnd::Moved(_) => Ok(()),
            RelayEnd::Broken(TunnelError::ConnectionEnded(ConnectionEnd::Revoked)) => {
                Err(ConnectionError::Revoked)
            }
            RelayEnd::Broken(error @ TunnelError::AppRead(..)) => {
                Err(ConnectionError::Receiving(error.into()))
            }
            RelayEnd::Broken(error) => Err(ConnectionError::Sending(error.into())),
        }
    })
}

/// Two sockets, the originator's first.
pub(crate) fn joined(originator: TcpStream, destination: TcpStream, counts: &Arc<ByteCounts>) -> Relay {
    let counts = Arc::clone(counts);
    Box::pin(async move {
        net::relay(originator, destination, &counts).await.map_err(|error| match error {
            RelayError::A(error) => ConnectionError::Sending(Broken::Socket(error)),
            RelayError::B(error) => ConnectionError::Receiving(Broken::Socket(error)),
        })
    })
}
