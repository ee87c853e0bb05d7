//! The adapter: order at the start of a stream, pushes, ends.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::*;

type Responses = std::pin::Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, tonic::Status>> + Send>>;

struct Rig {
    requests: mpsc::Sender<Result<DeltaDiscoveryRequest, tonic::Status>>,
    worlds: watch::Sender<Arc<TestWorld>>,
    responses: Responses,
}

fn rig(world: &TestWorld) -> Rig {
    let world = Arc::new(world.clone());
    let (requests, incoming) = mpsc::channel(16);
    let (sender, receiver) = watch::channel(Arc::clone(&world));
    let session = Arc::new(Mutex::new(Session::new(KINDS, world, None, 3)));
    let responses = serve(session, ReceiverStream::new(incoming), receiver, NoHooks);
    Rig { requests, worlds: sender, responses: Box::pin(responses) }
}

impl Rig {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(Ok(request)).await.expect("the stream reads");
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let next = tokio::time::timeout(Duration::from_secs(5), self.responses.next()).await;
        next.expect("in time").expect("a response").expect("no error")
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_answers_bring_policies_before_the_workloads_that_name_them() {
    let mut rig = rig(&recorded_world());
    rig.send(ask(ADDRESS, &[], &[])).await;
    rig.send(ask(POLICY, &[], &[])).await;
    assert_eq!(rig.next().await.type_url, POLICY);
    assert_eq!(rig.next().await.type_url, ADDRESS);
}

#[tokio::test(start_paused = true)]
async fn addresses_alone_are_answered_after_a_moment() {
    let mut rig = rig(&recorded_world());
    let started = tokio::time::Instant::now();
    rig.send(ask(ADDRESS, &[], &[])).await;
    assert_eq!(rig.next().await.type_url, ADDRESS);
    assert_eq!(started.elapsed().as_millis(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_new_world_is_pushed_and_the_end_of_worlds_ends_the_stream_without_removals() {
    let mut world = recorded_world();
    let mut rig = rig(&world);
    rig.send(ask(POLICY, &[], &[])).await;
    rig.next().await;
    world.put(POLICY, "xp/new", &Short { version: "1", ..Short::default() });
    rig.worlds.send_replace(Arc::new(world));
    assert_eq!(names(&rig.next().await), ["xp/new"]);
    drop(rig.worlds);
    assert!(rig.responses.next().await.is_none());
}
