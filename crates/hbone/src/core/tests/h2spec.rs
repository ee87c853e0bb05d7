//! h2spec 2.2.1 against the core, behind a plaintext listener that only this test has: h2spec presents no
//! certificate, so it cannot come through the product's TLS.
//!
//! `CULVERT_H2SPEC` names the binary (CONTRIBUTING.md says how to build it). Without it the test says that it is skipped;
//! `.ci/run` sets it. `h2spec.txt` lists the cases that are left out, each with its reason; every other failure fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::super::{Action, Capacity, Core, DATA_PAYLOAD};
use super::epoch;
use crate::Settings;

/// What is sent on every stream: h2spec's cases about windows want some octets.
const BODY: &[u8] = b"payload of a tunnel that says something of its own";

/// How many cases the release has; fewer means that it did not run.
const CASES: usize = 146;

/// The shell of one connection: every request is answered with 200, says [`BODY`] and ends.
struct Shell {
    core: Core,
    socket: TcpStream,
    /// Octets of the body not sent yet.
    left: BTreeMap<u32, usize>,
}

impl Shell {
    fn run(mut self) -> std::io::Result<()> {
        self.socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut chunk = [0; 16_384];
        loop {
            let out = std::mem::take(self.core.output());
            self.socket.write_all(&out)?;
            let n = self.socket.read(&mut chunk)?;
            let mut actions = Vec::new();
            self.core.receive(epoch(), &chunk[..n], &mut actions);
            let ended = n == 0 || actions.iter().any(|action| matches!(action, Action::Ended(_)));
            for action in actions {
                match action {
                    Action::Request { stream, .. } => {
                        self.core.answer(stream, 200, &[], false);
                        self.left.insert(stream, BODY.len());
                    }
                    Action::Data { stream, bytes } => self.core.consumed(stream, bytes.len(), epoch()),
                    _ => {}
                }
            }
            self.say();
            if ended {
                self.socket.write_all(self.core.output())?;
                self.socket.shutdown(Shutdown::Write)?;
                // A reset would overtake the farewell.
                while self.socket.read(&mut chunk)? > 0 {}
                return Ok(());
            }
        }
    }

    /// Sends what windows allow of the bodies.
    fn say(&mut self) {
        let core = &mut self.core;
        self.left.retain(|stream, left| {
            while *left > 0 {
                let Capacity::Octets(room) = core.capacity(*stream) else { return false };
                let n = room.min(*left).min(DATA_PAYLOAD);
                if n == 0 {
                    return true;
                }
                let start = BODY.len() - *left;
                *left -= n;
                let head = core.data(*stream, n, *left == 0);
                core.output().extend_from_slice(&head);
                core.output().extend_from_slice(&BODY[start..start + n]);
            }
            false
        });
    }
}

/// One case of the report: `http2/5.1.1 Sends …`, and whether it failed or was skipped.
fn cases(report: &str) -> Vec<(String, Option<String>)> {
    let attribute = |text: &str, name: &str| {
        let value = text.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        value.unwrap().0.replace("&#34;", "\"").replace("&quot;", "\"")
    };
    report
        .split("<testcase")
        .skip(1)
        .map(|case| {
            let name = format!("{} {}", attribute(case, "package"), attribute(case, "classname"));
            let bad = case.split_once("<failure>").or_else(|| case.split_once("<error>"));
            let why = bad.map(|(_, text)| text.split("</").next().unwrap_or_default().to_owned());
            (name, why.or_else(|| case.contains("<skipped").then(|| "skipped".to_owned())))
        })
        .collect()
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test's own switch, and threads that end with their sockets"
)]
fn h2spec_finds_no_fault_in_the_server() {
    let Some(binary) = std::env::var_os("CULVERT_H2SPEC") else {
        // Not by a macro: the harness would keep what a test that passes prints.
        let _ = std::io::stderr().write_all(b"SKIPPED h2spec: CULVERT_H2SPEC names no h2spec binary\n");
        return;
    };
    let left_out: BTreeSet<&str> = include_str!("h2spec.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" | ").unwrap().0)
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // The block that h2spec sends as too large is above the least maximum, not above ours.
                let settings = Settings { max_frame_size: 16_384, ..Settings::default() };
                let core = Core::server(settings, epoch());
                // h2spec closes as it likes.
                let _ = Shell { core, socket, left: BTreeMap::new() }.run();
            });
        }
    });
    let report = std::env::temp_dir().join(format!("culvert-h2spec-{}.xml", std::process::id()));
    let output = Command::new(binary)
        .args(["-h", "127.0.0.1", "-p", &port, "--strict", "--timeout", "2", "--junit-report"])
        .arg(&report)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&report).unwrap();
    let _ = std::fs::remove_file(&report);
    let cases = cases(&text);
    assert_eq!(cases.len(), CASES, "{}", String::from_utf8_lossy(&output.stdout));
    let names: BTreeSet<&str> = cases.iter().map(|(name, _)| name.as_str()).collect();
    let unknown: Vec<_> = left_out.difference(&names).collect();
    assert!(unknown.is_empty(), "no such cases: {unknown:#?}");
    let (mut failed, mut idle) = (Vec::new(), Vec::new());
    for (name, why) in &cases {
        match (left_out.contains(name.as_str()), why) {
            (false, Some(why)) => failed.push(format!("{name}: {why}")),
            (true, None) => idle.push(name),
            _ => {}
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(idle.is_empty(), "left out, but they pass: {idle:#?}");
}
