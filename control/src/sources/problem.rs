//! What can be wrong with a folder, told so that its author can find and mend it.

use std::fmt;
use std::path::PathBuf;

use super::objects::ObjectRef;

/// One thing that is wrong: where, with what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File the problem is in, relative to the folder where possible.
    pub(crate) file: PathBuf,
    /// First line of the object, or the line of the syntax error; 1-based.
    pub(crate) line: Option<u64>,
    /// The object, where it could be told.
    pub(crate) object: Option<ObjectRef>,
    pub(crate) reason: Reason,
}

/// Why a file or an object was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge { what: &'static str, limit: usize },
    #[error("not valid YAML or JSON: {0}")]
    Malformed(String),
    #[error("the file is empty; its objects stay until it is deleted or has at least a comment in it")]
    Emptied,
    #[error("not a Kubernetes object: {0}")]
    NotAnObject(&'static str),
    #[error("version {api_version:?} of {kind} is not known")]
    UnsupportedVersion { api_version: String, kind: String },
    #[error("there is no kind {given}; {nearest} is probably meant")]
    UnknownKind { given: String, nearest: String },
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    #[error("also defined in {}{}", .first.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
    Duplicate { first: PathBuf, line: Option<u64> },
    #[error("mesh configuration: {0}")]
    MeshConfig(String),
}

impl Reason {
    /// Stable code of the problem.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "source-unreadable",
            Self::TooLarge { .. } => "source-too-large",
            Self::Malformed(_) => "source-malformed-yaml",
            Self::Emptied => "source-emptied-file",
            Self::NotAnObject(_) => "source-not-an-object",
            Self::UnsupportedVersion { .. } => "source-unsupported-version",
            Self::UnknownKind { .. } => "source-unknown-kind",
            Self::Invalid { .. } => "source-invalid-object",
            Self::Duplicate { .. } => "source-duplicate-object",
            Self::MeshConfig(_) => "source-invalid-mesh-config",
        }
    }
}

impl Problem {
    /// Stable code of the problem.
    pub(crate) fn code(&self) -> &'static str {
        self.reason.code()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {} [{}]", self.reason, self.code())
    }
}

/// A first start that is refused, with everything that is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) struct LoadError {
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "{n} problem{} in the configuration:", if n == 1 { "" } else { "s" })?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
