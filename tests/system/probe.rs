//! What a test does inside a pod: this very test binary, started again through `culvert demo exec`, becomes the probe.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

const VARIABLE: &str = "CULVERT_PROBE";
const PATIENCE: Duration = Duration::from_secs(20);

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// Accepts on a port and answers every read with the same bytes twice.
    Double { port: u16 },
    /// Connects, sends the text, reads to the end of the stream.
    Send { to: String, text: String },
    /// Connects, then for each line on its standard input sends it and reports what comes back at once.
    Talk { to: String },
}

impl Probe {
    /// Starts it with `command` (`culvert demo exec … --`).
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        let order = match self {
            Self::Double { port } => json!({"double": port}),
            Self::Send { to, text } => json!({"send": to, "text": text}),
            Self::Talk { to } => json!({"talk": to}),
        };
        let mut child = command
            .arg(std::env::current_exe().unwrap())
            .args(["probe::act", "--exact", "--nocapture", "--quiet"])
            .env(VARIABLE, order.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Running { child, output }
    }
}

/// A probe at work.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// The next thing it reports.
    pub(crate) fn report(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the probe ended without a report");
            // The test harness around the probe says things of its own.
            if let Some(start) = line.find("{\"") {
                return serde_json::from_str(line[start..].trim()).unwrap();
            }
        }
    }

    /// Gives a line to a talking probe and returns what it reports.
    pub(crate) fn say(&mut self, text: &str) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
        self.report()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: the probe itself, when the variable is set.
#[test]
fn act() {
    let Some(order) = std::env::var_os(VARIABLE) else { return };
    let order: Value = serde_json::from_str(order.to_str().unwrap()).unwrap();
    if let Some(port) = order["double"].as_u64() {
        double(u16::try_from(port).unwrap());
    } else if let Some(to) = order["send"].as_str() {
        tell(&send(to, order["text"].as_str().unwrap()));
    } else if let Some(to) = order["talk"].as_str() {
        talk(to);
    }
}

fn tell(report: &Value) {
    println!("{report}");
    std::io::stdout().flush().unwrap();
}

fn double(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    tell(&json!({"listening": port}));
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 65536];
            while let Ok(length) = stream.read(&mut buffer) {
                if length == 0 {
                    break;
                }
                let twice = [&buffer[..length], &buffer[..length]].concat();
                if stream.write_all(&twice).is_err() {
                    break;
                }
            }
        });
    }
}

fn connect(to: &str) -> Result<TcpStream, std::io::Error> {
    let address = to.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send(to: &str, text: &str) -> Value {
    let mut stream = match connect(to) {
        Ok(stream) => stream,
        Err(error) => return json!({"connected": false, "error": error.to_string()}),
    };
    let source = stream.local_addr().unwrap().to_string();
    let sent = stream.write_all(text.as_bytes()).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received);
    json!({
        "connected": true,
        "source": source,
        "sent": sent.is_ok(),
        "received": String::from_utf8_lossy(&received),
        "hex": received.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "end": end.map_or_else(|error| error.to_string(), |_| "fin".to_owned()),
    })
}

fn talk(to: &str) {
    let mut stream = match connect(to) {
        Ok(stream) => stream,
        Err(error) => return tell(&json!({"connected": false, "error": error.to_string()})),
    };
    tell(&json!({"connected": true, "source": stream.local_addr().unwrap().to_string()}));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut buffer = vec![0; 65536];
        let answer = stream.write_all(line.as_bytes()).and_then(|()| stream.read(&mut buffer));
        match answer {
            Ok(0) => tell(&json!({"end": "fin"})),
            Ok(length) => tell(&json!({"received": String::from_utf8_lossy(&buffer[..length])})),
            Err(error) => tell(&json!({"end": error.to_string()})),
        }
    }
}
