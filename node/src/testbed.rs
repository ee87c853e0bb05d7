//! Nodes for tests in namespaces: real threads, listeners and tunnels; a control plane and a node
//! agent played by the test.

mod application_tunnel;
mod drain;
mod hostname;
mod lookup;
mod own;
mod paths;
mod policy;
mod recorded;
mod seats;
mod zds;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use identity::{SpiffeId, WorkloadCertificate};
use kit::fake_ca::FakeCa;
use kit::fake_control::FakeControl;
use kit::sandbox::Host;
use net::capture::{self, Capture};
use net::seqpacket;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use prost::Message as _;
use runtime::clock::Clock;
use runtime::drain::{Drain, Trigger};
use runtime::environment::Environment as Variables;
use runtime::health::Readiness;
use runtime::logging::{Logging, Settings as LogSettings};
use runtime::metrics::RuntimeCollector;
use runtime::tasks::TaskGroup;
use state::{Mesh, MeshConfig};
use tokio::sync::watch;
use wire::workload::zds as wire_zds;

use crate::certs::{CertificateError, CertificateManager, Issuer, Limits};
use crate::config::{Config, Inputs};
use crate::metrics::Metrics;
use crate::pods::{DnsParts, Environment, PodList, Pods};
use crate::settings::Settings;
use crate::sync::{self, MeshHandle};
use crate::threads::{Equipment, Threads};

/// No step of a test may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The world of most tests: a client on node `a`, a server on node `b`, another server on `a`, and
/// a workload outside the mesh.
pub(crate) const WORLD: &str = r#"
workloads:
- {uid: c1//Pod/ns/client, name: client, namespace: ns, serviceAccount: client, trustDomain: cluster.local,
   workloadIps: ["10.1.0.1"], protocol: HBONE, node: a, clusterId: c1, workloadName: client, workloadType: pod,
   canonicalName: client, canonicalRevision: v1, services: {}}
- {uid: c1//Pod/ns/server, name: server, namespace: ns, serviceAccount: server, trustDomain: cluster.local,
   workloadIps: ["10.1.0.2"], protocol: HBONE, node: b, clusterId: c1, workloadName: server, workloadType: pod,
   canonicalName: server, canonicalRevision: v1, services: {"ns/server.ns.svc.cluster.local": {80: 8080}}}
- {uid: c1//Pod/ns/outside, name: outside, namespace: ns, serviceAccount: outside, trustDomain: cluster.local,
   workloadIps: ["10.1.0.3"], protocol: TCP, node: b, clusterId: c1, workloadName: outside, workloadType: pod,
   canonicalName: outside, canonicalRevision: v1, services: {}}
services:
- {name: server, namespace: ns, hostname: server.ns.svc.cluster.local, vips: ["/10.96.0.1"], ports: {80: 8080},
   canonical: true}
"#;

pub(crate) fn mesh(node: &str, world: &str) -> Mesh {
    let config = MeshConfig { node: Some(node.into()), ..MeshConfig::default() };
    let (mesh, applied) = Mesh::new(config).apply(state::local_file::parse(world).unwrap());
    assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    mesh
}

pub(crate) fn identity(name: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "ns", name).unwrap()
}

#[derive(Debug)]
struct Signs(Arc<FakeCa>);

impl Issuer for Signs {
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, CertificateError>> {
        Box::pin(async move { Ok(self.0.issue(id, Duration::from_secs(3600))) })
    }
}

/// What a node has logged.
#[derive(Clone, Default)]
pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives a node another world.
pub(crate) type Change = Box<dyn Fn(&str)>;

fn scripted(name: &str, world: &str) -> (MeshHandle, Change) {
    let (handle, publish) = MeshHandle::scripted(mesh(name, world));
    let name = name.to_owned();
    (handle, Box::new(move |world| publish(mesh(&name, world))))
}

/// A mesh that starts as this world and grows by what the control plane is asked for.
fn discovering(name: &str, world: &str, control: &FakeControl, tasks: &TaskGroup) -> MeshHandle {
    let config = sync::Config {
        control: None,
        node: sync::NodeInfo { node_name: name.to_owned(), ..sync::NodeInfo::default() },
        on_demand: true,
        demand_limit: LIMIT,
        local: Some(sync::LocalSource::Inline(world.to_owned())),
        mesh: MeshConfig { node: Some(name.into()), on_demand: true, ..MeshConfig::default() },
    };
    let connector = Some((sync::Plain(control.url()), control.url()));
    let sync = sync::Sync::with(config, connector, &mut Registry::default(), ()).unwrap();
    let handle = sync.mesh();
    tasks.spawn("discovery", sync.run());
    handle
}

fn unchangeable() -> Change {
    Box::new(|_| panic!("this node's world is the control plane's"))
}

/// How a node is started.
#[derive(Default)]
pub(crate) struct Start<'a> {
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) resolv_conf: &'a str,
    /// Asked on demand for what the node's world lacks.
    pub(crate) discovery: Option<&'a FakeControl>,
}

/// A node and the agent that hands pods to it.
pub(crate) struct Node {
    pub(crate) list: PodList,
    pub(crate) readiness: Readiness,
    pub(crate) change: Change,
    pub(crate) environment: Environment,
    metrics: Metrics,
    page: Page,
    trigger: Trigger,
    tasks: TaskGroup,
    agent: seqpacket::Listener,
    connection: Option<seqpacket::Stream>,
    _folder: tempfile::TempDir,
    _certificates: CertificateManager,
    /// Sent when every pod has been drained.
    pub(crate) ended: tokio::sync::oneshot::Receiver<()>,
}

impl Node {
    /// A node that has been told this world; its agent has not sent anything yet.
    pub(crate) async fn start(name: &str, world: &str, ca: &Arc<FakeCa>) -> Self {
        Self::start_with(name, world, ca, &[]).await
    }

    pub(crate) async fn start_with(
        name: &str,
        world: &str,
        ca: &Arc<FakeCa>,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::launch(name, world, ca, Start { variables, ..Start::default() }).await
    }

    pub(crate) async fn launch(name: &str, world: &str, ca: &Arc<FakeCa>, start: Start<'_>) -> Self {
        let Start { variables, resolv_conf, discovery } = start;
        let mut all = vec![("NODE_NAME", name), ("CONNECTION_TERMINATION_DEADLINE", "1s")];
        all.extend(variables);
        let inputs = Inputs {
            environment: all.into_iter().collect::<Variables>(),
            mesh_file: None,
            resolv_conf: resolv_conf.to_owned(),
            n_cpus: 2,
            ipv6_loopback: true,
            arguments: String::new(),
        };
        let config = Config::load(&inputs).unwrap();
        // A test asks for lines as soon as it has seen what they tell.
        let settings = Arc::new(Settings { log_pause: Duration::ZERO, ..Settings::new(&config) });
        let tasks = TaskGroup::new("test");
        let (mesh_handle, change) = match discovery {
            None => scripted(name, world),
            Some(control) => (discovering(name, world, control, &tasks), unchangeable()),
        };
        let issuer = Arc::new(Signs(Arc::clone(ca)));
        let (certificates, worker) = CertificateManager::new(issuer, Limits::default(), Clock::system());
        tasks.spawn("certificates", worker.run());

        let page = Page::default();
        let (logging, subscriber) = Logging::build(LogSettings::default(), page.clone()).unwrap();
        // What tracing says is not compared; the first node of a test shows it.
        drop(subscriber);
        let mut threads = Threads::start(config.n_traffic_threads).unwrap();
        let event_loops = RuntimeCollector::new(threads.event_loops(), vec![tasks.clone()]);
        let mut metrics = Metrics::new("unknown", event_loops, true);
        metrics.show_tunnels(&settings.hbone);
        let dns_metrics = crate::dns::Metrics::new(metrics.dns());
        threads.equip(|| Equipment {
            mesh: mesh_handle.clone(),
            certificates: certificates.clone(),
            settings: Arc::clone(&settings),
            counters: metrics.shard(),
            logging: logging.clone(),
            clock: Clock::system(),
            revocations: None,
        });
        let (trigger, drain) = Drain::new();
        let list = PodList::default();
        let environment = Environment {
            threads: Arc::new(threads),
            settings,
            dns: DnsParts {
                mesh: watch::channel(mesh_handle.current()).1,
                settings: Arc::new(config.dns()),
                metrics: dns_metrics,
            },
            metrics: metrics.pods.clone(),
            list: list.clone(),
            drain,
            tasks: tasks.clone(),
            connections: tasks.clone(),
        };
        let readiness = Readiness::new();
        let pods = Pods::new(environment.clone(), readiness.register("workload proxy manager"));
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("zds");
        let agent = seqpacket::Listener::bind(&path).unwrap();
        let (done, ended) = tokio::sync::oneshot::channel();
        tasks.spawn("pods", async move {
            pods.run(path).await;
            let _ = done.send(());
        });
        let mut node = Self {
            list,
            readiness,
            environment,
            change,
            metrics,
            page,
            trigger,
            tasks,
            agent,
            connection: None,
            _folder: folder,
            _certificates: certificates,
            ended,
        };
        node.accept().await;
        node
    }

    /// The proxy connects and announces itself.
    pub(crate) async fn accept(&mut self) {
        let stream = limited(self.agent.accept()).await.unwrap();
        let mut buffer = [0; 64];
        let hello = limited(stream.receive(&mut buffer)).await.unwrap();
        let hello = wire_zds::ZdsHello::decode(&buffer[..hello.length]).unwrap();
        assert_eq!(hello.version, i32::from(wire_zds::Version::V1));
        self.connection = Some(stream);
    }

    /// The agent goes away.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Sends a message and returns the error of its acknowledgement.
    pub(crate) async fn send(
        &self,
        payload: wire_zds::workload_request::Payload,
        netns: Option<&net::NetNamespace>,
    ) -> String {
        let bytes = wire_zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec();
        let stream = self.connection.as_ref().unwrap();
        stream.send(&bytes, netns.map(|netns| netns.as_fd())).await.unwrap();
        let mut buffer = [0; 1024];
        let packet = limited(stream.receive(&mut buffer)).await.unwrap();
        let answer = wire_zds::WorkloadResponse::decode(&buffer[..packet.length]).unwrap();
        let wire_zds::workload_response::Payload::Ack(ack) = answer.payload.unwrap();
        ack.error
    }

    /// Enrols a host as the pod of its name: the proxy first, then the rules.
    pub(crate) async fn enrol(&self, host: &Host) {
        assert_eq!(self.add(&host.name, &host.name, host).await, "");
        capture::apply(&host.namespace, &Capture::default()).unwrap();
    }

    pub(crate) async fn add(&self, uid: &str, name: &str, host: &Host) -> String {
        self.add_as(uid, "ns", name, name, host).await
    }

    /// A pod by all its names.
    pub(crate) async fn add_as(
        &self,
        uid: &str,
        namespace: &str,
        name: &str,
        account: &str,
        host: &Host,
    ) -> String {
        let info = wire_zds::WorkloadInfo {
            name: name.into(),
            namespace: namespace.into(),
            service_account: account.into(),
        };
        let add = wire_zds::AddWorkload { uid: uid.into(), workload_info: Some(info) };
        let payload = wire_zds::workload_request::Payload::Add(add);
        self.send(payload, Some(&host.namespace)).await
    }

    pub(crate) async fn delete(&self, uid: &str) -> String {
        let delete = wire_zds::DelWorkload { uid: uid.into() };
        self.send(wire_zds::workload_request::Payload::Del(delete), None).await
    }

    pub(crate) async fn keep(&self, uid: &str) -> String {
        let keep = wire_zds::KeepWorkload { uid: uid.into() };
        self.send(wire_zds::workload_request::Payload::Keep(keep), None).await
    }

    pub(crate) async fn snapshot_sent(&self) -> String {
        let sent = wire_zds::SnapshotSent {};
        self.send(wire_zds::workload_request::Payload::SnapshotSent(sent), None).await
    }

    /// Begins the drain of the whole node.
    pub(crate) fn drain(&self) {
        self.trigger.start();
    }

    /// What the node's tunnels are counted by.
    pub(crate) fn tunnels(&self) -> Arc<hbone::Metrics> {
        self.environment.settings.hbone.metrics.clone().unwrap()
    }

    /// The sum of the samples whose lines contain all of these.
    pub(crate) fn counted(&self, parts: &[&str]) -> u64 {
        let page = self.metrics.render();
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let ours = samples.filter(|line| parts.iter().all(|part| line.contains(part)));
        ours.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// All that has been logged.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.page.0.lock().clone()).unwrap()
    }

    /// Waits for a log line that contains all of these.
    pub(crate) async fn line(&self, parts: &[&str]) -> String {
        let found = async {
            loop {
                let text = self.text();
                let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
                if let Some(line) = line {
                    return line.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(LIMIT, found).await {
            Ok(line) => line,
            Err(_) => panic!("no line with {parts:?} in:\n{}", String::from_utf8_lossy(&self.page.0.lock())),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// With the limit of a test's step.
pub(crate) async fn limited<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, step).await.expect("within the limit of a step")
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(LIMIT, holds).await.is_err() {
        panic!("not within {LIMIT:?}: {what}");
    }
}

/// Does blocking work in a host's namespace while the event loop goes on.
pub(crate) async fn inside<T: Send + 'static>(host: &Host, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = host.spawn(work);
    until("work inside a host", || thread.is_finished()).await;
    Host::join(thread)
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Runs a test's steps on an event loop.
pub(crate) fn run(steps: impl Future<Output = ()>) {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&event_loop, steps);
}
