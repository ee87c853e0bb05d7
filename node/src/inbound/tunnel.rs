//! HBONE (data-path 5): connections, and the requests on them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hbone::{ErrorCode, IncomingConnect, ServerConnection, TunnelError};
use identity::{Judged, SpiffeId, peer_identity};
use runtime::drain::Guard;
use state::{Admission, Authority, Workload};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::admit::{self, while_allowed};
use super::application::{Client, Way};
use super::headers::{self, Headers};
use crate::access_log::Direction;
use crate::baggage;
use crate::carried::{Entry, Established};
use crate::certs::Priority;
use crate::connections::{InboundEntry, InboundKey};
use crate::context::{Facts, Who};
use crate::failure::{Broken, ConnectionError, Told};
use crate::metrics::{LiveBytes, Security};
use crate::pods::proxy::{Accepted, PodProxy};
use crate::record::{Endpoints, Ends, Record};
use crate::relay::Relay;

/// Serves one HBONE connection until it ends.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    let peer = accepted.peer;
    let local = match accepted.stream.local_addr() {
        Ok(local) => net::socket::canonical(local),
        // Gone before it was looked at.
        Err(_) => return,
    };
    let transparent = accepted.transparent;
    let Accepted { stream, open, place, .. } = accepted;
    let _counted = (open, place);
    let connection = match Box::pin(secure(&proxy, stream)).await {
        Ok(connection) => connection,
        Err(error) => return super::refused(&proxy, peer, local, &error),
    };
    let identity = peer_identity(&connection.peer_chain());
    let link = Rc::new(Link { identity, peer, local, transparent, last: RefCell::default() });
    requests(&proxy, &connection, &link).await;
}

/// What all tunnels of a connection share.
#[derive(Debug)]
struct Link {
    /// Verified by TLS.
    identity: Option<SpiffeId>,
    peer: SocketAddr,
    /// The pod's own address that the connection came to.
    local: SocketAddr,
    transparent: bool,
    /// What was asked for last: mostly the same, and then it is kept once.
    last: RefCell<Asked>,
}

/// What requests on one connection have in common as long as they ask for the same.
#[derive(Debug, Default)]
struct Asked {
    key: Option<Arc<InboundKey>>,
    ends: Option<Rc<Ends>>,
}

impl Link {
    fn key(&self, target: SocketAddr, forwarded_host: Option<Arc<str>>) -> Arc<InboundKey> {
        let last = &mut self.last.borrow_mut().key;
        if let Some(key) = last
            && key.target == target
            && key.forwarded_host == forwarded_host
        {
            return Arc::clone(key);
        }
        let (source, identity) = (self.peer, self.identity.clone());
        let key = Arc::new(InboundKey { source, target, identity, forwarded_host });
        Arc::clone(last.insert(key))
    }

    fn ends(&self, authority: &Authority) -> Rc<Ends> {
        let last = &mut self.last.borrow_mut().ends;
        let hbone = Some(authority.to_string().into());
        if let Some(ends) = last
            && ends.hbone == hbone
        {
            return Rc::clone(ends);
        }
        let ends = Rc::new(Ends { source: self.peer, destination: self.local, hbone });
        Rc::clone(last.insert(ends))
    }
}

/// Step 1: TLS with the certificate of this pod.
async fn secure(
    proxy: &PodProxy,
    stream: tokio::net::TcpStream,
) -> Result<ServerConnection, ConnectionError> {
    let identity = match &proxy.shared.own {
        Some(own) => own.clone(),
        None => proxy.local_workload().await?.identity.clone(),
    };
    let thread = &proxy.thread;
    let certificate = thread.certificates.certificate(&identity, Priority::RealTime).await;
    let certificate = certificate.map_err(ConnectionError::NoCertificate)?;
    let (tls, revision) = (certificate.server_config(), thread.peers.revision());
    let connection = hbone::server::accept(stream, tls, &thread.settings.hbone).await?;
    thread.peers.note(Judged::Client, connection.weak(), &certificate, revision);
    Ok(connection)
}

/// Serves requests until the connection ends; running tunnels end with it.
async fn requests(proxy: &Rc<PodProxy>, connection: &ServerConnection, link: &Rc<Link>) {
    let drain = &proxy.shared.drains.inbound;
    let mut told = false;
    loop {
        // All are cancel-safe: a request is taken only when `next` returns it.
        let request = tokio::select! {
            biased;
            () = drain.draining(), if !told => {
                told = true;
                connection.drain();
                continue;
            }
            request = connection.next() => request,
        };
        let Some(request) = request else { return };
        let guard = drain.guard();
        let establishing = Box::pin(establish(Rc::clone(proxy), Rc::clone(link), request, guard));
        let (proxy, cut) = (Rc::clone(proxy), drain.clone());
        let tasks = proxy.shared.connections.clone();
        tasks.spawn_local("tunnel", async move {
            // A cut drops the request, and its record says so.
            let established = tokio::select! {
                biased;
                () = cut.cut() => None,
                established = establishing => established,
            };
            if let Some((relay, established)) = established {
                proxy.carried.inbound.carry(&proxy.shared.connections, relay, established);
            }
        });
    }
}

/// Steps 2 to 5; whatever fails is answered and told.
async fn establish(
    proxy: Rc<PodProxy>,
    link: Rc<Link>,
    request: IncomingConnect,
    guard: Guard,
) -> Option<(Relay, Established)> {
    let (proxy, link) = (&*proxy, &*link);
    let since = Instant::now();
    let headers = Headers::read(&request);
    let span = match headers.trace {
        Some(id) => tracing::debug_span!("inbound", id = format_args!("{id:032x}"), peer = %link.peer),
        None => tracing::debug_span!("inbound", peer = %link.peer),
    };
    let established = async {
        match admitted(proxy, link, &request, &headers).await {
            Ok(admitted) => {
                let counted = count(proxy, link, &admitted, headers, &request, since);
                counted.connect(proxy, link, admitted, request).await
            }
            Err(error) => {
                super::refused(proxy, link.peer, link.local, &error);
                answer(request, &error);
                None
            }
        }
    };
    let (relay, record, entry) = established.instrument(span.clone()).await?;
    let span = (!span.is_disabled()).then(|| Box::new(span));
    Some((relay, Established { record, entry: Entry::Inbound(entry), open: None, span, guard }))
}

/// A request for something that is ours.
struct Admitted {
    local: Arc<Workload>,
    authority: Authority,
    admission: Admission,
}

/// Steps 2 and 3.
async fn admitted(
    proxy: &PodProxy,
    link: &Link,
    request: &IncomingConnect,
    headers: &Headers,
) -> Result<Admitted, ConnectionError> {
    if request.method() != "CONNECT" {
        return Err(ConnectionError::Method(request.method().to_owned()));
    }
    let authority: Authority = request.authority().unwrap_or_default().parse()?;
    let local = proxy.local_workload().await?;
    let host = headers.forwarded_host.as_deref();
    let admission = admit::destination(&proxy.thread, &local, link.local.ip(), &authority, host).await?;
    Ok(Admitted { local, authority, admission })
}

/// A request that is counted.
struct Counted {
    record: Record,
    forwarded_host: Option<Arc<str>>,
}

fn count(
    proxy: &PodProxy,
    link: &Link,
    admitted: &Admitted,
    headers: Headers,
    request: &IncomingConnect,
    since: Instant,
) -> Counted {
    let Admitted { local, authority, admission } = admitted;
    let Headers { forwarded_host, network, .. } = headers;
    let source = match proxy.thread.mesh.current().source_workload(link.peer.ip(), network.as_deref()) {
        Some(known) => Who::Workload(Arc::clone(known)),
        None if proxy.thread.settings.response_baggage => headers::said(request),
        None => Who::Unknown,
    };
    let facts = Facts {
        direction: Direction::Inbound,
        security: Security::MutualTls,
        source,
        source_identity: link.identity.clone(),
        destination: Who::Workload(Arc::clone(local)),
        service: admission.service.clone(),
    };
    let endpoints = Endpoints::Shared(link.ends(authority));
    let record = Record::open(&proxy.thread, facts, endpoints, since);
    Counted { record, forwarded_host }
}

impl Counted {
    /// Steps 4 and 5, and the answer.
    async fn connect(
        self,
        proxy: &PodProxy,
        link: &Link,
        admitted: Admitted,
        request: IncomingConnect,
    ) -> Option<(Relay, Record, InboundEntry)> {
        let Self { mut record, forwarded_host } = self;
        let Admitted { local, admission, .. } = admitted;
        let key = link.key(admission.target, forwarded_host);
        let relay = match admit::by_policy(proxy, &local, key).await {
            Ok(entry) => {
                // Dropping the request resets its stream.
                let delivered = deliver(proxy, link, &local, &admission, request, &mut record);
                let delivered = while_allowed(&entry, delivered).await;
                delivered.and_then(|relay| Ok((entry, relay?)))
            }
            Err(error) => {
                answer(request, &error);
                Err(error)
            }
        };
        match relay {
            Ok((entry, relay)) => Some((relay, record, entry)),
            Err(error) => {
                record.finish(Err(&error));
                None
            }
        }
    }
}

/// Dials the application, answers, introduces the client, and starts the relay.
async fn deliver(
    proxy: &PodProxy,
    link: &Link,
    local: &Workload,
    admission: &Admission,
    request: IncomingConnect,
    record: &mut Record,
) -> Result<Relay, ConnectionError> {
    let client =
        Client { address: link.peer, identity: link.identity.as_ref(), transparent: link.transparent };
    let way = match Way::to(admission, client, proxy.thread.settings.localhost_app_tunnel) {
        Ok(way) => way,
        Err(too_long) => {
            let error = ConnectionError::from(too_long);
            answer(request, &error);
            return Err(error);
        }
    };
    // The client may lose patience while the application is dialled.
    let dialed = tokio::select! {
        biased;
        dialed = proxy.dial(way.target, way.source) => dialed,
        () = request.cancelled() => {
            let gone = Broken::Tunnel(TunnelError::PeerReset(ErrorCode::CANCEL));
            return Err(ConnectionError::Sending(gone));
        }
    };
    let application = match dialed {
        Ok(application) => application,
        Err(error) => {
            let error = ConnectionError::Application(error);
            answer(request, &error);
            return Err(error);
        }
    };
    let tunnel = if proxy.thread.settings.response_baggage {
        request.accept(&[("baggage", &baggage::of(local))])
    } else {
        request.accept(&[])
    };
    let counters = Arc::new(hbone::Counters::default());
    record.follow(LiveBytes::FromPeer(Arc::clone(&counters)));
    let application = way.introduce(application).await?;
    Ok(Relay::FromPeer(hbone::relay(tunnel, application, &counters)))
}

/// Tells the peer; without a status the stream is reset.
fn answer(request: IncomingConnect, error: &ConnectionError) {
    match error.told() {
        Told::Status(status) => request.refuse(status),
        Told::Cut => drop(request),
    }
}
