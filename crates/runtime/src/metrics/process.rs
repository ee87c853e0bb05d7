//! `process_*`: descriptors.
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::limits;

/// Open descriptors and their limit; values are read when scraped.
#[derive(Debug)]
pub struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Ok(n_open) = limits::n_open_descriptors() {
            gauge(&mut encoder, "process_open_fds", "Number of open file descriptors", n_open)?;
        }
        let limit = limits::descriptor_limit().unwrap_or(u64::MAX);
        gauge(&mut encoder, "process_max_fds", "Maximum number of file descriptors", limit)
    }
}

pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(encoder)
}
