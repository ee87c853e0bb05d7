//! The servers of a node: metrics, readiness, admin; and the process around them.

use std::io::{Cursor, Read as _};

use serde_json::{Value, json};

use crate::lab::{self, Lab, rustix_signal};
use crate::probe::Probe;

const NODE: &str = "ambient-worker";

fn recording(id: &str) -> Value {
    let path = format!("{}/tests/data/hbone/{id}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["observed"].take()
}

/// The head of the answer in lower case, and its body.
fn ask(lab: &Lab, from: &str, to: &str, request: &str) -> (String, Vec<u8>) {
    let text = format!("{request}host: node\r\nconnection: close\r\n\r\n");
    let report = lab.probe(from, &Probe::Send { to: to.to_owned(), text }).report();
    let hex = report["hex"].as_str().unwrap_or_else(|| panic!("{to}: {report}"));
    let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_else(|| panic!("{to}: {report}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let body = &bytes[end + 4..];
    (head.clone(), if head.contains("transfer-encoding: chunked") { whole(body) } else { body.to_vec() })
}

/// The chunks of a body together.
fn whole(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = body.windows(2).position(|end| end == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        all.extend(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
        if length == 0 {
            break;
        }
    }
    all
}

fn decoded(encoding: &str, body: Vec<u8>) -> String {
    let mut text = String::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(&*body).read_to_string(&mut text).unwrap(),
        "zstd" => ruzstd::decoding::StreamingDecoder::new(Cursor::new(body))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap(),
        "br" => brotli::Decompressor::new(&*body, 4096).read_to_string(&mut text).unwrap(),
        _ => (&*body).read_to_string(&mut text).unwrap(),
    };
    text
}

/// The families of a metrics page: name, type, unit, stability.
fn families(page: &str) -> Vec<Value> {
    let mut families: Vec<[Option<String>; 4]> = Vec::new();
    for line in page.lines() {
        let Some((kind, rest)) = line.strip_prefix("# ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let (name, value) = rest.split_once(' ').unwrap();
        if families.last().is_none_or(|last| last[0].as_deref() != Some(name)) {
            families.push([Some(name.to_owned()), None, None, None]);
        }
        let last = families.last_mut().unwrap();
        match kind {
            "TYPE" => last[1] = Some(value.to_owned()),
            "UNIT" => last[2] = Some(value.to_owned()),
            _ => last[3] = Some(if value.contains("unstable") { "unstable" } else { "stable" }.to_owned()),
        }
    }
    families.into_iter().map(|family| json!(family)).collect()
}

// A-NS-07; recording AD-09: families in their order, each with type, unit and stability, and the labels of a sample.
#[test]
fn the_metrics_page_is_the_same_in_every_encoding_and_has_the_recorded_families() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    assert!(lab.get("sleep", "http://productpage:9080/").status.success());
    // Something that fails.
    let refused = format!("{}:7999", lab.address("productpage"));
    lab.probe("sleep", &Probe::Send { to: refused, text: "x".to_owned() }).report();
    let get = |encoding: &str| {
        let accept =
            if encoding.is_empty() { String::new() } else { format!("accept-encoding: {encoding}\r\n") };
        let (head, body) = ask(&lab, NODE, "127.0.0.1:15020", &format!("GET /metrics HTTP/1.1\r\n{accept}"));
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(head.contains(&format!("content-encoding: {encoding}")), !encoding.is_empty(), "{head}");
        decoded(encoding, body)
    };
    // What changes from request to request is left out.
    let traffic = |page: &str| {
        let moves = ["process_", "tokio_", "culvert_xds_last_success_age"];
        let lines = page.lines().filter(|line| !moves.iter().any(|moving| line.starts_with(moving)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    lab::eventually("four pages in a row that are the same", || {
        let pages = ["", "gzip", "zstd", "br"].map(|encoding| traffic(&get(encoding)));
        (pages.iter().all(|page| *page == pages[0] && page.len() > 30)).then_some(())
    });

    let page = get("");
    let recorded = recording("AD-09");
    let wanted = recorded["families"].as_array().unwrap();
    let ours = families(&page);
    let known: Vec<_> = ours.iter().filter(|family| wanted.contains(family)).collect();
    assert_eq!(json!(known), json!(wanted), "in {ours:?}");
    for (name, labels) in recorded["labels"].as_object().unwrap() {
        let sample = page.lines().find(|line| line.starts_with(&format!("{name}{{"))).expect(name);
        let list = sample.rsplit_once('}').unwrap().0.split_once('{').unwrap().1;
        let names: Vec<_> = list.split("\",").map(|label| label.split('=').next().unwrap()).collect();
        assert_eq!(json!(names), *labels, "{name}");
    }
}

// Recording AD-11
#[test]
fn the_servers_listen_where_they_listened() {
    if !lab::allowed() {
        return;
    }
    let lab = Lab::start();
    let own = lab.address(NODE);
    for (port, places) in recording("AD-11").as_object().unwrap() {
        for (place, wanted) in places.as_object().unwrap() {
            let (from, host) = match place.as_str() {
                "loopback4" => (NODE, "127.0.0.1"),
                "loopback6" => (NODE, "[::1]"),
                "node_address" => (NODE, &*own),
                _ => ("ambient-worker2", &*own),
            };
            lab::eventually(&format!("{place}:{port} is as recorded: {wanted}"), || {
                // The node's own certificate for 15008 may still be on its way.
                let text = "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
                let report = lab.probe(from, &Probe::Send { to: format!("{host}:{port}"), text }).report();
                let line = report["received"].as_str().and_then(|text| text.lines().next());
                let told = match wanted["first_line"].as_str() {
                    None => report["connected"] == false,
                    // On 15008 an alert, which is no text.
                    Some(alert) if alert.starts_with("15") => report["hex"] == alert,
                    Some(first) => line == Some(first),
                };
                told.then_some(())
            });
        }
    }
}

// Recording LC-05, A-DI-01, A-DI-05: the node answers, drains and ends; what starts it again finds everything as it was.
#[test]
fn quitquitquit_ends_an_idle_node() {
    if !lab::allowed() {
        return;
    }
    let mut lab = Lab::start();
    let before = lab.pid(NODE);
    let (head, body) = ask(&lab, NODE, "127.0.0.1:15000", "POST /quitquitquit HTTP/1.1\r\n");
    let recorded = recording("LC-05");
    assert!(head.starts_with(&format!("http/1.1 {}", recorded["status"])), "{head}");
    for (name, value) in recorded["headers"].as_object().unwrap() {
        assert!(head.contains(&format!("{name}: {}", value.as_str().unwrap())), "{head}");
    }
    assert_eq!(String::from_utf8(body).unwrap(), recorded["body"].as_str().unwrap());
    lab::eventually("the process has ended", || (!lab::alive(before)).then_some(()));
    let log = lab.log(NODE);
    let missing: Vec<_> = recorded["log"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line.as_str().unwrap().rsplit_once('\t'))
        .filter(|(_, text)| !log.contains(text))
        .collect();
    assert!(missing.is_empty(), "{missing:?} in {log}");
    assert!(!log.contains("panicked"), "{log}");
    lab::eventually("the node is started again", || {
        lab.reread();
        (lab.pid(NODE) != before).then_some(())
    });
    lab::eventually("traffic goes on", || {
        lab.get("sleep", "http://productpage:9080/").status.success().then_some(())
    });
}

// Recording LC-08, A-MI-15: without a control plane nothing is carried and nobody is told "ready".
#[test]
fn a_node_without_control_plane_waits_for_it() {
    if !lab::allowed() {
        return;
    }
    let mut lab = Lab::start();
    let recorded = recording("LC-08");
    let (control, before) = (lab.pid("control"), lab.pid(NODE));
    lab::signal(control, rustix_signal::STOP);
    lab::signal(before, rustix_signal::KILL);
    lab::eventually("the node is started again", || {
        lab.reread();
        (lab.pid(NODE) != before && lab::alive(lab.pid(NODE))).then_some(())
    });
    let get = |port: u16, path: &str| {
        lab::eventually(&format!("port {port} of the node answers"), || {
            let to = format!("127.0.0.1:{port}");
            let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let report = lab.probe(NODE, &Probe::Send { to, text }).report();
            let answer = report["received"].as_str().filter(|answer| !answer.is_empty())?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.to_owned(), body.to_owned()))
        })
    };
    let (head, body) = get(15021, "/healthz/ready");
    assert!(head.starts_with(&format!("HTTP/1.1 {}", recorded["ready"][0])), "{head}");
    assert_eq!(body, recorded["ready"][1].as_str().unwrap());
    assert!(get(15020, "/metrics").0.starts_with("HTTP/1.1 200"));
    let (head, dump) = get(15000, "/config_dump");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(dump["workloads"], json!([]));
    // The proxy's own is asked for from the start.
    let certificates = dump["certificates"].as_array().unwrap();
    assert!(certificates.iter().all(|entry| entry["certChain"] == json!([])), "{certificates:?}");
    assert_eq!(dump["workloadState"], json!({}));
    let connect = |from: &str, to: String| {
        lab.probe(from, &Probe::Send { to, text: String::new() }).report()["connected"].clone()
    };
    assert_eq!(connect("legacy/old", format!("{}:15008", lab.address("productpage"))), false);
    assert_eq!(connect("sleep", format!("{}:9080", lab.address("productpage"))), false);

    lab::signal(control, rustix_signal::CONT);
    lab::eventually("ready", || get(15021, "/healthz/ready").0.starts_with("HTTP/1.1 200").then_some(()));
    lab::eventually("traffic goes on", || {
        lab.get("sleep", "http://productpage:9080/").status.success().then_some(())
    });
}
