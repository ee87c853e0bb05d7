//! The manager with an authority in memory and paused time.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use kit::fake_ca::{FakeCa, Leaf};
use tokio::sync::Semaphore;

use super::*;

/// Signs after a second of (paused) time, or fails, or waits for a permit; notes the order of the calls.
struct SlowCa {
    ca: FakeCa,
    clock: Clock,
    takes: Duration,
    ttl: Duration,
    calls: Mutex<Vec<String>>,
    running: AtomicUsize,
    most: AtomicUsize,
    failing: Mutex<HashMap<String, usize>>,
    gate: Option<Semaphore>,
    joins_after: Duration,
}

impl SlowCa {
    fn new(clock: &Clock) -> Self {
        Self {
            ca: FakeCa::new(),
            clock: clock.clone(),
            takes: Duration::from_secs(1),
            ttl: Duration::from_secs(3600),
            calls: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            failing: Mutex::default(),
            gate: None,
            joins_after: Duration::ZERO,
        }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    fn fail(&self, name: &str, times: usize) {
        self.failing.lock().insert(name.to_owned(), times);
    }

    async fn sign(&self, id: &SpiffeId) -> Result<WorkloadCertificate, CertificateError> {
        self.calls.lock().push(id.service_account().to_owned());
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        tokio::time::sleep(self.takes).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if let Some(left) = self.failing.lock().get_mut(id.service_account()).filter(|left| **left > 0) {
            *left -= 1;
            return Err(tonic::Status::unavailable("down").into());
        }
        let now = self.clock.wall();
        let leaf = Leaf { not_before: now, not_after: now + self.ttl, ..Leaf::of(id, self.ttl) };
        let issued = self.ca.sign(&leaf);
        Ok(WorkloadCertificate::new(&issued.chain, issued.key, TlsOptions::default())?)
    }
}

impl Issuer for SlowCa {
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(self.joins_after))
    }

    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, CertificateError>> {
        Box::pin(self.sign(id))
    }
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "ns", name).unwrap()
}

struct World {
    manager: CertificateManager,
    ca: Arc<SlowCa>,
    tasks: runtime::tasks::TaskGroup,
    hands: runtime::clock::Hands,
}

impl World {
    fn new(change: impl FnOnce(&mut SlowCa, &mut Limits)) -> Self {
        let (clock, hands) = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let (mut ca, mut limits) = (SlowCa::new(&clock), Limits::default());
        change(&mut ca, &mut limits);
        let ca = Arc::new(ca);
        let (manager, worker) = CertificateManager::new(ca.clone(), limits, clock);
        let tasks = runtime::tasks::TaskGroup::new("test");
        tasks.spawn("certificates", worker.run());
        Self { manager, ca, tasks, hands }
    }

    /// Lets both times pass together, in steps that are small beside every wait.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(500);
        let mut left = time;
        while !left.is_zero() {
            let next = step.min(left);
            self.hands.advance(next);
            tokio::time::sleep(next).await;
            left -= next;
        }
    }

    fn state(&self, name: &str) -> Option<CertificateState> {
        self.manager
            .certificates()
            .into_iter()
            .find(|managed| managed.identity == id(name))
            .map(|managed| managed.state)
    }
}

// Whoever asks before the node has joined waits for it, within the limit of every first certificate.
#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_before_the_node_has_joined() {
    let world = World::new(|ca, _| ca.joins_after = Duration::from_secs(15));
    let (early, late) = (id("early"), id("late"));
    world.manager.prefetch([early.clone()]);
    let refused = world.manager.certificate(&early, Priority::RealTime).await.unwrap_err();
    assert_eq!(refused.code(), "identity-first-wait");
    assert!(matches!(world.state("early"), Some(CertificateState::Initializing)));
    assert!(world.ca.calls().is_empty());
    world.manager.certificate(&late, Priority::RealTime).await.unwrap();
    assert_eq!(world.ca.calls(), ["early", "late"]);
}

// A-MI-03, CO-11.3: one call for all, the same object for all.
#[tokio::test(start_paused = true)]
async fn callers_of_one_identity_share_one_fetch() {
    let world = World::new(|_, _| {});
    let (first, second, third) = (id("a"), id("a"), id("a"));
    let (first, second) = tokio::join!(
        world.manager.certificate(&first, Priority::RealTime),
        world.manager.certificate(&second, Priority::Warmup)
    );
    let third = world.manager.certificate(&third, Priority::RealTime).await.unwrap();
    let first = first.unwrap();
    assert!(Arc::ptr_eq(&first, &second.unwrap()) && Arc::ptr_eq(&first, &third));
    assert_eq!(world.ca.calls(), ["a"]);
}

// CO-11.3: four calls of a second with concurrency four take a second.
#[tokio::test(start_paused = true)]
async fn concurrency_is_used_and_bounded() {
    let world = World::new(|_, limits| limits.concurrency = 4);
    let began = Instant::now();
    let ids: Vec<_> = (0..4).map(|n| id(&format!("a{n}"))).collect();
    futures::future::join_all(ids.iter().map(|id| world.manager.certificate(id, Priority::RealTime))).await;
    assert_eq!(began.elapsed().as_secs(), 1);
    let ids: Vec<_> = (0..20).map(|n| id(&format!("b{n}"))).collect();
    futures::future::join_all(ids.iter().map(|id| world.manager.certificate(id, Priority::RealTime))).await;
    assert_eq!(world.ca.most.load(Ordering::SeqCst), 4);
    assert_eq!(world.ca.calls().len(), 24);
}

// CO-11.3: first queued, then RealTime, Warmup; raised ones move forward.
#[tokio::test(start_paused = true)]
async fn connections_overtake_prefetches() {
    let world = World::new(|ca, limits| {
        ca.gate = Some(Semaphore::new(0));
        limits.concurrency = 1;
        limits.first_wait = Duration::from_secs(100);
        limits.call_deadline = Duration::from_secs(100);
    });
    world.manager.prefetch([id("first")]);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    world.manager.prefetch([id("w1"), id("w2"), id("raised")]);
    let (now, raised) = (id("now"), id("raised"));
    let wait = async {
        let (a, b) = tokio::join!(
            world.manager.certificate(&now, Priority::RealTime),
            world.manager.certificate(&raised, Priority::RealTime)
        );
        (a.unwrap(), b.unwrap())
    };
    let open = async {
        tokio::task::yield_now().await;
        world.ca.gate.as_ref().unwrap().add_permits(100);
    };
    tokio::join!(wait, open);
    world.pass(Duration::from_secs(10)).await;
    let calls = world.ca.calls();
    assert_eq!(calls[0], "first");
    let mut overtaking = calls[1..3].to_vec();
    overtaking.sort();
    assert_eq!(overtaking, ["now", "raised"]);
    assert_eq!(calls[3..5], ["w1", "w2"]);
}

// A-MI-02, CO-11.3: a newer certificate at half-life; a failed renewal keeps the old one; success resets.
#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_at_half_life_and_kept_when_that_fails() {
    let world = World::new(|ca, _| ca.ttl = Duration::from_secs(100));
    let serial = async || {
        let certificate = world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap();
        certificate.leaf().serial().to_owned()
    };
    let first = serial().await;
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(serial().await, first);
    world.ca.fail("a", 3);
    world.pass(Duration::from_secs(15)).await;
    assert!(world.ca.calls().len() >= 3, "tried again and again: {:?}", world.ca.calls());
    assert_eq!(serial().await, first, "kept while valid");
    world.pass(Duration::from_secs(15)).await;
    let second = serial().await;
    assert_ne!(second, first);
    let calls = world.ca.calls().len();
    world.pass(Duration::from_secs(60)).await;
    assert_ne!(serial().await, second);
    assert_eq!(world.ca.calls().len(), calls + 1, "at half-life again, after one call");
}

// CO-11.3: after a failure the cached error is returned until the retry succeeds.
#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_until_the_retry() {
    let world = World::new(|ca, _| ca.fail("a", 1));
    let error = world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap_err();
    assert_eq!(error.to_string(), "signing gRPC error (The service is currently unavailable): down");
    assert_eq!(error.code(), "ca-refused");
    let again = world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap_err();
    assert_eq!(
        (again.to_string(), world.ca.calls().len()),
        (error.to_string(), 1),
        "at once, without a call"
    );
    assert!(matches!(world.state("a"), Some(CertificateState::Unavailable(_))));
    world.pass(Duration::from_secs(3)).await;
    assert!(world.manager.certificate(&id("a"), Priority::RealTime).await.is_ok());
    assert_eq!(world.ca.calls().len(), 2);
}

// A-MI-02: an expired certificate whose renewal fails is no longer offered.
#[tokio::test(start_paused = true)]
async fn an_expired_certificate_becomes_unavailable() {
    let world = World::new(|ca, _| ca.ttl = Duration::from_secs(20));
    world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap();
    world.ca.fail("a", usize::MAX);
    world.pass(Duration::from_secs(30)).await;
    assert!(matches!(world.state("a"), Some(CertificateState::Unavailable(_))));
}

// A-MI-03, CO-11.3: forget while pending; forget after success.
#[tokio::test(start_paused = true)]
async fn forgetting_works_while_pending_and_after() {
    let world = World::new(|_, _| {});
    let a = id("a");
    let (waited, ()) = tokio::join!(world.manager.certificate(&a, Priority::RealTime), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.manager.forget(&id("a"));
    });
    assert_eq!(waited.unwrap_err().to_string(), "the identity is no longer needed");
    world.pass(Duration::from_secs(5)).await;
    assert!(world.manager.certificates().is_empty(), "the late answer is dropped");
    world.manager.certificate(&id("b"), Priority::RealTime).await.unwrap();
    world.manager.forget(&id("b"));
    assert!(world.manager.certificates().is_empty());
}

// A-NS-27: once per identity; kept until the last workload and the last listener are gone.
#[tokio::test(start_paused = true)]
async fn a_prefetched_identity_stays_until_workload_and_listener_are_gone() {
    let world = World::new(|_, _| {});
    world.manager.prefetch([id("a"), id("a")]);
    world.manager.prefetch([id("a")]);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.ca.calls(), ["a"]);
    let (one, two) = (world.manager.hold(&id("a")), world.manager.hold(&id("a")));
    world.manager.forget(&id("a"));
    drop(one);
    assert!(world.state("a").is_some(), "a listener still presents it");
    drop(two);
    assert!(world.state("a").is_none());
    let hold = world.manager.hold(&id("b"));
    world.manager.prefetch([id("b")]);
    drop(hold);
    assert!(world.state("b").is_some(), "a workload still has it");
    world.manager.forget(&id("b"));
    assert!(world.state("b").is_none());
}

// W37: a hanging authority costs a connection a bounded wait, and a slot a bounded time.
#[tokio::test(start_paused = true)]
async fn waits_for_a_hanging_authority_are_bounded() {
    let world = World::new(|ca, limits| {
        ca.gate = Some(Semaphore::new(0));
        limits.first_wait = Duration::from_secs(3);
    });
    let began = Instant::now();
    let error = world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap_err();
    assert_eq!((error.code(), began.elapsed().as_secs()), ("identity-first-wait", 3));
    assert!(matches!(world.state("a"), Some(CertificateState::Initializing)));
    world.pass(Duration::from_secs(8)).await;
    let error = world.manager.certificate(&id("a"), Priority::RealTime).await.unwrap_err();
    assert_eq!(error.code(), "ca-deadline");
}

// CO-11.3: dropping the last handle ends the worker once what runs has ended.
#[tokio::test(start_paused = true)]
async fn the_worker_ends_with_its_last_handle() {
    let World { manager, ca, tasks, .. } = World::new(|_, _| {});
    let other = manager.clone();
    manager.prefetch([id("a")]);
    drop(manager);
    other.certificate(&id("a"), Priority::RealTime).await.unwrap();
    drop(other);
    tasks.join().await.unwrap();
    assert_eq!(ca.calls(), ["a"]);
}

// CO-11.3: stress.
#[tokio::test(start_paused = true)]
async fn many_callers_leave_one_entry_per_identity() {
    let world = World::new(|ca, _| ca.takes = Duration::from_millis(1));
    let ids: Vec<_> = (0..100).map(|n| id(&format!("a{n}"))).collect();
    let callers = (0..8).flat_map(|_| ids.iter().map(|id| world.manager.certificate(id, Priority::Warmup)));
    let results = futures::future::join_all(callers).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((world.manager.certificates().len(), world.ca.calls().len()), (100, 100));
}
