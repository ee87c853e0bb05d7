//! What the authority counts; named after the metrics (control-plane 7.1).
use std::sync::atomic::AtomicU64;

/// Counters of the authority; read with `load(Ordering::Relaxed)`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// `citadel_server_csr_count`
    pub csr: AtomicU64,
    /// `citadel_server_success_cert_issuance_count`
    pub success: AtomicU64,
    /// `citadel_server_authentication_failure_count`; refused impersonation included
    pub authentication_failure: AtomicU64,
    /// `citadel_server_csr_parsing_err_count`
    pub csr_parsing_error: AtomicU64,
    /// `citadel_server_id_extraction_err_count`
    pub id_extraction_error: AtomicU64,
    /// `citadel_server_csr_sign_err_count`
    pub csr_sign_error: AtomicU64,
}
