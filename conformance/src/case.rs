//! A case: what is sent, what is wanted, and whose word that is.

use std::fmt;

use serde::Serialize;

use crate::lab::Lab;

/// Whose word a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// HTTP/2, TLS or HBONE as published: binds every implementation.
    Must,
    /// What Istio's node proxy does and its peers may lean on, where the RFCs leave a choice.
    Contract,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "must",
            Self::Contract => "contract",
        })
    }
}

/// What a case needs beyond the target and an identity; the flag that gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Echo,
    Destination,
    Refusing,
    Forbidden,
    Silent,
    Foreign,
    Hostname,
    V6,
    Denied,
    WrongDomain,
    Expired,
    NoSpiffe,
    Ca,
    ServerId,
}

impl Need {
    /// The flag.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Echo => "--echo",
            Self::Destination => "--destination",
            Self::Refusing => "--refusing",
            Self::Forbidden => "--forbidden",
            Self::Silent => "--silent",
            Self::Foreign => "--foreign",
            Self::Hostname => "--hostname",
            Self::V6 => "--v6",
            Self::Denied => "--denied",
            Self::WrongDomain => "--wrong-domain",
            Self::Expired => "--expired",
            Self::NoSpiffe => "--no-spiffe",
            Self::Ca => "--ca",
            Self::ServerId => "--server-id",
        }
    }
}

/// Why a case did not come out as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The target did something else.
    #[error("{0}")]
    Deviation(String),
    /// The case does not apply to this target.
    #[error("{0}")]
    NotRun(String),
    /// The target could not be reached.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What was got when all was well, or why not.
pub(crate) type Got = Result<String, Failure>;

/// Something else was got.
pub(crate) fn deviates<T>(got: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Deviation(got.into()))
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// Stable.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) level: Level,
    /// Sections: of the data-path contract (`data-path 4.3`), of RFCs.
    pub(crate) spec: &'static str,
    pub(crate) sent: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&Lab) -> Got,
}
