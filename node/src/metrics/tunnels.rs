//! What is counted about tunnels, whichever pod or thread they belong to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hbone::Limit;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The counters of `hbone` on the page. Limits that nobody went beyond are left out.
#[derive(Debug)]
pub(super) struct Tunnels {
    pub(super) metrics: Arc<hbone::Metrics>,
    pub(super) memory: Arc<hbone::Memory>,
}

impl Collector for Tunnels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = &self.metrics;
        let mut count = |name, help, count: &AtomicU64| {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            let encoded = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            count.encode(encoded)
        };
        count(
            "culvert_hbone_connections_opened",
            "HBONE connections that came up (unstable)",
            &metrics.connections_opened,
        )?;
        count(
            "culvert_hbone_connections_closed",
            "HBONE connections that have ended (unstable)",
            &metrics.connections_closed,
        )?;
        count("culvert_hbone_streams", "Streams of HBONE connections (unstable)", &metrics.streams)?;
        count(
            "culvert_hbone_resets_received",
            "Streams that peers have reset (unstable)",
            &metrics.resets_received,
        )?;
        count("culvert_hbone_resets_sent", "Streams that were reset here (unstable)", &metrics.resets_sent)?;
        count(
            "culvert_hbone_refused",
            "Requests refused for want of room or because of a drain (unstable)",
            &metrics.refused,
        )?;
        let exceeded = Limit::ALL.map(|limit| (limit, metrics.exceeded(limit)));
        if exceeded.iter().any(|(_, times)| *times > 0) {
            let help = "Times that peers went beyond a limit of tunnels (unstable)";
            let name = "culvert_hbone_limits_exceeded";
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (limit, times) in exceeded.into_iter().filter(|(_, times)| *times > 0) {
                ConstCounter::new(times).encode(family.encode_family(&[("limit", limit.name())])?)?;
            }
        }
        let help = "Octets that tunnels hold for who does not take them (unstable)";
        let held = ConstGauge::new(self.memory.held());
        let gauge = encoder.encode_descriptor("culvert_hbone_held_bytes", help, None, MetricType::Gauge)?;
        held.encode(gauge)
    }
}
