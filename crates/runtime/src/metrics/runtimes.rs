//! `tokio_*`: the event loops that carry traffic, one worker each.
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::runtime::Handle;

use super::process::gauge;
use crate::tasks::TaskGroup;

/// Reads the runtimes' own counters when scraped; several runtimes are shown as workers of one.
#[derive(Debug)]
pub struct RuntimeCollector {
    runtimes: Vec<Handle>,
    /// One group of each tree.
    tasks: Vec<TaskGroup>,
}

impl RuntimeCollector {
    /// Shows these runtimes. Runtimes do not count the tasks of a `LocalSet`, so the living tasks are those of
    /// the trees of groups that `tasks` belong to.
    pub fn new(runtimes: Vec<Handle>, tasks: Vec<TaskGroup>) -> Self {
        Self { runtimes, tasks }
    }

    fn sum(&self, value: impl Fn(&Handle) -> usize) -> u64 {
        self.runtimes.iter().map(|handle| value(handle) as u64).sum()
    }

    /// Runtime and worker index of each worker.
    fn workers(&self) -> impl Iterator<Item = (&Handle, usize)> {
        self.runtimes
            .iter()
            .flat_map(|handle| (0..handle.metrics().num_workers()).map(move |worker| (handle, worker)))
    }
}

impl Collector for RuntimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let n_workers = self.sum(|handle| handle.metrics().num_workers());
        gauge(
            &mut encoder,
            "tokio_num_workers",
            "the number of worker threads used by the runtime",
            n_workers,
        )?;
        let help = "the number of tasks currently scheduled in the runtime's global queue";
        let depth = self.sum(|handle| handle.metrics().global_queue_depth());
        gauge(&mut encoder, "tokio_global_queue_depth", help, depth)?;
        let n_tasks = self.tasks.iter().map(|group| group.n_alive() as u64).sum();
        gauge(&mut encoder, "tokio_num_alive_tasks", "the number of alive tasks in the runtime", n_tasks)?;

        let help = "the amount of time worker threads have been busy";
        let mut family = encoder.encode_descriptor(
            "tokio_worker_total_busy_duration_seconds",
            help,
            None,
            MetricType::Counter,
        )?;
        for (index, (handle, worker)) in self.workers().enumerate() {
            let seconds = handle.metrics().worker_total_busy_duration(worker).as_secs_f64();
            let labels = [("worker", index.to_string())];
            ConstCounter::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        let help = "the total number of times the given worker thread has parked";
        let mut family =
            encoder.encode_descriptor("tokio_worker_park_count", help, None, MetricType::Counter)?;
        for (index, (handle, worker)) in self.workers().enumerate() {
            let labels = [("worker", index.to_string())];
            let n_parks = handle.metrics().worker_park_count(worker);
            ConstCounter::new(n_parks).encode(family.encode_family(&labels)?)?;
        }
        let help = "the total number of times the given worker thread has parked and unparked";
        let mut family =
            encoder.encode_descriptor("tokio_worker_park_unpark_count", help, None, MetricType::Counter)?;
        for (index, (handle, worker)) in self.workers().enumerate() {
            let labels = [("worker", index.to_string())];
            let n_parks = handle.metrics().worker_park_unpark_count(worker);
            ConstCounter::new(n_parks).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
