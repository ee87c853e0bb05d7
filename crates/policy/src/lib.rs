//! Authorization policies and their evaluation for one connection.
//!
//! [`evaluate`] takes the policies that apply to a workload and the facts of a [`Connection`], and returns a
//! [`Decision`]: the verdict and, for each policy that was considered, which rule matched or which attribute
//! failed. The node decides with it, the CLI explains with it: there is one evaluator.
//!
//! What it does not do: choose the policies of a workload (`state` does), parse wire messages, log, or do I/O.
//!
//! Start reading at [`evaluate`]; the types it works on are in [`rules`].
//!
//! Invariants: the same inputs give the same decision and trace, in the order of the policies' keys; a policy
//! that cannot be understood never allows more than it would have allowed (see [`Policy::quarantined`]).
#![warn(missing_docs)]

mod evaluate;
mod explain;
pub mod rules;

pub use evaluate::{Allowance, Considered, Decision, Denial, Outcome, Verdict, evaluate};
pub use explain::{Explanation, FailedCondition, Finding, Miss, Note, PolicyExplanation};
pub use rules::{Action, Attribute, Clause, Match, Policy, Rule, Scope, ServiceAccountMatch, StringMatch};

use std::net::{IpAddr, SocketAddr};

use identity::SpiffeId;

/// What a policy can judge a connection by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The peer of the TCP connection: the client, or the last hop before this workload.
    pub source_ip: IpAddr,
    /// The verified identity of the peer; none on plaintext.
    pub source_identity: Option<SpiffeId>,
    /// The application's address, after the mapping of service ports.
    pub destination: SocketAddr,
}
