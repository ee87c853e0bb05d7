//! Join tokens and the certificates they buy.
use super::*;

fn join_token(world: &World) -> String {
    world.token(TokenKind::Join, "n1", "istio-system/ztunnel")
}

#[tokio::test]
async fn a_join_token_buys_a_certificate_that_stands_for_the_node() {
    let world = World::new();
    let answer = world.join(&join_token(&world), &csr()).await.unwrap();
    assert_eq!((answer.node.as_str(), answer.account.as_str()), ("n1", "istio-system/ztunnel"));
    assert_eq!(answer.cert_chain.last().unwrap(), &world.authority.root_bundle());
    let chain = ders(&answer.cert_chain[..1]);
    let principal =
        world.authority.authenticator().authenticate(&tonic::metadata::MetadataMap::new(), &chain).unwrap();
    assert_eq!((principal.node.as_str(), principal.account), ("n1", Account::ztunnel()));
    assert_eq!(principal.proof, Proof::NodeCertificate);
    assert_eq!(principal.identity.as_str(), "spiffe://cluster.local/ns/istio-system/sa/ztunnel");
    let call = Call { authorization: None, caller: Some(Caller::with_chain(&chain)), ..Call::of(&world) };
    assert!(world.create(call.clone()).await.is_ok());
    let back = Kind::StringValue("spiffe://cluster.local/ns/cax/sa/back".to_owned());
    assert_eq!(unauthenticated(world.create(Call { impersonated: Some(back), ..call }).await), NOT_YOURS);
}

#[tokio::test]
async fn a_join_token_works_once_also_after_a_restart() {
    let world = World::new();
    let token = join_token(&world);
    world.join(&token, &csr()).await.unwrap();
    let status = world.join(&token, &csr()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "join token: used before"));
    let again = Authority::open(world.authority.shared.config.clone(), world.clock.clone()).unwrap();
    let world = World { authority: again, ..world };
    assert_eq!(world.join(&token, &csr()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(world.join(&join_token(&world), &csr()).await.unwrap().node, "n1");
}

#[tokio::test]
async fn a_garbage_request_does_not_use_the_token_up() {
    let world = World::new();
    let token = join_token(&world);
    assert_eq!(world.join(&token, "garbage").await.unwrap_err().code(), Code::InvalidArgument);
    assert!(world.join(&token, &csr()).await.is_ok());
}

#[tokio::test]
async fn wrong_tokens_do_not_join() {
    let world = World::new();
    let bearer = world.token(TokenKind::Bearer, "n1", "istio-system/ztunnel");
    let foreign = join_token(&World::new());
    for token in ["", "garbage", "culvert-join.e30.AAAA", &bearer, &foreign, &"x".repeat(1 << 20)] {
        assert_eq!(world.join(token, &csr()).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let expired = join_token(&world);
    world.hands.advance(Duration::from_secs(3600));
    let status = world.join(&expired, &csr()).await.unwrap_err();
    assert_eq!(status.message(), "join token: expired");
}

#[tokio::test]
async fn only_a_node_certificate_renews_and_only_while_it_is_valid() {
    let world = World::new();
    let answer = world.join(&join_token(&world), &csr()).await.unwrap();
    let node = ders(&answer.cert_chain[..1]);
    assert_eq!(world.renew(&node, &csr()).await.unwrap().node, "n1");
    assert_eq!(world.renew(&[], &csr()).await.unwrap_err().code(), Code::Unauthenticated);
    // A workload's certificate, also of the node's own account, stands for no node.
    let own = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    let workload = ders(&world.create(Call::for_identity(&world, own)).await.unwrap()[..1]);
    assert_eq!(world.renew(&workload, &csr()).await.unwrap_err().code(), Code::Unauthenticated);
    let call = Call { authorization: None, caller: Some(Caller::with_chain(&workload)), ..Call::of(&world) };
    assert_eq!(unauthenticated(world.create(call).await), NOBODY);
    world.hands.advance(NODE_TTL);
    assert_eq!(world.renew(&node, &csr()).await.unwrap_err().code(), Code::Unauthenticated, "ended");
}

#[test]
fn tokens_are_made_only_for_real_node_names_and_times() {
    let world = World::new();
    let issue = |node: &str, ttl| {
        tokens::issue(&world.state(), TokenKind::Join, node, &Account::ztunnel(), ttl, world.clock.wall())
    };
    for name in ["", "../x", "N1", "a b", &"a".repeat(254)] {
        assert_eq!(issue(name, Duration::from_secs(1)).unwrap_err().code(), "token-invalid-node");
    }
    assert_eq!(issue("n1", Duration::ZERO).unwrap_err().code(), "token-invalid-ttl");
    assert_eq!(issue("n1", Duration::MAX).unwrap_err().code(), "token-invalid-ttl");
    let longest = TokenKind::Join.longest_ttl();
    assert!(issue("n1", longest).is_ok());
    assert_eq!(issue("n1", longest + Duration::from_secs(1)).unwrap_err().code(), "token-invalid-ttl");
}

#[test]
fn expired_marks_are_forgotten_and_others_kept() {
    let world = World::new();
    let state = &world.authority.shared.state;
    let now = world.clock.wall();
    let (old, new) = ("0".repeat(32), "1".repeat(32));
    assert!(state.mark_used(&old, now + Duration::from_secs(10)).unwrap());
    assert!(state.mark_used(&new, now + Duration::from_secs(100)).unwrap());
    assert!(state.mark_used("../../escape", now).is_err());
    state.prune_used_tokens(now + Duration::from_secs(50));
    assert!(!state.mark_used(&new, now).unwrap());
    assert!(state.mark_used(&old, now).unwrap());
}
