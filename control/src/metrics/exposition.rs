//! The text format of the reference's metrics page (Prometheus 0.0.4).
//!
//! Names are a contract, and the reference's counters do not end in `_total`; OpenMetrics would add it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use parking_lot::Mutex;

/// The page's content type, as the reference sends it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Observations in buckets.
#[derive(Clone, Debug)]
struct Buckets {
    counts: Vec<u64>,
    sum: f64,
    n: u64,
}

/// A histogram with at most one label.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    by_label: Mutex<BTreeMap<String, Buckets>>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, by_label: Mutex::default() }
    }

    /// Counts one observation; `label` is empty for a histogram without label.
    pub(super) fn observe(&self, label: &str, value: f64) {
        let mut by_label = self.by_label.lock();
        let buckets = by_label.entry(label.to_owned()).or_insert_with(|| Buckets {
            counts: vec![0; self.bounds.len()],
            sum: 0.0,
            n: 0,
        });
        for (bound, count) in self.bounds.iter().zip(&mut buckets.counts) {
            *count += u64::from(value <= *bound);
        }
        buckets.sum += value;
        buckets.n += 1;
    }
}

/// A counter with one label.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    pub(super) fn add(&self, label: &str, n: u64) {
        *self.0.lock().entry(label.to_owned()).or_default() += n;
    }
}

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A counter without label.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        _ = writeln!(self.text, "{name} {value}");
    }

    /// A counter with one label; left out until it has counted.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, counters: &Counters) {
        let counts = counters.0.lock();
        if counts.is_empty() {
            return;
        }
        self.head(name, "counter", help);
        for (value, n) in counts.iter() {
            _ = writeln!(self.text, "{name}{{{label}=\"{}\"}} {n}", escape(value));
        }
    }

    /// A gauge with any labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], f64)]) {
        self.head(name, "gauge", help);
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    /// A histogram; left out until it has counted.
    pub(super) fn histogram(&mut self, name: &str, help: &str, label: &str, histogram: &Histogram) {
        let by_label = histogram.by_label.lock();
        if by_label.is_empty() {
            return;
        }
        self.head(name, "histogram", help);
        for (value, buckets) in by_label.iter() {
            let own = if label.is_empty() { String::new() } else { format!("{label}=\"{}\"", escape(value)) };
            let comma = if own.is_empty() { "" } else { "," };
            for (bound, count) in histogram.bounds.iter().zip(&buckets.counts) {
                _ = writeln!(self.text, "{name}_bucket{{{own}{comma}le=\"{bound}\"}} {count}");
            }
            _ = writeln!(self.text, "{name}_bucket{{{own}{comma}le=\"+Inf\"}} {}", buckets.n);
            let own = if own.is_empty() { own } else { format!("{{{own}}}") };
            _ = writeln!(self.text, "{name}_sum{own} {}\n{name}_count{own} {}", buckets.sum, buckets.n);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_prometheus_text() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        histogram.observe("wds", 0.5);
        let counters = Counters::default();
        counters.add("a\"b", 2);
        let mut page = Page::default();
        page.counter("c", "Help.", 3);
        page.counters("l", "Help.", "type", &counters);
        page.counters("unused", "Help.", "type", &Counters::default());
        page.gauge("g", "Help.", &[(&[("version", "1")], 2.5)]);
        page.histogram("h", "Help.", "type", &histogram);
        let expected = "# HELP c Help.\n# TYPE c counter\nc 3\n# HELP l Help.\n# TYPE l counter\n\
            l{type=\"a\\\"b\"} 2\n# HELP g Help.\n# TYPE g gauge\ng{version=\"1\"} 2.5\n\
            # HELP h Help.\n# TYPE h histogram\nh_bucket{type=\"wds\",le=\"0.1\"} 0\n\
            h_bucket{type=\"wds\",le=\"1\"} 1\nh_bucket{type=\"wds\",le=\"+Inf\"} 1\n\
            h_sum{type=\"wds\"} 0.5\nh_count{type=\"wds\"} 1\n";
        assert_eq!(page.into_text(), expected);
    }
}
