use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tracing::Level;
use tracing::subscriber::with_default;

use super::*;

/// Collects what is written.
#[derive(Debug, Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Partial writes are handled.
        let n = bytes.len().min(7);
        self.0.lock().extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(format: Format, filter: &str) -> Settings {
    const ALIASES: &[Alias] = &[("ztunnel::xds", &["culvert_node::sync"])];
    let filter = Some(filter.to_owned());
    Settings { format, base: "hickory_server::server=off", filter, aliases: ALIASES, program: "" }
}

/// What is printed, with times cut off (or replaced, in JSON).
fn printed(format: Format, log: impl FnOnce()) -> Vec<String> {
    let output = Collected::default();
    let (logging, subscriber) = Logging::build(settings(format, "info"), output.clone()).unwrap();
    with_default(subscriber, log);
    logging.flush();
    let untimed = |line: &str| match format {
        Format::Plain => {
            let (time, rest) = line.split_once('\t').unwrap();
            assert_eq!((time.len(), time.as_bytes()[19], time.ends_with('Z')), (27, b'.', true), "{time}");
            rest.to_owned()
        }
        Format::Json => {
            let at = line.find("\"time\":\"").unwrap() + 8;
            format!("{}T{}", &line[..at], &line[at + 27..])
        }
    };
    output.text().lines().map(untimed).collect()
}

fn events() {
    tracing::info!(target: "ztunnel::hyper_util", address = %"[::]:15021", component = "readiness", "listener established");
    tracing::info!(target: "culvert_node::xds::client", "no fields");
    let span = tracing::info_span!("xds", id = 1);
    span.in_scope(|| tracing::info!(target: "culvert_xds", "handling RBAC update {}", "x"));
    let outer = tracing::info_span!("proxy", wl = %"default/a", bare = tracing::field::Empty);
    let _outer = outer.enter();
    let _inner = tracing::info_span!("inbound").entered();
    tracing::error!(target: "t", text = "a \"b\"\n", n = 3, flag = true, none = Option::<u32>::None, float = 0.5);
    outer.record("bare", 2);
    tracing::warn!(target: "dns", domain = "x");
    tracing::debug!(target: "t", "not wanted");
}

// CO-8.2; the first three as recorded in node logs.
#[test]
fn plain_lines_have_the_recorded_layout() {
    let lines = printed(Format::Plain, events);
    assert_eq!(
        lines,
        [
            "info\thyper_util\tlistener established\taddress=[::]:15021 component=\"readiness\"",
            "info\txds::client\tno fields\t",
            "info\txds:xds{id=1}\thandling RBAC update x\t",
            "error\tt:proxy{wl=default/a}:inbound\ttext=\"a \\\"b\\\"\\n\" n=3 flag=true float=0.5",
            "warn\tdns:proxy{wl=default/a bare=2}:inbound\tdomain=\"x\"",
        ]
    );
}

#[test]
fn json_lines_have_the_recorded_layout() {
    let lines = printed(Format::Json, events);
    let head =
        |level: &str, scope: &str| format!("{{\"level\":\"{level}\",\"time\":\"T\",\"scope\":\"{scope}\"");
    let expected = [
        head("info", "ztunnel::hyper_util")
            + ",\"message\":\"listener established\",\"address\":\"[::]:15021\",\"component\":\"readiness\"}",
        head("info", "culvert_node::xds::client") + ",\"message\":\"no fields\"}",
        head("info", "culvert_xds") + ",\"message\":\"handling RBAC update x\",\"xds\":{\"id\":1}}",
        head("error", "t")
            + ",\"text\":\"a \\\"b\\\"\\n\",\"n\":3,\"flag\":true,\"float\":0.5,\"proxy\":{\"wl\":\"default/a\"},\"inbound\":{}}",
        head("warn", "dns") + ",\"domain\":\"x\",\"proxy\":{\"wl\":\"default/a\",\"bare\":2},\"inbound\":{}}",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn built_lines_look_like_logged_ones() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567);
    let line = |format| {
        let mut line =
            Line::begin(String::new(), format, now, Level::INFO, "access", Some("connection complete"));
        line.display("src.addr", "10.0.0.1:5").text("src.workload", "w").bare("bytes_sent", 7_u64);
        line.end()
    };
    assert_eq!(
        line(Format::Plain),
        "1970-01-01T00:00:01.234567Z\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:5 src.workload=\"w\" bytes_sent=7\n"
    );
    assert_eq!(
        line(Format::Json),
        "{\"level\":\"info\",\"time\":\"1970-01-01T00:00:01.234567Z\",\"scope\":\"access\",\"message\":\"connection complete\",\
         \"src.addr\":\"10.0.0.1:5\",\"src.workload\":\"w\",\"bytes_sent\":7}\n"
    );
}

#[test]
fn start_filter_follows_rust_log() {
    let shown = |filter: Option<&str>| {
        let settings = Settings { filter: filter.map(str::to_owned), ..settings(Format::Plain, "") };
        Logging::build(settings, io::sink()).map(|(logging, _)| logging.filter())
    };
    assert_eq!(shown(None).unwrap(), "hickory_server::server=off,info");
    assert_eq!(shown(Some("")).unwrap(), "hickory_server::server=off,error");
    assert_eq!(shown(Some("access=debug,warn")).unwrap(), "hickory_server::server=off,access=debug,warn");
    let error = shown(Some("a=b=c")).unwrap_err();
    assert_eq!(error.code(), "config-invalid-env");
    assert!(error.to_string().starts_with("invalid env var RUST_LOG=a=b=c ("), "{error}");
}

#[test]
fn levels_of_targets_follow_changes_and_aliases_stand_for_ours() {
    let output = Collected::default();
    let (logging, subscriber) = Logging::build(settings(Format::Plain, "info"), output.clone()).unwrap();
    let access = logging.target_level("access");
    assert!(access.enabled(Level::INFO) && !access.enabled(Level::DEBUG));
    with_default(subscriber, || {
        tracing::debug!(target: "culvert_node::sync::client", "hidden");
        logging.adjust(Some("ztunnel::xds=debug,access=off"), false).unwrap();
        tracing::debug!(target: "culvert_node::sync::client", "shown");
        logging.adjust(None, true).unwrap();
        tracing::debug!(target: "culvert_node::sync::client", "hidden");
    });
    assert!(access.enabled(Level::INFO));
    logging.flush();
    let text = output.text();
    assert_eq!(text.matches("shown").count(), 1, "{text}");
    assert!(!text.contains("hidden"), "{text}");
    let changed =
        "telemetry\tnew log filter is hickory_server::server=off,ztunnel::xds=debug,access=off,info\t\n";
    assert!(text.contains(changed), "{text}");
}

/// Writes only when told to; tells how many bytes each write had.
struct Gate {
    go: Receiver<()>,
    wrote: Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go.recv().map_err(io::Error::other)?;
        self.wrote.send(String::from_utf8(bytes.to_vec()).unwrap()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// CO-11.5-9, A-MI-13: a full queue makes loggers wait and loses nothing; batches are bounded; lines stay whole.
#[test]
fn full_queue_blocks_and_loses_nothing() {
    const N_THREADS: usize = 4;
    const N_LINES: usize = 4_000;
    let (go, go_receiver) = channel();
    let (wrote, written) = channel();
    let (logging, _) =
        Logging::build(settings(Format::Plain, "info"), Gate { go: go_receiver, wrote }).unwrap();
    let loggers: Vec<_> = (0..N_THREADS)
        .map(|thread| {
            let logging = logging.clone();
            std::thread::spawn(move || {
                for line in 0..N_LINES {
                    logging.push(format!("{thread} {line}\n").into_bytes(), 1);
                }
            })
        })
        .collect();
    let mut next = [0; N_THREADS];
    let mut n_seen = 0;
    let mut longest_batch = 0;
    while n_seen < N_THREADS * N_LINES {
        // The queue is full by now and the rest waits: 16 000 lines do not fit.
        go.send(()).unwrap();
        let batch = written.recv_timeout(Duration::from_secs(20)).unwrap();
        longest_batch = longest_batch.max(batch.lines().count());
        for line in batch.lines() {
            let (thread, number) = line.split_once(' ').unwrap();
            let thread: usize = thread.parse().unwrap();
            assert_eq!(number.parse(), Ok(next[thread]), "lines of one thread stay in order");
            next[thread] += 1;
            n_seen += 1;
        }
    }
    assert!(longest_batch <= BATCH_LINES, "{longest_batch}");
    for logger in loggers {
        logger.join().unwrap();
    }
}

/// Few lines, each of them long: those who log wait all the same.
#[test]
fn a_queue_is_full_by_octets_too() {
    const LINE: usize = 1 << 20;
    const N_LINES: usize = 64;
    let (go, go_receiver) = channel();
    let (wrote, written) = channel();
    let (logging, _) =
        Logging::build(settings(Format::Plain, "info"), Gate { go: go_receiver, wrote }).unwrap();
    let (pushed, pushes) = channel();
    let logger = std::thread::spawn(move || {
        for _ in 0..N_LINES {
            logging.push(vec![b'x'; LINE], 1);
            pushed.send(()).unwrap();
        }
    });
    let (mut n_pushed, mut n_written) = (0, 0);
    for _ in 0..QUEUE_OCTETS / LINE {
        pushes.recv_timeout(Duration::from_secs(20)).unwrap();
        n_pushed += 1;
    }
    while n_written < N_LINES {
        // Those that wait, the batch that is being written, and what fitted when there was room for one octet.
        assert!(
            n_pushed - n_written <= 2 * QUEUE_OCTETS / LINE + 1,
            "{n_pushed} of them, {n_written} written"
        );
        go.send(()).unwrap();
        n_written += written.recv_timeout(Duration::from_secs(20)).unwrap().len() / LINE;
        n_pushed += pushes.try_iter().count();
    }
    logger.join().unwrap();
}

#[test]
fn flush_does_not_wait_for_ever() {
    let (_go, go_receiver) = channel();
    let (wrote, _written) = channel();
    let (logging, _) =
        Logging::build(settings(Format::Plain, "info"), Gate { go: go_receiver, wrote }).unwrap();
    logging.push(b"stuck\n".to_vec(), 1);
    let begin = crate::clock::monotonic();
    logging.flush();
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn json_of_another_program_names_that_program() {
    let speak = || {
        tracing::info!(target: "ztunnel::readiness", "done");
        tracing::info!(target: "culvert_control::app", "up");
    };
    let text = |format| {
        let output = Collected::default();
        let settings = Settings { program: "culvert_control", ..settings(format, "info") };
        let (logging, subscriber) = Logging::build(settings, output.clone()).unwrap();
        with_default(subscriber, speak);
        logging.flush();
        output.text()
    };
    let json = text(Format::Json);
    assert!(json.contains(r#""scope":"culvert_control::readiness""#), "{json}");
    assert!(json.contains(r#""scope":"culvert_control::app""#), "{json}");
    assert!(!json.contains("ztunnel"), "{json}");
    assert!(text(Format::Plain).contains("\tinfo\treadiness\tdone"));
}
