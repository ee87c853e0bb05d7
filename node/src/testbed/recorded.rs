//! Exchanges with the reference, replayed against a node: the same is sent, and what comes back, what is logged and
//! what is counted is compared with the recording in `tests/data/hbone`. A difference that is meant has a test of its own
//! and a line in `docs/compatibility.md`.

mod answers;
mod frames;
mod handshakes;
mod inbound;
mod lifecycle;
mod outbound;
mod peers;
mod plaintext;
mod policies;
mod probe;
mod silence;
mod streams;
mod tables;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use identity::{SpiffeId, WorkloadCertificate};
use kit::echo::connect;
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, Sandbox, sandboxed};
use serde_json::{Value, json};

use super::*;

/// The pods of the recordings: name, address, node (none: outside the mesh), zone.
const ROLES: [(&str, &str, Option<&str>); 10] = [
    ("server", "10.1.0.11", Some("a")),
    ("client", "10.1.0.12", Some("a")),
    ("neighbour", "10.1.0.13", Some("a")),
    ("gone", "10.1.0.14", Some("a")),
    ("remote", "10.1.0.15", Some("b")),
    ("peer", "10.1.0.16", None),
    ("plainpod", "10.1.0.17", None),
    ("raw", "10.1.0.18", None),
    ("frozen", "10.1.0.19", None),
    ("vip-empty", "10.96.0.99", None),
];

fn role(name: &str) -> IpAddr {
    let (_, ip, _) = ROLES.iter().find(|(role, ..)| *role == name).expect(name);
    ip.parse().unwrap()
}

fn vip(name: &str) -> String {
    role(name).to_string().replace("10.1.", "10.96.")
}

fn at(name: &str, port: u16) -> SocketAddr {
    SocketAddr::new(role(name), port)
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "probes", name).unwrap()
}

/// The mesh of the recordings, with these policies; `named` is those that the server's workload names.
fn probes(policies: &str, named: &str) -> String {
    let mut text = String::from("workloads:\n");
    for (name, ip, node) in ROLES.iter().filter(|(name, ..)| !["raw", "vip-empty"].contains(name)) {
        let protocol = if *name == "plainpod" { "TCP" } else { "HBONE" };
        let zone = if *node == Some("a") { "za" } else { "zb" };
        let services = match *name {
            "server" | "client" | "remote" | "peer" => {
                format!("{{probes/{name}.probes.svc.cluster.local: {{80: 7000}}}}")
            }
            _ => "{}".to_owned(),
        };
        let named = if *name == "server" { named } else { "" };
        text += &format!(
            "- {{uid: Kubernetes//Pod/probes/{name}-0, name: {name}-0, namespace: probes, serviceAccount: {name}, \
             trustDomain: cluster.local, workloadIps: [\"{ip}\"], protocol: {protocol}, node: {}, clusterId: Kubernetes, \
             workloadName: {name}-0, workloadType: pod, canonicalName: {name}, canonicalRevision: v1, \
             locality: {{region: r1, zone: {zone}, subzone: \"\"}}, authorizationPolicies: [{named}], \
             services: {services}}}\n",
            node.unwrap_or("b"),
        );
    }
    text += "services:\n";
    for (name, vip) in [
        ("server", vip("server")),
        ("client", vip("client")),
        ("remote", vip("remote")),
        ("peer", vip("peer")),
        ("empty", role("vip-empty").to_string()),
    ] {
        text += &format!(
            "- {{name: {name}, namespace: probes, hostname: {name}.probes.svc.cluster.local, vips: [\"/{vip}\"], \
             ports: {{80: 7000}}, canonical: true}}\n"
        );
    }
    text + policies
}

/// One recording.
struct Recording {
    sent: String,
    observed: Value,
    /// `None`: it varied.
    log: Option<Vec<String>>,
    /// The log has each line once.
    distinct: bool,
    /// `None`: they varied.
    metrics: Option<BTreeMap<String, u64>>,
}

impl Recording {
    fn load(id: &str) -> Self {
        let path = format!("{}/../tests/data/hbone/{id}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let recording: Value = serde_json::from_str(&text).unwrap();
        let line = |line: &Value| line.as_str().filter(|line| line.contains("\taccess\t")).map(bare);
        let mut observed = recording["observed"].clone();
        if let Some(observed) = observed.as_object_mut() {
            // Times are others', and the dump has tests of its own.
            if let Some(table) = observed.get_mut("open").and_then(Value::as_array_mut) {
                table.sort_by_key(Value::to_string);
            }
            observed.retain(|key, _| {
                !["after_s", "under_1s", "synthetic_policy_in_dump"].contains(&key.as_str())
            });
        }
        let distinct = recording["log"][0] == "(many lines, distinct ones follow)";
        Self {
            distinct,
            sent: recording["sent"].to_string(),
            observed,
            log: recording["log"].as_array().map(|lines| lines.iter().filter_map(line).collect()),
            metrics: recording["metrics_delta"].as_object().map(|counters| {
                let tcp = counters.iter().filter(|(name, _)| name.starts_with("istio_tcp"));
                tcp.map(|(name, value)| (name.clone(), value.as_u64().unwrap())).collect()
            }),
        }
    }

    /// How a connection ended, if the recording left it to the kernel: `closed`.
    fn end(&self, pointer: &str, end: &'static str) -> &'static str {
        let closed = self.observed.pointer(pointer).is_some_and(|end| end == "closed");
        if closed && end != "open" { "closed" } else { end }
    }
}

/// A line without the texts of TLS and HTTP/2 libraries, which are information, not contract.
fn bare(line: &str) -> String {
    let library = [
        "tls handshake error",
        "h2 failed: ",
        "send: ",
        "receive: ",
        "while closing connection: ",
        "io error: ",
    ];
    match line.split_once(" error=\"") {
        Some((rest, error)) if library.iter().any(|text| error.starts_with(text)) => {
            format!("{rest} error=\"(library)\"")
        }
        _ => line.to_owned(),
    }
}

/// An access line as the recordings mask it, without our `code`.
fn masked(line: &str) -> String {
    let (_time, rest) = line.split_once('\t').unwrap();
    let line = named(&format!("T\t{rest}"));
    let mut fields: Vec<String> = Vec::new();
    for field in line.split(' ') {
        if field.starts_with("code=") {
            continue;
        }
        fields.push(match field.split_once("src.addr=") {
            Some((before, value)) => format!("{before}src.addr={}:E", value.rsplit_once(':').unwrap().0),
            None if field.starts_with("duration=") => "duration=\"D\"".to_owned(),
            None => field.to_owned(),
        });
    }
    bare(&fields.join(" "))
}

/// Addresses by role.
fn named(text: &str) -> String {
    ROLES.iter().fold(text.to_owned(), |text, (name, ip, _)| {
        let text = text.replace(ip, &format!("<{name}>"));
        text.replace(&ip.replace("10.1.", "10.96."), &format!("<vip-{name}>"))
    })
}

/// An application that sends back what it gets, and remembers who called.
struct Echo {
    callers: Arc<Mutex<Vec<IpAddr>>>,
}

impl Echo {
    fn start(host: &Host, at: SocketAddr) -> Self {
        let listener = host.run(|| TcpListener::bind(at)).unwrap();
        let callers = Arc::<Mutex<Vec<IpAddr>>>::default();
        let seen = Arc::clone(&callers);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                seen.lock().push(stream.peer_addr().unwrap().ip());
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        stream.write_all(&buffer[..n])?;
                    }
                    stream.shutdown(Shutdown::Write)
                });
            }
        });
        Self { callers }
    }

    /// The callers since the last question, by role.
    fn callers(&self) -> Vec<String> {
        std::mem::take(&mut *self.callers.lock()).iter().map(|ip| named(&ip.to_string())).collect()
    }
}

/// The node under test, `a`, another one, and the pods.
struct Lab {
    node: Node,
    _far: Node,
    ca: Arc<FakeCa>,
    pods: BTreeMap<&'static str, Host>,
    differences: RefCell<Vec<String>>,
}

impl Lab {
    async fn new(sandbox: &mut Sandbox) -> Self {
        Self::with(sandbox, &[]).await
    }

    /// With variables of the node under test.
    async fn with(sandbox: &mut Sandbox, variables: &[(&str, &str)]) -> Self {
        let ca = Arc::new(FakeCa::new());
        let world = probes("", "");
        let node = Node::start_with("a", &world, &ca, variables).await;
        let far = Node::start("b", &world, &ca).await;
        let mut pods = BTreeMap::new();
        for (name, ip, on) in ROLES.iter().filter(|(name, ..)| *name != "vip-empty") {
            let host = sandbox.host(name, &[ip]);
            if let Some(on) = on {
                let node = if *on == "a" { &node } else { &far };
                assert_eq!(node.add_as(name, "probes", &format!("{name}-0"), name, &host).await, "");
                capture::apply(&host.namespace, &Capture::default()).unwrap();
            }
            pods.insert(*name, host);
        }
        assert_eq!(node.snapshot_sent().await, "");
        Self { node, _far: far, ca, pods, differences: RefCell::default() }
    }

    fn pod(&self, name: &str) -> &Host {
        &self.pods[name]
    }

    fn echo(&self, name: &str, port: u16) -> Echo {
        Echo::start(self.pod(name), at(name, port))
    }

    /// A place where the test itself is the application.
    fn listener(&self, name: &str, port: u16) -> TcpListener {
        self.pod(name).run(|| TcpListener::bind(at(name, port))).unwrap()
    }

    /// How a client with this account speaks to the server.
    fn tls(&self, name: &str) -> Arc<rustls::ClientConfig> {
        self.certificate(name).client_config(&[account("server")])
    }

    fn certificate(&self, name: &str) -> WorkloadCertificate {
        self.ca.issue(&account(name), Duration::from_secs(600))
    }

    fn world(&self, policies: &str, named: &str) {
        (self.node.change)(&probes(policies, named));
    }

    /// Does what was done for this recording, and compares what was observed, logged and counted.
    async fn replay(&self, id: &str, exchange: impl AsyncFnOnce(&Recording) -> Value) {
        self.expect(id, Recording::load(id), exchange).await;
    }

    /// The same with a recording that was changed where we differ on purpose.
    async fn expect(&self, id: &str, recording: Recording, exchange: impl AsyncFnOnce(&Recording) -> Value) {
        let (start, before) = (self.node.text().len(), self.counters());
        let observed = exchange(&recording).await;
        self.compare(id, "observed", &recording.observed, &observed);
        let logged = || {
            let text = self.node.text().split_off(start);
            let lines = text.lines().filter(|line| line.contains("\taccess\tconnection"));
            let mut lines: Vec<_> = lines.map(masked).collect();
            lines.sort();
            if recording.distinct {
                lines.dedup();
            }
            lines
        };
        if let Some(mut wanted) = recording.log.clone() {
            wanted.sort();
            if recording.distinct {
                wanted.dedup();
            }
            soon(|| logged() == wanted).await;
            self.compare(id, "log", &json!(wanted), &json!(logged()));
        }
        if let Some(wanted) = recording.metrics {
            soon(|| self.moved(&before) == wanted).await;
            self.compare(id, "metrics", &json!(wanted), &json!(self.moved(&before)));
        }
    }

    /// A pod's connections in the dump, masked, each as text.
    fn table(&self, pod: &str, direction: &str) -> Vec<String> {
        let dump = serde_json::to_value(self.node.list.dump()).unwrap();
        let entries = dump[pod]["connections"][direction].as_array().unwrap().iter().map(|entry| {
            let source: SocketAddr = entry["src"].as_str().unwrap().parse().unwrap();
            named(&format!(
                "{{\"actualDst\": {}, \"originalDst\": {}, \"protocol\": {}, \"src\": \"{}:E\"}}",
                entry["actualDst"],
                entry["originalDst"],
                entry["protocol"],
                source.ip()
            ))
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    }

    fn compare(&self, id: &str, what: &str, wanted: &Value, got: &Value) {
        if wanted != got {
            let (wanted, got) = (format!("{wanted:#}"), format!("{got:#}"));
            let missing: Vec<_> =
                wanted.lines().filter(|line| !got.contains(line.trim_end_matches(','))).collect();
            let new: Vec<_> =
                got.lines().filter(|line| !wanted.contains(line.trim_end_matches(','))).collect();
            let difference =
                format!("{id} {what}\n  - {}\n  + {}", missing.join("\n  - "), new.join("\n  + "));
            self.differences.borrow_mut().push(difference);
        }
    }

    fn assert_same(&self) {
        let differences = self.differences.borrow();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// The TCP counters of the page; labels without a value are left out, as in the recordings.
    fn counters(&self) -> BTreeMap<String, u64> {
        let page = self.node.metrics.render();
        let samples = page.lines().filter(|line| line.starts_with("istio_tcp") && line.contains("_total{"));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap();
            let known: Vec<_> = labels.split(',').filter(|label| !label.ends_with("=\"unknown\"")).collect();
            (format!("{name}{{{}}}", known.join(",")), value.parse::<u64>().unwrap())
        };
        samples.map(sample).collect()
    }

    fn moved(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let now = self.counters().into_iter();
        let moved = now.map(|(name, value)| {
            let since = value - before.get(&name).copied().unwrap_or_default();
            (name, since)
        });
        moved.filter(|(_, value)| *value > 0).collect()
    }
}

/// Waits for a while; what does not come true is a difference.
async fn soon(condition: impl Fn() -> bool) {
    let comes = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(4), comes).await;
}

/// Reads to the end: what came, and how it ended. A connection that is cut may end in either way.
fn read_out(stream: &mut TcpStream) -> (Vec<u8>, &'static str) {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => (all, "fin"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (all, "rst"),
        Err(_) => (all, "open"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The next connection of an application, with limits.
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Ends a connection with RST.
fn reset(stream: TcpStream) {
    net::socket::rst_on_close(&stream).unwrap();
}
