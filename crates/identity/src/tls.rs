//! The TLS configurations of the mesh: who is presented, who is accepted, with which algorithms.
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, KeyLog, ServerConfig, SupportedProtocolVersion};

use crate::{SpiffeId, WorkloadCertificate};

mod revocation;
mod verify;

pub use revocation::{Judged, RevocationError, RevocationLists};
pub use verify::{PeerError, peer_identities, peer_identity};

/// The one application protocol of a tunnel.
const ALPN_H2: &[u8] = b"h2";
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
static TLS12_AND_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What may vary in the mesh's TLS.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Also speak TLS 1.2 (`TLS12_ENABLED=true`).
    pub tls12: bool,
    /// Only post-quantum key exchange (`COMPLIANCE_POLICY=pqc`).
    pub post_quantum_only: bool,
    /// Where session secrets are written, for debugging and for handing records to the kernel.
    pub key_log: Option<Arc<dyn KeyLog>>,
    /// The clock that judges certificate validity; the system's when absent.
    pub time: Option<Arc<dyn TimeProvider>>,
    /// Whose certificates are refused though they are good in all else (`CRL_PATH`).
    pub revocations: Option<RevocationLists>,
}

impl TlsOptions {
    /// The protocol versions these options allow.
    pub fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.tls12 { TLS12_AND_TLS13 } else { TLS13 }
    }
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOptions")
            .field("tls12", &self.tls12)
            .field("post_quantum_only", &self.post_quantum_only)
            .field("key_log", &self.key_log.is_some())
            .field("time", &self.time.is_some())
            .field("revocations", &self.revocations.is_some())
            .finish()
    }
}

/// Cipher suites and key exchange groups in their order (data-path 4.1).
pub fn crypto_provider(options: &TlsOptions) -> CryptoProvider {
    let mut cipher_suites =
        vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];
    if options.tls12 {
        cipher_suites.extend([
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ]);
    }
    let kx_groups = if options.post_quantum_only {
        vec![kx_group::X25519MLKEM768]
    } else {
        vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768]
    };
    CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }
}

impl WorkloadCertificate {
    /// The configuration of an inbound tunnel; built at the first call and then shared.
    ///
    /// A client must present a certificate under our roots whose identity lies in our trust domain.
    /// Sessions are never resumed: each connection proves its peer anew.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.get_or_init(|| Arc::new(self.build_server())).clone()
    }

    /// The configuration of an outbound tunnel to one of `expected`; everybody is refused when it is
    /// empty. The server name given to the connection is neither sent nor checked.
    pub fn client_config(&self, expected: &[SpiffeId]) -> Arc<ClientConfig> {
        let provider = Arc::new(crypto_provider(&self.options));
        let verifier = verify::ServerVerifier::new(
            self.root_store.clone(),
            expected.to_vec(),
            self.options.revocations.clone(),
            &provider,
        );
        let builder = match &self.options.time {
            Some(time) => ClientConfig::builder_with_details(provider, time.clone()),
            None => ClientConfig::builder_with_provider(provider),
        };
        let mut config = builder
            .with_protocol_versions(self.options.versions())
            .expect("the provider has suites and groups for these versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        if let Some(key_log) = &self.options.key_log {
            config.key_log = key_log.clone();
        }
        Arc::new(config)
    }

    fn build_server(&self) -> ServerConfig {
        let provider = Arc::new(crypto_provider(&self.options));
        let verifier = verify::ClientVerifier::new(
            self.root_store.clone(),
            self.identity.trust_domain().clone(),
            self.options.revocations.clone(),
            &provider,
        );
        let builder = match &self.options.time {
            Some(time) => ServerConfig::builder_with_details(provider, time.clone()),
            None => ServerConfig::builder_with_provider(provider),
        };
        let mut config = builder
            .with_protocol_versions(self.options.versions())
            .expect("the provider has suites and groups for these versions")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        if let Some(key_log) = &self.options.key_log {
            config.key_log = key_log.clone();
        }
        config
    }
}

#[cfg(test)]
mod tests;
