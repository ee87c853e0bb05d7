//! A live tunnel as a value: everything one end of an HBONE connection knows, as bytes that another engine instance
//! (another thread, another process) goes on from. The socket travels beside them, as a file descriptor.
//!
//! Frozen between two turns of the event loop, nothing is lost and nothing is said twice: what was sealed and not
//! sent, received and not opened, delivered and not taken is part of the value, and so are keys, sequence numbers,
//! tables, windows and budgets. The peer notices a pause at most.
//!
//! # Format
//! `CVLT`, the version in two octets ([`VERSION`]), then in this order, encoded as `live/codec.rs` says:
//!
//! | Part | Where it is declared |
//! |---|---|
//! | record layer: role, and per direction suite, traffic secret, sequence number; undecoded octets; the start of a handshake message; messages without content in a row; whether a key update is owed | `record/portable.rs` |
//! | the peer's certificates, DER, leaf first | |
//! | protocol core: what was promised in SETTINGS, position in the frames, HPACK table, open header block, frames not yet sealed, streams, windows, drain, deadlines, budgets | `core/portable.rs` |
//! | records sealed and not yet sent | |
//! | since when there is no stream, and after how long that ends the connection | |
//! | streams as their owners know them: id, request that waits for its answer, answer that nobody took, whether an answer is awaited, octets sent ahead of it, octets not yet taken, end, how it was broken | `link/transfer.rs` |
//!
//! A version is read by the program that writes it and by no other: a change of any part takes the next number, as
//! `core/portable/format.rs` sees to.

pub(crate) mod codec;

use std::fmt;
use std::io;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{ClientConnection, ConnectionEnd, OpenError, ResponseHead, ServerConnection, Tunnel, client};

/// Version of the format.
pub const VERSION: u16 = 5;

/// What every exported tunnel begins with.
pub(crate) const MAGIC: &[u8; 4] = b"CVLT";

/// One end of a live connection, taken out of its engine. Holds traffic secrets: whoever has it and the socket is the
/// tunnel. Wiped when dropped.
pub struct LiveTunnel {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for LiveTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveTunnel({} octets)", self.bytes.len())
    }
}

impl LiveTunnel {
    /// The value as bytes. Secret: to be kept in memory or sent over a channel that nobody else reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From bytes. They are judged by the import.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }
}

/// Why a connection cannot be taken out. It goes on as before.
#[derive(Debug, Error)]
pub enum ExportError {
    /// It has ended.
    #[error("connection has ended: {0}")]
    Ended(ConnectionEnd),
    /// Its records are not ours: TLS 1.2.
    #[error("a TLS 1.2 connection cannot be moved")]
    ForeignRecords,
    /// The socket could not be duplicated.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl ExportError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended(_) => "tunnel-export-ended",
            Self::ForeignRecords => "tunnel-export-tls12",
            Self::Io(_) => "tunnel-export-io",
        }
    }
}

/// Why a value did not become a connection.
#[derive(Debug, Error)]
pub enum ImportError {
    /// Not a live tunnel, or of another version.
    #[error("not a live tunnel of version {VERSION}")]
    Version,
    /// The bytes are damaged.
    #[error("live tunnel is damaged: {what}")]
    Malformed {
        /// Where.
        what: &'static str,
    },
    /// A client cannot go on as a server, nor the other way round.
    #[error("live tunnel is of the other role")]
    Role,
    /// The socket has no addresses: it is not connected.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl ImportError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version => "tunnel-import-version",
            Self::Malformed { .. } => "tunnel-import-damaged",
            Self::Role => "tunnel-import-role",
            Self::Io(_) => "tunnel-import-io",
        }
    }
}

/// An outbound connection that goes on here.
#[derive(Debug)]
pub struct ImportedClient {
    /// The connection.
    pub connection: ClientConnection,
    /// Its tunnels; [`Tunnel::id`] tells which is which. One that was broken before says so now.
    pub tunnels: Vec<Tunnel>,
    /// Requests whose answer nobody had seen.
    pub requests: Vec<PendingConnect>,
}

/// An inbound connection that goes on here.
#[derive(Debug)]
pub struct ImportedServer {
    /// The connection. Requests that were not answered come (again) from [`ServerConnection::next`].
    pub connection: ServerConnection,
    /// Its tunnels; [`Tunnel::id`] tells which is which. One that was broken before says so now.
    pub tunnels: Vec<Tunnel>,
}

/// A CONNECT that was sent before the connection moved. Dropping it resets the stream with CANCEL.
#[derive(Debug)]
pub struct PendingConnect {
    pub(crate) tunnel: Tunnel,
}

impl PendingConnect {
    /// Which request this is.
    pub fn id(&self) -> u32 {
        self.tunnel.id()
    }

    /// Waits for the answer, however long; see [`ClientConnection::open`].
    pub async fn answer(self) -> Result<(ResponseHead, Tunnel), OpenError> {
        client::answer(self.tunnel, None).await
    }
}
