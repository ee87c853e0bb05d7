//! Counters of the DNS proxies (data-path 8.2.7).

use hickory_proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Transport;
use super::query::Query;

const BUCKETS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// Counters of all pods; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) upstream_requests: Family<RequestLabels, Counter>,
    pub(super) upstream_failures: Family<RequestLabels, Counter>,
    pub(super) upstream_duration: Family<RequestLabels, Histogram>,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    request_query_type: String,
    request_protocol: &'static str,
    source_canonical_service: String,
    source_canonical_revision: String,
}

impl RequestLabels {
    pub(super) fn new(query: &Query, transport: Transport, client: Option<&state::Workload>) -> Self {
        let or_unknown =
            |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("unknown").to_owned();
        Self {
            // A closed set: whoever asks for made-up types must not make up series.
            request_query_type: match query.record_type() {
                RecordType::Unknown(_) => "unknown".to_owned(),
                known => known.to_string().to_ascii_lowercase(),
            },
            request_protocol: match transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            source_canonical_service: or_unknown(client.map(|client| &*client.canonical_name)),
            source_canonical_revision: or_unknown(client.map(|client| &*client.canonical_revision)),
        }
    }
}

impl Metrics {
    /// Registers the families.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        registry.register(
            "istio_dns_requests",
            "Total number of DNS requests (unstable)",
            metrics.requests.clone(),
        );
        registry.register(
            "istio_dns_upstream_requests",
            "Total number of DNS requests forwarded to upstream (unstable)",
            metrics.upstream_requests.clone(),
        );
        registry.register(
            "istio_dns_upstream_failures",
            "Total number of DNS requests forwarded to upstream (unstable)",
            metrics.upstream_failures.clone(),
        );
        registry.register_with_unit(
            "istio_dns_upstream_request_duration",
            "Total time in seconds Istio takes to get DNS response from upstream (unstable)",
            Unit::Seconds,
            metrics.upstream_duration.clone(),
        );
        metrics
    }
}
