//! Why a resource is refused, and the text in which a server reads it.

use thiserror::Error;
use wire::discovery::Resource;

/// One resource that was not applied.
#[derive(Debug)]
pub struct Rejected {
    /// The resource's name.
    pub name: String,
    /// Why.
    pub reason: Refusal,
}

/// Why one resource was not applied. The text is what the server reads.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The resource carries no payload.
    #[error("XDS payload without resource")]
    NoPayload,
    /// The payload is no message of its kind.
    #[error("{0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The message makes no sense.
    #[error("{0}")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Refusal {
    /// A stable code for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoPayload => "xds-no-payload",
            Self::Unreadable(_) => "xds-undecodable-resource",
            Self::Invalid(_) => "xds-invalid-resource",
        }
    }

    pub(super) fn is_unreadable(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }
}

/// A payload that is no message of its kind.
#[derive(Debug, Error)]
#[error("decode: {0}")]
struct Undecodable(#[from] prost::DecodeError);

/// Reads a resource's payload as `M`.
///
/// # Errors
/// When there is no payload or it is no `M`.
pub fn decode<M: prost::Message + Default>(resource: &Resource) -> Result<M, Refusal> {
    let payload = resource.resource.as_ref().ok_or(Refusal::NoPayload)?;
    M::decode(payload.value.as_slice()).map_err(|error| Refusal::Unreadable(Box::new(Undecodable(error))))
}

/// The text of a refusal: `name: reason`, joined by `; `.
pub(super) fn message(rejected: &[Rejected]) -> String {
    let entries: Vec<String> =
        rejected.iter().map(|rejected| format!("{}: {}", rejected.name, rejected.reason)).collect();
    entries.join("; ")
}
