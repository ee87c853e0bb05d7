//! The server against a proxy made of messages. A-IP-19
use std::os::fd::OwnedFd;

use net::NetNamespace;
use wire::workload::zds::workload_request::Payload;

use super::*;
use crate::enrolled::{Options, Record, Store};
use crate::ledger::Progress;

/// A proxy as far as the agent sees it.
pub(crate) struct FakeProxy {
    stream: Stream,
}

impl FakeProxy {
    pub(crate) async fn connect(path: &Path) -> Self {
        let stream = Stream::connect(path).await.unwrap();
        let hello = zds::ZdsHello { version: zds::Version::V1.into() };
        stream.send(&hello.encode_to_vec(), None).await.unwrap();
        Self { stream }
    }

    /// The next request, unanswered.
    pub(crate) async fn request(&self) -> (Payload, Option<OwnedFd>) {
        let mut buffer = [0; MESSAGE_LIMIT];
        let packet =
            timeout(Duration::from_secs(60), self.stream.receive(&mut buffer)).await.unwrap().unwrap();
        let request = zds::WorkloadRequest::decode(&buffer[..packet.length]).unwrap();
        (request.payload.unwrap(), packet.descriptor)
    }

    pub(crate) async fn answer(&self, error: &str) {
        let ack = zds::Ack { error: error.to_owned() };
        let response = zds::WorkloadResponse { payload: Some(zds::workload_response::Payload::Ack(ack)) };
        self.stream.send(&response.encode_to_vec(), None).await.unwrap();
    }

    /// The next request, accepted, in a word.
    pub(crate) async fn accept(&self) -> String {
        self.accept_unless("").await
    }

    /// The same, but a pod is answered with this error.
    pub(crate) async fn accept_unless(&self, error: &str) -> String {
        let (payload, descriptor) = self.request().await;
        let said = match payload {
            Payload::Add(add) => {
                let namespace = NetNamespace::from_fd(descriptor.expect("a namespace comes along")).unwrap();
                let info = add.workload_info.unwrap();
                format!(
                    "add {} {}/{}/{} {}",
                    add.uid,
                    info.namespace,
                    info.name,
                    info.service_account,
                    namespace.id().inode
                )
            }
            Payload::Keep(keep) => format!("keep {}", keep.uid),
            Payload::Del(del) => format!("del {}", del.uid),
            Payload::SnapshotSent(_) => "sent".to_owned(),
        };
        self.answer(if said.starts_with("add") { error } else { "" }).await;
        said
    }

    pub(crate) async fn closed(&self) {
        let received = timeout(Duration::from_secs(20), self.stream.receive(&mut [0; 8])).await.unwrap();
        assert!(matches!(received, Err(ReceiveError::Closed | ReceiveError::Io(_))), "{received:?}");
    }
}

struct Agent {
    folder: tempfile::TempDir,
    enrollment: Arc<Enrollment>,
    tasks: TaskGroup,
}

impl Agent {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let enrollment = Arc::new(Enrollment::new(Store::new(folder.path())));
        let listener = listen(&folder.path().join("z.sock")).await.unwrap();
        let tasks = TaskGroup::new("test");
        tasks.spawn("zds", serve(listener, Arc::clone(&enrollment), tasks.clone()));
        Self { folder, enrollment, tasks }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("z.sock")
    }

    /// Straight into the ledger: rules are the enrollment's tests' concern.
    fn enroll(&self, uid: &str, is_open: bool) -> u64 {
        let namespace = NetNamespace::current().unwrap();
        let record = Record {
            uid: uid.to_owned(),
            pod: format!("ns/{uid}").parse().unwrap(),
            service_account: "sa".to_owned(),
            netns: PathBuf::new(),
            device: namespace.id().device,
            inode: namespace.id().inode,
            options: Options::default(),
        };
        self.enrollment.change(|ledger| ledger.enroll(record, is_open.then(|| Arc::new(namespace))))
    }

    async fn progress(&self, uid: &str, generation: u64, wanted: Progress) {
        let mut changes = self.enrollment.changes();
        let reached = async {
            while self.enrollment.ledger().progress(uid, generation) != wanted {
                changes.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), reached).await.unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn add(uid: &str) -> String {
    format!("add {uid} ns/{uid}/sa {}", NetNamespace::current().unwrap().id().inode)
}

#[tokio::test]
async fn a_proxy_gets_the_snapshot_then_what_changes() {
    let agent = Agent::start().await;
    agent.enroll("a", true);
    agent.enroll("b", false);
    let proxy = FakeProxy::connect(&agent.socket()).await;
    assert_eq!(proxy.accept().await, add("a"));
    assert_eq!(proxy.accept().await, "keep b");
    assert_eq!(proxy.accept().await, "sent");
    let generation = agent.enroll("c", true);
    assert_eq!(proxy.accept().await, add("c"));
    agent.progress("c", generation, Progress::Accepted).await;
    agent.enrollment.change(|ledger| ledger.withdraw("a"));
    assert_eq!(proxy.accept().await, "del a");
}

#[tokio::test]
async fn with_two_proxies_the_newest_gets_pods_and_both_get_deletions() {
    let agent = Agent::start().await;
    agent.enroll("a", true);
    let old = FakeProxy::connect(&agent.socket()).await;
    assert_eq!([old.accept().await, old.accept().await], [add("a"), "sent".to_owned()]);
    let new = FakeProxy::connect(&agent.socket()).await;
    assert_eq!([new.accept().await, new.accept().await], [add("a"), "sent".to_owned()]);
    agent.enroll("b", true);
    assert_eq!(new.accept().await, add("b"));
    agent.enrollment.change(|ledger| ledger.withdraw("a"));
    assert_eq!([old.accept().await, new.accept().await], ["del a", "del a"]);
    drop(new);
    assert_eq!(old.accept().await, add("b"));
}

#[tokio::test]
async fn one_request_is_outstanding_and_live_changes_wait_for_the_snapshot() {
    let agent = Agent::start().await;
    agent.enroll("a", true);
    let proxy = FakeProxy::connect(&agent.socket()).await;
    let (first, _) = proxy.request().await;
    assert!(matches!(first, Payload::Add(_)));
    agent.enroll("b", true);
    let mut buffer = [0; MESSAGE_LIMIT];
    let early = timeout(Duration::from_millis(100), proxy.stream.receive(&mut buffer)).await;
    assert!(early.is_err(), "nothing is sent before the acknowledgement");
    proxy.answer("").await;
    assert_eq!(proxy.accept().await, "sent");
    assert_eq!(proxy.accept().await, add("b"));
}

#[tokio::test]
async fn a_refusal_is_reported_and_the_connection_goes_on() {
    let agent = Agent::start().await;
    let proxy = FakeProxy::connect(&agent.socket()).await;
    assert_eq!(proxy.accept().await, "sent");
    let generation = agent.enroll("a", true);
    proxy.request().await;
    proxy.answer("failure to start proxy : port taken").await;
    let refused = Progress::Refused("failure to start proxy : port taken".to_owned());
    agent.progress("a", generation, refused).await;
    agent.enroll("b", true);
    assert_eq!(proxy.accept().await, add("b"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_answer_loses_its_connection() {
    let agent = Agent::start().await;
    let generation = agent.enroll("a", true);
    let silent = FakeProxy::connect(&agent.socket()).await;
    silent.request().await;
    silent.closed().await;
    agent.progress("a", generation, Progress::NoProxy).await;
    let proxy = FakeProxy::connect(&agent.socket()).await;
    assert_eq!(proxy.accept().await, add("a"));
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_that_connection_only() {
    let agent = Agent::start().await;
    let good = FakeProxy::connect(&agent.socket()).await;
    assert_eq!(good.accept().await, "sent");

    let garbage = Stream::connect(&agent.socket()).await.unwrap();
    garbage.send(&[0xff; 20], None).await.unwrap();
    FakeProxy { stream: garbage }.closed().await;

    let chatty = FakeProxy::connect(&agent.socket()).await;
    assert_eq!(chatty.accept().await, "sent");
    chatty.answer("").await;
    chatty.closed().await;

    agent.enroll("a", true);
    assert_eq!(good.accept().await, add("a"));
}

#[tokio::test]
async fn a_second_agent_does_not_take_the_socket_and_a_stale_one_is_replaced() {
    let agent = Agent::start().await;
    assert_eq!(listen(&agent.socket()).await.unwrap_err().code(), "agent-zds-in-use");
    agent.tasks.cancel();
    agent.tasks.join().await.unwrap();
    assert!(agent.socket().exists());
    listen(&agent.socket()).await.unwrap();
}
