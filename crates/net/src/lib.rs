//! Sockets, network namespaces and the kernel's tables: everything that needs the operating system's own terms.
//!
//! **For:** listeners and dialled sockets as a mesh proxy needs them ([`socket`]: marks, transparent binds,
//! original destinations), the byte relay of plaintext paths ([`mod@relay`]), descriptor passing over
//! `SOCK_SEQPACKET` ([`seqpacket`]), network namespaces held by descriptor ([`namespace`]), links, addresses and
//! routes ([`links`], [`star`]), and the redirection of a workload's namespace ([`capture`], encoded by [`nftables`]; what the kernel tracks there: [`tracking`]).
//!
//! **Not for:** deciding anything about the mesh, tunnels, TLS, logging (what a caller may want to log is returned
//! as data), or calling programs such as `ip` or `nft` (none is needed).
//!
//! Child processes and where they live: [`process`]. What the process itself holds: [`memory`].
//!
//! **Start reading at** [`namespace::NetNamespace::run`], then [`socket`], then [`capture::rules`].
//!
//! **Invariants:** this is the only crate of the workspace with `unsafe`, every block says why it is sound and has a
//! test; it depends on no other crate of the workspace; a thread that enters another namespace always returns to
//! its own before anything else runs on it (or the process aborts); every descriptor is close-on-exec.
#![warn(missing_docs)]
#![allow(unsafe_code, reason = "the one crate that may; see the invariants above")]

pub mod capture;
pub mod limits;
pub mod links;
pub mod memory;
pub mod namespace;
mod netlink;
pub mod nftables;
pub mod process;
pub mod relay;
pub mod seqpacket;
pub mod socket;
pub mod star;
pub mod tracking;

pub use namespace::{NamespaceError, NamespaceId, NetNamespace};
pub use netlink::NetlinkError;
pub use relay::{ByteCounts, RelayError, relay};
