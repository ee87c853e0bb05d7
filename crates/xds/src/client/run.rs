//! The gRPC adapter: opens streams one after the other and carries messages between them and the [`Client`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use futures::TryFutureExt as _;
use rand::Rng as _;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::GrpcService;
use tonic::codegen::{Body, Bytes, StdError};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use tracing::Instrument as _;
use wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

use super::demand::{Asked, Waiting};
use super::{Backoff, Client, Demands, Ending, Handler, Reason};

/// Largest response accepted: a whole mesh may arrive in one.
const LARGEST_RESPONSE: usize = 200 * 1024 * 1024;
/// Requests in flight towards the transport.
const OUTGOING: usize = 8;
/// Demands that may be ready to send before more are taken from the queue.
const OUTBOX: usize = 100;

/// Makes the transport of one stream. Asked anew for each, so that roots and tokens are as fresh as the stream.
pub trait Connector {
    /// The transport.
    type Service: GrpcService<tonic::body::Body, ResponseBody = Self::Body>;
    /// What the transport answers with.
    type Body: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static;

    /// The transport and the headers to send with the stream.
    fn connect(&mut self) -> impl Future<Output = Result<(Self::Service, MetadataMap), ConnectFailure>>;
}

/// Why there is no transport.
#[derive(Debug, Error)]
pub enum ConnectFailure {
    /// Something on our side: roots, token, address.
    #[error("{0}")]
    Local(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server cannot be reached or does not prove itself.
    #[error("{0}")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is counted. Every method does nothing unless overridden.
pub trait Metrics {
    /// A response of this kind with payloads of this many bytes in all.
    fn received(&self, _type_url: &str, _payload_bytes: usize) {}
    /// A response was answered; `refused` resources in it were not applied.
    fn answered(&self, _type_url: &str, _refused: bool) {}
    /// A stream is up.
    fn established(&self) {}
    /// A stream ended, or could not be opened.
    fn terminated(&self, _reason: Reason) {}
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMetrics;

impl Metrics for NoMetrics {}

/// What does not change from stream to stream.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who we are.
    pub node: Node,
    /// Where we connect to, for messages.
    pub url: String,
    /// The kind that demands ask for.
    pub demand_type: String,
}

/// Keeps the client in step with a server for as long as it is polled.
///
/// Dropping the future closes the stream; what was applied stays applied.
pub async fn run<C: Connector>(
    mut client: Client,
    mut handler: impl Handler,
    mut connector: C,
    mut demands: Demands,
    options: Options,
    metrics: impl Metrics,
) -> Infallible {
    let mut backoff = Backoff::default();
    let mut waiting = Waiting::default();
    let mut id = 0_u64;
    loop {
        id += 1;
        let started = Instant::now();
        let mut stream = Stream {
            client: &mut client,
            handler: &mut handler,
            demands: &mut demands,
            waiting: &mut waiting,
            options: &options,
            metrics: &metrics,
        };
        let span = tracing::info_span!(target: "ztunnel::xds::client", "xds", id);
        let ended = stream.until_it_ends(&mut connector).instrument(span.clone()).await;
        let (reason, wait) = backoff.after(ended.ending(), started.elapsed());
        let wait = spread(wait);
        metrics.terminated(reason);
        span.in_scope(|| ended.log(&options.url, wait));
        tokio::time::sleep(wait).await;
    }
}

/// Adds up to a tenth, so that nodes that lost one server do not come back in step.
fn spread(wait: Duration) -> Duration {
    if wait < Duration::from_secs(1) { wait } else { wait.mul_f64(rand::rng().random_range(1.0..1.1)) }
}

/// How one stream ended, with its evidence.
enum Ended {
    NotOpened(Status),
    Status(Status),
    Local(Box<dyn std::error::Error + Send + Sync>),
    Clean,
}

impl Ended {
    fn ending(&self) -> Ending<'_> {
        match self {
            Self::NotOpened(_) => Ending::NotOpened,
            Self::Status(status) => Ending::Status(status),
            Self::Local(_) => Ending::Local,
            Self::Clean => Ending::Clean,
        }
    }

    fn log(&self, url: &str, wait: Duration) {
        const TARGET: &str = "ztunnel::xds::client";
        let error = match self {
            Self::NotOpened(status) => {
                format!("gRPC connection error connecting to {url}: {}", describe(status))
            }
            Self::Status(status) => format!("gRPC error {}", describe(status)),
            Self::Local(error) => {
                let causes = causes(&**error);
                let separator = if causes.is_empty() { "" } else { ": " };
                format!("{error}{separator}{causes}")
            }
            Self::Clean => {
                tracing::warn!(target: TARGET, "XDS client complete");
                return;
            }
        };
        tracing::warn!(target: TARGET, "XDS client connection error: {error}, retrying in {wait:?}");
    }
}

/// A status as a person should read it.
fn describe(status: &Status) -> String {
    let mut text = format!("status: {:?}, message: {:?}", status.code(), status.message());
    if status.message().contains("authentication failure") {
        text.push_str(" (hint: check the control plane logs for more information)");
    }
    if !status.details().is_empty() {
        text.push_str(&format!(", details: {:?}", String::from_utf8_lossy(status.details())));
    }
    let causes = causes(status);
    if causes.contains("Temporary failure in name resolution") {
        text.push_str(" (hint: is the DNS server reachable?)");
    }
    if !causes.is_empty() {
        text.push_str(&format!(", source: {causes}"));
    }
    text
}

fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

struct Stream<'a, H, M> {
    client: &'a mut Client,
    handler: &'a mut H,
    demands: &'a mut Demands,
    waiting: &'a mut Waiting,
    options: &'a Options,
    metrics: &'a M,
}

impl<H: Handler, M: Metrics> Stream<'_, H, M> {
    async fn until_it_ends<C: Connector>(&mut self, connector: &mut C) -> Ended {
        let (service, headers) = match connector.connect().await {
            Ok(connected) => connected,
            Err(ConnectFailure::Local(error)) => return Ended::Local(error),
            Err(ConnectFailure::Unreachable(error)) => return Ended::NotOpened(Status::from_error(error)),
        };
        let mut rpc =
            AggregatedDiscoveryServiceClient::new(service).max_decoding_message_size(LARGEST_RESPONSE);

        let (sender, receiver) = mpsc::channel(OUTGOING);
        let mut outbox: VecDeque<DeltaDiscoveryRequest> = self.client.open(&self.options.node).into();
        let mut request = Request::new(ReceiverStream::new(receiver));
        *request.metadata_mut() = headers;
        // Servers send their headers with the first response, so the first requests must be on their way already.
        while !outbox.is_empty() && sender.capacity() > 0 {
            let Some(first) = outbox.pop_front() else { break };
            if sender.try_send(first).is_err() {
                break;
            }
        }
        let mut responses =
            match rpc.delta_aggregated_resources(request).map_ok(tonic::Response::into_inner).await {
                Ok(responses) => responses,
                Err(status) => return Ended::NotOpened(status),
            };
        tracing::info!(target: "ztunnel::xds::client", "Stream established");
        self.metrics.established();

        loop {
            let deadline = self.waiting.next_deadline();
            tokio::select! {
                biased;
                response = responses.message() => match response {
                    Ok(Some(response)) => outbox.push_back(self.receive(response)),
                    Ok(None) => return Ended::Clean,
                    Err(status) => return Ended::Status(status),
                },
                permit = sender.reserve(), if !outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(request) = outbox.pop_front() {
                            permit.send(request);
                        }
                    }
                    Err(_closed) => {
                        // The transport stopped reading; its last word tells why.
                        return match responses.message().await {
                            Err(status) => Ended::Status(status),
                            Ok(_) => Ended::Clean,
                        };
                    }
                },
                Some(asked) = self.demands.next(), if outbox.len() < OUTBOX => {
                    outbox.extend(self.demand(asked));
                }
                () = until(deadline) => self.expire(),
            }
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let type_url = response.type_url.clone();
        let payloads = response.resources.iter().filter_map(|resource| resource.resource.as_ref());
        self.metrics.received(&type_url, payloads.map(|payload| payload.value.len()).sum());
        let reply = self.client.receive(response, self.handler);
        for (key, answer) in reply.answered {
            self.waiting.wake(&key, answer);
        }
        if let Some(error) = &reply.request.error_detail {
            tracing::error!(target: "ztunnel::xds::client", %type_url, error = %error.message, "resources refused");
        }
        self.metrics.answered(&type_url, reply.request.error_detail.is_some());
        reply.request
    }

    fn demand(&mut self, asked: Asked) -> Option<DeltaDiscoveryRequest> {
        let key = asked.key.clone();
        let type_url = self.options.demand_type.as_str();
        let known_absent = self.client.known_absent(type_url, &key);
        if !self.waiting.add(asked, known_absent) {
            return None;
        }
        if self.handler.answers(type_url, &key) {
            self.waiting.wake(&key, super::Answer::Present);
            return None;
        }
        self.client.demand(type_url, &key)
    }

    fn expire(&mut self) {
        let type_url = self.options.demand_type.as_str();
        let client = &mut *self.client;
        let abandoned = self.waiting.expire(Instant::now(), |key| client.known_absent(type_url, key));
        for key in abandoned {
            client.forget(type_url, &key);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
