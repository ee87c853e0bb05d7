//! Joins the two legs of a connection, and says from which side it broke, as the log tells it:
//! `send` is from the originator towards the destination, `receive` the way back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hbone::{ConnectionEnd, RelayEnd, TunnelError};
use net::{ByteCounts, RelayError};
use tokio::net::TcpStream;

use crate::failure::{Broken, ConnectionError};

/// A relay; dropping it cuts both legs. Those of tunnels, of which there are many, lie in what holds them.
pub(crate) enum Relay {
    /// The originator's socket and the tunnel to the destination.
    FromApplication(hbone::Relay),
    /// The tunnel from the originator and the destination's socket.
    FromPeer(hbone::Relay),
    /// Two sockets.
    Joined(Pin<Box<dyn Future<Output = Result<(), ConnectionError>>>>),
}

impl Future for Relay {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (end, from_application) = match &mut *self {
            Self::FromApplication(relay) => (ready!(Pin::new(relay).poll(context)), true),
            Self::FromPeer(relay) => (ready!(Pin::new(relay).poll(context)), false),
            Self::Joined(relay) => return relay.as_mut().poll(context),
        };
        Poll::Ready(match end {
            // What moved ends elsewhere.
            RelayEnd::Clean | RelayEnd::Moved(_) => Ok(()),
            RelayEnd::Broken(TunnelError::ConnectionEnded(ConnectionEnd::Revoked)) => {
                Err(ConnectionError::Revoked)
            }
            RelayEnd::Broken(error) => {
                let at_application = matches!(error, TunnelError::AppRead(..));
                if at_application == from_application {
                    Err(ConnectionError::Sending(error.into()))
                } else {
                    Err(ConnectionError::Receiving(error.into()))
                }
            }
        })
    }
}

/// Two sockets, the originator's first.
pub(crate) fn joined(originator: TcpStream, destination: TcpStream, counts: &Arc<ByteCounts>) -> Relay {
    let counts = Arc::clone(counts);
    Relay::Joined(Box::pin(async move {
        net::relay(originator, destination, &counts).await.map_err(|error| match error {
            RelayError::A(error) => ConnectionError::Sending(Broken::Socket(error)),
            RelayError::B(error) => ConnectionError::Receiving(Broken::Socket(error)),
        })
    }))
}
