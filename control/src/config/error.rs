//! What is wrong with how the control plane was started.

use std::fmt;

use thiserror::Error;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConfigError {
    #[error("invalid env var {name}={value} ({reason})")]
    Variable { name: &'static str, value: String, reason: String },
    #[error("invalid value {value:?} for {name} ({reason})")]
    Flag { name: &'static str, value: String, reason: String },
    #[error("{name} is required: {meaning}")]
    Missing { name: &'static str, meaning: &'static str },
}

impl ConfigError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Variable { .. } => "config-invalid-env",
            Self::Flag { .. } => "config-invalid-flag",
            Self::Missing { .. } => "config-missing-flag",
        }
    }
}

/// Every mistake.
#[derive(Debug)]
pub(crate) enum ConfigErrors {
    /// The command line cannot be read at all, or help was asked for.
    Usage(Box<clap::Error>),
    Mistakes(Vec<ConfigError>),
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Mistakes(mistakes) => {
                mistakes.iter().try_for_each(|mistake| writeln!(f, "Error: {mistake} [{}]", mistake.code()))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}
