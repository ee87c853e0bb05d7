//! What the control plane counts, under the reference's names (control-plane 7.1).

mod exposition;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub(crate) use exposition::CONTENT_TYPE;
use exposition::{Counters, Histogram, Page};
use parking_lot::Mutex;

use crate::authority::Authority;
use crate::catalog::Catalog;

const TIMES: &[f64] = &[0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const CONVERGENCE: &[f64] = &[0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const SIZES: &[f64] = &[1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

/// Counters of the control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: SystemTime,
    streams: AtomicI64,
    pushes: Counters,
    push_time: Histogram,
    sizes: Histogram,
    queue_time: Histogram,
    convergence: Histogram,
    expired_nonces: Counters,
    rejects: Counters,
    triggers: Counters,
    updates: Counters,
    largest_request: AtomicU64,
    build_time: Histogram,
    reload: Mutex<Reload>,
}

/// What became of the source's changes.
#[derive(Clone, Copy, Debug, Default)]
struct Reload {
    n_problems: usize,
    last_success: Option<SystemTime>,
}

/// What the page shows besides what was counted.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) authority: &'a Authority,
    pub(crate) now: SystemTime,
}

impl Metrics {
    pub(crate) fn new(now: SystemTime) -> Self {
        let shared = Shared {
            started: now,
            streams: AtomicI64::new(0),
            pushes: Counters::default(),
            push_time: Histogram::new(TIMES),
            sizes: Histogram::new(SIZES),
            queue_time: Histogram::new(CONVERGENCE),
            convergence: Histogram::new(CONVERGENCE),
            expired_nonces: Counters::default(),
            rejects: Counters::default(),
            triggers: Counters::default(),
            updates: Counters::default(),
            largest_request: AtomicU64::new(0),
            build_time: Histogram::new(TIMES),
            reload: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn stream_opened(&self) {
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stream_closed(&self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, size: usize) {
        self.shared.largest_request.fetch_max(size as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, kind: &str, type_url: &str, size: usize, took: Duration) {
        self.shared.pushes.add(kind, 1);
        self.shared.push_time.observe(kind, took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "sizes of messages are far below 2^52")]
        self.shared.sizes.observe(type_url, size as f64);
    }

    pub(crate) fn queued(&self, waited: Duration) {
        self.shared.queue_time.observe("", waited.as_secs_f64());
    }

    pub(crate) fn converged(&self, age: Duration) {
        self.shared.convergence.observe("", age.as_secs_f64());
    }

    pub(crate) fn refused(&self, kind: &str) {
        self.shared.rejects.add(kind, 1);
    }

    pub(crate) fn stale(&self, kind: &str) {
        self.shared.expired_nonces.add(kind, 1);
    }

    /// The source was read again.
    pub(crate) fn reloaded(&self, n_problems: usize, now: SystemTime) {
        self.shared.updates.add("config", 1);
        *self.shared.reload.lock() = Reload { n_problems, last_success: Some(now) };
    }

    /// A new catalog was published.
    pub(crate) fn published(&self, took: Duration) {
        self.shared.triggers.add("ambient", 1);
        self.shared.build_time.observe("", took.as_secs_f64());
    }

    /// The metrics page.
    pub(crate) fn page(&self, around: &Surroundings<'_>) -> String {
        let mut page = Page::default();
        self.citadel(&mut page, around);
        self.culvert(&mut page, around);
        let version = runtime::build::VERSION;
        let gauge =
            |page: &mut Page, name: &str, help: &str, value: f64| page.gauge(name, help, &[(&[], value)]);
        let component: &[(&str, &str)] = &[("component", "pilot"), ("tag", version)];
        page.gauge("istio_build", "Istio component build info", &[(component, 1.0)]);
        let clusters: [(&[(&str, &str)], f64); 2] =
            [(&[("cluster_type", "local")], 1.0), (&[("cluster_type", "remote")], 0.0)];
        page.gauge("istiod_managed_clusters", "Number of clusters managed by istiod", &clusters);
        let shared = &*self.shared;
        let uptime = around.now.duration_since(shared.started).unwrap_or_default().as_secs_f64();
        gauge(&mut page, "istiod_uptime_seconds", "Current istiod server uptime in seconds", uptime);
        page.counters(
            "pilot_inbound_updates",
            "Total number of updates received by pilot.",
            "type",
            &shared.updates,
        );
        page.gauge("pilot_info", "Pilot version and build information.", &[(&[("version", version)], 1.0)]);
        page.histogram(
            "pilot_proxy_convergence_time",
            "Delay in seconds between config change and a proxy receiving all required configuration.",
            "",
            &shared.convergence,
        );
        page.histogram(
            "pilot_proxy_queue_time",
            "Time in seconds, a proxy is in the push queue before being dequeued.",
            "",
            &shared.queue_time,
        );
        page.counters(
            "pilot_push_triggers",
            "Total number of times a push was triggered, labeled by reason for the push.",
            "type",
            &shared.triggers,
        );
        page.histogram(
            "pilot_pushcontext_init_seconds",
            "Total time in seconds Pilot takes to init pushContext.",
            "",
            &shared.build_time,
        );
        gauge(
            &mut page,
            "pilot_services",
            "Total services known to pilot.",
            to_float(around.catalog.counts().n_services),
        );
        page.counters(
            "pilot_total_xds_rejects",
            "Total number of XDS responses from pilot rejected by proxy.",
            "type",
            &shared.rejects,
        );
        #[expect(clippy::cast_precision_loss, reason = "streams are far below 2^52")]
        let streams = shared.streams.load(Ordering::Relaxed) as f64;
        page.gauge(
            "pilot_xds",
            "Number of endpoints connected to this pilot using XDS.",
            &[(&[("version", version)], streams)],
        );
        page.histogram(
            "pilot_xds_config_size_bytes",
            "Distribution of configuration sizes pushed to clients",
            "type",
            &shared.sizes,
        );
        page.counters(
            "pilot_xds_expired_nonce",
            "Total number of XDS requests with an expired nonce.",
            "type",
            &shared.expired_nonces,
        );
        page.histogram(
            "pilot_xds_push_time",
            "Total time in seconds Pilot takes to push lds, rds, cds and eds.",
            "type",
            &shared.push_time,
        );
        page.counters(
            "pilot_xds_pushes",
            "Pilot build and send errors for lds, rds, cds and eds.",
            "type",
            &shared.pushes,
        );
        #[expect(clippy::cast_precision_loss, reason = "sizes of messages are far below 2^52")]
        let largest = shared.largest_request.load(Ordering::Relaxed) as f64;
        gauge(&mut page, "pilot_xds_recv_max", "The largest total size of a single XDS request.", largest);
        page.into_text()
    }

    fn citadel(&self, page: &mut Page, around: &Surroundings<'_>) {
        let counters = around.authority.counters();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.counter(
            "citadel_server_authentication_failure_count",
            "The number of authentication failures.",
            count(&counters.authentication_failure),
        );
        page.counter(
            "citadel_server_csr_count",
            "The number of CSRs received by Citadel server.",
            count(&counters.csr),
        );
        page.counter(
            "citadel_server_csr_parsing_err_count",
            "The number of errors occurred when parsing the CSR.",
            count(&counters.csr_parsing_error),
        );
        page.counter(
            "citadel_server_csr_sign_err_count",
            "The number of errors occurred when signing the CSR.",
            count(&counters.csr_sign_error),
        );
        page.counter(
            "citadel_server_id_extraction_err_count",
            "The number of errors occurred when extracting the ID from CSR.",
            count(&counters.id_extraction_error),
        );
        page.counter(
            "citadel_server_success_cert_issuance_count",
            "The number of certificates issuances that have succeeded.",
            count(&counters.success),
        );
        let ends = [
            ("citadel_server_root_cert_expiry", "root cert", around.authority.root_expiry()),
            ("citadel_server_cert_chain_expiry", "certificate chain", around.authority.signer_expiry()),
        ];
        for (name, what, end) in ends {
            let absolute = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let remaining = match end.duration_since(around.now) {
                Ok(remaining) => remaining.as_secs_f64(),
                Err(past) => -past.duration().as_secs_f64(),
            };
            page.gauge(
                &format!("{name}_seconds"),
                &format!("The time remaining, in seconds, before the {what} will expire."),
                &[(&[], remaining)],
            );
            page.gauge(
                &format!("{name}_timestamp"),
                &format!("The unix timestamp, in seconds, when the {what} will expire."),
                &[(&[], absolute)],
            );
        }
    }

    /// What the reference does not say about itself.
    fn culvert(&self, page: &mut Page, around: &Surroundings<'_>) {
        let counts = around.catalog.counts();
        let records: [(&[(&str, &str)], f64); 3] = [
            (&[("kind", "workload")], to_float(counts.n_workloads)),
            (&[("kind", "service")], to_float(counts.n_services)),
            (&[("kind", "policy")], to_float(counts.n_policies)),
        ];
        page.gauge("culvert_control_records", "Records served, by kind.", &records);
        let bytes = to_float(counts.n_bytes);
        page.gauge("culvert_control_record_bytes", "Serialized size of all records.", &[(&[], bytes)]);
        let reload = *self.shared.reload.lock();
        page.gauge(
            "culvert_control_source_problems",
            "Objects and files that are refused; their last good version stays in use.",
            &[(&[], to_float(reload.n_problems))],
        );
        if let Some(last) = reload.last_success {
            let age = around.now.duration_since(last).unwrap_or_default().as_secs_f64();
            page.gauge(
                "culvert_control_source_read_age_seconds",
                "Time since the source was last read.",
                &[(&[], age)],
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]
fn to_float(n: usize) -> f64 {
    n as f64
}
