//! Why an identity has no certificate.
use std::sync::Arc;
use std::time::Duration;

use identity::{ChainError, RequestError, SpiffeId};

use super::channel::ChannelError;

/// Why an identity has no certificate. Kept as the identity's state, hence cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Dropped while someone waited for it.
    #[error("the identity is no longer needed")]
    Forgotten,
    /// The first fetch takes longer than a connection waits.
    #[error("no certificate for {id} after {limit:?}")]
    FirstWait { id: SpiffeId, limit: Duration },
    /// The CA did not answer in time.
    #[error("CA did not answer for {id} within {limit:?}")]
    CallDeadline { id: SpiffeId, limit: Duration },
    /// The CA cannot be reached.
    #[error("{0}")]
    Channel(Arc<ChannelError>),
    /// The CA refused.
    #[error("signing gRPC error ({}): {}", .0.code(), .0.message())]
    Signing(Box<tonic::Status>),
    /// No request could be made.
    #[error("{0}")]
    Request(Arc<RequestError>),
    /// The CA answered without a certificate.
    #[error("chain returned from CA is empty for: {0}")]
    EmptyChain(SpiffeId),
    /// The CA's answer cannot be used.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// The CA answered for somebody else.
    #[error("did not find expected SAN: {0}")]
    OtherIdentity(SpiffeId),
}

impl CertificateError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Forgotten => "identity-forgotten",
            Self::FirstWait { .. } => "identity-first-wait",
            Self::CallDeadline { .. } => "ca-deadline",
            Self::Channel(error) => error.code(),
            Self::Signing(status) if status.code() == tonic::Code::Unauthenticated => "ca-unauthenticated",
            Self::Signing(_) => "ca-refused",
            Self::Request(error) => error.code(),
            Self::EmptyChain(_) => "ca-chain-empty",
            Self::Chain(error) => error.code(),
            Self::OtherIdentity(_) => "ca-other-identity",
        }
    }
}

impl From<ChannelError> for CertificateError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(Arc::new(error))
    }
}

impl From<RequestError> for CertificateError {
    fn from(error: RequestError) -> Self {
        Self::Request(Arc::new(error))
    }
}

impl From<tonic::Status> for CertificateError {
    fn from(status: tonic::Status) -> Self {
        Self::Signing(Box::new(status))
    }
}
