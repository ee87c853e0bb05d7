//! Joining a fake control plane by token.
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kit::fake_ca::{Answer, FakeCa, FakeCaServer};
use runtime::tasks::TaskGroup;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use wire::token::{AUDIENCE, Claims, JOIN};

use super::*;

fn root_hash(ca: &FakeCa) -> String {
    let root = CertificateDer::from_pem_slice(ca.bundle().as_bytes()).unwrap();
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn token(ca: &FakeCa, id: &str) -> String {
    let claims = Claims {
        id: id.to_owned(),
        audience: AUDIENCE.to_owned(),
        node: "n1".to_owned(),
        account: "istio-system/ztunnel".to_owned(),
        expires: u64::MAX,
        root: root_hash(ca),
    };
    format!("{JOIN}.{}.c2ln", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap()))
}

struct World {
    server: FakeCaServer,
    folder: tempfile::TempDir,
    hands: runtime::clock::Hands,
    clock: Clock,
}

impl World {
    async fn new() -> Self {
        let (clock, hands) = Clock::manual(runtime::clock::wall());
        let server = FakeCaServer::start(FakeCa::new()).await;
        Self { server, folder: tempfile::tempdir().unwrap(), hands, clock }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn put(&self, token: &str) {
        std::fs::write(self.path(), format!("{token}\n")).unwrap();
    }

    fn joiner(&self) -> (Joiner, NodeIdentity) {
        let config = JoinConfig {
            token: self.path(),
            address: self.server.url(),
            alternative_name: None,
            tls: TlsOptions::default(),
        };
        Joiner::new(config, self.clock.clone())
    }
}

async fn step(joiner: &mut Joiner) -> Result<(), JoinError> {
    tokio::time::timeout(Duration::from_secs(20), joiner.step()).await.unwrap()
}

#[tokio::test]
async fn a_token_buys_a_certificate_that_survives_a_restart() {
    let world = World::new().await;
    let text = token(world.server.ca(), "1");
    world.put(&text);
    let (mut joiner, identity) = world.joiner();
    assert!(identity.client_key().is_none() && identity.roots().is_none());
    step(&mut joiner).await.unwrap();
    assert_eq!((identity.generation(), world.server.asked()[0].what.as_str()), (1, text.as_str()));
    assert!(identity.client_key().is_some() && identity.roots().is_some());
    step(&mut joiner).await.unwrap();
    assert_eq!(world.server.asked().len(), 1, "used once");
    let kept = world.folder.path().join("token.node");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let (mut again, identity) = world.joiner();
    assert_eq!(identity.generation(), 1);
    step(&mut again).await.unwrap();
    std::fs::remove_file(world.path()).unwrap();
    step(&mut again).await.unwrap();
    assert_eq!(world.server.asked().len(), 1, "nothing to ask, with or without the file");
}

#[tokio::test]
async fn the_certificate_renews_itself_at_half_life_by_presenting_itself() {
    let world = World::new().await;
    world.put(&token(world.server.ca(), "1"));
    let (mut joiner, identity) = world.joiner();
    step(&mut joiner).await.unwrap();
    world.hands.advance(Duration::from_secs(1900));
    step(&mut joiner).await.unwrap();
    assert_eq!(identity.generation(), 2);
    let renewal = world.server.asked().remove(1);
    assert_eq!(renewal.what, "renew");
    assert_eq!(renewal.certificate.unwrap().service_account(), "ztunnel");
    world.hands.advance(Duration::from_secs(7200));
    let error = step(&mut joiner).await.unwrap_err();
    assert_eq!(error.code(), "join-expired");
    world.put(&token(world.server.ca(), "2"));
    world.server.answer(Answer::Honest(Duration::from_secs(86_400)));
    step(&mut joiner).await.unwrap();
    assert_eq!(identity.generation(), 3, "a new token is redeemed as soon as it is there");
}

#[tokio::test]
async fn a_file_that_has_been_seen_is_read_again_when_it_is_another() {
    let world = World::new().await;
    world.put(&token(world.server.ca(), "1"));
    let (mut joiner, identity) = world.joiner();
    step(&mut joiner).await.unwrap();
    step(&mut joiner).await.unwrap();
    assert_eq!(joiner.seen, None, "too young to be told from the next");
    world.hands.advance(Duration::from_secs(60));
    step(&mut joiner).await.unwrap();
    assert!(joiner.seen.is_some());
    world.put("no token");
    world.hands.advance(Duration::from_secs(60));
    let seen = joiner.seen;
    step(&mut joiner).await.unwrap();
    assert_eq!(joiner.seen, seen, "what cannot be read is tried again");
    std::fs::remove_file(world.path()).unwrap();
    step(&mut joiner).await.unwrap();
    world.put(&token(world.server.ca(), "2"));
    step(&mut joiner).await.unwrap();
    assert_eq!(identity.generation(), 2);
    step(&mut joiner).await.unwrap();
    world.put(&token(world.server.ca(), "3"));
    step(&mut joiner).await.unwrap();
    assert_eq!(identity.generation(), 3, "written in place");
}

#[tokio::test]
async fn nothing_is_said_to_a_server_under_another_root() {
    let world = World::new().await;
    world.put(&token(&FakeCa::new(), "1"));
    let (mut joiner, identity) = world.joiner();
    assert_eq!(step(&mut joiner).await.unwrap_err().code(), "control-unreachable");
    assert!(world.server.asked().is_empty() && identity.generation() == 0);
}

#[tokio::test]
async fn answers_for_others_are_refused() {
    let world = World::new().await;
    world.put(&token(world.server.ca(), "1"));
    let (mut joiner, identity) = world.joiner();
    world.server.node("n2", SpiffeId::new("cluster.local", "istio-system", "ztunnel").unwrap());
    assert_eq!(step(&mut joiner).await.unwrap_err().code(), "join-other-node");
    world.server.answer(Answer::Refuse(tonic::Status::unauthenticated("join token: used before")));
    let error = step(&mut joiner).await.unwrap_err();
    assert_eq!(error.code(), "join-refused");
    assert!(error.to_string().contains("used before"));
    assert_eq!(identity.generation(), 0);
}

#[tokio::test]
async fn tokens_that_are_none_and_kept_files_that_are_damaged_are_reported() {
    let world = World::new().await;
    let (mut joiner, _) = world.joiner();
    assert_eq!(step(&mut joiner).await.unwrap_err().code(), "join-token-unreadable");
    for text in [
        "",
        "garbage",
        "culvert-bearer.e30.AA",
        "culvert-join.e30.AA",
        "culvert-join.!.AA",
        &"x".repeat(20_000),
    ] {
        world.put(text);
        assert_eq!(step(&mut joiner).await.unwrap_err().code(), "join-token-malformed");
    }
    world.put(&token(world.server.ca(), "1"));
    std::fs::write(world.folder.path().join("token.node"), "garbage").unwrap();
    let (mut joiner, identity) = world.joiner();
    step(&mut joiner).await.unwrap();
    assert_eq!(identity.generation(), 1, "joined anew");
}

#[tokio::test]
async fn the_task_joins_once_the_token_appears() {
    let world = World::new().await;
    let (joiner, mut identity) = world.joiner();
    let tasks = TaskGroup::new("test");
    let task = tasks.spawn("join", joiner.run());
    world.put(&token(world.server.ca(), "1"));
    tokio::time::timeout(Duration::from_secs(30), identity.joined()).await.unwrap();
    task.abort();
    assert!(world.clock.wall() > SystemTime::UNIX_EPOCH);
}
