//! HBONE: HTTP/2 CONNECT tunnels over mutual TLS, client and server, as an engine of its own.
//!
//! It does **not** know routing, policy or who a peer should be: TLS configurations come from `identity`, reaching the
//! peer by TCP is the caller's part, and the caller decides what to do with a request.
//!
//! Start reading at [`client::connect`] and [`server::accept`]; a [`Tunnel`] that is up is usually handed to [`relay`]
//! together with the application's socket. Below, in this order: `link` (the state of one connection), `driver` (its
//! task), `core` (the protocol, without sockets and clock), `record` (TLS), `live` (a connection taken out as a value).
//!
//! Invariants:
//! - Everything of one connection lives on one thread, in a `LocalSet`; nothing is locked and nothing is `Send`.
//! - A fault of one stream ends that stream alone. Only what breaks the connection's own state ends the connection.
//! - Every octet of DATA is given back to the connection's window, also for streams that are gone.
//! - An abort stays an abort in both directions: what may be incomplete never looks complete.
//! - What a peer can make us keep or do is bounded by a setting.
#![warn(missing_docs)]

#[doc(hidden)]
pub mod bare;
pub mod client;
mod core;
mod driver;
mod early;
mod error;
mod handshake;
mod link;
mod live;
mod memory;
mod metrics;
mod pool;
mod record;
mod relay;
mod scratch;
pub mod server;
mod settings;
mod socket;
mod stream;
mod tunnel;
mod weak;

pub use client::{ClientConnection, ConnectRequest, ResponseHead};
pub use error::{AcceptError, ConnectError, ConnectionEnd, ErrorCode, OpenError, TunnelError};
pub use live::{
    ExportError, ImportError, ImportedClient, ImportedServer, LiveTunnel, PendingConnect,
    VERSION as LIVE_TUNNEL_VERSION,
};
pub use memory::Memory;
pub use metrics::Metrics;
pub use pool::{Pool, PoolError};
pub use relay::{Counters, Relay, RelayEnd, relay};
pub use scratch::let_buffers_go;
pub use server::{IncomingConnect, ServerConnection};
pub use settings::{Budget, Budgets, Limit, Settings};
pub use tunnel::Tunnel;
pub use weak::WeakConnection;
