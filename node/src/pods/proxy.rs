//! One pod on one traffic thread: its listeners, its tunnels and its live connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::Pool;
use identity::SpiffeId;
use net::socket::{Dialed, Dialer, Listener, dial};
use net::{NetNamespace, socket};
use runtime::drain::{Drain, Guard};
use runtime::tasks::TaskGroup;
use runtime::throttle::Throttle;
use state::{Pod, Workload};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::carried::Carried;
use crate::certs::Hold;
use crate::connections::Connections;
use crate::failure::ConnectionError;
use crate::metrics::{OpenSocket, Reporter};
use crate::outbound::PoolKey;
use crate::settings::{DIAL_LIMIT, LOCAL_WORKLOAD_LIMIT};
use crate::threads::Thread;

use super::seats::{Arrivals, Place, Seated, Seats};

/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Such failures of one listener are told at most this often.
const ACCEPT_REPORTS: Duration = Duration::from_secs(10);

/// The kinds of traffic of a pod; each is drained by itself.
#[derive(Clone, Debug)]
pub(crate) struct Drains {
    pub(crate) outbound: Drain,
    pub(crate) inbound: Drain,
    pub(crate) plaintext: Drain,
}

/// What all threads know about a pod.
#[derive(Debug)]
pub(crate) struct PodShared {
    pub(crate) pod: Pod,
    /// Where its sockets live; none: where the proxy itself does.
    pub(crate) netns: Option<Arc<NetNamespace>>,
    /// The proxy's own pod: its identity is known without discovery, its application is the proxy
    /// itself, and the client's address is not kept.
    pub(crate) own: Option<SpiffeId>,
    pub(crate) drains: Drains,
    /// Who serves HBONE connections.
    pub(crate) seats: Seats,
    /// Tasks whose failure is the node's.
    pub(crate) tasks: TaskGroup,
    /// Tasks whose failure is their own.
    pub(crate) connections: TaskGroup,
}

/// The listeners of one thread in one pod.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) outbound: Option<Listener>,
    pub(crate) inbound: Option<Listener>,
    pub(crate) plaintext: Option<Listener>,
}

/// A thread's part in a pod's HBONE connections.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Its number.
    pub(crate) thread: usize,
    pub(crate) arrivals: Arrivals,
}

/// One pod on one thread.
#[derive(Debug)]
pub(crate) struct PodProxy {
    pub(crate) thread: Rc<Thread>,
    pub(crate) shared: Arc<PodShared>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) carried: CarriedKinds,
    pub(crate) pool: Pool<PoolKey, ConnectionError>,
    dialer: Rc<Dialer>,
}

/// Connections whose bytes flow, by what cuts them.
#[derive(Debug)]
pub(crate) struct CarriedKinds {
    pub(crate) outbound: Rc<Carried>,
    pub(crate) inbound: Rc<Carried>,
    pub(crate) plaintext: Rc<Carried>,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    /// The client, never IPv4-mapped.
    pub(crate) peer: SocketAddr,
    pub(crate) since: Instant,
    /// The listener may speak from foreign addresses.
    pub(crate) transparent: bool,
    /// Counts it as open.
    pub(crate) open: OpenSocket,
    /// HBONE: counts it as one of its thread.
    pub(crate) place: Option<Place>,
    /// The drain waits for it.
    pub(crate) guard: Guard,
}

impl PodProxy {
    /// Starts to serve; everything runs as tasks of the pod.
    pub(crate) fn start(
        thread: &Rc<Thread>,
        shared: Arc<PodShared>,
        connections: Rc<Connections>,
        listeners: Listeners,
        seat: Option<Seat>,
    ) -> Result<Rc<Self>, io::Error> {
        let settings = &thread.settings;
        let pool = Pool::new(settings.hbone.client_streams, settings.pool_idle);
        let carried = |drain: &Drain| Carried::until_cut(drain, &shared.connections);
        let drains = &shared.drains;
        let carried = CarriedKinds {
            outbound: carried(&drains.outbound),
            inbound: carried(&drains.inbound),
            plaintext: carried(&drains.plaintext),
        };
        let dialer = Dialer::new(shared.netns.clone(), settings.dial(None));
        let (thread, dialer) = (Rc::clone(thread), thread.dialers.add(dialer));
        let proxy = Rc::new(Self { thread, shared, connections, carried, pool, dialer });
        let Listeners { outbound, inbound, plaintext } = listeners;
        if let Some(listener) = outbound {
            let drain = proxy.shared.drains.outbound.clone();
            proxy.accept(listener, Reporter::Source, drain, None, crate::outbound::serve)?;
        }
        if let Some(listener) = inbound {
            let drain = proxy.shared.drains.inbound.clone();
            let thread = seat.as_ref().map(|seat| seat.thread);
            proxy.accept(listener, Reporter::Destination, drain, thread, crate::inbound::serve_hbone)?;
        }
        if let Some(listener) = plaintext {
            let drain = proxy.shared.drains.plaintext.clone();
            proxy.accept(listener, Reporter::Destination, drain, None, crate::inbound::serve_plaintext)?;
        }
        if let Some(Seat { mut arrivals, .. }) = seat {
            let taker = Rc::clone(&proxy);
            proxy.shared.tasks.spawn_local("handed over", async move {
                while let Some(arrived) = arrivals.recv().await {
                    if let Some(seated) = arrived.take() {
                        taker.serve_hbone(seated);
                    }
                }
            });
        }
        let follower = Rc::clone(&proxy);
        proxy.shared.tasks.spawn_local("policy", async move { follower.follow_mesh().await });
        Ok(proxy)
    }

    /// Accepts until the pod drains; each connection is taken to its relay by a task that ends at the latest when the
    /// drain is cut. With the number of this thread, another may serve it.
    fn accept<F>(
        self: &Rc<Self>,
        listener: Listener,
        reporter: Reporter,
        drain: Drain,
        shared_by: Option<usize>,
        serve: fn(Rc<Self>, Accepted) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + 'static,
    {
        let transparent = listener.transparent && self.shared.own.is_none();
        let listener = listener.into_tokio()?;
        let proxy = Rc::clone(self);
        self.shared.tasks.spawn_local("accept", async move {
            let mut failures = Throttle::new(ACCEPT_REPORTS);
            loop {
                // Both are cancel-safe.
                let accepted = tokio::select! {
                    biased;
                    () = drain.draining() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        if let Some(own) = shared_by {
                            let seated = proxy.shared.seats.seat(own, (stream, peer), transparent, &drain);
                            if let Some(seated) = seated {
                                proxy.serve_hbone(seated);
                            }
                            continue;
                        }
                        let accepted = Accepted {
                            stream,
                            peer: socket::canonical(peer),
                            since: Instant::now(),
                            transparent,
                            open: proxy.thread.counters.socket(reporter),
                            place: None,
                            guard: drain.guard(),
                        };
                        proxy.connection(&drain, serve, accepted);
                    }
                    Err(error) => {
                        if let Some(unreported) = failures.report(runtime::clock::monotonic()) {
                            let address = local_address(&listener);
                            tracing::warn!(target: "ztunnel::proxy", %error, address, unreported, "failed to accept");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// Serves an HBONE connection that is this thread's.
    fn serve_hbone(self: &Rc<Self>, seated: Seated) {
        let Seated { stream, peer, since, transparent, place, guard } = seated;
        let accepted = Accepted {
            stream,
            peer: socket::canonical(peer),
            since,
            transparent,
            open: self.thread.counters.socket(Reporter::Destination),
            place: Some(place),
            guard,
        };
        self.connection(&self.shared.drains.inbound, crate::inbound::serve_hbone, accepted);
    }

    fn connection<F>(self: &Rc<Self>, drain: &Drain, serve: fn(Rc<Self>, Accepted) -> F, accepted: Accepted)
    where
        F: Future<Output = ()> + 'static,
    {
        let (proxy, drain) = (Rc::clone(self), drain.clone());
        self.shared.connections.spawn_local("connection", async move {
            // Dropping what is served is what a cut means.
            tokio::select! {
                biased;
                () = drain.cut() => {}
                () = serve(proxy, accepted) => {}
            }
        });
    }

    /// Follows the mesh: keeps the certificate of the pod's identity, and judges open connections
    /// again after every change.
    async fn follow_mesh(&self) {
        let mut mesh = self.thread.mesh.clone();
        let mut known: Option<Arc<Workload>> = None;
        let mut held: Option<(SpiffeId, Hold)> = None;
        loop {
            let now = mesh.current();
            if let Some(local) = now.local_workload(&self.shared.pod) {
                if held.as_ref().is_none_or(|(identity, _)| *identity != local.identity) {
                    let hold = self.thread.certificates.hold(&local.identity);
                    held = Some((local.identity.clone(), hold));
                }
                known = Some(Arc::clone(local));
            }
            if let (Some(known), true) = (&known, self.connections.n_inbound() > 0) {
                self.connections.judge_again(&now, &self.shared.pod, known);
            }
            self.thread.unknown_policies.forget_known(&now);
            drop(now);
            mesh.changed().await;
        }
    }

    /// The pod's workload as discovery knows it, waiting for it if need be.
    pub(crate) async fn local_workload(&self) -> Result<Arc<Workload>, ConnectionError> {
        let pod = &self.shared.pod;
        if let Some(local) = self.thread.mesh.current().local_workload(pod) {
            return Ok(Arc::clone(local));
        }
        let mut mesh = self.thread.mesh.clone();
        let appears = async {
            loop {
                mesh.changed().await;
                if let Some(local) = mesh.current().local_workload(pod) {
                    return Arc::clone(local);
                }
            }
        };
        tokio::time::timeout(LOCAL_WORKLOAD_LIMIT, appears).await.map_err(|_| {
            tracing::warn!(target: "ztunnel::state", "timed out waiting for workload '{pod}' from xds");
            ConnectionError::UnknownLocalWorkload(pod.clone())
        })
    }

    /// Dials from the pod's namespace, within the limit, from a foreign address if given.
    pub(crate) async fn dial(&self, to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        self.thread.dialers.note_use();
        within_limit(self.dialer.dial(to, of_family(source, to))).await
    }
}

/// Dials once, from `netns`, within the limit.
pub(crate) async fn dial_from(
    netns: Option<&NetNamespace>,
    thread: &Thread,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    within_limit(dial(to, netns, &thread.settings.dial(None))).await
}

/// A source of the other family could not reach the target.
fn of_family(source: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
    source.filter(|source| source.is_ipv4() == to.is_ipv4())
}

async fn within_limit(dialing: impl Future<Output = io::Result<Dialed>>) -> io::Result<TcpStream> {
    let dialed = tokio::time::timeout(DIAL_LIMIT, dialing).await;
    let dialed = dialed.map_err(|late| io::Error::new(io::ErrorKind::TimedOut, late))?;
    let Dialed { stream, fallback } = dialed?;
    if let Some(fallback) = fallback {
        tracing::warn!(target: "ztunnel::proxy", "{fallback}");
    }
    Ok(stream)
}

fn local_address(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}
