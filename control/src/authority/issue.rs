//! `CreateCertificate` (control-plane 5.1, 5.2): messages and codes are the reference's.
use std::sync::Arc;
use std::time::Duration;

use identity::{InvalidSpiffeId, SpiffeId};
use prost_types::value::Kind;
use tonic::{Request, Response, Status};
use wire::ca::istio_certificate_service_server::IstioCertificateService;
use wire::ca::{IstioCertificateRequest, IstioCertificateResponse};

use super::authenticate::{AuthenticateError, Principal};
use super::impersonate::{self, ImpersonateError, PodIndex};
use super::leaf::{Csr, CsrError, Leaf, SignError};
use super::server::Caller;
use super::{Authority, Config};

/// The certificate service.
#[derive(Clone)]
pub(crate) struct CertificateService {
    authority: Authority,
    pods: Arc<dyn PodIndex>,
}

/// Why a request is refused; the caller gets [`IssueError::status`].
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error("request authenticate failure")]
    Unauthenticated(#[from] AuthenticateError),
    #[error("request impersonation authentication failure")]
    Impersonation(#[from] ImpersonateError),
    #[error("CSR signing error ({0})")]
    Csr(#[from] CsrError),
    #[error("CSR signing error (requested TTL {} is greater than the max allowed TTL {})", go_duration(*requested), go_duration(*max))]
    Ttl { requested: u64, max: u64 },
    #[error("CSR signing error ({0})")]
    Sign(#[from] SignError),
}

impl IssueError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(error) => error.code(),
            Self::Impersonation(error) => error.code(),
            Self::Csr(_) => "ca-invalid-request",
            Self::Ttl { .. } => "ca-lifetime-too-long",
            Self::Sign(error) => error.code(),
        }
    }

    fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Unauthenticated(_) | Self::Impersonation(_) => Status::unauthenticated(text),
            Self::Csr(_) | Self::Ttl { .. } => Status::invalid_argument(text),
            Self::Sign(_) => Status::internal(text),
        }
    }
}

impl CertificateService {
    pub(super) fn new(authority: Authority, pods: Arc<dyn PodIndex>) -> Self {
        Self { authority, pods }
    }

    fn issue(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<(SpiffeId, Vec<String>), IssueError> {
        let shared = &self.authority.shared;
        let caller = Caller::of(request);
        // Without TLS nobody is anybody, whatever the metadata says.
        let chain = caller.verified_chain().ok_or(AuthenticateError::NoProof)?;
        let principal = shared.authenticator.authenticate(request.metadata(), chain)?;
        let message = request.get_ref();
        let id = self.identity_for(&principal, message)?;
        let csr = Csr::parse(&message.csr)?;
        let ttl = lifetime(message.validity_duration, &shared.config)?;
        let now = shared.clock.wall();
        let chain = Leaf::workload(&id, csr, now, ttl).sign(&shared.material())?;
        Ok((id, chain))
    }

    fn identity_for(
        &self,
        caller: &Principal,
        message: &IstioCertificateRequest,
    ) -> Result<SpiffeId, ImpersonateError> {
        let config = &self.authority.shared.config;
        let field =
            message.metadata.as_ref().and_then(|metadata| metadata.fields.get("ImpersonatedIdentity"));
        match field.and_then(|value| value.kind.as_ref()) {
            None | Some(Kind::NullValue(_)) => Ok(caller.identity.clone()),
            Some(Kind::StringValue(text)) if text.is_empty() => Ok(caller.identity.clone()),
            Some(Kind::StringValue(text)) => impersonate::authorize(
                caller,
                text,
                &config.trusted_accounts,
                &config.trust_domain,
                &*self.pods,
            ),
            // A value that is no text asks for something: not for nothing.
            Some(_) => Err(InvalidSpiffeId { text: "not text".to_owned() }.into()),
        }
    }

    fn count(&self, result: &Result<(SpiffeId, Vec<String>), IssueError>) {
        let shared = &self.authority.shared;
        shared.count(|counters| &counters.csr);
        shared.count(|counters| match result {
            Ok(_) => &counters.success,
            Err(IssueError::Unauthenticated(_) | IssueError::Impersonation(_)) => {
                &counters.authentication_failure
            }
            Err(IssueError::Csr(_)) => &counters.csr_parsing_error,
            Err(IssueError::Ttl { .. } | IssueError::Sign(_)) => &counters.csr_sign_error,
        });
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let result = self.issue(&request);
        self.count(&result);
        match result {
            Ok((id, cert_chain)) => {
                tracing::debug!(identity = %id, "certificate issued");
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(
                    code = error.code(),
                    peer.addr = Caller::of(&request).address(),
                    %error,
                    cause,
                    "certificate refused"
                );
                Err(error.status())
            }
        }
    }
}

/// The lifetime to give: what is asked for, the default for nothing or less, an error for too much.
fn lifetime(seconds: i64, config: &Config) -> Result<Duration, IssueError> {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => Ok(config.default_ttl),
        Ok(requested) if requested > config.max_ttl.as_secs() => {
            Err(IssueError::Ttl { requested, max: config.max_ttl.as_secs() })
        }
        Ok(requested) => Ok(Duration::from_secs(requested)),
    }
}

/// `2160h0m1s`, as the reference writes durations.
fn go_duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

impl std::fmt::Debug for CertificateService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_the_reference_writes_them() {
        assert_eq!(go_duration(7_776_001), "2160h0m1s");
        assert_eq!(go_duration(7_776_000), "2160h0m0s");
        assert_eq!(go_duration(61), "1m1s");
        assert_eq!(go_duration(9), "9s");
    }
}
