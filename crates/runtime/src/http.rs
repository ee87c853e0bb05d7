//! Small HTTP/1.1 servers: admin, metrics, readiness, local sockets.
//!
//! Limits (control-and-operations 6.1): a request head must be there within 2 s of the connection being idle, and is at
//! most 8 KiB and 100 fields; more is answered 431, nonsense 400, and the connection is closed. What it does not do:
//! TLS, HTTP/2, routing.
mod answer;
mod server;

pub use answer::{Answer, Body, method_not_allowed, not_found, read_body, text, whole_text, with_type};
pub use server::{BindError, Handler, Peer, Request, Server};

/// Longest request head.
pub const MAX_HEAD_BYTES: usize = 8192;
/// Most header fields in a request.
pub const MAX_FIELDS: usize = 100;
/// How long a connection may be idle, or take for a request head.
pub const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
/// Most connections of one server at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 1024;
