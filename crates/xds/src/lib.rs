//! The delta discovery protocol (delta xDS) for both roles.
//!
//! What it is for: [`Client`] keeps a set of resource kinds in step with a server over one stream;
//! [`server::Session`] answers one client's requests and turns changes of a [`World`] into responses. Both are
//! state machines without I/O, clock or randomness of their own; [`client::run`] and [`server::serve`] are the
//! thin adapters that put a gRPC stream around them.
//!
//! What it does not do: know what a workload or a policy is. Payloads are bytes here; a [`Handler`] decodes and
//! applies them on the client's side, a [`World`] looks records up on the server's side.
//!
//! Where to start reading: `client.rs` for the node's role, `server.rs` for the control plane's.
//!
//! Invariants: a bad resource is refused alone and the rest of its response applies; every response is answered
//! exactly once; a server sends nothing twice unless asked; nothing a peer sends can grow memory without bound.
#![warn(missing_docs)]

pub mod client;
pub mod server;
mod version;

pub use client::{Client, Handler, Refusal, Rejected, Update};
pub use server::{Change, Record, World};
pub use version::version_of;

/// What the wildcard is called in subscribe and unsubscribe lists.
pub const WILDCARD: &str = "*";
