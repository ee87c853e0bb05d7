//! The wire side of pod hand-over: the messages of the node agent and the rules they follow
//! (data-path 9.1). What is done about them is decided in `pods`.

mod rules;

use std::collections::HashSet;
use std::io;
use std::path::Path;

use net::seqpacket::{ReceiveError, Stream};
use prost::Message as _;
use wire::workload::zds;

use rules::{MAX_MESSAGE, Rules, acknowledgement};
pub(crate) use rules::{ProtocolError, Request};

/// The connection to the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionLost {
    #[error("the node agent closed the connection")]
    Closed,
    #[error("the connection to the node agent failed: {0}")]
    Io(#[from] io::Error),
}

/// What [`Connection::next`] gives.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request(Request),
    Broken(ProtocolError),
}

/// A connection to the agent, after the announcement.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    rules: Rules,
}

impl Connection {
    /// Connects to the agent's socket.
    pub(crate) async fn connect(path: &Path) -> io::Result<Stream> {
        Stream::connect(path).await
    }

    /// Announces this proxy on a fresh connection.
    pub(crate) async fn announce(stream: Stream) -> io::Result<Self> {
        let hello = zds::ZdsHello { version: zds::Version::V1.into() };
        stream.send(&hello.encode_to_vec(), None).await?;
        Ok(Self { stream, rules: Rules::default() })
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Incoming, ConnectionLost> {
        let mut buffer = [0; MAX_MESSAGE];
        let packet = match self.stream.receive(&mut buffer).await {
            Ok(packet) => packet,
            Err(ReceiveError::Closed) => return Err(ConnectionLost::Closed),
            Err(ReceiveError::Io(error)) => return Err(error.into()),
            Err(broken) => return Ok(Incoming::Broken(ProtocolError::Received(broken))),
        };
        let bytes = buffer.get(..packet.length).unwrap_or_default();
        Ok(match self.rules.accept(bytes, packet.descriptor) {
            Ok(request) => Incoming::Request(request),
            Err(broken) => Incoming::Broken(broken),
        })
    }

    /// Answers the last message: with no error, or with why it could not be done.
    pub(crate) async fn acknowledge(&self, outcome: Result<(), String>) -> io::Result<()> {
        self.stream.send(&acknowledgement(outcome), None).await
    }

    /// The pods named before the snapshot ended.
    pub(crate) fn named(&self) -> &HashSet<String> {
        self.rules.named()
    }
}

#[cfg(test)]
mod tests;
