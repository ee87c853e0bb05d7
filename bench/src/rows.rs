//! What is measured: the rows of the table, and what is wanted of each.

use serde::Serialize;

/// How a row is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Upload { streams: usize },
    Download { streams: usize },
    PingPong { size: usize, connections: usize },
    Connect { connections: usize },
    Http { close: bool, connections: usize },
}

impl Load {
    /// Arguments for the load tool, without address and length.
    pub(crate) fn arguments(self) -> Vec<String> {
        let (kind, connections) = match self {
            Self::Upload { streams } => ("upload", streams),
            Self::Download { streams } => ("download", streams),
            Self::PingPong { connections, .. } => ("ping-pong", connections),
            Self::Connect { connections } => ("connect", connections),
            Self::Http { close: false, connections } => ("http", connections),
            Self::Http { close: true, connections } => ("http-close", connections),
        };
        let size = if let Self::PingPong { size, .. } = self { size } else { 64 };
        [kind, "--connections", &connections.to_string(), "--size", &size.to_string()]
            .map(str::to_owned)
            .to_vec()
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Upload { .. } | Self::Download { .. })
    }
}

/// What the table's last columns judge; a missing number is not wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Wanted {
    /// At least so many times haproxy's plain TCP.
    pub(crate) of_haproxy: Option<f64>,
    /// At least so many times Envoy.
    pub(crate) of_envoy: Option<f64>,
    /// p99 below haproxy's and Envoy's.
    pub(crate) p99_below: bool,
    /// At least so many times the same load across nodes.
    pub(crate) of_cross_node: Option<f64>,
}

impl Wanted {
    pub(crate) fn text(self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.of_haproxy.map(|n| format!("≥ {n:.1} × haproxy")));
        parts.extend(self.of_envoy.map(|n| format!("≥ {n:.1} × Envoy")));
        parts.extend(self.p99_below.then(|| "p99 below both".to_owned()));
        parts.extend(self.of_cross_node.map(|n| format!("≥ {n:.1} × across nodes")));
        if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
    }
}

/// A row that is timed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) load: Load,
    /// Both pods on one node; only culvert, and compared with itself.
    pub(crate) near: bool,
    pub(crate) wanted: Wanted,
}

/// All rows in the table's order.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: String, load: Load, wanted: Wanted| {
        rows.push(Row { name, load, near: false, wanted });
    };
    let bulk = Wanted { of_haproxy: Some(1.0), ..Wanted::default() };
    let request = Wanted { of_haproxy: Some(1.2), of_envoy: Some(1.5), p99_below: true, ..Wanted::default() };
    let connect = Wanted { of_haproxy: Some(1.0), of_envoy: Some(2.0), ..Wanted::default() };
    for streams in [1, 8, 64] {
        add(format!("bulk up, {streams}"), Load::Upload { streams }, bulk);
        add(format!("bulk down, {streams}"), Load::Download { streams }, bulk);
    }
    for (size, label) in [(64, "64 B"), (16_384, "16 KiB"), (65_536, "64 KiB")] {
        for connections in [1, 16, 64, 1000] {
            let wanted = if connections < 16 { Wanted::default() } else { request };
            add(format!("ping-pong {label}, {connections}"), Load::PingPong { size, connections }, wanted);
        }
    }
    for connections in [1, 16] {
        add(format!("connect + request, {connections}"), Load::Connect { connections }, connect);
    }
    add("HTTP keep-alive, 16".to_owned(), Load::Http { close: false, connections: 16 }, request);
    add("HTTP close, 16".to_owned(), Load::Http { close: true, connections: 16 }, connect);
    let near = Wanted { of_cross_node: Some(1.5), ..Wanted::default() };
    for (of, name) in
        [("bulk up, 1", "same node: bulk up, 1"), ("ping-pong 64 B, 16", "same node: ping-pong 64 B, 16")]
    {
        if let Some(place) = rows.iter().position(|row| row.name == of) {
            let load = rows.get(place).map_or(Load::Upload { streams: 1 }, |row| row.load);
            // Right behind its counterpart, so that both see the same minute.
            rows.insert(place + 1, Row { name: name.to_owned(), load, near: true, wanted: near });
        }
    }
    rows
}

/// Whether a name is meant by the filter: any part of it will do; without a filter all are.
pub(crate) fn is_meant(name: &str, filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_issue_is_there_once() {
        let rows = all();
        let names: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len());
        assert_eq!(rows.iter().filter(|row| row.load.is_bulk() && !row.near).count(), 6);
        assert_eq!(
            rows.iter().filter(|row| matches!(row.load, Load::PingPong { .. }) && !row.near).count(),
            12
        );
        assert_eq!(rows.iter().filter(|row| row.near).count(), 2);
        assert!(
            is_meant("bulk up, 1", &["bulk".to_owned()]) && !is_meant("bulk up, 1", &["ping".to_owned()])
        );
    }
}
