//! The agent's own socket, `agent.sock`: one JSON object per line, a request and its answer.
//!
//! Who may use it is decided by the folder: it belongs to the agent's user and nobody else may enter.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::enrolled::{Options, PodName, Record};

pub(crate) mod client;
pub(crate) mod server;
#[cfg(test)]
mod tests;

/// Name of the socket in the agent's folder.
pub(crate) const SOCKET: &str = "agent.sock";
/// Longest line.
const LINE_LIMIT: u64 = 64 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub(crate) enum Request {
    Enroll(Enroll),
    #[serde(rename_all = "camelCase")]
    Withdraw {
        uid: String,
    },
    List,
}

/// See [`crate::enrollment::Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enroll {
    pub netns: PathBuf,
    pub uid: String,
    pub pod: PodName,
    pub service_account: String,
    #[serde(flatten)]
    pub options: Options,
    pub wait_seconds: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Response {
    Ok(Vec<Listed>),
    Error { code: String, message: String },
}

/// One pod and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub record: Record,
    pub state: State,
    /// Why it is not enabled, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// The rules stand and the proxy serves it.
    Enabled,
    /// The rules stand, no proxy serves it: it has no connections.
    Pending,
    /// No longer in the mesh.
    Withdrawn,
}
