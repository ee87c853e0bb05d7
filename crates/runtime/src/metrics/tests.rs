use std::io::Read;

use http::Request;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::*;
use crate::http::whole_text;

const PAGE: &str =
    "# HELP process_open_fds Number of open file descriptors\n# TYPE process_open_fds gauge\n# EOF\n";

fn asked(path: &str, header: Option<(&str, &str)>) -> Answer {
    let mut request = Request::builder().uri(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    answer(&request.body(()).unwrap().into_parts().0, || PAGE.to_owned())
}

fn header(answer: &Answer, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

// CO-11.5-5, A-MI-11, hbone/AD-08; an item after a space is recognised too (12.1 #15).
#[test]
fn content_type_follows_accept() {
    let open = "application/openmetrics-text;charset=utf-8;version=1.0.0";
    for (accept, expected) in [
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("application/json", TEXT),
        ("application/openmetrics-text", open),
        ("application/openmetrics-text;version=1.0.0", open),
        ("application/openmetrics-text; version=0.0.1", open),
        ("text/plain,application/openmetrics-text;q=0.1", open),
        ("APPLICATION/OPENMETRICS-TEXT", open),
        ("text/plain, application/openmetrics-text", open),
    ] {
        let answer = asked("/metrics", Some(("accept", accept)));
        assert_eq!(
            (header(&answer, "content-type").as_str(), header(&answer, "vary").as_str()),
            (expected, "accept-encoding")
        );
        assert_eq!(whole_text(&answer), PAGE);
    }
    assert_eq!(header(&asked("/metrics", None), "content-type"), TEXT);
    assert_eq!(asked("/stats/prometheus?x=1", None).status(), StatusCode::OK);
    for path in ["/", "/metrics/", "/healthz/ready", "/config_dump"] {
        assert_eq!(asked(path, None).status(), StatusCode::NOT_FOUND, "{path}");
    }
}

// hbone/AD-08
// A-NS-07 (the page's encodings; over sockets, not in a pod's namespace)
#[test]
fn encoding_follows_accept_encoding_and_bodies_decode() {
    for (accepted, expected) in [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip;q=0.1, br;q=0.9", "br"),
        ("gzip;q=0.9, br;q=0.1", "gzip"),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("identity", ""),
        ("x", ""),
        ("gzip;q=0", ""),
        ("gzip;q=2", ""),
    ] {
        let answer = asked("/metrics", Some(("accept-encoding", accepted)));
        assert_eq!(header(&answer, "content-encoding"), expected, "{accepted}");
        let body = answer.body().bytes().clone();
        let mut text = String::new();
        match expected {
            "gzip" => flate2::read::GzDecoder::new(&*body).read_to_string(&mut text).unwrap(),
            "deflate" => flate2::read::ZlibDecoder::new(&*body).read_to_string(&mut text).unwrap(),
            "br" => brotli::Decompressor::new(&*body, 4096).read_to_string(&mut text).unwrap(),
            "zstd" => {
                ruzstd::decoding::StreamingDecoder::new(&*body).unwrap().read_to_string(&mut text).unwrap()
            }
            _ => (&*body).read_to_string(&mut text).unwrap(),
        };
        assert_eq!(text, PAGE, "{accepted}");
    }
    let request = Request::builder().uri("/metrics").header("accept-encoding", "gzip").body(()).unwrap();
    let small = answer(&request.into_parts().0, || "# EOF\n".to_owned());
    assert_eq!(whole_text(&small), "# EOF\n");
}

// A-DI-07, CO-11.5-7
#[test]
fn process_and_runtime_families_have_the_recorded_heads() {
    let event_loop = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    let group = crate::tasks::TaskGroup::new("test");
    let local = tokio::task::LocalSet::new();
    local.block_on(&event_loop, async {
        for _ in 0..3 {
            group.child("pod").spawn_local("connection", std::future::pending());
        }
    });
    let runtimes = vec![event_loop.handle().clone(); 2];
    registry.register_collector(Box::new(RuntimeCollector::new(runtimes, vec![group])));
    let text = encode(&registry);
    let recorded = include_str!("../../../../tests/data/page/metrics-n1.txt");
    let heads = |text: &str| -> Vec<String> {
        let families = text.lines().filter(|line| line.starts_with("# ") && !line.contains("istio_"));
        families
            .filter(|line| line.contains(" process_") || line.contains(" tokio_"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(heads(&text), heads(recorded));
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_open_fds ") > 0.0 && value("process_max_fds ") > 0.0);
    assert_eq!(value("tokio_num_workers "), 2.0);
    assert_eq!(value("tokio_num_alive_tasks "), 3.0, "tasks of a local set and of inner groups count");
    drop(local);
    assert!(text.contains("tokio_worker_park_count_total{worker=\"1\"} "), "{text}");
}

// 7.1: what a peer says cannot break the page.
#[test]
fn label_values_are_escaped() {
    let family = Family::<Vec<(String, String)>, Counter>::default();
    family.get_or_create(&vec![("app".to_owned(), "a\"b\\c\nd".to_owned())]).inc();
    let mut registry = Registry::default();
    registry.register("x", "X", family);
    assert!(encode(&registry).contains("x_total{app=\"a\\\"b\\\\c\\nd\"} 1\n"), "{}", encode(&registry));
}
