//! The inbound paths: what comes to a local workload.
//!
//! By HBONE, for each request on a connection:
//!
//! 1. accept, verify the peer: mutual TLS with the pod's certificate
//! 2. read CONNECT: method, authority, headers
//! 3. find the destination: it must belong to this pod
//! 4. count the connection, subject it to policy, and ask policy
//! 5. dial the application, from the client's address where the listener may
//! 6. answer 200, introduce the client to an application that wants a PROXY protocol header, and relay
//!    until both directions have ended
//! 7. record how it ended
//!
//! Plaintext that was captured takes the same steps without 1 and 2: its destination is where it
//! was going, and it has no identity.

mod admit;
mod application;
mod headers;
mod plaintext;
mod proxy_header;
mod tunnel;

pub(crate) use admit::UnknownPolicies;
pub(crate) use plaintext::serve as serve_plaintext;
pub(crate) use proxy_header::IdentityTooLong;
pub(crate) use tunnel::serve as serve_hbone;

use std::net::SocketAddr;

use crate::access_log::{Direction, Failure};
use crate::failure::ConnectionError;
use crate::pods::proxy::PodProxy;

/// A refusal before the connection is counted: one warning.
fn refused(proxy: &PodProxy, source: SocketAddr, destination: SocketAddr, error: &ConnectionError) {
    let text = error.to_string();
    let failure = Failure { text: &text, code: error.code() };
    proxy.thread.log.failed(source, destination, Direction::Inbound, failure);
}
