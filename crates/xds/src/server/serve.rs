//! The gRPC adapter of one stream: reads requests, watches for new worlds, yields responses.
//!
//! It is one stream of responses that the transport polls: nothing is generated before the previous response has
//! been taken, and nothing is spawned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::{Received, Selection, Session, World};

/// How long a first request waits for the kinds it refers to, so that those are answered first.
const COMPANION: Duration = Duration::from_millis(20);

/// What the surroundings of a stream are told and asked. Every method has a default.
pub trait Hooks: Send + 'static {
    /// A request arrived.
    fn received(&mut self, _request: &DeltaDiscoveryRequest) {}
    /// A response is about to be sent; it took this long to generate.
    fn sending(&mut self, _kind: &'static str, _response: &DeltaDiscoveryResponse, _took: Duration) {}
    /// A response was refused.
    fn refused(&mut self, _kind: &'static str, _message: &str) {}
    /// A response other than the last was answered.
    fn stale(&mut self, _kind: &'static str) {}
    /// All responses of a push are handed to the transport.
    fn pushed(&mut self) {}
    /// A kind that is not offered: an answer, silence, or the end of the stream.
    ///
    /// # Errors
    /// The status that ends the stream.
    fn unknown(
        &mut self,
        _request: &DeltaDiscoveryRequest,
    ) -> Result<Option<DeltaDiscoveryResponse>, Box<Status>> {
        Ok(None)
    }
    /// Waits for a turn to generate a push.
    fn turn(&mut self) -> impl Future<Output = Option<tokio::sync::OwnedSemaphorePermit>> + Send {
        std::future::ready(None)
    }
}

/// Nothing is counted, unknown kinds are met with silence.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}

struct Serving<W, R, H> {
    session: Arc<Mutex<Session<W>>>,
    requests: R,
    worlds: watch::Receiver<Arc<W>>,
    hooks: H,
    ready: VecDeque<DeltaDiscoveryResponse>,
    deferred: VecDeque<DeltaDiscoveryRequest>,
    deadline: Option<Instant>,
    pushing: bool,
    ended: bool,
}

/// The responses of one stream.
pub fn serve<W, R, H>(
    session: Arc<Mutex<Session<W>>>,
    requests: R,
    worlds: watch::Receiver<Arc<W>>,
    hooks: H,
) -> impl Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send
where
    W: World,
    R: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send + Unpin,
    H: Hooks,
{
    let serving = Serving {
        session,
        requests,
        worlds,
        hooks,
        ready: VecDeque::new(),
        deferred: VecDeque::new(),
        deadline: None,
        pushing: false,
        ended: false,
    };
    futures::stream::unfold(serving, |mut serving| async move {
        if serving.ended {
            return None;
        }
        match serving.next().await {
            Ok(Some(response)) => Some((Ok(response), serving)),
            Ok(None) => None,
            Err(status) => {
                serving.ended = true;
                Some((Err(*status), serving))
            }
        }
    })
}

impl<W, R, H> Serving<W, R, H>
where
    W: World,
    R: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send + Unpin,
    H: Hooks,
{
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Box<Status>> {
        use futures::StreamExt as _;
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(Some(response));
            }
            if std::mem::take(&mut self.pushing) {
                self.hooks.pushed();
            }
            tokio::select! {
                // Requests come before pushes.
                biased;
                request = self.requests.next() => match request {
                    None => return Ok(None),
                    Some(Err(status)) => {
                        tracing::debug!(code = ?status.code(), "stream of requests ended");
                        return Ok(None);
                    }
                    Some(Ok(request)) => self.request(request)?,
                },
                () = until(self.deadline) => self.flush()?,
                changed = self.worlds.changed() => match changed {
                    Ok(()) => self.push().await,
                    // The control plane is stopping; the client comes back to another replica.
                    Err(_closed) => return Ok(None),
                },
            }
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Box<Status>> {
        self.hooks.received(&request);
        let kind = self.session.lock().kind(&request.type_url);
        match kind.map(|kind| kind.selection) {
            Some(Selection::Addressable) if self.waits_for_companion(&request) => {
                self.deadline = Some(Instant::now() + COMPANION);
                self.deferred.push_back(request);
                Ok(())
            }
            _ if !self.deferred.is_empty() => {
                // Whatever came next: the broadcast kind goes first, everything else keeps its order.
                if kind.is_some_and(|kind| kind.selection == Selection::Broadcast) {
                    self.answer(request)?;
                    self.flush()
                } else {
                    self.flush()?;
                    self.answer(request)
                }
            }
            _ => self.answer(request),
        }
    }

    fn waits_for_companion(&self, request: &DeltaDiscoveryRequest) -> bool {
        let session = self.session.lock();
        self.deferred.is_empty()
            && session.is_first(&request.type_url)
            && !session.is_watching(Selection::Broadcast)
    }

    fn flush(&mut self) -> Result<(), Box<Status>> {
        self.deadline = None;
        while let Some(request) = self.deferred.pop_front() {
            self.answer(request)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Box<Status>> {
        let started = Instant::now();
        let Some(kind) = self.session.lock().kind(&request.type_url) else {
            self.ready.extend(self.hooks.unknown(&request)?);
            return Ok(());
        };
        let received = self.session.lock().request(request);
        match received {
            Received::Answer(response) => {
                self.hooks.sending(kind.short, &response, started.elapsed());
                self.ready.push_back(response);
            }
            Received::Refused(message) => self.hooks.refused(kind.short, &message),
            Received::Stale => self.hooks.stale(kind.short),
            Received::TooManyNames => {
                return Err(Box::new(Status::resource_exhausted("too many resource names on one stream")));
            }
            Received::Acknowledged | Received::Nothing | Received::UnknownKind => {}
        }
        Ok(())
    }

    async fn push(&mut self) {
        let _turn = self.hooks.turn().await;
        let world = Arc::clone(&self.worlds.borrow_and_update());
        let started = Instant::now();
        let responses = self.session.lock().push(world);
        for response in responses {
            let kind = self.session.lock().kind(&response.type_url);
            self.hooks.sending(kind.map_or("unknown", |kind| kind.short), &response, started.elapsed());
            self.ready.push_back(response);
        }
        self.pushing = true;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
