//! A control plane for tests: serves the `wire` resources it is given, over the real protocol.
//!
//! [`FakeControl::put`] and [`FakeControl::remove`] change what it serves, and open streams are told.
//! [`FakeControl::send`] says anything to every open stream, also what no honest server would;
//! [`FakeControl::kill`] ends them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use wire::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use wire::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use wire::security::Authorization;
use wire::workload::{Address, address};
use xds::server::{NoHooks, Session};

use crate::fake_ca::{FakeCa, SecureStream};

mod world;

pub use world::KINDS;
use world::World;

/// How long [`FakeControl::until`] waits.
const LIMIT: Duration = Duration::from_secs(20);

/// What can be served.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful of them in tests, written as literals")]
pub enum Thing {
    /// A workload or a service.
    Address(Address),
    /// A policy.
    Policy(Authorization),
}

/// How open streams end.
#[derive(Clone, Debug)]
enum Said {
    Response(Box<DeltaDiscoveryResponse>),
    End(Option<Status>),
}

/// A running fake control plane; stops when dropped.
#[derive(Debug)]
pub struct FakeControl {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
    tls: bool,
}

#[derive(Debug)]
struct Shared {
    worlds: watch::Sender<Arc<World>>,
    /// Requests of every stream, in the order they came, with the stream's number.
    requests: watch::Sender<Vec<(u64, DeltaDiscoveryRequest)>>,
    /// Of every attempt to open a stream.
    headers: watch::Sender<Vec<BTreeMap<String, String>>>,
    refusal: Mutex<Option<Status>>,
    said: broadcast::Sender<Said>,
    n_streams: watch::Sender<u64>,
    /// A server that answers nothing by itself.
    silent: bool,
}

impl FakeControl {
    /// Serves without TLS on a port of its own.
    pub async fn start() -> Self {
        Self::serve(None, false).await
    }

    /// Serves without TLS and answers nothing but what [`FakeControl::send`] says.
    pub async fn start_silent() -> Self {
        Self::serve(None, true).await
    }

    /// Serves with a certificate of `ca` for `localhost`.
    pub async fn start_tls(ca: &FakeCa) -> Self {
        let tls = Arc::new(crate::fake_ca::server_tls(ca));
        Self::serve(Some(tokio_rustls::TlsAcceptor::from(tls)), false).await
    }

    async fn serve(tls: Option<tokio_rustls::TlsAcceptor>, silent: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            worlds: watch::Sender::new(Arc::new(World::default())),
            requests: watch::Sender::new(Vec::new()),
            headers: watch::Sender::new(Vec::new()),
            refusal: Mutex::default(),
            said: broadcast::Sender::new(64),
            n_streams: watch::Sender::new(0),
            silent,
        });
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&shared)));
        let is_tls = tls.is_some();
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let router = Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            match tls {
                None => router.serve_with_incoming(Box::pin(incoming)).await.unwrap(),
                Some(tls) => {
                    let secured = incoming.filter_map(move |stream: std::io::Result<TcpStream>| {
                        let tls = tls.clone();
                        async move {
                            Some(Ok::<_, std::io::Error>(SecureStream(tls.accept(stream.ok()?).await.ok()?)))
                        }
                    });
                    router.serve_with_incoming(Box::pin(secured)).await.unwrap();
                }
            }
        });
        Self { shared, address, task, tls: is_tls }
    }

    /// Its address as a client's setting.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// Serves this from now on, under its own name; open streams are told at once.
    pub fn put(&self, things: impl IntoIterator<Item = Thing>) {
        self.change(|world| things.into_iter().for_each(|thing| world.put(&thing)));
    }

    /// No longer serves the resource of this name.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.change(|world| world.remove(type_url, name));
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        self.shared.worlds.send_modify(|world| {
            let mut next = World::clone(world);
            change(&mut next);
            *world = Arc::new(next);
        });
    }

    /// Says this on every open stream.
    pub fn send(&self, response: DeltaDiscoveryResponse) {
        _ = self.shared.said.send(Said::Response(Box::new(response)));
    }

    /// Ends every open stream: cleanly, or with a status.
    pub fn kill(&self, status: Option<Status>) {
        _ = self.shared.said.send(Said::End(status));
    }

    /// Refuses new streams with this status, or accepts them again.
    pub fn refuse(&self, status: Option<Status>) {
        *self.shared.refusal.lock().unwrap() = status;
    }

    /// Waits until the requests so far are as wanted; gives them.
    pub async fn until(
        &self,
        wanted: impl Fn(&[(u64, DeltaDiscoveryRequest)]) -> bool,
    ) -> Vec<(u64, DeltaDiscoveryRequest)> {
        let mut requests = self.shared.requests.subscribe();
        let waited = tokio::time::timeout(LIMIT, requests.wait_for(|requests| wanted(requests))).await;
        match waited {
            Ok(requests) => requests.unwrap().clone(),
            Err(_) => panic!("not as wanted: {:#?}", self.shared.requests.borrow()),
        }
    }

    /// The headers of each attempt to open a stream.
    pub fn headers(&self) -> Vec<BTreeMap<String, String>> {
        self.shared.headers.borrow().clone()
    }

    /// Waits until this many attempts to open a stream have been made.
    pub async fn attempted(&self, n: usize) {
        let mut headers = self.shared.headers.subscribe();
        let waited = tokio::time::timeout(LIMIT, headers.wait_for(|headers| headers.len() >= n)).await;
        assert!(waited.is_ok(), "{n} attempts");
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A resource of a response, written down shortly.
pub fn resource(name: &str, version: &str, message: &impl Message, type_url: &str) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }),
        ..Default::default()
    }
}

/// A workload as an address.
pub fn workload(workload: wire::workload::Workload) -> Thing {
    Thing::Address(Address { r#type: Some(address::Type::Workload(workload)) })
}

/// A service as an address.
pub fn service(service: wire::workload::Service) -> Thing {
    Thing::Address(Address { r#type: Some(address::Type::Service(service)) })
}

struct Service(Arc<Shared>);

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let shared = Arc::clone(&self.0);
        let headers = request.metadata().clone().into_headers();
        let headers = headers.iter().filter_map(|(k, v)| Some((k.to_string(), v.to_str().ok()?.to_owned())));
        let headers = headers.collect();
        shared.headers.send_modify(|all| all.push(headers));
        if let Some(status) = shared.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        let mut number = 0;
        shared.n_streams.send_modify(|n| {
            *n += 1;
            number = *n;
        });
        let requests = Arc::clone(&shared);
        let requests = request.into_inner().map(move |request| {
            if let Ok(request) = &request {
                requests.requests.send_modify(|all| all.push((number, request.clone())));
            }
            request
        });
        let said = said(shared.said.subscribe());
        let answers: Responses = if shared.silent {
            // Reading is what records the requests.
            Box::pin(requests.filter_map(|request| async move { request.err().map(Err) }))
        } else {
            let mut worlds = shared.worlds.subscribe();
            let world = Arc::clone(&worlds.borrow_and_update());
            let session = Session::new(KINDS, world, None, u128::from(number) << 64);
            let session = Arc::new(world::lock(session));
            Box::pin(xds::server::serve(session, Box::pin(requests), worlds, NoHooks))
        };
        let all = futures::stream::select(answers.map(Said::from), said);
        let until_end = all.scan(false, |ended, said| {
            let item = match said {
                _ if *ended => None,
                Said::Response(response) => Some(Ok(*response)),
                Said::End(Some(status)) => {
                    *ended = true;
                    Some(Err(status))
                }
                Said::End(None) => None,
            };
            async move { item }
        });
        Ok(Response::new(Box::pin(until_end)))
    }
}

impl From<Result<DeltaDiscoveryResponse, Status>> for Said {
    fn from(result: Result<DeltaDiscoveryResponse, Status>) -> Self {
        match result {
            Ok(response) => Self::Response(Box::new(response)),
            Err(status) => Self::End(Some(status)),
        }
    }
}

fn said(receiver: broadcast::Receiver<Said>) -> impl Stream<Item = Said> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let said = receiver.recv().await.ok()?;
        Some((said, receiver))
    })
}
