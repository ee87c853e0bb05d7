//! Who a workload is and how it proves it: SPIFFE names, certificates, requests for them, and the
//! TLS configurations of the mesh.
//!
//! Start at [`WorkloadCertificate`]: what the certificate authority answered, parsed once, with the
//! TLS configurations that present it. [`SpiffeId`] is the name in it, [`CertificateRequest`] asks
//! for it, [`Renewal`] says when to ask again.
//!
//! What it does not do: no I/O, no tasks, no clock of its own (`now` is passed in; the TLS library
//! reads the time of day for certificate validity unless [`TlsOptions::time`] says otherwise). It
//! does not decide who may talk to whom: that is policy.
//!
//! Invariants: a [`WorkloadCertificate`] has an identity, a key that fits and at least one usable
//! root. The peer identity that is authorised is the one whose trust domain was checked. Private
//! keys never appear in `Debug` output.
#![warn(missing_docs)]

mod certificate;
mod renewal;
mod request;
mod spiffe;
#[cfg(test)]
mod testing;
mod tls;

pub use certificate::{Certificate, ChainError, SkippedRoot, WorkloadCertificate};
pub use renewal::{Renewal, half_life};
pub use request::{CertificateRequest, RequestError};
pub use spiffe::{InvalidSpiffeId, InvalidTrustDomain, SpiffeId, TrustDomain};
pub use tls::{
    Judged, PeerError, RevocationError, RevocationLists, TlsOptions, crypto_provider, peer_identities,
    peer_identity,
};
