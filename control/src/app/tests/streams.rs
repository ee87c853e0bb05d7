//! Folder in, streams out; and who is let in.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use wire::discovery::Node;
use wire::security::AUTHORIZATION_TYPE;
use wire::workload::ADDRESS_TYPE;

use super::client::{names, node, plaintext, secure};
use super::*;

const P1: &str = "Kubernetes//Pod/xp/p1";
const P2: &str = "Kubernetes//Pod/xp/p2";
const S: &str = "xp/s.xp.svc.cluster.local";

// CP-H-02, CP-11-1, CP-11-13
#[tokio::test(flavor = "multi_thread")]
async fn an_edited_file_becomes_a_delta_and_a_bad_one_changes_nothing() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    stream.ask(AUTHORIZATION_TYPE, &[], &[]).await;
    let policies = stream.next().await;
    assert_eq!((policies.type_url.as_str(), names(&policies)), (AUTHORIZATION_TYPE, vec!["xp/sel"]));
    let addresses = stream.next().await;
    assert_eq!(names(&addresses), [P1, P2, S]);
    assert!(addresses.resources.iter().all(|resource| resource.version.len() > 8));

    // A new pod: only it is sent.
    rig.write("p3.yaml", &pod("p3", "n1", "10.30.0.3"));
    let delta = stream.next().await;
    assert_eq!(names(&delta), ["Kubernetes//Pod/xp/p3"]);

    // A change of the service alone resends no endpoint.
    let local = SERVICE.replace(
        "name: s,",
        "name: s, annotations: {networking.istio.io/traffic-distribution: PreferClose},",
    );
    rig.write("service.yaml", &local);
    assert_eq!(names(&stream.next().await), [S]);

    // A bad file keeps what it said; other files go on. A file that goes takes its objects along.
    rig.write("p3.yaml", "{ no: [yaml");
    std::fs::remove_file(rig.folder().join("p2.yaml")).unwrap();
    let delta = stream.next().await;
    assert_eq!((names(&delta), delta.removed_resources.clone()), (vec![], vec![P2.to_owned()]));

    // Mended, with another address.
    rig.write("p3.yaml", &pod("p3", "n1", "10.30.0.33"));
    assert_eq!(names(&stream.next().await), ["Kubernetes//Pod/xp/p3"]);
}

/// The authority takes up another trust domain at the next start. Until then records must not name
/// identities that it would refuse.
#[tokio::test(flavor = "multi_thread")]
async fn another_trust_domain_waits_for_the_next_start() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    stream.next().await;
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
        data: {mesh: 'trustDomain: other.td'}\n";
    rig.write("mesh.yaml", mesh);
    rig.write("p3.yaml", &pod("p3", "n1", "10.30.0.3"));
    // Nothing but the new pod, and that in the trust domain that certificates are issued for.
    let delta = stream.next().await;
    assert_eq!(names(&delta), ["Kubernetes//Pod/xp/p3"]);
    let payload = delta.resources[0].resource.as_ref().unwrap();
    let address = <wire::workload::Address as prost::Message>::decode(payload.value.as_slice()).unwrap();
    let Some(wire::workload::address::Type::Workload(workload)) = address.r#type else {
        panic!("a workload")
    };
    assert_eq!(workload.trust_domain, "", "the default");
}

// CP-H-01: on demand, with what the node's own pods bring.
#[tokio::test(flavor = "multi_thread")]
async fn demands_are_answered_and_followed() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &["*"], &["*"]).await;
    assert_eq!(names(&stream.next().await), [P1], "the own node's pod, unasked");
    stream.ask(ADDRESS_TYPE, &["/10.96.60.1"], &[]).await;
    let answer = stream.next().await;
    assert_eq!(names(&answer), [P1, P2, S]);
    assert_eq!(answer.resources.iter().find(|r| r.name == S).unwrap().aliases, ["/10.96.60.1"]);
    stream.ask(ADDRESS_TYPE, &["/10.30.0.7"], &[]).await;
    assert_eq!(stream.next().await.removed_resources, ["/10.30.0.7"]);
    // It comes into being later, on another node.
    rig.write("p7.yaml", &pod("p7", "n2", "10.30.0.7").replace("app: a", "app: b"));
    assert_eq!(names(&stream.next().await), ["Kubernetes//Pod/xp/p7"]);
}

// CP-1.4, programs: no mesh state is shown to anybody but trusted nodes.
#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_nodes_are_served_over_tls() {
    let rig = Rig::start(&[]).await;
    let ztunnel = rig.token(TokenKind::Bearer, "n1", "istio-system/ztunnel");
    let mut stream = secure(&rig, Some(ztunnel.clone())).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    assert_eq!(names(&stream.next().await), [P1, P2, S]);

    let refused = |token: Option<String>| {
        let rig = &rig;
        async move {
            let client = secure(rig, token).await;
            match client.open_as(Some(node("n1", &[]))).await {
                Err(status) => status,
                Ok(mut stream) => {
                    stream.ask(ADDRESS_TYPE, &[], &[]).await;
                    stream.ended().await.expect("a status")
                }
            }
        }
    };
    let nobody = refused(None).await;
    assert_eq!((nobody.code(), nobody.message()), (Code::Unauthenticated, "authentication failure"));
    assert_eq!(refused(Some("garbage".to_owned())).await.code(), Code::Unauthenticated);
    let join = rig.token(TokenKind::Join, "n1", "istio-system/ztunnel");
    assert_eq!(refused(Some(join)).await.code(), Code::Unauthenticated, "a join token is no bearer token");
    let mut forged = ztunnel.clone();
    forged.replace_range(20..21, if &ztunnel[20..21] == "A" { "B" } else { "A" });
    assert_eq!(refused(Some(forged)).await.code(), Code::Unauthenticated);

    let other = refused(Some(rig.token(TokenKind::Bearer, "n1", "istio-system/other"))).await;
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(other.message().contains("istio-system/sa/other is not a trusted node account"), "{other:?}");
    let foreign = refused(Some(rig.token(TokenKind::Bearer, "n1", "cax/front"))).await;
    let text = "authorization failed: no identities ([spiffe://cluster.local/ns/cax/sa/front]) matched istio-system/";
    assert_eq!((foreign.code(), foreign.message()), (Code::PermissionDenied, text));
    let mut stream = secure(&rig, Some(ztunnel))
        .await
        .open_as(Some(node("n1", &[("SERVICE_ACCOUNT", "other")])))
        .await
        .unwrap();
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    let status = stream.ended().await.expect("a status");
    assert_eq!(
        status.message(),
        "authorization failed: no identities ([spiffe://cluster.local/ns/istio-system/sa/ztunnel]) matched istio-system/other"
    );
}

// The recording `refusals`.
#[tokio::test(flavor = "multi_thread")]
async fn strange_first_requests_end_the_stream_as_recorded() {
    let rig = Rig::start(&[]).await;
    let client = plaintext(&rig).await;
    let id = |id: &str| Some(Node { id: id.to_owned(), ..node("n1", &[]) });
    let cases = [
        (None, ADDRESS_TYPE, Code::InvalidArgument, "missing node information"),
        (
            id("ztunnel~10.0.0.11~p.istio-system"),
            ADDRESS_TYPE,
            Code::InvalidArgument,
            "missing parts in the service node \"ztunnel~10.0.0.11~p.istio-system\"",
        ),
        (
            Some(node("n1", &[])),
            "type.googleapis.com/istio.workload.Nonsense",
            Code::Unauthenticated,
            "the api generator requires an authenticated control-plane identity",
        ),
        (Some(node("n1", &[])), "istio.io/debug/syncz", Code::Unauthenticated, "authentication required"),
    ];
    for (node, type_url, code, message) in cases {
        let mut stream = client.open_as(node).await.unwrap();
        stream.ask(type_url, &["*"], &[]).await;
        let status = stream.ended().await.expect("a status");
        assert_eq!((status.code(), status.message()), (code, message), "{type_url}");
    }
    // Health information comes first and means nothing; Envoy's types are never answered.
    let mut stream = client.open("n1").await;
    let node = node("n1", &[]);
    stream.ask("type.googleapis.com/istio.v1.HealthInformation", &["*"], &[]).await;
    let first = wire::discovery::DeltaDiscoveryRequest {
        node: Some(node.clone()),
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..Default::default()
    };
    let mut again = client.open_as(Some(node)).await.unwrap();
    again.send(first).await;
    again.ask(AUTHORIZATION_TYPE, &[], &[]).await;
    assert_eq!(names(&again.next().await), ["xp/sel"], "the first answer is the policies'");
}

// The plaintext port never signs, and by default serves this machine only (docs/compatibility).
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_on_the_port_with_tls_only() {
    let rig = Rig::start(&[("XDS_AUTH_PLAINTEXT", "true")]).await;
    let client = plaintext(&rig).await;
    let mut ca = wire::ca::istio_certificate_service_client::IstioCertificateServiceClient::new(
        client.channel.clone(),
    );
    let status = ca.create_certificate(wire::ca::IstioCertificateRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let mut join = wire::join::join_service_client::JoinServiceClient::new(client.channel.clone());
    let status = join.join(wire::join::JoinRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    // With XDS_AUTH_PLAINTEXT=true even this machine has to say who it is.
    let refused = client.open_as(Some(node("n1", &[]))).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_disturbs_nobody() {
    let rig = Rig::start(&[]).await;
    let mut stream = plaintext(&rig).await.open("n1").await;
    stream.ask(ADDRESS_TYPE, &[], &[]).await;
    stream.next().await;
    let addresses = rig.control.addresses();
    for address in [addresses.grpc, addresses.secure_grpc, addresses.monitoring, addresses.http] {
        for garbage in [&b"\0\xff\xfe garbage \r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16; 4096]] {
            let mut socket = TcpStream::connect(address.unwrap()).await.unwrap();
            _ = socket.write_all(garbage).await;
            _ = socket.shutdown().await;
            let mut answer = Vec::new();
            _ = tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await.expect("it ends");
        }
    }
    rig.write("p9.yaml", &pod("p9", "n1", "10.30.0.9"));
    assert_eq!(names(&stream.next().await), ["Kubernetes//Pod/xp/p9"]);
}

/// Handshakes that are begun and never finished, more than there may be, keep nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_handshakes_delay_nobody_else() {
    let rig = Rig::start(&[]).await;
    let address = rig.control.addresses().secure_grpc.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    // Less than the time a handshake may take: only room made for us lets us in.
    let channel = tokio::time::timeout(Duration::from_secs(8), secure(&rig, None)).await;
    assert!(channel.is_ok());
    let mut byte = [0];
    let first = tokio::time::timeout(LIMIT, silent[0].readable()).await;
    assert!(first.is_ok() && matches!(silent[0].try_read(&mut byte), Ok(0) | Err(_)), "the oldest was ended");
}
