//! The node's own certificate: redeemed with a join token, kept, and renewed by itself.
//!
//! A token works once. What it bought is kept beside it (`PATH.node`, mode 0600), so that a restarted
//! node goes on; a new token in the file is redeemed as soon as it is seen.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use identity::{
    CertificateRequest, ChainError, Renewal, RequestError, SpiffeId, TlsOptions, WorkloadCertificate,
};
use runtime::clock::Clock;
use rustls::RootCertStore;
use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;
use wire::join::join_service_client::JoinServiceClient;
use wire::join::{JoinRequest, JoinResponse, RenewRequest};

use super::channel::{ChannelError, ControlConfig, ControlEndpoint, Credential, RootSource};

mod kept;
mod token;

use kept::Kept;
pub(crate) use kept::KeptError;
use token::FileVersion;
pub(crate) use token::{JoinToken, TokenError};

/// How often the token file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Where the token lies and whom it is redeemed at.
#[derive(Debug, Clone)]
pub(crate) struct JoinConfig {
    /// `CULVERT_JOIN_TOKEN`.
    pub token: PathBuf,
    /// The address of the CA; it serves joins too.
    pub address: String,
    /// Accepted besides the address's host.
    pub alternative_name: Option<String>,
    /// Protocol versions and key exchange.
    pub tls: TlsOptions,
}

/// Why the node has no certificate, or no newer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("control refused to answer for this node ({:?}): {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    #[error("control did not answer in time")]
    Deadline,
    #[error("control's answer cannot be used: {0}")]
    Chain(#[from] ChainError),
    #[error("control answered for node {got}, wanted {wanted}")]
    OtherNode { wanted: String, got: String },
    #[error("the root that the token names is not among those control handed out")]
    OtherRoot,
    #[error("the node's certificate has expired and there is no new join token")]
    Expired,
}

impl JoinError {
    /// Stable code of this failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Token(error) => error.code(),
            Self::Kept(error) => error.code(),
            Self::Channel(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::Refused(_) => "join-refused",
            Self::Deadline => "join-deadline",
            Self::Chain(error) => error.code(),
            Self::OtherNode { .. } => "join-other-node",
            Self::OtherRoot => "join-other-root",
            Self::Expired => "join-expired",
        }
    }
}

/// The node's certificate as others use it. Cheap to clone; empty until the node has joined.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    current: Arc<ArcSwapOption<WorkloadCertificate>>,
    generation: watch::Receiver<u64>,
}

impl NodeIdentity {
    /// The certificate to present to the control plane.
    pub(crate) fn client_key(&self) -> Option<Arc<dyn ResolvesClientCert>> {
        let certificate = self.current.load_full()?;
        Some(Arc::new(SingleCertAndKey::from(certificate.certified_key().clone())))
    }

    /// The roots that came with it.
    pub(crate) fn roots(&self) -> Option<Arc<RootCertStore>> {
        Some(self.current.load_full()?.root_store().clone())
    }

    /// Goes up with each new certificate.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Waits until there is a certificate.
    pub(crate) async fn joined(&mut self) {
        // The sender lives as long as the task that joins; without it nobody will ever join.
        let _ = self.generation.wait_for(|generation| *generation > 0).await;
    }
}

/// The task that joins and renews; [`Joiner::run`] must be polled for as long as the node lives.
#[derive(Debug)]
pub(crate) struct Joiner {
    config: JoinConfig,
    clock: Clock,
    identity: NodeIdentity,
    announce: watch::Sender<u64>,
    used: Option<Kept>,
    /// The file in which the token lay that has been used.
    seen: Option<FileVersion>,
}

impl Joiner {
    /// Takes up what an earlier run kept, if it is still valid.
    pub(crate) fn new(config: JoinConfig, clock: Clock) -> (Self, NodeIdentity) {
        let (announce, generation) = watch::channel(0);
        let identity = NodeIdentity { current: Arc::default(), generation };
        let mut joiner = Self { config, clock, identity: identity.clone(), announce, used: None, seen: None };
        match Kept::read(&joiner.config.token) {
            Ok(Some(kept)) => joiner.take_up(kept),
            Ok(None) => {}
            Err(error) => tracing::warn!(code = error.code(), %error, "ignoring the kept node certificate"),
        }
        (joiner, identity)
    }

    fn take_up(&mut self, kept: Kept) {
        match kept.certificate() {
            Ok(certificate) if !certificate.is_expired(self.clock.wall()) => {
                return self.publish(kept, certificate);
            }
            Ok(_) => tracing::warn!("the kept node certificate has expired"),
            Err(error) => tracing::warn!(code = error.code(), %error, "ignoring the kept node certificate"),
        }
        // A token that was used stays used, whatever became of the certificate.
        self.used = Some(kept);
    }

    fn publish(&mut self, kept: Kept, certificate: WorkloadCertificate) {
        tracing::info!(node = %kept.node, identity = %certificate.identity(), "this node has a certificate");
        self.identity.current.store(Some(Arc::new(certificate)));
        self.used = Some(kept);
        self.announce.send_modify(|generation| *generation += 1);
    }

    /// Joins, then renews at half-life, until dropped.
    pub(crate) async fn run(mut self) {
        let mut failures = Renewal::new();
        loop {
            let wait = match self.step().await {
                Ok(()) => {
                    failures = Renewal::new();
                    LOOK_EVERY
                }
                Err(error) => {
                    let wait = failures.failed(rand::random_range(-1.0..=1.0));
                    tracing::warn!(code = error.code(), %error, retry_in = ?wait, "this node has not joined");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Does what is due: redeems a token not used before, or renews at half-life.
    async fn step(&mut self) -> Result<(), JoinError> {
        let now = self.clock.wall();
        let file = FileVersion::of(&self.config.token).await;
        if file.is_none() || file != self.seen {
            match JoinToken::read(&self.config.token).await {
                Ok(token) if self.is_fresh(&token) => return self.join(&token).await,
                Ok(_) => self.seen = file.filter(|file| file.is_settled(now)),
                // The file may go once it has served.
                Err(_) if self.used.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.identity.current.load_full() {
            None => Err(JoinError::Expired),
            Some(current) if current.is_expired(now) => Err(JoinError::Expired),
            Some(current) if current.refresh_at(now) <= now => self.renew(current.identity()).await,
            Some(_) => Ok(()),
        }
    }

    fn is_fresh(&self, token: &JoinToken) -> bool {
        self.used.as_ref().is_none_or(|used| used.token != token.fingerprint())
    }

    async fn join(&mut self, token: &JoinToken) -> Result<(), JoinError> {
        let request = CertificateRequest::new(&token.asks_for()?)?;
        let channel = self.endpoint(RootSource::Pinned(token.root()))?.connect().await?;
        let message = JoinRequest { token: token.text().to_owned(), csr: request.pem().to_owned() };
        let mut client = JoinServiceClient::new(channel);
        let answer = within_deadline(client.join(message)).await?;
        if answer.node != token.claims().node {
            return Err(JoinError::OtherNode { wanted: token.claims().node.clone(), got: answer.node });
        }
        let kept = Kept::new(token.fingerprint(), answer, request.key_pem());
        let certificate = kept.certificate()?;
        if !certificate.roots().iter().any(|root| token.names_root(root.der())) {
            return Err(JoinError::OtherRoot);
        }
        self.keep(kept, certificate);
        Ok(())
    }

    async fn renew(&mut self, id: &SpiffeId) -> Result<(), JoinError> {
        let Some(used) = &self.used else { return Err(JoinError::Expired) };
        let (fingerprint, node) = (used.token.clone(), used.node.clone());
        let request = CertificateRequest::new(id)?;
        let channel = self.endpoint(RootSource::Joined)?.connect().await?;
        let mut client = JoinServiceClient::new(channel);
        let answer = within_deadline(client.renew(RenewRequest { csr: request.pem().to_owned() })).await?;
        if answer.node != node {
            return Err(JoinError::OtherNode { wanted: node, got: answer.node });
        }
        let kept = Kept::new(fingerprint, answer, request.key_pem());
        let certificate = kept.certificate()?;
        self.keep(kept, certificate);
        Ok(())
    }

    /// A certificate that cannot be written down is used all the same; a restart then needs a new token.
    fn keep(&mut self, kept: Kept, certificate: WorkloadCertificate) {
        if let Err(error) = kept.write(&self.config.token) {
            tracing::warn!(code = error.code(), %error, "the node certificate is kept in memory only");
        }
        self.publish(kept, certificate);
    }

    fn endpoint(&self, roots: RootSource) -> Result<ControlEndpoint, ChannelError> {
        let node = matches!(roots, RootSource::Joined).then(|| self.identity.clone());
        ControlEndpoint::new(ControlConfig {
            address: self.config.address.clone(),
            alternative_name: self.config.alternative_name.clone(),
            roots,
            credential: Credential::None,
            cluster_id: String::new(),
            headers: Vec::new(),
            tls: self.config.tls.clone(),
            node,
        })
    }
}

async fn within_deadline(
    call: impl Future<Output = Result<tonic::Response<JoinResponse>, tonic::Status>>,
) -> Result<JoinResponse, JoinError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(JoinError::Refused(Box::new(status))),
        Err(_) => Err(JoinError::Deadline),
    }
}

#[cfg(test)]
mod tests;
