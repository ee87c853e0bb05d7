//! Join tokens for node certificates, and their renewal (`proto/join.proto`).
use tonic::{Request, Response, Status};
use wire::join::join_service_server::JoinService as Service;
use wire::join::{JoinRequest, JoinResponse, RenewRequest};
use wire::token::JOIN;

use super::authenticate::{Account, AuthenticateError, Proof};
use super::leaf::{Csr, CsrError, Leaf, SignError};
use super::server::Caller;
use super::state::StateError;
use super::tokens::{self, TokenError};
use super::{Authority, NODE_TTL};

/// The join service.
#[derive(Debug, Clone)]
pub(crate) struct JoinService {
    authority: Authority,
}

/// Why a node gets no certificate. It learns whether its request or its token was at fault, no more.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("authentication failure")]
    Authenticate(#[from] AuthenticateError),
    #[error("join token: {0}")]
    Token(#[from] TokenError),
    #[error("CSR signing error ({0})")]
    Csr(#[from] CsrError),
    #[error("CSR signing error ({0})")]
    Sign(#[from] SignError),
    #[error("join tokens cannot be marked as used: {0}")]
    State(#[from] StateError),
}

impl JoinError {
    fn code(&self) -> &'static str {
        match self {
            Self::Authenticate(error) => error.code(),
            Self::Token(error) => error.code(),
            Self::Csr(_) => "ca-invalid-request",
            Self::Sign(error) => error.code(),
            Self::State(error) => error.code(),
        }
    }

    fn status(&self) -> Status {
        match self {
            // What is wrong with a token is told: its holder needs a new one, or to wait for none.
            Self::Authenticate(_) | Self::Token(_) => Status::unauthenticated(self.to_string()),
            Self::Csr(_) => Status::invalid_argument(self.to_string()),
            Self::Sign(_) => Status::internal(self.to_string()),
            Self::State(_) => Status::internal("join tokens cannot be marked as used"),
        }
    }
}

impl JoinService {
    pub(super) fn new(authority: Authority) -> Self {
        Self { authority }
    }

    fn redeem(&self, request: &Request<JoinRequest>) -> Result<JoinResponse, JoinError> {
        let shared = &self.authority.shared;
        Caller::of(request).verified_chain().ok_or(AuthenticateError::NoProof)?;
        let (message, now) = (request.get_ref(), shared.clock.wall());
        let claims = tokens::verify(shared.authenticator.key(), JOIN, message.token.trim(), now)?;
        let account: Account = claims.account.parse().map_err(AuthenticateError::from)?;
        // All that can fail without the caller's second try being in vain comes before the mark.
        let csr = Csr::parse(&message.csr)?;
        if !shared.state.mark_used(&claims.id, tokens::expiry(&claims))? {
            return Err(TokenError::Used.into());
        }
        let answer = self.certify(&claims.node, &account, csr)?;
        tracing::info!(node = %claims.node, %account, "node joined");
        Ok(answer)
    }

    fn renew(&self, request: &Request<RenewRequest>) -> Result<JoinResponse, JoinError> {
        let shared = &self.authority.shared;
        let caller = Caller::of(request);
        let leaf =
            caller.verified_chain().and_then(|chain| chain.first()).ok_or(AuthenticateError::NoProof)?;
        let principal = shared.authenticator.by_certificate(leaf)?;
        debug_assert_eq!(principal.proof, Proof::NodeCertificate, "a bearer token buys no certificate");
        self.certify(&principal.node, &principal.account, Csr::parse(&request.get_ref().csr)?)
    }

    fn certify(&self, node: &str, account: &Account, csr: Csr) -> Result<JoinResponse, JoinError> {
        let shared = &self.authority.shared;
        let identity = account.identity(&shared.config.trust_domain).map_err(AuthenticateError::from)?;
        let leaf = Leaf::node(&identity, node, csr, shared.clock.wall(), NODE_TTL);
        let cert_chain = leaf.sign(&shared.material())?;
        Ok(JoinResponse { cert_chain, node: node.to_owned(), account: account.to_string() })
    }
}

fn answer<T>(
    what: &Request<T>,
    result: Result<JoinResponse, JoinError>,
) -> Result<Response<JoinResponse>, Status> {
    result.map(Response::new).map_err(|error| {
        tracing::warn!(code = error.code(), peer.addr = Caller::of(what).address(), %error, "node refused");
        error.status()
    })
}

#[tonic::async_trait]
impl Service for JoinService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let result = self.redeem(&request);
        answer(&request, result)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<JoinResponse>, Status> {
        let result = Self::renew(self, &request);
        answer(&request, result)
    }
}
