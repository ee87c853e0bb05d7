//! The node authorizer: whose certificates a node may have (control-plane 1.6).
use identity::{InvalidSpiffeId, SpiffeId, TrustDomain};

use super::authenticate::{Account, Principal};

/// Who runs where. At least as fresh as what discovery has sent: nodes ask for certificates as soon as
/// they learn of a pod.
pub(crate) trait PodIndex: Send + Sync + 'static {
    /// Whether a pod of this service account, not in phase `Failed`, is scheduled on `node`.
    fn runs_on(&self, namespace: &str, account: &str, node: &str) -> bool;
}

/// A node asks for what it may not have. It learns no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImpersonateError {
    #[error("account {0} is not a trusted node account")]
    UntrustedAccount(Account),
    #[error(transparent)]
    Malformed(#[from] InvalidSpiffeId),
    #[error("{requested} is not in trust domain {ours}")]
    ForeignTrustDomain { requested: SpiffeId, ours: TrustDomain },
    #[error("no pod of {requested} on node {node}")]
    NotOnNode { requested: SpiffeId, node: String },
}

impl ImpersonateError {
    /// Stable code of this refusal.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UntrustedAccount(_) => "ca-untrusted-account",
            Self::Malformed(_) => "ca-malformed-identity",
            Self::ForeignTrustDomain { .. } => "ca-foreign-trust-domain",
            Self::NotOnNode { .. } => "ca-not-on-node",
        }
    }
}

/// The identity to certify, if `caller` may have it.
pub(super) fn authorize(
    caller: &Principal,
    requested: &str,
    trusted: &[Account],
    ours: &TrustDomain,
    pods: &dyn PodIndex,
) -> Result<SpiffeId, ImpersonateError> {
    if !trusted.contains(&caller.account) {
        return Err(ImpersonateError::UntrustedAccount(caller.account.clone()));
    }
    let requested: SpiffeId = requested.parse()?;
    if requested.trust_domain() != ours {
        return Err(ImpersonateError::ForeignTrustDomain { requested, ours: ours.clone() });
    }
    // It has proved this one; a node proxy need not be among the pods it is told of.
    if requested == caller.identity {
        return Ok(requested);
    }
    if !pods.runs_on(requested.namespace(), requested.service_account(), &caller.node) {
        return Err(ImpersonateError::NotOnNode { requested, node: caller.node.clone() });
    }
    Ok(requested)
}
