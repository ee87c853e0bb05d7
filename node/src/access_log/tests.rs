use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::logging::{Format, Settings};

use super::*;

const PLAIN: &str = include_str!("../../../tests/data/page/node-n1.log");
const JSON: &str = include_str!("../../../tests/data/page/node-n1-json.log");

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the access log writes in this layout and at this filter.
fn written(format: Format, filter: &str, write: impl FnOnce(&AccessLog)) -> String {
    let page = Page::default();
    let settings = Settings { format, filter: Some(filter.to_owned()), ..Settings::default() };
    let (logging, _subscriber) = Logging::build(settings, page.clone()).unwrap();
    let log = AccessLog::new(logging.clone(), Clock::system());
    write(&log);
    log.flush();
    logging.flush();
    let text = page.0.lock().clone();
    String::from_utf8(text).unwrap()
}

/// What a recorded line says, read back into our terms.
struct Said {
    message: String,
    fields: HashMap<String, String>,
}

impl Said {
    fn get(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    fn from_plain(line: &str) -> Self {
        let parts: Vec<&str> = line.split('\t').collect();
        let (mut fields, mut rest) = (HashMap::new(), parts[4]);
        while let Some((key, tail)) = rest.split_once('=') {
            let end = match tail.strip_prefix('"') {
                Some(quoted) => quoted.find('"').unwrap() + 2,
                None => tail.find(' ').unwrap_or(tail.len()),
            };
            fields.insert(key.to_owned(), tail[..end].trim_matches('"').to_owned());
            rest = tail[end..].trim_start();
        }
        Self { message: parts[3].into(), fields }
    }

    fn from_json(line: &str) -> Self {
        let value: HashMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let fields: HashMap<String, String> = value.iter().map(|(k, v)| (k.clone(), text(v))).collect();
        Self { message: fields["message"].clone(), fields }
    }

    fn write(&self, log: &AccessLog) {
        let named = |side: &str| Named {
            workload: self.get(&format!("{side}.workload")).into(),
            namespace: self.get(&format!("{side}.namespace")).into(),
            identity: self.get(&format!("{side}.identity")).into(),
            cluster: self.get(&format!("{side}.cluster")).into(),
        };
        let outbound = self.get("direction") == "outbound";
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        let error = self.fields.get("error");
        let failure = error.map(|text| Failure { text, code: "a-code" });
        let (source, destination) =
            (self.get("src.addr").parse().unwrap(), self.get("dst.addr").parse().unwrap());
        if self.message == "connection failed" {
            return log.failed(source, destination, direction, failure.unwrap());
        }
        let service = self.get("dst.service").into();
        let ends = Ends { source: named("src"), service, destination: named("dst"), direction };
        let hbone = self.fields.get("dst.hbone_addr").map(String::as_str);
        let outcome = Outcome {
            bytes_sent: self.get("bytes_sent").parse().unwrap(),
            bytes_received: self.get("bytes_recv").parse().unwrap(),
            duration: Duration::from_millis(self.get("duration").trim_end_matches("ms").parse().unwrap()),
            failure,
        };
        log.complete(&ends, Addresses { source, destination, hbone }, outcome);
    }
}

/// Time differs; failing lines end in a stable code here and not there.
fn comparable(page: &str) -> Vec<String> {
    let without_code = page.replace(" code=\"a-code\"", "").replace(",\"code\":\"a-code\"", "");
    let lines = without_code.lines().map(|line| match line.split_once("\"time\":\"") {
        Some((head, rest)) => format!("{head}{}", &rest["2026-11-23T04:49:41.329072Z".len()..]),
        None => line.split_once('\t').unwrap().1.to_owned(),
    });
    lines.collect()
}

// A-NS-06
#[test]
fn recorded_lines_come_out_again() {
    let access: Vec<&str> = PLAIN.lines().filter(|line| line.contains("\taccess\t")).collect();
    assert!(access.len() > 80, "only {} lines were compared", access.len());
    let page = written(Format::Plain, "info", |log| {
        access.iter().for_each(|line| Said::from_plain(line).write(log));
    });
    assert_eq!(comparable(&page), comparable(&access.join("\n")));
    let page = written(Format::Json, "info", |log| {
        JSON.lines().for_each(|line| Said::from_json(line).write(log));
    });
    assert_eq!(comparable(&page), comparable(JSON));
}

fn ends(workload: &str) -> Ends {
    let source = Named { workload: workload.into(), ..Named::default() };
    let destination = Named::default();
    Ends { source, service: String::new(), destination, direction: Direction::Outbound }
}

#[test]
fn text_from_a_peer_cannot_break_a_line() {
    let addr = "[::1]:1".parse().unwrap();
    let hbone = Some("host name\n:80");
    for format in [Format::Plain, Format::Json] {
        let page = written(format, "debug", |log| {
            let addresses = Addresses { source: addr, destination: addr, hbone };
            log.opened(&ends("a\"b\n c"), addresses);
        });
        assert_eq!(page.matches('\n').count(), 1, "{page}");
        assert!(page.contains(r#"a\"b\n c"#) && page.contains(r"host name\n:80"), "{page}");
    }
}

#[test]
fn text_from_a_peer_cannot_make_a_line_long() {
    let addr: SocketAddr = "[::1]:1".parse().unwrap();
    let long = format!("{}ü", "x".repeat(60_000));
    let page = written(Format::Plain, "debug", |log| {
        log.failed(addr, addr, Direction::Inbound, Failure { text: &long, code: "c" });
        log.opened(&ends(""), Addresses { source: addr, destination: addr, hbone: Some(&long) });
    });
    assert!(page.lines().count() == 2 && page.lines().all(|line| line.len() < 1000), "{page}");
    assert!(page.contains("xxx… (59490 more octets)\" code=\"c\""), "{page}");
}

#[test]
fn a_line_tells_only_what_is_known_and_wanted() {
    let addr: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let addresses = Addresses { source: addr, destination: addr, hbone: None };
    let page = written(Format::Plain, "access=debug", |log| log.opened(&ends(""), addresses));
    let wanted = "debug\taccess\tconnection opened\tsrc.addr=10.0.0.1:80 dst.addr=10.0.0.1:80 \
                  direction=\"outbound\"";
    assert_eq!(comparable(&page), [wanted]);
    let page = written(Format::Plain, "info,access=error", |log| {
        let failure = Failure { text: "t", code: "c" };
        log.failed(addr, addr, Direction::Inbound, failure);
    });
    assert_eq!(page, "");
}
