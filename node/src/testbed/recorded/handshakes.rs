//! TLS on 15008, as a server and as a client: who is refused, with which alert, what the application sees and what is
//! logged. What TLS itself says is tested in `identity`; here it goes through sockets, and everything around it is seen.

use kit::fake_ca::{Issued, Leaf};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::peers::{Peer, hello, honest};
use super::probe::{Answer, Probe};
use super::*;

/// What has no certificate.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn leaf(lab: &Lab, uris: &[&str], change: impl FnOnce(&mut Leaf)) -> Issued {
    let mut leaf = Leaf::of(&account("client"), Duration::from_secs(600));
    leaf.uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
    change(&mut leaf);
    lab.ca.sign(&leaf)
}

fn certified(issued: Issued) -> Arc<CertifiedKey> {
    let provider = identity::crypto_provider(&identity::TlsOptions::default());
    let chain = CertificateDer::from_pem_slice(issued.chain[0].as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(issued.key).unwrap();
    Arc::new(CertifiedKey::new(vec![chain], key))
}

/// A client that shows this, whatever it is.
fn showing(lab: &Lab, issued: Issued) -> ClientConfig {
    let mut config = Arc::unwrap_or_clone(lab.tls("client"));
    config.client_auth_cert_resolver =
        Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(certified(issued))));
    config
}

const CLIENT: &str = "spiffe://cluster.local/ns/probes/sa/client";
const PEER: &str = "spiffe://cluster.local/ns/probes/sa/peer";
const HOUR: Duration = Duration::from_secs(3600);

// What each of them is told: TLS-10, TLS-24 and TLS-29 are in `identity`.
#[test]
fn clients_are_refused_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::new(&mut sandbox).await;
            let mut without = Arc::unwrap_or_clone(lab.tls("client"));
            without.client_auth_cert_resolver = Arc::new(Nobody);
            let stranger = FakeCa::new().intermediate().sign(&Leaf::of(&account("client"), HOUR));
            let expired = leaf(&lab, &[CLIENT], |leaf| leaf.not_after = leaf.not_before + HOUR / 60);
            let future = leaf(&lab, &[CLIENT], |leaf| leaf.not_before += HOUR / 12);
            let other_domain = leaf(&lab, &["spiffe://other.domain/ns/probes/sa/client"], |_| ());
            let not_ours = leaf(&lab, &["spiffe://cluster.local/workload/client"], |_| ());
            let server_only = leaf(&lab, &[CLIENT], |leaf| leaf.usages.truncate(1));
            let speaking = |protocols: &[&[u8]]| {
                let mut config = Arc::unwrap_or_clone(lab.tls("client"));
                config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
                config
            };
            for (id, config) in [
                ("TLS-03", without),
                ("TLS-04", showing(&lab, stranger)),
                ("TLS-05", showing(&lab, expired)),
                ("TLS-06", showing(&lab, future)),
                ("TLS-07", showing(&lab, other_domain)),
                ("TLS-12", showing(&lab, not_ours)),
                ("TLS-14", showing(&lab, server_only)),
                ("TLS-25", speaking(&[])),
                ("TLS-26", speaking(&[b"http/1.1"])),
            ] {
                lab.replay(id, async |recording| {
                    let met = inside(lab.pod("raw"), move || {
                        let mut probe = Probe::connect(at("server", 15008), Arc::new(config));
                        let mut answer = Answer::default();
                        probe.connect_to(1, &at("server", 7999).to_string());
                        probe.read(1, &mut answer, Answer::is_over);
                        let end = probe.end.take();
                        probe.close();
                        (answer, end)
                    });
                    let (answer, end) = met.await;
                    let mut told = recording.observed.clone();
                    told["end"] = json!(end);
                    match end {
                        Some(end) => told["alerts"] = json!([["recv", end.trim_start_matches("alert:")]]),
                        None => told["answer"] = answer.told(),
                    }
                    told
                })
                .await;
            }
            lab.assert_same();
        });
    });
}

/// A server that shows this.
fn serving(issued: Issued) -> Arc<ServerConfig> {
    let provider = Arc::new(identity::crypto_provider(&identity::TlsOptions::default()));
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
    let shown = SingleCertAndKey::from(Arc::unwrap_or_clone(certified(issued)));
    let mut config = builder.with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

// CL-21 without other kinds of keys, which `identity` tests; the flag is TLS_FAILURE on purpose (W22).
#[test]
fn servers_are_refused_as_recorded() {
    sandboxed(|mut sandbox| {
        run(async {
            let lab = Lab::with(&mut sandbox, &[("ZTUNNEL_WORKER_THREADS", "1")]).await;
            let peer = Peer::start(&lab, honest(&lab));
            let other = "spiffe://cluster.local/ns/probes/sa/other";
            let recorded = Recording::load("CL-21").observed;
            for (name, issued) in [
                ("peer", leaf(&lab, &[PEER], |_| ())),
                ("peer_expired", leaf(&lab, &[PEER], |leaf| leaf.not_after = leaf.not_before + HOUR / 60)),
                ("peer_other_id", leaf(&lab, &[other], |_| ())),
                ("peer_two_ids", leaf(&lab, &[other, PEER], |_| ())),
                ("peer_wrong_root", FakeCa::new().intermediate().sign(&Leaf::of(&account("peer"), HOUR))),
                ("client_eku", leaf(&lab, &[PEER], |leaf| drop(leaf.usages.remove(0)))),
                ("no_san", leaf(&lab, &[], |_| ())),
                ("dns_only", leaf(&lab, &[], |leaf| leaf.dns = vec!["peer.example".to_owned()])),
            ] {
                peer.serves(serving(issued));
                let requests = peer.n_requests();
                let (answer, end) = inside(lab.pod("client"), || hello(at("peer", 7000))).await;
                let refused = answer.is_empty();
                if refused {
                    let ended = || peer.seen(|seen| seen.end.is_some()).last() == Some(&true);
                    until("the server hears why", ended).await;
                }
                let sees =
                    peer.seen(|seen| seen.end.clone()).pop().unwrap().unwrap_or_else(|| "open".to_owned());
                let alert = sees.strip_prefix("alert:").map(|alert| json!([["recv", alert]]));
                let told = json!({
                    "app": text(&answer),
                    "app_end": if refused && end != "open" { "closed" } else { end },
                    "server_sees": sees,
                    "alerts": alert.unwrap_or_else(|| json!([])),
                    "requests": peer.n_requests() - requests,
                });
                lab.compare(name, "observed", &recorded[name], &told);
                peer.hang_up().await;
            }
            lab.assert_same();
            let flag = "response_flags=\"TLS_FAILURE\"";
            assert_eq!(lab.node.counted(&["istio_tcp_connections_failed_total", flag]), 6);
        });
    });
}
