//! Asks the CA (control-and-operations 4.4): one shared channel, rebuilt when the roots change.
use futures::future::BoxFuture;
use identity::{CertificateRequest, SpiffeId, TlsOptions, WorkloadCertificate};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use wire::ca::IstioCertificateRequest;
use wire::ca::istio_certificate_service_client::IstioCertificateServiceClient;

use super::channel::{ChannelError, ControlEndpoint};
use super::{CertificateError, Config, Issuer};

/// A client of the certificate authority.
#[derive(Debug)]
pub(crate) struct CaClient {
    endpoint: ControlEndpoint,
    validity: i64,
    impersonate: bool,
    tls: TlsOptions,
    channel: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    fingerprint: u64,
    channel: Channel,
}

impl CaClient {
    /// Checks the address; connects at the first request.
    pub(crate) fn new(config: &Config) -> Result<Self, ChannelError> {
        Ok(Self {
            endpoint: ControlEndpoint::new(config.ca.clone())?,
            validity: i64::try_from(config.secret_ttl.as_secs()).unwrap_or(i64::MAX),
            impersonate: config.impersonate,
            tls: config.tls.clone(),
            channel: Mutex::default(),
        })
    }

    /// The shared channel. A changed root file or node certificate makes a new one; when that cannot be
    /// had, the old one goes on.
    async fn channel(&self) -> Result<Channel, ChannelError> {
        let mut built = self.channel.lock().await;
        let fresh = match (self.endpoint.fingerprint().await, built.as_ref()) {
            (Ok(fingerprint), Some(old)) if old.fingerprint == fingerprint => return Ok(old.channel.clone()),
            (Ok(fingerprint), _) => {
                self.endpoint.connect().await.map(|channel| Built { fingerprint, channel })
            }
            (Err(error), _) => Err(error),
        };
        match (fresh, built.as_ref()) {
            (Ok(new), _) => Ok(built.insert(new).channel.clone()),
            (Err(error), Some(old)) => {
                tracing::warn!(code = error.code(), %error, "keeping the channel to the CA with its old roots");
                Ok(old.channel.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn ask(&self, id: &SpiffeId) -> Result<WorkloadCertificate, CertificateError> {
        let request = CertificateRequest::new(id)?;
        let message = IstioCertificateRequest {
            csr: request.pem().to_owned(),
            validity_duration: self.validity,
            metadata: self.impersonate.then(|| impersonating(id)),
        };
        let mut client = IstioCertificateServiceClient::new(self.channel().await?);
        let mut message = tonic::Request::new(message);
        self.endpoint.authorize(message.metadata_mut()).await?;
        let chain = client.create_certificate(message).await?.into_inner().cert_chain;
        if chain.is_empty() {
            return Err(CertificateError::EmptyChain(id.clone()));
        }
        let certificate = WorkloadCertificate::new(&chain, request.key(), self.tls.clone())?;
        for root in certificate.skipped_roots() {
            tracing::warn!(index = root.index, reason = %root.reason, "skipping a root certificate of the CA");
        }
        if self.impersonate && certificate.identity() != id {
            return Err(CertificateError::OtherIdentity(id.clone()));
        }
        Ok(certificate)
    }
}

impl Issuer for CaClient {
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.endpoint.joined())
    }

    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, CertificateError>> {
        Box::pin(self.ask(id))
    }
}

fn impersonating(id: &SpiffeId) -> prost_types::Struct {
    let kind = prost_types::value::Kind::StringValue(id.to_string());
    let value = prost_types::Value { kind: Some(kind) };
    prost_types::Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() }
}

#[cfg(test)]
mod tests;
