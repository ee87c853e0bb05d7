//! The label model of the traffic families: names, order and values of control-and-operations 7.3.
//!
//! Values are plain text here; where they come from (discovery, baggage, TLS) is decided by
//! `context`. An empty value means "not known" and is shown as `unknown`.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

/// Which side of a connection counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    /// The outbound path.
    Source,
    /// The inbound paths.
    Destination,
}

impl Reporter {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Whether both ends of the connection proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// HBONE with mutual TLS.
    MutualTls,
    /// Plain TCP.
    Unknown,
}

impl Security {
    fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a connection ended, as the label `response_flags` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Flag {
    /// Success, or still open.
    None,
    /// Refused or cut by policy.
    Deny,
    /// Could not connect, broke off, or was drained.
    Connect,
    /// TLS to the next hop failed.
    TlsFailure,
    /// HTTP/2 to the next hop failed.
    H2HandshakeFailure,
    /// The next hop's HBONE port did not answer.
    NetworkPolicy,
    /// No certificate for the local workload.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl Flag {
    /// Every flag, in the order of the discriminants.
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

/// One end of a connection as the labels name it; empty text is "not known".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Party {
    pub(crate) workload: String,
    pub(crate) canonical_service: String,
    pub(crate) canonical_revision: String,
    pub(crate) namespace: String,
    pub(crate) principal: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) cluster: String,
    pub(crate) region: String,
    pub(crate) zone: String,
}

/// The destination service as the labels name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ServiceLabels {
    pub(crate) hostname: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// All labels of a connection but `response_flags`, which is known only at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TrafficLabels {
    pub(crate) reporter: Reporter,
    pub(crate) source: Party,
    pub(crate) service: ServiceLabels,
    pub(crate) destination: Party,
    pub(crate) security: Security,
    /// The four locality labels exist only if something is known about either end.
    pub(crate) with_locality: bool,
}

/// A traffic label set with its flag, ready to encode.
#[derive(Debug)]
pub(crate) struct Flagged<'a>(pub(crate) &'a TrafficLabels, pub(crate) Flag);

impl EncodeLabelSet for Flagged<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self(labels, flag) = self;
        let mut put = |key: &str, value: &str| (key, known(value)).encode(encoder.encode_label());
        put("reporter", labels.reporter.as_str())?;
        let source = &labels.source;
        put("source_workload", &source.workload)?;
        put("source_canonical_service", &source.canonical_service)?;
        put("source_canonical_revision", &source.canonical_revision)?;
        put("source_workload_namespace", &source.namespace)?;
        put("source_principal", &source.principal)?;
        put("source_app", &source.app)?;
        put("source_version", &source.version)?;
        put("source_cluster", &source.cluster)?;
        let service = &labels.service;
        put("destination_service", &service.hostname)?;
        put("destination_service_namespace", &service.namespace)?;
        put("destination_service_name", &service.name)?;
        let destination = &labels.destination;
        put("destination_workload", &destination.workload)?;
        put("destination_canonical_service", &destination.canonical_service)?;
        put("destination_canonical_revision", &destination.canonical_revision)?;
        put("destination_workload_namespace", &destination.namespace)?;
        put("destination_principal", &destination.principal)?;
        put("destination_app", &destination.app)?;
        put("destination_version", &destination.version)?;
        put("destination_cluster", &destination.cluster)?;
        put("request_protocol", "tcp")?;
        put("response_flags", flag.as_str())?;
        put("connection_security_policy", labels.security.as_str())?;
        if labels.with_locality {
            put("source_region", &source.region)?;
            put("source_zone", &source.zone)?;
            put("destination_region", &destination.region)?;
            put("destination_zone", &destination.zone)?;
        }
        Ok(())
    }
}

/// Labels of `istio_on_demand_dns_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OnDemandDnsLabels {
    pub(crate) source: Party,
    pub(crate) hostname: String,
}

impl EncodeLabelSet for OnDemandDnsLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut put = |key: &str, value: &str| (key, known(value)).encode(encoder.encode_label());
        let source = &self.source;
        put("source_workload", &source.workload)?;
        put("source_canonical_service", &source.canonical_service)?;
        put("source_canonical_revision", &source.canonical_revision)?;
        put("source_workload_namespace", &source.namespace)?;
        put("source_principal", &source.principal)?;
        put("source_app", &source.app)?;
        put("source_version", &source.version)?;
        put("source_cluster", &source.cluster)?;
        put("hostname", &self.hostname)
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}
