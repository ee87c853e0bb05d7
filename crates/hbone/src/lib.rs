//! HBONE: HTTP/2 CONNECT tunnels over mutual TLS, client and server, as an engine of its own.
//!
//! It does **not** know routing, policy or who a peer should be: TLS configurations come from `identity`, and the
//! caller decides what to do with a request.
#![warn(missing_docs)]

pub mod client;
mod core;
mod driver;
mod error;
mod handshake;
mod link;
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

pub use client::{ClientConnection, ConnectRequest, ResponseHead};
pub use error::{AcceptError, ConnectError, ConnectionEnd, ErrorCode, OpenError, TunnelError};
pub use metrics::Metrics;
pub use pool::{Pool, PoolError};
pub use relay::{Counters, RelayEnd, relay};
pub use server::{IncomingConnect, ServerConnection};
pub use settings::{Budget, Budgets, Settings};
pub use tunnel::Tunnel;
