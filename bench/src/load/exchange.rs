//! Request and answer in a closed loop: ping-pong, connect and request, HTTP.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Failures, LoadArgs, Outcome, Window};
use crate::payload::{matches, request};
use crate::serve::http_answer;
use crate::sockets::{Interest, Poller, connect, unless_blocked};
use crate::statistics::percentile;

/// What is asked and what must come back.
#[derive(Debug)]
pub(super) struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
    reconnects: bool,
}

impl Exchange {
    pub(super) fn echo(size: usize) -> Self {
        Self { request: request(size), answer: request(size), reconnects: false }
    }

    pub(super) fn http(close: bool) -> Self {
        let header = if close { "connection: close\r\n" } else { "" };
        let request = format!("GET / HTTP/1.1\r\nhost: bench\r\n{header}\r\n").into_bytes();
        Self { request, answer: http_answer(close), reconnects: false }
    }

    /// A new connection for each request; its time begins with the connecting.
    pub(super) fn reconnecting(self) -> Self {
        Self { reconnects: true, ..self }
    }
}

struct Connection {
    stream: TcpStream,
    connected: bool,
    started: bool,
    since: Instant,
    sent: usize,
    received: usize,
    interest: Interest,
}

/// Drives `args.connections` connections through the window.
pub(super) fn run(args: &LoadArgs, window: Window, exchange: Exchange) -> anyhow::Result<Outcome> {
    let mut client = Client {
        args,
        exchange,
        window,
        poller: Poller::new()?,
        connections: Vec::new(),
        n_starting: args.connections,
        n_open: 0,
        failures: Failures::default(),
        latencies: Vec::with_capacity(1 << 20),
        amount_in_all: 0,
    };
    for token in 0..args.connections {
        let connection = client.open(token)?;
        client.connections.push(Some(connection));
    }
    client.drive()
}

struct Client<'a> {
    args: &'a LoadArgs,
    exchange: Exchange,
    window: Window,
    poller: Poller,
    connections: Vec<Option<Connection>>,
    /// Places whose first exchange is not done.
    n_starting: usize,
    n_open: usize,
    failures: Failures,
    /// Nanoseconds, of the window only.
    latencies: Vec<u64>,
    amount_in_all: u64,
}

impl Client<'_> {
    fn open(&mut self, token: usize) -> anyhow::Result<Connection> {
        let since = runtime::clock::monotonic();
        let stream = connect(self.args.to)?;
        self.poller.add(&stream, token, Interest::Write)?;
        self.n_open += 1;
        Ok(Connection {
            stream,
            connected: false,
            started: false,
            since,
            sent: 0,
            received: 0,
            interest: Interest::Write,
        })
    }

    fn drive(mut self) -> anyhow::Result<Outcome> {
        let mut ready = Vec::new();
        let mut buffer = vec![0; 256 * 1024];
        while self.n_open > 0 {
            if self.window.advance(runtime::clock::monotonic(), self.n_starting == 0)? {
                self.latencies.clear();
            }
            self.poller.wait(&mut ready, Some(Duration::from_millis(20)))?;
            for event in &ready {
                let Some(mut connection) = self.connections.get_mut(event.token).and_then(Option::take)
                else {
                    continue;
                };
                let next = match connection.advance(&self.exchange, &mut buffer) {
                    Ok(false) => Some(connection),
                    Ok(true) => self.answered(event.token, connection)?,
                    Err(error) => {
                        self.failures.add(error)?;
                        self.n_open -= 1;
                        drop(connection);
                        if self.window.is_over() { None } else { Some(self.open(event.token)?) }
                    }
                };
                let next = next.map(|mut next| {
                    next.wait_again(&self.poller, event.token, &self.exchange).map(|()| next)
                });
                if let Some(slot) = self.connections.get_mut(event.token) {
                    *slot = next.transpose()?;
                }
            }
        }
        Ok(self.outcome())
    }

    /// The answer is complete: what comes next on this place.
    fn answered(&mut self, token: usize, mut connection: Connection) -> anyhow::Result<Option<Connection>> {
        let now = runtime::clock::monotonic();
        self.amount_in_all += 1;
        if self.window.measures() {
            self.latencies.push(u64::try_from((now - connection.since).as_nanos()).unwrap_or(u64::MAX));
        }
        let first = !connection.started;
        if first && self.n_starting > 0 {
            self.n_starting -= 1;
        }
        if self.window.is_over() {
            self.n_open -= 1;
            return Ok(None);
        }
        if self.exchange.reconnects {
            self.n_open -= 1;
            drop(connection);
            let mut next = self.open(token)?;
            next.started = true;
            return Ok(Some(next));
        }
        connection.started = true;
        connection.since = now;
        connection.sent = 0;
        connection.received = 0;
        // The socket's buffer is empty: no need to be told that it is writable.
        if let Err(error) = connection.send(&self.exchange) {
            self.failures.add(error)?;
            self.n_open -= 1;
            return Ok(Some(self.open(token)?));
        }
        Ok(Some(connection))
    }

    fn outcome(mut self) -> Outcome {
        self.latencies.sort_unstable();
        let microseconds = |share| super::count(percentile(&self.latencies, share)) / 1000.0;
        Outcome {
            amount: u64::try_from(self.latencies.len()).unwrap_or_default(),
            amount_in_all: self.amount_in_all,
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            errors: self.failures.n,
            first_error: self.failures.first.clone(),
            ..self.window.outcome()
        }
    }
}

impl Connection {
    /// Sends and receives what it can; true when the answer is complete.
    fn advance(&mut self, exchange: &Exchange, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.connected = true;
            if !exchange.reconnects {
                self.since = runtime::clock::monotonic();
            }
            self.send(exchange)?;
            return Ok(false);
        }
        if self.sent < exchange.request.len() {
            self.send(exchange)?;
        }
        let Some(n) = unless_blocked(self.stream.read(buffer))? else { return Ok(false) };
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before the answer was complete",
            ));
        }
        let piece = buffer.get(..n).unwrap_or_default();
        let expected = exchange.answer.get(self.received..self.received + n).unwrap_or_default();
        if !matches(piece, expected, false) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong bytes in the answer"));
        }
        self.received += n;
        Ok(self.received == exchange.answer.len())
    }

    fn send(&mut self, exchange: &Exchange) -> io::Result<()> {
        let left = exchange.request.get(self.sent..).unwrap_or_default();
        self.sent += unless_blocked(self.stream.write(left))?.unwrap_or(0);
        Ok(())
    }

    fn wait_again(&mut self, poller: &Poller, token: usize, exchange: &Exchange) -> io::Result<()> {
        let interest = if !self.connected {
            Interest::Write
        } else if self.sent < exchange.request.len() {
            Interest::Both
        } else {
            Interest::Read
        };
        if interest != self.interest {
            poller.change(&self.stream, token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
