use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

const RECORDED: &str = include_str!("../../../tests/data/page/metrics-n1.txt");

fn idle() -> RuntimeCollector {
    RuntimeCollector::new(Vec::new(), Vec::new())
}

fn parse_labels(text: &str) -> Vec<(String, String)> {
    let inner = text.trim_end_matches('}');
    let pairs = inner.split("\",").map(|pair| pair.trim_end_matches('"'));
    pairs.map(|p| p.split_once("=\"").unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

fn traffic_labels(labels: &[(String, String)]) -> (TrafficLabels, Flag) {
    let map: BTreeMap<&str, &str> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let value = |key: &str| match map.get(key) {
        Some(&"unknown") | None => String::new(),
        Some(value) => (*value).to_owned(),
    };
    let party = |side: &str| Party {
        workload: value(&format!("{side}_workload")),
        canonical_service: value(&format!("{side}_canonical_service")),
        canonical_revision: value(&format!("{side}_canonical_revision")),
        namespace: value(&format!("{side}_workload_namespace")),
        principal: value(&format!("{side}_principal")),
        app: value(&format!("{side}_app")),
        version: value(&format!("{side}_version")),
        cluster: value(&format!("{side}_cluster")),
        region: value(&format!("{side}_region")),
        zone: value(&format!("{side}_zone")),
    };
    let labels = TrafficLabels {
        reporter: if map["reporter"] == "source" { Reporter::Source } else { Reporter::Destination },
        source: party("source"),
        service: ServiceLabels {
            hostname: value("destination_service"),
            namespace: value("destination_service_namespace"),
            name: value("destination_service_name"),
        },
        destination: party("destination"),
        security: match map["connection_security_policy"] {
            "mutual_tls" => Security::MutualTls,
            _ => Security::Unknown,
        },
        with_locality: map.contains_key("source_region"),
    };
    let flag = Flag::ALL.into_iter().find(|f| f.as_str() == map["response_flags"]).unwrap();
    (labels, flag)
}

/// The recorded samples of the traffic families, put into our counters, give the recorded page:
/// same families in the same order with the same help, same labels in the same order.
#[test]
fn page_of_recorded_traffic_is_the_recorded_page() {
    let event_loop = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut metrics =
        Metrics::new("unknown", RuntimeCollector::new(vec![event_loop.handle().clone()], Vec::new()), true);
    let url = |name: &str| vec![("url".to_owned(), format!("type.googleapis.com/istio.{name}"))];
    let messages = prometheus_client::metrics::family::Family::<_, Counter>::default();
    messages.get_or_create(&url("workload.Address")).inc();
    metrics.discovery().register(
        "istio_xds_message",
        "Total number of messages received (unstable)",
        messages,
    );
    metrics.pods.active.set(6);

    // Two threads, so that sums are sums.
    let shards = [metrics.shard(), metrics.shard()];
    let mut sockets = Vec::new();
    for line in RECORDED.lines().filter(|line| line.starts_with("istio_tcp_")) {
        let (name, rest) = line.split_once('{').unwrap();
        let (labels, value) = rest.rsplit_once(' ').unwrap();
        let (labels, value) = (parse_labels(labels), value.parse::<u64>().unwrap());
        if name == "istio_tcp_sockets_open" {
            let source = labels[0].1 == "source";
            let reporter = if source { Reporter::Source } else { Reporter::Destination };
            drop(shards[0].socket(reporter));
            sockets.extend((0..value).map(|_| shards[1].socket(reporter)));
            continue;
        }
        let (labels, flag) = traffic_labels(&labels);
        for n in 0..value.min(2) {
            let part = if n == 0 { value - value.min(2) / 2 } else { value.min(2) / 2 };
            let series = shards[usize::try_from(n).unwrap()].series(labels.clone());
            match name {
                "istio_tcp_connections_opened_total" => (0..part).for_each(|_| series.open()),
                "istio_tcp_connections_closed_total" => (0..part).for_each(|_| series.close(flag)),
                "istio_tcp_connections_failed_total" => {}
                "istio_tcp_received_bytes_total" => {
                    drop(
                        shards[usize::try_from(n).unwrap()]
                            .follow(&series, LiveBytes::Joined(counts(part, 0))),
                    );
                }
                "istio_tcp_sent_bytes_total" => {
                    drop(
                        shards[usize::try_from(n).unwrap()]
                            .follow(&series, LiveBytes::Joined(counts(0, part))),
                    );
                }
                other => panic!("unexpected family {other}"),
            }
        }
    }

    let page = metrics.render();
    let comments = |page: &str| -> Vec<String> {
        let comments = page.lines().filter(|line| line.starts_with('#'));
        comments.filter(|line| !line.contains("istio_xds")).map(str::to_owned).collect()
    };
    assert_eq!(comments(&page), comments(RECORDED));
    // Byte families show a connection from its start on; the reference only after the first byte
    // of that direction or at its end, so zeros are not compared.
    let samples = |page: &str| -> BTreeSet<String> {
        let samples = page.lines().filter(|line| line.starts_with("istio_tcp_"));
        let bytes_zero = |line: &&str| line.contains("_bytes_total") && line.ends_with(" 0");
        samples.filter(|line| !bytes_zero(line)).map(str::to_owned).collect()
    };
    let (ours, theirs) = (samples(&page), samples(RECORDED));
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(page.ends_with("# EOF\n"));
}

/// A quote from a peer's baggage must not break the page (data-path W95).
#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new("unknown", idle(), false);
    let shard = metrics.shard();
    let source = Party { workload: "a\"b\\c\nd".into(), ..Party::default() };
    let labels = TrafficLabels {
        reporter: Reporter::Destination,
        source,
        service: ServiceLabels::default(),
        destination: Party::default(),
        security: Security::MutualTls,
        with_locality: true,
    };
    shard.series(labels).open();
    let page = metrics.render();
    assert!(page.contains(r#"source_workload="a\"b\\c\nd","#), "{page}");
}

// A-DI-09: every family outside the stable list says so.
#[test]
fn families_that_may_change_say_unstable() {
    let metrics = Metrics::new("unknown", idle(), true);
    let shard = metrics.shard();
    drop(shard.socket(Reporter::Source));
    shard.on_demand_dns(OnDemandDnsLabels { source: Party::default(), hostname: "h".into() });
    let stable = ["istio_build", "process_", "tokio_"];
    for line in metrics.render().lines().filter(|line| line.starts_with("# HELP")) {
        let stable = stable.iter().any(|name| line.contains(name));
        assert_eq!(line.contains("unstable"), !stable, "{line}");
    }
}

#[test]
fn process_families_have_values() {
    // A-DI-07
    let page = Metrics::new("1.2", idle(), false).render();
    for name in ["process_open_fds ", "process_max_fds "] {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line[name.len()..].parse::<u64>().unwrap() > 0, "{line}");
    }
    assert!(page.contains("istio_build{component=\"ztunnel\",tag=\"1.2\"} 1"));
}

fn counts(received: u64, sent: u64) -> Arc<net::ByteCounts> {
    Arc::new(net::ByteCounts { a_to_b: received.into(), b_to_a: sent.into() })
}

// A-DI-11, A-DI-12
#[test]
fn bytes_are_exact_while_a_connection_lives_and_after() {
    let metrics = Metrics::new("unknown", idle(), false);
    let shard = metrics.shard();
    let party = Party::default();
    let labels = TrafficLabels {
        reporter: Reporter::Source,
        source: party.clone(),
        service: ServiceLabels::default(),
        destination: party,
        security: Security::Unknown,
        with_locality: false,
    };
    let series = shard.series(labels);
    series.open();
    let moved = counts(0, 0);
    let followed = shard.follow(&series, LiveBytes::Joined(Arc::clone(&moved)));
    let value = |name: &str| -> Option<u64> {
        let page = metrics.render();
        let line = page.lines().find(|line| line.starts_with(name))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    moved.a_to_b.store(11, Ordering::Relaxed);
    moved.b_to_a.store(22, Ordering::Relaxed);
    let bytes = || (value("istio_tcp_received_bytes_total"), value("istio_tcp_sent_bytes_total"));
    assert_eq!(bytes(), (Some(11), Some(22)));
    assert_eq!(value("istio_tcp_connections_closed_total"), None);
    assert_eq!(shard.end(followed), Moved { received: 11, sent: 22 });
    series.close(Flag::None);
    assert_eq!(bytes(), (Some(11), Some(22)));
    assert_eq!(value("istio_tcp_connections_closed_total"), Some(1));
    assert_eq!(value("istio_tcp_connections_failed_total"), None);
}

/// What peers say about themselves must not fill the memory.
#[test]
fn labels_that_strangers_invent_are_bounded() {
    let metrics = Metrics::new("unknown", idle(), false);
    let shard = metrics.shard();
    let labels = |n: usize| TrafficLabels {
        reporter: Reporter::Destination,
        source: Party { workload: format!("w{n}"), principal: "p".to_owned(), ..Party::default() },
        service: ServiceLabels::default(),
        destination: Party::default(),
        security: Security::MutualTls,
        with_locality: true,
    };
    let first = shard.series_of_stranger(labels(0));
    first.open();
    for n in 1..3 * traffic::MAX_STRANGERS {
        shard.series_of_stranger(labels(n)).open();
    }
    // Known ones stay, the others are counted together by what TLS proved.
    assert!(Arc::ptr_eq(&first, &shard.series_of_stranger(labels(0))));
    let page = metrics.render();
    assert_eq!(page.matches("istio_tcp_connections_opened_total{").count(), traffic::MAX_STRANGERS + 1);
    let together = page.lines().find(|line| {
        line.starts_with("istio_tcp_connections_opened_total{")
            && line.contains("source_workload=\"unknown\"")
    });
    let together = together.unwrap();
    assert!(together.contains("source_principal=\"p\""), "{together}");
    assert!(together.ends_with(&format!(" {}", 2 * traffic::MAX_STRANGERS)), "{together}");
}

#[test]
fn tunnels_are_on_the_page() {
    let mut metrics = Metrics::new("unknown", idle(), false);
    let settings = hbone::Settings {
        metrics: Some(Arc::default()),
        memory: Some(Arc::new(hbone::Memory::new(1))),
        ..hbone::Settings::default()
    };
    metrics.show_tunnels(&settings);
    settings.metrics.unwrap().streams.fetch_add(3, Ordering::Relaxed);
    let page = metrics.render();
    assert!(page.contains("\nculvert_hbone_streams_total 3\n"), "{page}");
    assert!(page.contains("\nculvert_hbone_held_bytes 0\n"), "{page}");
    assert!(!page.contains("limits_exceeded"), "no samples, no family");
}
