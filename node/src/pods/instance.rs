//! One pod while it is served: its parts on all traffic threads, and how it stops.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use identity::SpiffeId;
use net::{NamespaceId, NetNamespace};
use runtime::drain::{Drain, Outcome, Trigger};
use runtime::tasks::TaskGroup;
use state::{Mesh, Pod};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::list::PodList;
use super::netns::{self, Sockets, StartError};
use super::proxy::{Drains, PodProxy, PodShared, Seat};
use super::seats::{Arrivals, Seats};
use crate::connections::ConnectionLists;
use crate::dns;
use crate::metrics::PodMetrics;
use crate::settings::Settings;
use crate::threads::{Thread, Threads};

/// How long the tasks of a pod that was cut get to let go.
const LET_GO: Duration = Duration::from_secs(2);

/// What pods are started with.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) threads: Arc<Threads>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) dns: DnsParts,
    pub(crate) metrics: PodMetrics,
    pub(crate) list: PodList,
    /// The process's.
    pub(crate) drain: Drain,
    pub(crate) tasks: TaskGroup,
    pub(crate) connections: TaskGroup,
}

/// What the DNS proxies of all pods have in common.
#[derive(Clone, Debug)]
pub(crate) struct DnsParts {
    pub(crate) mesh: watch::Receiver<Arc<Mesh>>,
    pub(crate) settings: Arc<dns::Settings>,
    pub(crate) metrics: dns::Metrics,
}

/// A pod that is served.
#[derive(Debug)]
pub(crate) struct Instance {
    uid: String,
    /// None: where the proxy is.
    netns: Option<NamespaceId>,
    shared: Arc<PodShared>,
    triggers: [(&'static str, Trigger); 3],
    list: PodList,
    span: tracing::Span,
}

impl Instance {
    /// A pod that the agent handed over, in its namespace. The dump lists it.
    pub(crate) async fn start(
        environment: &Environment,
        uid: &str,
        pod: Pod,
        netns: NetNamespace,
    ) -> Result<Self, StartError> {
        let n_threads = environment.threads.count();
        let sockets = netns::sockets(Some(&netns), &environment.settings, n_threads)?;
        announce(&environment.settings, &sockets);
        let lists = ConnectionLists::default();
        let named = pod.clone();
        let mut instance = Self::begin(environment, pod, Some(netns), None, sockets, &lists).await?;
        uid.clone_into(&mut instance.uid);
        environment.list.up(uid, &named, lists);
        Ok(instance)
    }

    /// A workload where the proxy itself is; with an identity, the proxy's own.
    pub(super) async fn here(
        environment: &Environment,
        pod: Pod,
        own: Option<SpiffeId>,
        sockets: Sockets,
    ) -> Result<Self, StartError> {
        Self::begin(environment, pod, None, own, sockets, &ConnectionLists::default()).await
    }

    async fn begin(
        environment: &Environment,
        pod: Pod,
        netns: Option<NetNamespace>,
        own: Option<SpiffeId>,
        sockets: Sockets,
        lists: &ConnectionLists,
    ) -> Result<Self, StartError> {
        let Environment { list, drain, tasks, connections, .. } = environment;
        let id = netns.as_ref().map(NetNamespace::id);
        let span = tracing::info_span!("proxy", wl = format_args!("{}/{}", pod.namespace, pod.name));
        let (outbound, inbound, plaintext) = (drain.child(), drain.child(), drain.child());
        let (seats, arrivals) = Seats::new(environment.threads.loads());
        let shared = Arc::new(PodShared {
            pod,
            netns: netns.map(Arc::new),
            own,
            drains: Drains { outbound: outbound.1, inbound: inbound.1, plaintext: plaintext.1 },
            seats,
            tasks: tasks.child("pod"),
            connections: connections.child("pod"),
        });
        let instance = Self {
            uid: String::new(),
            netns: id,
            shared: Arc::clone(&shared),
            triggers: [
                ("outbound", outbound.0),
                ("inbound", inbound.0),
                ("inbound passthrough", plaintext.0),
            ],
            list: list.clone(),
            span,
        };
        match instance.spread(environment, sockets, arrivals, lists).await {
            Ok(()) => Ok(instance),
            Err(error) => {
                instance.cut().await;
                Err(error)
            }
        }
    }

    async fn spread(
        &self,
        environment: &Environment,
        sockets: Sockets,
        arrivals: Vec<Arrivals>,
        lists: &ConnectionLists,
    ) -> Result<(), StartError> {
        static NEXT_FOR_DNS: AtomicUsize = AtomicUsize::new(0);
        let threads = &environment.threads;
        let dns_thread = NEXT_FOR_DNS.fetch_add(1, Ordering::Relaxed) % threads.count();
        let mut listeners = sockets.listeners.into_iter();
        let mut arrivals = arrivals.into_iter();
        let mut dns = sockets.dns;
        let resolvers = netns::resolvers(self.netns, &environment.settings.resolver);
        let started = threads.each(|n| {
            let listeners = listeners.next().unwrap_or_default();
            let seat = arrivals.next().map(|arrivals| Seat { thread: n, arrivals });
            let dns = if n == dns_thread { dns.take() } else { None };
            let (shared, lists, span) = (Arc::clone(&self.shared), lists.clone(), self.span.clone());
            let (parts, resolvers) = (environment.dns.clone(), resolvers.clone());
            move |thread: &Rc<Thread>| -> std::io::Result<()> {
                let _entered = span.enter();
                PodProxy::start(thread, Arc::clone(&shared), lists.part(), listeners, seat)?;
                if let Some(sockets) = dns {
                    serve_dns(thread, shared, sockets, parts, resolvers);
                }
                Ok(())
            }
        });
        let started = started.await;
        if started.len() < threads.count() {
            return Err(StartError::NoThread);
        }
        started.into_iter().collect::<Result<(), _>>().map_err(StartError::Register)
    }

    /// The namespace it is served in.
    pub(crate) fn netns(&self) -> Option<NamespaceId> {
        self.netns
    }

    /// Accepts no more, waits for connections until the deadline, then cuts the rest.
    pub(crate) async fn drain(self, deadline: Duration) {
        let Self { uid, shared, triggers, list, span, .. } = self;
        let parts = triggers.map(|(component, trigger)| {
            let span = span.clone();
            trigger.drain(deadline).map(move |outcome| {
                let _entered = span.enter();
                if let Outcome::Expired { .. } = outcome {
                    tracing::warn!(target: "ztunnel::drain", component, "drain duration expired with pending connections, forcefully shutting down");
                }
                tracing::info!(target: "ztunnel::drain", component, "shutdown complete");
            })
        });
        futures::future::join_all(parts).await;
        futures::future::join(end(&shared.tasks), end(&shared.connections)).await;
        list.remove(&uid);
    }

    /// Ends it at once, connections and all.
    pub(crate) async fn cut(self) {
        self.drain(Duration::ZERO).await;
    }
}

async fn end(tasks: &TaskGroup) {
    tasks.cancel();
    // What does not let go in time has nothing left to do but to be dropped.
    let _ = tokio::time::timeout(LET_GO, tasks.join()).await;
}

/// Tells where a workload is served.
pub(super) fn announce(settings: &Settings, sockets: &Sockets) {
    macro_rules! established {
        ($target:literal, $listener:expr, $address:expr, $component:literal) => {
            if let Some(listener) = $listener {
                let (address, transparent) = ($address, listener.transparent);
                tracing::info!(target: $target, %address, component = $component, transparent, "listener established");
            }
        };
    }
    if let (Some(address), true) = (settings.dns, sockets.dns.is_some()) {
        tracing::info!(target: "ztunnel::dns::server", %address, component = "dns", "starting local DNS server");
    }
    let Some(first) = sockets.listeners.first() else { return };
    established!("ztunnel::proxy::inbound", &first.inbound, settings.inbound, "inbound");
    established!(
        "ztunnel::proxy::inbound_passthrough",
        &first.plaintext,
        settings.inbound_plaintext,
        "inbound plaintext"
    );
    established!("ztunnel::proxy::outbound", &first.outbound, settings.outbound, "outbound");
}

fn serve_dns(
    thread: &Rc<Thread>,
    shared: Arc<PodShared>,
    sockets: dns::Sockets,
    parts: DnsParts,
    resolvers: Vec<SocketAddr>,
) {
    let settings = Arc::clone(&thread.settings);
    let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
    let tcp_thread = Rc::clone(thread);
    let upstream = dns::Upstream {
        udp: Rc::new(move |resolver| netns::udp_towards(for_udp.netns.as_deref(), &settings, resolver)),
        tcp: Rc::new(move |resolver| {
            let (shared, thread) = (Arc::clone(&for_tcp), Rc::clone(&tcp_thread));
            let dialed =
                async move { super::proxy::dial_from(shared.netns.as_deref(), &thread, resolver).await };
            dialed.boxed_local()
        }),
    };
    let DnsParts { mesh, settings, metrics } = parts;
    let pod = shared.pod.clone();
    let drain = shared.drains.outbound.clone();
    let span = tracing::info_span!(
        target: "ztunnel::dns::server",
        parent: None,
        "dns_proxy",
        wl = format_args!("{}/{}", pod.namespace, pod.name)
    );
    let dependencies =
        dns::Dependencies { mesh, pod, settings, resolvers, upstream, metrics, drain: drain.clone() };
    let guard = drain.guard();
    let served = async move {
        let _guard = guard;
        // A pod that is cut leaves the questions under way unanswered.
        tokio::select! {
            biased;
            () = drain.cut() => {}
            () = dns::serve(sockets, dependencies) => {}
        }
        tracing::info!(target: "ztunnel::dns::server", "dns server drained");
    };
    shared.tasks.spawn_local("dns", served.instrument(span));
}
