//! What a node's token says. Text form: `<kind>.<claims, JSON, base64url>.<signature, base64url>`.
use serde::{Deserialize, Serialize};

/// Kind of a token that works once and is exchanged for a node certificate.
pub const JOIN: &str = "culvert-join";
/// Kind of a token that is sent with each request until it expires.
pub const BEARER: &str = "culvert-bearer";
/// The audience of both.
pub const AUDIENCE: &str = "istio-ca";

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Names this token among all; random.
    pub id: String,
    /// Whom it is meant for.
    pub audience: String,
    /// The node it stands for.
    pub node: String,
    /// `<namespace>/<service account>` it stands for.
    pub account: String,
    /// Seconds since 1970.
    pub expires: u64,
    /// SHA-256 of the root certificate, hexadecimal.
    pub root: String,
}
