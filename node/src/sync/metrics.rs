//! What is counted about discovery (control-and-operations 7.2).

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use xds::client::Reason;

use super::handle::MeshHandle;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UrlLabel {
    url: String,
}

/// Counters of the discovery client. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    terminations: Family<ReasonLabel, Counter>,
    messages: Family<UrlLabel, Counter>,
    bytes: Family<UrlLabel, Counter>,
    refusals: Family<UrlLabel, Counter>,
    connected: Gauge<i64, AtomicI64>,
    last_success: Arc<Mutex<Option<Instant>>>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry, mesh: MeshHandle) -> Self {
        let metrics = Self {
            terminations: Family::default(),
            messages: Family::default(),
            bytes: Family::default(),
            refusals: Family::default(),
            connected: Gauge::default(),
            last_success: Arc::default(),
        };
        registry.register(
            "istio_xds_connection_terminations",
            "The total number of completed connections to xds server (unstable)",
            metrics.terminations.clone(),
        );
        registry.register(
            "istio_xds_message",
            "Total number of messages received (unstable)",
            metrics.messages.clone(),
        );
        registry.register_with_unit(
            "istio_xds_message",
            "Total number of bytes received (unstable)",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register(
            "culvert_xds_refusals",
            "Responses in which at least one resource was refused (unstable)",
            metrics.refusals.clone(),
        );
        registry.register(
            "culvert_xds_connected",
            "Whether a discovery stream is up (unstable)",
            metrics.connected.clone(),
        );
        registry.register_collector(Box::new(Freshness {
            last_success: Arc::clone(&metrics.last_success),
            mesh,
        }));
        metrics
    }

    /// A response was applied.
    pub(super) fn applied(&self) {
        *self.last_success.lock() = Some(runtime::clock::monotonic());
    }
}

impl xds::client::Metrics for Metrics {
    fn received(&self, type_url: &str, payload_bytes: usize) {
        let label = UrlLabel { url: known_url(type_url).to_owned() };
        self.messages.get_or_create(&label).inc();
        self.bytes.get_or_create(&label).inc_by(payload_bytes as u64);
    }

    fn answered(&self, type_url: &str, refused: bool) {
        if refused {
            self.refusals.get_or_create(&UrlLabel { url: known_url(type_url).to_owned() }).inc();
        }
    }

    fn established(&self) {
        self.connected.set(1);
    }

    fn terminated(&self, reason: Reason) {
        self.connected.set(0);
        self.terminations.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }
}

/// Labels come from a closed set, whatever a server sends.
fn known_url(type_url: &str) -> &str {
    match type_url {
        wire::workload::ADDRESS_TYPE | wire::security::AUTHORIZATION_TYPE => type_url,
        _ => "unknown",
    }
}

/// How old and how large the picture is, read when somebody looks.
#[derive(Debug)]
struct Freshness {
    last_success: Arc<Mutex<Option<Instant>>>,
    mesh: MeshHandle,
}

impl Collector for Freshness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(last) = *self.last_success.lock() {
            let age = runtime::clock::monotonic().saturating_duration_since(last).as_secs_f64();
            let metric = ConstGauge::new(age);
            let descriptor = encoder.encode_descriptor(
                "culvert_xds_last_success_age",
                "Time since a response was last applied (unstable)",
                Some(&Unit::Seconds),
                metric.metric_type(),
            )?;
            metric.encode(descriptor)?;
        }
        let mesh = self.mesh.current();
        let counts = [
            ("workloads", mesh.n_workloads()),
            ("services", mesh.n_services()),
            ("policies", mesh.n_policies()),
        ];
        for (kind, n) in counts {
            let metric = ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX));
            let name = format!("culvert_mesh_{kind}");
            let help = format!("Number of {kind} known (unstable)");
            let descriptor = encoder.encode_descriptor(&name, &help, None, metric.metric_type())?;
            metric.encode(descriptor)?;
        }
        Ok(())
    }
}
