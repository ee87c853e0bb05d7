//! The authority as its callers meet it.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{CertificateRequest, SpiffeId, TrustDomain};
use prost_types::value::Kind;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;
use tonic::{Code, Request, Status};
use wire::ca::IstioCertificateRequest;
use wire::ca::istio_certificate_service_server::IstioCertificateService;
use wire::join::join_service_server::JoinService as _;
use wire::join::{JoinRequest, JoinResponse, RenewRequest};

use super::tokens::TokenKind;
use super::*;

mod joining;
mod material;
mod recorded;
mod tls;

/// Pods by (namespace, account, node).
#[derive(Debug, Default)]
struct Pods(HashSet<(String, String, String)>);

impl PodIndex for Pods {
    fn runs_on(&self, namespace: &str, account: &str, node: &str) -> bool {
        self.0.contains(&(namespace.to_owned(), account.to_owned(), node.to_owned()))
    }
}

struct World {
    authority: Authority,
    pods: Arc<Pods>,
    hands: runtime::clock::Hands,
    clock: Clock,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, hands) = Clock::manual(whole_seconds());
        let mut config = Config::new(TrustDomain::new("cluster.local").unwrap(), folder.path().join("state"));
        config.root_ca_dir = folder.path().join("cacerts");
        change(&mut config);
        let long = "a".repeat(60);
        let pods =
            [("front", "n1"), ("back", "n2"), ("lazy", "n1"), ("fresh", "n1"), (&long, "n1"), (&long, "n2")]
                .into_iter()
                .map(|(account, node)| ("cax".to_owned(), account.to_owned(), node.to_owned()))
                .chain([("istio-system".to_owned(), "ztunnel".to_owned(), "n1".to_owned())]);
        let pods = Arc::new(Pods(pods.collect()));
        let authority = Authority::open(config, clock.clone()).unwrap();
        Self { authority, pods, hands, clock, folder }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn token(&self, kind: TokenKind, node: &str, account: &str) -> String {
        let account = account.parse().unwrap();
        tokens::issue(&self.state(), kind, node, &account, Duration::from_secs(3600), self.clock.wall())
            .unwrap()
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token(TokenKind::Bearer, "n1", "istio-system/ztunnel"))
    }

    async fn create(&self, call: Call) -> Result<Vec<String>, Status> {
        let service = CertificateService::new(self.authority.clone(), self.pods.clone());
        service.create_certificate(call.request()).await.map(|answer| answer.into_inner().cert_chain)
    }

    async fn join(&self, token: &str, csr: &str) -> Result<JoinResponse, Status> {
        let mut request = Request::new(JoinRequest { token: token.to_owned(), csr: csr.to_owned() });
        request.extensions_mut().insert(Caller::with_chain(&[]));
        JoinService::new(self.authority.clone()).join(request).await.map(tonic::Response::into_inner)
    }

    async fn renew(&self, chain: &[CertificateDer<'static>], csr: &str) -> Result<JoinResponse, Status> {
        let mut request = Request::new(RenewRequest { csr: csr.to_owned() });
        request.extensions_mut().insert(Caller::with_chain(chain));
        let service = JoinService::new(self.authority.clone());
        wire::join::join_service_server::JoinService::renew(&service, request)
            .await
            .map(tonic::Response::into_inner)
    }
}

/// A call of `CreateCertificate`; start from [`Call::of`] and change what the test is about.
#[derive(Clone)]
struct Call {
    csr: String,
    validity: i64,
    impersonated: Option<Kind>,
    authorization: Option<String>,
    cluster: Option<String>,
    caller: Option<Caller>,
}

impl Call {
    fn of(world: &World) -> Self {
        Self {
            csr: csr(),
            validity: 0,
            impersonated: Some(Kind::StringValue("spiffe://cluster.local/ns/cax/sa/front".to_owned())),
            authorization: Some(world.bearer()),
            cluster: Some("Kubernetes".to_owned()),
            caller: Some(Caller::with_chain(&[])),
        }
    }

    fn for_identity(world: &World, id: &str) -> Self {
        Self { impersonated: Some(Kind::StringValue(id.to_owned())), ..Self::of(world) }
    }

    fn request(self) -> Request<IstioCertificateRequest> {
        let metadata = self.impersonated.map(|kind| prost_types::Struct {
            fields: [("ImpersonatedIdentity".to_owned(), prost_types::Value { kind: Some(kind) })].into(),
        });
        let mut request = Request::new(IstioCertificateRequest {
            csr: self.csr,
            validity_duration: self.validity,
            metadata,
        });
        for (key, value) in [("authorization", self.authorization), ("clusterid", self.cluster)] {
            if let Some(value) = value {
                request.metadata_mut().insert(key, value.parse().unwrap());
            }
        }
        if let Some(caller) = self.caller {
            request.extensions_mut().insert(caller);
        }
        request
    }
}

fn csr() -> String {
    let id = SpiffeId::new("ignored", "by", "everyone").unwrap();
    CertificateRequest::new(&id).unwrap().pem().to_owned()
}

fn whole_seconds() -> SystemTime {
    let since = runtime::clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn ders(chain: &[String]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect()
}

fn unauthenticated(result: Result<Vec<String>, Status>) -> String {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    status.message().to_owned()
}

const NOBODY: &str = "request authenticate failure";
const NOT_YOURS: &str = "request impersonation authentication failure";

// CP-J-01: nobody is refused in one way, whatever is wrong.
#[tokio::test]
async fn who_proves_nothing_gets_nothing() {
    let world = World::new();
    let good = Call::of(&world);
    let join_token = world.token(TokenKind::Join, "n1", "istio-system/ztunnel");
    let mut forged = world.bearer();
    forged.replace_range(30..31, if &forged[30..31] == "A" { "B" } else { "A" });
    for authorization in [
        None,
        Some("Bearer garbage".to_owned()),
        Some("Bearer a.b.c".to_owned()),
        Some("Bearer ".to_owned()),
        Some(good.authorization.clone().unwrap().replacen("Bearer ", "", 1)),
        Some(good.authorization.clone().unwrap().replacen("Bearer ", "bearer ", 1)),
        Some(forged),
        Some(format!("Bearer {join_token}")),
        Some(format!("Bearer {}", "x".repeat(100_000))),
    ] {
        assert_eq!(unauthenticated(world.create(Call { authorization, ..good.clone() }).await), NOBODY);
    }
    let other = World::new();
    assert_eq!(unauthenticated(other.create(good.clone()).await), NOBODY, "another control plane's token");
    world.hands.advance(Duration::from_secs(3601));
    assert_eq!(unauthenticated(world.create(good).await), NOBODY, "expired");
    let failures = &world.authority.counters().authentication_failure;
    assert_eq!(failures.load(Ordering::Relaxed), 10);
}

// The plaintext port must never reach the CA: without TLS a good token proves nothing.
#[tokio::test]
async fn a_good_token_without_tls_is_refused() {
    let world = World::new();
    assert_eq!(unauthenticated(world.create(Call { caller: None, ..Call::of(&world) }).await), NOBODY);
}

// CP-J-06, CP-J-07
#[tokio::test]
async fn a_node_gets_what_runs_on_it_and_nothing_else() {
    let world = World::new();
    for refused in [
        "spiffe://cluster.local/ns/cax/sa/back",
        "spiffe://cluster.local/ns/cax/sa/gone",
        "spiffe://cluster.local/ns/cax/sa/nosuch",
        "spiffe://other.td/ns/cax/sa/front",
        "spiffe://cluster.local/ns/cax/sa/front/x",
        "spiffe://cluster.local/culvert/node/n1",
        "not-spiffe",
    ] {
        assert_eq!(
            unauthenticated(world.create(Call::for_identity(&world, refused)).await),
            NOT_YOURS,
            "{refused}"
        );
    }
    let number = Call { impersonated: Some(Kind::NumberValue(1.0)), ..Call::of(&world) };
    assert_eq!(unauthenticated(world.create(number).await), NOT_YOURS);
    let both = format!("spiffe://cluster.local/ns/cax/sa/{}", "a".repeat(60));
    assert!(world.create(Call::for_identity(&world, &both)).await.is_ok(), "here and elsewhere");
    let elsewhere = format!("Bearer {}", world.token(TokenKind::Bearer, "n2", "istio-system/ztunnel"));
    let call = Call { authorization: Some(elsewhere), ..Call::of(&world) };
    assert_eq!(unauthenticated(world.create(call).await), NOT_YOURS, "front does not run on n2");
    for foreign in ["remote", "kubernetes"] {
        let call = Call { cluster: Some(foreign.to_owned()), ..Call::of(&world) };
        assert_eq!(unauthenticated(world.create(call).await), NOBODY);
    }
}

/// A node proxy asks for its own identity in this way too, also where its pod is not among the manifests.
#[tokio::test]
async fn a_node_gets_its_own_identity_wherever_its_pod_is() {
    let world = World::new();
    let own = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    let bearer = |account: &str| Some(format!("Bearer {}", world.token(TokenKind::Bearer, "n2", account)));
    let call = Call::for_identity(&world, own);
    let call = |account: &str| Call { authorization: bearer(account), ..call.clone() };
    assert!(world.create(call("istio-system/ztunnel")).await.is_ok());
    assert_eq!(world.create(call("cax/back")).await.unwrap_err().code(), Code::Unauthenticated);
    let back = Call::for_identity(&world, "spiffe://cluster.local/ns/cax/sa/back");
    let back = Call { authorization: bearer("cax/back"), ..back };
    assert_eq!(world.create(back).await.unwrap_err().code(), Code::Unauthenticated, "not trusted");
}

// CP-J-07: no trusted accounts, no impersonation.
#[tokio::test]
async fn without_trusted_accounts_nobody_impersonates() {
    let world = World::with(|config| config.trusted_accounts.clear());
    assert_eq!(unauthenticated(world.create(Call::of(&world)).await), NOT_YOURS);
    assert!(world.create(Call { impersonated: None, ..Call::of(&world) }).await.is_ok());
}

// CP-J-03
#[tokio::test]
async fn a_request_must_be_signed_with_its_own_key() {
    let world = World::new();
    let mut der =
        rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(csr().as_bytes()).unwrap().to_vec();
    *der.last_mut().unwrap() ^= 1;
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(&der);
    let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    let status = world.create(Call { csr: forged, ..Call::of(&world) }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "CSR signing error (certificate signing request has an invalid signature)");
    assert_eq!(world.authority.counters().csr_parsing_error.load(Ordering::Relaxed), 1);
}
