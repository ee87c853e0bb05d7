//! Handshakes in memory between our configurations, and with clients and servers that break rules.
use std::sync::Mutex;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls::{
    AlertDescription, CertificateError, ClientConnection, Error, NamedGroup, PeerIncompatible,
    ServerConnection,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateRevocationListDer, ServerName};
use std::time::Duration;

use super::*;
use crate::testing::{Ca, Leaf, below, leaf, now, options, root};

const CLIENT: &str = "spiffe://cluster.local/ns/probes/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/probes/sa/server";

/// What both ends ended with.
#[derive(Debug)]
struct Met {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

impl Met {
    /// The alert that the other end got.
    fn alert_to_client(&self) -> Option<AlertDescription> {
        alert(self.client_error.as_ref())
    }

    fn alert_to_server(&self) -> Option<AlertDescription> {
        alert(self.server_error.as_ref())
    }

    fn completed(&self) -> bool {
        self.client_error.is_none() && self.server_error.is_none() && !self.server.is_handshaking()
    }
}

fn alert(error: Option<&Error>) -> Option<AlertDescription> {
    match error {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let (client, server) =
        (ClientConnection::new(client, name).unwrap(), ServerConnection::new(server).unwrap());
    let mut met = Met { client, server, client_error: None, server_error: None };
    for _ in 0..10 {
        let mut wire = Vec::new();
        met.client.write_tls(&mut wire).unwrap();
        met.server.read_tls(&mut &wire[..]).unwrap();
        met.server_error = met.server_error.or_else(|| met.server.process_new_packets().err());
        let mut wire = Vec::new();
        while met.server.wants_write() {
            met.server.write_tls(&mut wire).unwrap();
        }
        met.client.read_tls(&mut &wire[..]).unwrap();
        met.client_error = met.client_error.or_else(|| met.client.process_new_packets().err());
    }
    met
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn issue(leaf: &Leaf, ca: &Ca) -> WorkloadCertificate {
    leaf.issued(ca, &ca.pem()).unwrap()
}

fn server(ca: &Ca) -> Arc<ServerConfig> {
    issue(&leaf(&[SERVER]), ca).server_config()
}

/// A client with any leaf, also one that names nobody; it verifies nothing about the server but the chain.
fn any_client(leaf: &Leaf, by: &Ca, between: &[&Ca], trusts: &Ca) -> ClientConfig {
    let honest = issue(&crate::testing::leaf(&[CLIENT]), trusts);
    let mut config = Arc::unwrap_or_clone(honest.client_config(&[id(SERVER)]));
    let der = |pem: String| {
        use rustls_pki_types::pem::PemObject;
        rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    };
    let mut chain = vec![der(leaf.pem(by))];
    chain.extend(between.iter().map(|ca| ca.der().clone()));
    let key = crypto_provider(&options()).key_provider.load_private_key(leaf.key()).unwrap();
    config.client_auth_cert_resolver =
        Arc::new(SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key)));
    config
}

// TLS-01, CO-11.3
#[test]
fn mesh_peers_meet() {
    let ca = root();
    let client = issue(&leaf(&[CLIENT]), &ca).client_config(&[id(SERVER)]);
    let met = meet(client, server(&ca));
    assert!(met.completed());
    assert_eq!(met.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(
        met.server.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384
    );
    assert_eq!(met.server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(met.client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519);
    assert_eq!(met.server.server_name(), None);
    assert_eq!(peer_identity(met.server.peer_certificates().unwrap()), Some(id(CLIENT)));
    assert_eq!(peer_identity(met.client.peer_certificates().unwrap()), Some(id(SERVER)));
    assert_eq!(met.client.tls13_tickets_received(), 0);
}

// A-MI-01
#[test]
fn peers_under_different_roots_meet_when_both_bundles_hold_both() {
    let (one, two) = (root(), root());
    let bundle = format!("{}{}", one.pem(), two.pem());
    let client = leaf(&[CLIENT]).issued(&one, &bundle).unwrap();
    let server = leaf(&[SERVER]).issued(&two, &bundle).unwrap();
    assert!(meet(client.client_config(&[id(SERVER)]), server.server_config()).completed());
    assert!(meet(server.client_config(&[id(CLIENT)]), client.server_config()).completed());
}

// TLS-04, TLS-05, TLS-06, TLS-07, TLS-10, TLS-12, TLS-14: the recorded alerts.
#[test]
fn a_server_refuses_with_the_recorded_alerts() {
    let (ca, stranger) = (root(), root());
    let ca_leaf = leaf(&[CLIENT]).with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let dns_only = leaf(&[]).with(|params| {
        params.subject_alt_names = vec![SanType::DnsName("client.example".try_into().unwrap())];
    });
    let cases = [
        (
            "expired",
            leaf(&[CLIENT]).with(|p| p.not_after = (now() - Duration::from_secs(1)).into()),
            &ca,
            AlertDescription::CertificateExpired,
        ),
        (
            "future",
            leaf(&[CLIENT]).with(|p| p.not_before = (now() + Duration::from_secs(1)).into()),
            &ca,
            AlertDescription::CertificateExpired,
        ),
        ("wrong root", leaf(&[CLIENT]), &stranger, AlertDescription::UnknownCA),
        (
            "other trust domain",
            leaf(&["spiffe://other.domain/ns/probes/sa/client"]),
            &ca,
            AlertDescription::CertificateUnknown,
        ),
        (
            "bad name",
            leaf(&["spiffe://cluster.local/workload/client"]),
            &ca,
            AlertDescription::CertificateUnknown,
        ),
        ("no name", leaf(&[]), &ca, AlertDescription::CertificateUnknown),
        ("DNS name only", dns_only, &ca, AlertDescription::CertificateUnknown),
        ("CA as leaf", ca_leaf, &ca, AlertDescription::CertificateUnknown),
        (
            "server usage",
            leaf(&[CLIENT]).with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            &ca,
            AlertDescription::UnsupportedCertificate,
        ),
        // Deliberate difference (W89): the identity that counts must be of our trust domain.
        (
            "foreign identity first",
            leaf(&["spiffe://other.domain/ns/a/sa/b", CLIENT]),
            &ca,
            AlertDescription::CertificateUnknown,
        ),
    ];
    for (case, client, by, wanted) in cases {
        let met = meet(Arc::new(any_client(&client, by, &[], &ca)), server(&ca));
        assert_eq!(met.alert_to_client(), Some(wanted), "{case}");
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

// TLS-03
#[test]
fn a_client_without_certificate_is_told_so() {
    let ca = root();
    let mut config = any_client(&leaf(&[CLIENT]), &ca, &[], &ca);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let met = meet(Arc::new(config), server(&ca));
    assert_eq!(met.server_error, Some(Error::NoCertificatesPresented));
    assert_eq!(met.alert_to_client(), Some(AlertDescription::CertificateRequired));
}

// Data-path 4.2: what is accepted.
#[test]
fn other_keys_no_usage_and_intermediates_are_accepted() {
    let ca = root();
    let middle = below(&ca, "middle");
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let client = any_client(&leaf(&[CLIENT]).with_key(algorithm), &ca, &[], &ca);
        assert!(meet(Arc::new(client), server(&ca)).completed());
    }
    let without_usage = leaf(&[CLIENT]).with(|params| params.extended_key_usages.clear());
    assert!(meet(Arc::new(any_client(&without_usage, &ca, &[], &ca)), server(&ca)).completed());
    let under_middle = any_client(&leaf(&[CLIENT]), &middle, &[&middle], &ca);
    assert!(meet(Arc::new(under_middle), server(&ca)).completed());
    let own_first = leaf(&["https://example.com", CLIENT, "spiffe://other.domain/ns/a/sa/b"]);
    let met = meet(Arc::new(any_client(&own_first, &ca, &[], &ca)), server(&ca));
    assert_eq!(peer_identity(met.server.peer_certificates().unwrap()), Some(id(CLIENT)));
    assert!(met.completed());
}

// TLS-24, TLS-25, TLS-26, TLS-29
#[test]
fn versions_protocols_and_suites_are_as_recorded() {
    let ca = root();
    let with = |change: &dyn Fn(&mut ClientConfig)| {
        let mut config = any_client(&leaf(&[CLIENT]), &ca, &[], &ca);
        change(&mut config);
        meet(Arc::new(config), server(&ca))
    };
    assert!(with(&|config| config.alpn_protocols.clear()).completed(), "no ALPN");
    let http1 = with(&|config| config.alpn_protocols = vec![b"http/1.1".to_vec()]);
    assert_eq!(http1.alert_to_client(), Some(AlertDescription::NoApplicationProtocol));

    let offering = |suites: Vec<rustls::SupportedCipherSuite>,
                    versions: &'static [&'static SupportedProtocolVersion]| {
        let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() });
        let certificate = issue(&leaf(&[CLIENT]), &ca);
        let mut config = ClientConfig::builder_with_details(provider.clone(), options().time.unwrap())
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::ServerVerifier::new(
                certificate.root_store.clone(),
                vec![id(SERVER)],
                None,
                &provider,
            )))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        meet(Arc::new(config), server(&ca))
    };
    use cipher_suite::*;
    let suite = |met: &Met| met.server.negotiated_cipher_suite().map(|suite| suite.suite());
    for alone in [TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256] {
        let met = offering(vec![alone], TLS13);
        assert_eq!((suite(&met), met.completed()), (Some(alone.suite()), true));
    }
    let chacha = offering(vec![TLS13_CHACHA20_POLY1305_SHA256], TLS13);
    assert_eq!(chacha.alert_to_client(), Some(AlertDescription::HandshakeFailure));
    assert_eq!(chacha.server_error, Some(PeerIncompatible::NoCipherSuitesInCommon.into()));
    let all = vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    assert_eq!(
        suite(&offering(all, TLS13)),
        Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256),
        "client's order"
    );
    static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let old = offering(vec![TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], TLS12);
    assert_eq!(old.alert_to_client(), Some(AlertDescription::ProtocolVersion));
}

#[test]
fn tls_1_2_and_post_quantum_exchange_are_options() {
    let ca = root();
    let issue = |options: TlsOptions, name: &str| issue(&leaf(&[name]), &ca).with_options(options);
    let old = TlsOptions { tls12: true, ..options() };
    let met =
        meet(issue(old.clone(), CLIENT).client_config(&[id(SERVER)]), issue(old, SERVER).server_config());
    assert!(met.completed());
    let quantum = TlsOptions { post_quantum_only: true, ..options() };
    let server = issue(quantum.clone(), SERVER).server_config();
    let met = meet(issue(quantum, CLIENT).client_config(&[id(SERVER)]), server.clone());
    assert_eq!(met.client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    let names: Vec<_> = crypto_provider(&options()).kx_groups.iter().map(|group| group.name()).collect();
    let wanted =
        [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1, NamedGroup::X25519MLKEM768];
    assert_eq!(names, wanted);
}

// Data-path 4.2: client's refusals.
#[test]
fn a_client_refuses_with_the_contracts_alerts_and_text() {
    let (ca, stranger) = (root(), root());
    let other = "spiffe://cluster.local/ns/probes/sa/other";
    let client = |expected: &[SpiffeId]| issue(&leaf(&[CLIENT]), &ca).client_config(expected);
    let serving =
        |leaf: &Leaf, by: &Ca| leaf.issued(by, &format!("{}{}", ca.pem(), by.pem())).unwrap().server_config();
    for (case, server, wanted) in [
        (
            "expired",
            serving(&leaf(&[SERVER]).with(|p| p.not_after = (now() - Duration::from_secs(1)).into()), &ca),
            AlertDescription::CertificateExpired,
        ),
        ("other root", serving(&leaf(&[SERVER]), &stranger), AlertDescription::UnknownCA),
        ("other identity", serving(&leaf(&[other]), &ca), AlertDescription::CertificateUnknown),
        (
            "client usage",
            serving(
                &leaf(&[SERVER]).with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
                &ca,
            ),
            AlertDescription::UnsupportedCertificate,
        ),
    ] {
        assert_eq!(meet(client(&[id(SERVER)]), server).alert_to_server(), Some(wanted), "{case}");
    }
    let met = meet(client(&[id(SERVER), id(CLIENT)]), serving(&leaf(&[other]), &ca));
    let error = met.client_error.unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "invalid peer certificate: Other(OtherError(identity verification error: \
             peer did not present the expected SAN ({SERVER},{CLIENT}), got {other}))"
        )
    );
    assert_eq!(PeerError::from_tls(&error).unwrap().code(), "tls-unexpected-identity");
    assert!(meet(client(&[]), serving(&leaf(&[SERVER]), &ca)).client_error.is_some(), "nobody is expected");
    assert!(
        meet(client(&[id(SERVER)]), serving(&leaf(&[other, SERVER]), &ca)).completed(),
        "any of its names"
    );
}

// TLS-07: the error as it is logged.
#[test]
fn a_foreign_trust_domain_is_logged_as_recorded() {
    let ca = root();
    let client = any_client(&leaf(&["spiffe://other.domain/ns/probes/sa/client"]), &ca, &[], &ca);
    let error = meet(Arc::new(client), server(&ca)).server_error.unwrap();
    assert_eq!(
        format!("{error:?}"),
        "InvalidCertificate(Other(OtherError(SanTrustDomainError(\"cluster.local\", [Spiffe { trust_domain: \
         \"other.domain\", namespace: \"probes\", service_account: \"client\" }]))))"
    );
    assert_eq!(PeerError::from_tls(&error).unwrap().code(), "tls-unexpected-trust-domain");
    let nobody = any_client(&leaf(&[]), &ca, &[], &ca);
    let error = meet(Arc::new(nobody), server(&ca)).server_error.unwrap();
    assert!(format!("{error:?}").contains("SanTrustDomainError(\"cluster.local\", [])"));
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::Other(_))));
}

// W28
#[test]
fn the_server_configuration_is_built_once() {
    let certificate = issue(&leaf(&[SERVER]), &root());
    assert!(Arc::ptr_eq(&certificate.server_config(), &certificate.server_config()));
}

#[derive(Debug, Default)]
struct Labels(Mutex<Vec<String>>);

impl KeyLog for Labels {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        self.0.lock().unwrap().push(label.to_owned());
    }
}

#[test]
fn a_key_log_sees_the_secrets() {
    let ca = root();
    let labels = Arc::new(Labels::default());
    let options = TlsOptions { key_log: Some(labels.clone()), ..options() };
    let client = issue(&leaf(&[CLIENT]), &ca).with_options(options);
    assert!(meet(client.client_config(&[id(SERVER)]), server(&ca)).completed());
    assert!(labels.0.lock().unwrap().iter().any(|label| label == "CLIENT_TRAFFIC_SECRET_0"));
}

/// A list of `by` that revokes these serial numbers.
fn revoking(by: &Ca, serials: &[&[u8]]) -> String {
    let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
        serial_number: serial.to_vec().into(),
        revocation_time: now().into(),
        reason_code: None,
        invalidity_date: None,
    });
    let params = rcgen::CertificateRevocationListParams {
        // Past its date: what it revokes stays revoked.
        this_update: (now() - Duration::from_secs(200)).into(),
        next_update: (now() - Duration::from_secs(100)).into(),
        crl_number: vec![1].into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(by).unwrap().pem().unwrap()
}

// A-MI-05 to 07, data-path 4.9; at the handshake.
#[test]
fn revoked_certificates_are_refused_at_both_ends_until_the_list_says_otherwise() {
    let ca = root();
    let middle = below(&ca, "middle");
    let lists = RevocationLists::default();
    let serial = |serial: u8| {
        move |params: &mut rcgen::CertificateParams| {
            params.serial_number = Some(vec![serial].into());
        }
    };
    let with_lists = |certificate: WorkloadCertificate| {
        certificate.with_options(TlsOptions { revocations: Some(lists.clone()), ..options() })
    };
    let client = with_lists(issue(&leaf(&[CLIENT]).with(serial(11)), &ca));
    let server_leaf = leaf(&[SERVER]).with(serial(12));
    let chain = [server_leaf.pem(&middle), middle.pem(), ca.pem()];
    let server = with_lists(WorkloadCertificate::new(&chain, server_leaf.key(), options()).unwrap());
    let met = || meet(client.client_config(&[id(SERVER)]), server.server_config());
    let revoked = Some(Error::InvalidCertificate(CertificateError::Revoked));

    assert!(met().completed(), "no list");
    assert_eq!(lists.replace(revoking(&ca, &[&[99]]).as_bytes()), Ok(1));
    assert!(met().completed(), "others are revoked, and the middle's issuing has no list");

    let chain = |certificate: &WorkloadCertificate| -> Vec<_> {
        certificate.chain().iter().map(|certificate| certificate.der().clone()).collect()
    };
    let (clients, servers) = (chain(&client), chain(&server));
    assert_eq!(server.has_revoked(Judged::Client, &clients, now()), Ok(false), "connected before");
    assert_eq!(lists.replace(revoking(&ca, &[&[11]]).as_bytes()), Ok(1));
    assert_eq!(server.has_revoked(Judged::Client, &clients, now()), Ok(true));
    server.count_revoked(Judged::Client);
    assert_eq!(client.has_revoked(Judged::Server, &servers, now()), Ok(false));
    assert_eq!((lists.n_refused_clients(), lists.n_refused_servers()), (1, 0));
    assert_eq!(met().server_error, revoked, "the client");
    assert_eq!((lists.n_refused_clients(), lists.n_refused_servers()), (2, 0));

    let both = revoking(&ca, &[&[99]]) + &ca.pem() + &revoking(&middle, &[&[12]]);
    assert_eq!(lists.replace(both.as_bytes()), Ok(2));
    assert_eq!(met().client_error, revoked, "the server");
    assert_eq!((lists.n_refused_clients(), lists.n_refused_servers()), (2, 1));

    let of_middle = issue_serial(&middle);
    assert_eq!(lists.replace(revoking(&ca, &[&of_middle]).as_bytes()), Ok(1));
    assert_eq!(met().client_error, revoked, "an intermediate");
    assert_eq!(client.has_revoked(Judged::Server, &servers, now()), Ok(true));

    let stranger = root();
    assert_eq!(lists.replace(revoking(&stranger, &[&[11], &[12]]).as_bytes()), Ok(1));
    assert!(met().completed(), "numbers of another issuer");

    let pem = revoking(&ca, &[&[11]]);
    let mut forged = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(lists.replace(&forged), Ok(1));
    let untold = server.has_revoked(Judged::Client, &clients, now()).unwrap_err();
    assert!(untold.to_string().contains("InvalidCrlSignature"), "{untold}");
    assert_eq!(met().client_error, Some(untold), "a handshake is refused");

    assert_eq!(lists.replace(revoking(&ca, &[&[11]]).as_bytes()), Ok(1));
    let garbage = lists.replace(b"nonsense").unwrap_err();
    assert_eq!((garbage.index, garbage.code()), (0, "config-crl-invalid"));
    assert_eq!(met().server_error, revoked, "what was in force stays");
    assert_eq!(lists.replace(b" \n"), Ok(0));
    assert!(met().completed(), "an empty file");
}

/// The serial number of an authority's certificate.
fn issue_serial(authority: &Ca) -> Vec<u8> {
    use x509_parser::prelude::FromDer as _;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(authority.der()).unwrap();
    parsed.raw_serial().to_vec()
}
