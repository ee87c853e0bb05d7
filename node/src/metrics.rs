//! What the node proxy counts, and how the page of it looks.
//!
//! Order, names, labels and help texts of the page are a contract (control-and-operations 7), so
//! the parts are registered in sections that are rendered one after another.

mod labels;
mod traffic;
mod tunnels;

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use runtime::metrics::{ProcessCollector, RuntimeCollector};

use crate::certs::revocations::Rejections;
pub(crate) use labels::{Flag, OnDemandDnsLabels, Party, Reporter, Security, ServiceLabels, TrafficLabels};
pub(crate) use traffic::{Followed, LiveBytes, Moved, OpenSocket, Series, Shard};

/// Every metric of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    sections: Sections,
    traffic: traffic::Traffic,
    pub(crate) pods: PodMetrics,
}

/// Registries in the order of the page.
#[derive(Debug, Default)]
struct Sections {
    process: Registry,
    build: Registry,
    discovery: Registry,
    traffic: Registry,
    dns: Registry,
    pods: Registry,
    tunnels: Registry,
}

/// Counts of pods, shown as `workload_manager_*`.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodMetrics {
    pub(crate) active: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) started: Counter<u64, AtomicU64>,
    pub(crate) stopped: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// An empty page; `tag` is the version of Istio that this build stands in for, `event_loops` are what
    /// carries the traffic.
    pub(crate) fn new(tag: &str, event_loops: RuntimeCollector, in_pod: bool) -> Self {
        let mut sections = Sections::default();
        sections.process.register_collector(Box::new(ProcessCollector));
        sections.process.register_collector(Box::new(event_loops));

        let build: prometheus_client::metrics::family::Family<Vec<(String, String)>, Gauge> =
            prometheus_client::metrics::family::Family::default();
        let labels = [("component", "ztunnel"), ("tag", tag)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        build.get_or_create(&labels).set(1);
        sections.build.register("istio_build", "Istio component build info", build);

        let traffic = traffic::Traffic::default();
        sections.traffic.register_collector(Box::new(traffic.clone()));

        let pods = PodMetrics::default();
        if in_pod {
            pods.register(&mut sections.pods);
        }
        Self { sections, traffic, pods }
    }

    /// Shows whom revocation lists have refused.
    pub(crate) fn show_revocations(&mut self, lists: identity::RevocationLists) {
        self.sections.traffic.register_collector(Box::new(Rejections(lists)));
    }

    /// Where the discovery client registers its families.
    pub(crate) fn discovery(&mut self) -> &mut Registry {
        &mut self.sections.discovery
    }

    /// Where the DNS proxy registers its families.
    pub(crate) fn dns(&mut self) -> &mut Registry {
        &mut self.sections.dns
    }

    /// The counters of one more traffic thread.
    pub(crate) fn shard(&self) -> Shard {
        self.traffic.shard()
    }

    /// Shows what tunnels of these settings count.
    pub(crate) fn show_tunnels(&mut self, settings: &hbone::Settings) {
        if let (Some(metrics), Some(memory)) = (settings.metrics.clone(), settings.memory.clone()) {
            self.sections.tunnels.register_collector(Box::new(tunnels::Tunnels { metrics, memory }));
        }
    }

    /// The page in OpenMetrics text.
    pub(crate) fn render(&self) -> String {
        // Writing to a string fails only by the fault of a collector; what is complete is shown.
        self.sections().unwrap_or_else(|_| "# EOF\n".to_owned())
    }

    fn sections(&self) -> Result<String, fmt::Error> {
        let Sections { process, build, discovery, traffic, dns, pods, tunnels } = &self.sections;
        let mut page = String::with_capacity(16 * 1024);
        for section in [process, build, discovery, traffic, dns, pods, tunnels] {
            text::encode_registry(&mut page, section)?;
        }
        text::encode_eof(&mut page)?;
        Ok(page)
    }
}

impl PodMetrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("workload_manager");
        registry.register(
            "active_proxy_count",
            "The total number current workloads with active proxies (unstable)",
            self.active.clone(),
        );
        registry.register(
            "pending_proxy_count",
            "The total number current workloads with pending proxies (unstable)",
            self.pending.clone(),
        );
        registry.register(
            "proxies_started",
            "The total number of proxies that were started (unstable)",
            self.started.clone(),
        );
        registry.register(
            "proxies_stopped",
            "The total number of proxies that were stopped (unstable)",
            self.stopped.clone(),
        );
    }
}

#[cfg(test)]
mod tests;
