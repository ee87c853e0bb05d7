//! Asking a running agent.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Listed, Request, Response, SOCKET};

/// Longest answer that is read.
const ANSWER_LIMIT: u64 = 64 << 20;

/// The agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("no agent answers at {}: {source}. Start one with `culvert agent`", path.display())]
    NoAgent { path: PathBuf, source: io::Error },
    #[error("no agent is running here (no {SOCKET} under {}): start `culvert agent`, or say --node or --runtime-dir", base.display())]
    None { base: PathBuf },
    #[error("several agents are running here: say --node with one of {}", nodes.join(", "))]
    Several { nodes: Vec<String> },
    #[error("the agent at {} went away without an answer: {source}", path.display())]
    Lost { path: PathBuf, source: io::Error },
    #[error("{message}")]
    Refused { code: String, message: String },
}

impl AskError {
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::NoAgent { .. } | Self::None { .. } => "agent-not-running",
            Self::Several { .. } => "agent-ambiguous",
            Self::Lost { .. } => "agent-lost",
            Self::Refused { code, .. } => code,
        }
    }
}

/// The agent's socket: of the named node, or of the only agent there is.
pub(crate) fn socket(base: &Path, node: Option<&str>) -> Result<PathBuf, AskError> {
    if let Some(node) = node {
        return Ok(base.join(node).join(SOCKET));
    }
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let living = entries.filter(|entry| UnixStream::connect(entry.path().join(SOCKET)).is_ok());
    let mut nodes: Vec<String> =
        living.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    nodes.sort();
    match nodes.as_slice() {
        [] => Err(AskError::None { base: base.to_owned() }),
        [node] => Ok(base.join(node).join(SOCKET)),
        _ => Err(AskError::Several { nodes }),
    }
}

/// One request and its answer.
pub(crate) fn ask(path: &Path, request: &Request) -> Result<Vec<Listed>, AskError> {
    let no_agent = |source| AskError::NoAgent { path: path.to_owned(), source };
    let lost = |source| AskError::Lost { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).map_err(no_agent)?;
    let mut line = serde_json::to_vec(request).map_err(|error| lost(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(lost)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_LIMIT)).read_line(&mut answer).map_err(lost)?;
    match serde_json::from_str(&answer).map_err(|error| lost(error.into()))? {
        Response::Ok(listed) => Ok(listed),
        Response::Error { code, message } => Err(AskError::Refused { code, message }),
    }
}
