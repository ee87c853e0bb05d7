//! Counters of connections and bytes, kept per traffic thread and summed when scraped.
//!
//! A thread resolves the series of a connection once, by its labels; after that counting is a
//! relaxed add to memory that no other thread writes. The lock around a shard's list is taken
//! only for a new series and by the scrape.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::labels::{Flag, Flagged, OnDemandDnsLabels, Party, Reporter, TrafficLabels};
use crate::slots::Slots;

/// Label sets per thread with a source that only its own word vouches for. A peer may say anything
/// with each request; beyond this what it says is not counted by.
pub(super) const MAX_STRANGERS: usize = 1024;

/// The counters of one label set on one thread.
#[derive(Debug, Default)]
pub(crate) struct Series {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    closed: [AtomicU64; Flag::ALL.len()],
}

impl Series {
    /// The connection's context was built.
    pub(crate) fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection ended for this reason.
    pub(crate) fn close(&self, flag: Flag) {
        if let Some(count) = self.closed.get(flag as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a connection has moved.
    fn add(&self, moved: Moved) {
        self.received.fetch_add(moved.received, Ordering::Relaxed);
        self.sent.fetch_add(moved.sent, Ordering::Relaxed);
    }
}

/// What counts the bytes that a connection moves.
#[derive(Clone, Debug)]
pub(crate) enum LiveBytes {
    /// A tunnel joined to the originator's own socket: the outbound path.
    FromApplication(Arc<hbone::Counters>),
    /// A tunnel that the originator is at the far end of: the inbound path.
    FromPeer(Arc<hbone::Counters>),
    /// Two joined sockets, the originator's first.
    Joined(Arc<net::ByteCounts>),
}

/// Bytes that a connection has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// From the originator.
    pub(crate) received: u64,
    /// Towards the originator.
    pub(crate) sent: u64,
}

impl LiveBytes {
    /// So far.
    fn moved(&self) -> Moved {
        match self {
            Self::FromApplication(bytes) => Moved { received: bytes.to_peer(), sent: bytes.to_app() },
            Self::FromPeer(bytes) => Moved { received: bytes.to_app(), sent: bytes.to_peer() },
            Self::Joined(bytes) => Moved {
                received: bytes.a_to_b.load(Ordering::Relaxed),
                sent: bytes.b_to_a.load(Ordering::Relaxed),
            },
        }
    }
}

/// A connection in progress.
type Live = (Arc<Series>, LiveBytes);

/// What the scrape sees of one thread.
#[derive(Debug, Default)]
struct ShardView {
    series: Mutex<Vec<(Arc<TrafficLabels>, Arc<Series>)>>,
    /// Connections whose bytes are not in their series yet: the scrape adds them.
    live: Mutex<Slots<Live>>,
    on_demand_dns: Mutex<HashMap<OnDemandDnsLabels, u64>>,
    sockets: [Sockets; 2],
}

#[derive(Debug, Default)]
struct Sockets {
    open: AtomicI64,
    ever: AtomicU64,
}

/// One traffic thread's counters.
#[derive(Debug)]
pub(crate) struct Shard {
    view: Arc<ShardView>,
    known: RefCell<HashMap<Arc<TrafficLabels>, Arc<Series>>>,
    /// Label sets among the known ones that a peer's own word made.
    strangers: Cell<usize>,
}

impl Shard {
    /// As [`Shard::series`], for a source that discovery does not know: of those only so many.
    pub(crate) fn series_of_stranger(&self, mut labels: TrafficLabels) -> Arc<Series> {
        if !self.known.borrow().contains_key(&labels) {
            if self.strangers.get() < MAX_STRANGERS {
                self.strangers.set(self.strangers.get() + 1);
            } else {
                let principal = std::mem::take(&mut labels.source.principal);
                labels.source = Party { principal, ..Party::default() };
            }
        }
        self.series(labels)
    }

    /// The series of these labels.
    pub(crate) fn series(&self, labels: TrafficLabels) -> Arc<Series> {
        let mut known = self.known.borrow_mut();
        if let Some(series) = known.get(&labels) {
            return Arc::clone(series);
        }
        let (labels, series) = (Arc::new(labels), Arc::new(Series::default()));
        self.view.series.lock().push((Arc::clone(&labels), Arc::clone(&series)));
        known.insert(labels, Arc::clone(&series));
        series
    }

    /// Counts a connection's bytes, exactly at any moment, until [`Self::end`].
    pub(crate) fn follow(&self, series: &Arc<Series>, bytes: LiveBytes) -> Followed {
        Followed(self.view.live.lock().insert((Arc::clone(series), bytes)))
    }

    /// A connection has ended: its bytes stay counted.
    pub(crate) fn end(&self, followed: Followed) -> Moved {
        // Under the lock: a scrape sees the bytes either here or in the series.
        let mut live = self.view.live.lock();
        let Some((series, bytes)) = live.remove(followed.0) else { return Moved::default() };
        let moved = bytes.moved();
        series.add(moved);
        moved
    }

    /// Counts an accepted socket for as long as the returned value lives.
    pub(crate) fn socket(&self, reporter: Reporter) -> OpenSocket {
        let sockets = self.view.sockets(reporter);
        sockets.open.fetch_add(1, Ordering::Relaxed);
        sockets.ever.fetch_add(1, Ordering::Relaxed);
        OpenSocket { view: Arc::clone(&self.view), reporter }
    }

    /// A workload's hostname was resolved for a connection.
    pub(crate) fn on_demand_dns(&self, labels: OnDemandDnsLabels) {
        *self.view.on_demand_dns.lock().entry(labels).or_default() += 1;
    }
}

impl ShardView {
    fn sockets(&self, reporter: Reporter) -> &Sockets {
        let [source, destination] = &self.sockets;
        match reporter {
            Reporter::Source => source,
            Reporter::Destination => destination,
        }
    }
}

/// A connection whose bytes are counted while it lives: to be given back to [`Shard::end`] of the shard that it came from.
#[derive(Debug)]
#[must_use]
pub(crate) struct Followed(u32);

/// An accepted socket that is counted in `istio_tcp_sockets_open`.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    view: Arc<ShardView>,
    reporter: Reporter,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.view.sockets(self.reporter).open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All threads' shards; the collector of the traffic families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    shards: Arc<Mutex<Vec<Arc<ShardView>>>>,
}

#[derive(Default)]
struct Sum {
    opened: u64,
    received: u64,
    sent: u64,
    closed: [u64; Flag::ALL.len()],
}

impl Traffic {
    /// A shard for one more traffic thread.
    pub(crate) fn shard(&self) -> Shard {
        let view = Arc::new(ShardView::default());
        self.shards.lock().push(Arc::clone(&view));
        Shard { view, known: RefCell::default(), strangers: Cell::new(0) }
    }

    /// Sums by label set, in the order in which the label sets first appeared.
    fn sums(&self) -> Vec<(Arc<TrafficLabels>, Sum)> {
        let mut index: HashMap<Arc<TrafficLabels>, usize> = HashMap::new();
        let mut sums: Vec<(Arc<TrafficLabels>, Sum)> = Vec::new();
        for shard in self.shards.lock().iter() {
            let live = shard.live.lock();
            let mut moving: HashMap<*const Series, Moved> = HashMap::new();
            for (series, bytes) in live.iter() {
                let moved = bytes.moved();
                let sum = moving.entry(Arc::as_ptr(series)).or_default();
                sum.received += moved.received;
                sum.sent += moved.sent;
            }
            for (labels, series) in shard.series.lock().iter() {
                let moved = moving.get(&Arc::as_ptr(series)).copied().unwrap_or_default();
                let at = *index.entry(Arc::clone(labels)).or_insert_with(|| {
                    sums.push((Arc::clone(labels), Sum::default()));
                    sums.len() - 1
                });
                if let Some((_, sum)) = sums.get_mut(at) {
                    sum.opened += series.opened.load(Ordering::Relaxed);
                    sum.received += series.received.load(Ordering::Relaxed) + moved.received;
                    sum.sent += series.sent.load(Ordering::Relaxed) + moved.sent;
                    for (total, count) in sum.closed.iter_mut().zip(&series.closed) {
                        *total += count.load(Ordering::Relaxed);
                    }
                }
            }
        }
        sums
    }

    fn on_demand_dns(&self) -> BTreeMap<String, (OnDemandDnsLabels, u64)> {
        let mut sums: BTreeMap<String, (OnDemandDnsLabels, u64)> = BTreeMap::new();
        for shard in self.shards.lock().iter() {
            for (labels, count) in shard.on_demand_dns.lock().iter() {
                let key = format!("{labels:?}");
                sums.entry(key).or_insert_with(|| (labels.clone(), 0)).1 += count;
            }
        }
        sums
    }
}

/// Sample values of one counter family.
type Samples<'a> = Vec<(Flagged<'a>, u64)>;

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: &Samples<'_>,
) -> fmt::Result {
    if samples.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sums = self.sums();
        // A family shows a label set once something was counted under it; bytes appear with the
        // connection, also as zero.
        let open = |value: fn(&Sum) -> u64| -> Samples<'_> {
            let opened = sums.iter().filter(|(_, sum)| sum.opened > 0);
            opened.map(|(labels, sum)| (Flagged(labels, Flag::None), value(sum))).collect()
        };
        let ended = |failed: bool| -> Samples<'_> {
            let mut samples = Vec::new();
            for (labels, sum) in &sums {
                for (flag, count) in Flag::ALL.into_iter().zip(sum.closed) {
                    if count > 0 && (!failed || flag != Flag::None) {
                        samples.push((Flagged(labels, flag), count));
                    }
                }
            }
            samples
        };
        counters(
            &mut encoder,
            "istio_tcp_connections_opened",
            "The total number of TCP connections opened.",
            &open(|sum| sum.opened),
        )?;
        counters(
            &mut encoder,
            "istio_tcp_connections_closed",
            "The total number of TCP connections closed.",
            &ended(false),
        )?;
        counters(
            &mut encoder,
            "istio_tcp_received_bytes",
            "The size of total bytes received during request in case of a TCP connection.",
            &open(|sum| sum.received),
        )?;
        counters(
            &mut encoder,
            "istio_tcp_sent_bytes",
            "The size of total bytes sent during response in case of a TCP connection.",
            &open(|sum| sum.sent),
        )?;
        self.encode_on_demand_dns(&mut encoder)?;
        counters(
            &mut encoder,
            "istio_tcp_connections_failed",
            "The total number of TCP connections that failed to establish (unstable).",
            &ended(true),
        )?;
        self.encode_sockets(&mut encoder)
    }
}

impl Traffic {
    fn encode_on_demand_dns(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sums = self.on_demand_dns();
        if sums.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "istio_on_demand_dns",
            "The total number of requests that used on-demand DNS (unstable).",
            None,
            MetricType::Counter,
        )?;
        for (labels, count) in sums.into_values() {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_sockets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shards = self.shards.lock();
        let mut samples = Vec::new();
        for reporter in [Reporter::Source, Reporter::Destination] {
            let sum = |of: fn(&Sockets) -> i64| shards.iter().map(|s| of(s.sockets(reporter))).sum();
            let ever: i64 = sum(|s| i64::from(s.ever.load(Ordering::Relaxed) > 0));
            let open: i64 = sum(|s| s.open.load(Ordering::Relaxed));
            if ever > 0 {
                samples.push((reporter, open));
            }
        }
        if samples.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "istio_tcp_sockets_open",
            "The current number of open TCP sockets (unstable).",
            None,
            MetricType::Gauge,
        )?;
        for (reporter, open) in samples {
            let labels = [("reporter", reporter.as_str())];
            ConstGauge::new(open).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
