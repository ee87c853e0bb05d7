//! The server that every system is measured against: one thread; the first byte of a connection says what it wants.
//!
//! `E` echo · `U` takes blocks and reports how many bytes have arrived · `D` sends blocks until the client ends its side
//! · anything else is HTTP/1.1, answered with a fixed body.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;

use crate::payload::{Checker, Sender, body};
use crate::sockets::{Interest, Poller, Ready, unless_blocked, widen_port_range};

/// Bytes read at a time.
const READ: usize = 256 * 1024;
/// The receiver of an upload reports after so many bytes, for the first time when a block has come.
const REPORT_EVERY: u64 = 1024 * 1024;
const BLOCK_BYTES: u64 = 64 * 1024;
/// Accepted connections at a time, before others are looked at.
const ACCEPTS: usize = 64;
const HTTP_BODY: usize = 128;
const HTTP_REQUEST_LIMIT: usize = 16 * 1024;

/// The HTTP answer to everything; `close` says that the connection ends with it.
pub(crate) fn http_answer(close: bool) -> Vec<u8> {
    let close = if close { "connection: close\r\n" } else { "" };
    let head =
        format!("HTTP/1.1 200 OK\r\n{close}content-type: text/plain\r\ncontent-length: {HTTP_BODY}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + HTTP_BODY, b'.');
    answer
}

#[derive(Debug)]
enum Mode {
    New,
    Echo,
    Sink { checker: Checker, received: u64, reported: u64 },
    Source { sender: Sender },
    Http { request: Vec<u8> },
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    mode: Mode,
    /// What the socket has not taken yet.
    pending: Vec<u8>,
    sent: usize,
    interest: Interest,
    /// The client has ended, or is told to: close when nothing is pending.
    ending: bool,
}

/// Whether a connection goes on.
enum Next {
    Keep,
    Close,
}

/// Serves until killed.
pub(crate) fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    widen_port_range();
    let listener = TcpListener::bind(listen)?;
    // std listens with a backlog of 128 (or 4096): listening again lengthens it.
    rustix::net::listen(&listener, 16_384)?;
    listener.set_nonblocking(true)?;
    let mut server = Server::new(listener)?;
    loop {
        server.turn()?;
    }
}

struct Server {
    poller: Poller,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    body: Rc<[u8]>,
    /// To keep the connection, and to close it.
    answers: [Vec<u8>; 2],
    ready: Vec<Ready>,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&listener, usize::MAX, Interest::Read)?;
        Ok(Self {
            poller,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ],
            body: body(),
            answers: [http_answer(false), http_answer(true)],
            ready: Vec::new(),
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(&mut ready, None)?;
        for event in &ready {
            if event.token == usize::MAX {
                self.accept()?;
                continue;
            }
            let Some(slot) = self.connections.get_mut(event.token) else { continue };
            let Some(mut connection) = slot.take() else { continue };
            let answer = Answering { buffer: &mut self.buffer, body: &self.body, http: &self.answers };
            match connection.advance(*event, answer) {
                Ok(Next::Keep) => {
                    connection.wait_again(&self.poller, event.token)?;
                    *slot = Some(connection);
                }
                // The peer's end, or its reset: the client counts errors, here nothing is lost.
                Ok(Next::Close) | Err(_) => self.free.push(event.token),
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            let Some((stream, _)) = unless_blocked(self.listener.accept())? else { break };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&stream, token, Interest::Read)?;
            if let Some(slot) = self.connections.get_mut(token) {
                *slot = Some(Connection {
                    stream,
                    mode: Mode::New,
                    pending: Vec::new(),
                    sent: 0,
                    interest: Interest::Read,
                    ending: false,
                });
            }
        }
        Ok(())
    }
}

/// What a connection borrows for one turn.
struct Answering<'a> {
    buffer: &'a mut [u8],
    body: &'a Rc<[u8]>,
    http: &'a [Vec<u8>; 2],
}

impl Connection {
    fn advance(&mut self, event: Ready, with: Answering<'_>) -> io::Result<Next> {
        if event.writable {
            self.flush()?;
            if let Mode::Source { sender } = &mut self.mode
                && self.pending.is_empty()
                && let Some(progress) = unless_blocked(sender.write(&mut self.stream, 4))?
                && progress.complete
            {
                return Ok(Next::Close);
            }
        }
        // While the client does not take what it asked for, it is not asked for more.
        if event.readable && self.pending.is_empty() {
            let Some(n) = unless_blocked(self.stream.read(with.buffer))? else { return Ok(Next::Keep) };
            let bytes = with.buffer.get(..n).unwrap_or_default();
            if n == 0 {
                return self.end();
            }
            self.take(bytes, with.body, with.http)?;
        }
        let done = self.ending && self.pending.is_empty() && !matches!(self.mode, Mode::Source { .. });
        Ok(if done { Next::Close } else { Next::Keep })
    }

    fn take(&mut self, bytes: &[u8], body: &Rc<[u8]>, answers: &[Vec<u8>; 2]) -> io::Result<()> {
        let Some(first) = bytes.first() else { return Ok(()) };
        let mut bytes = bytes;
        if matches!(self.mode, Mode::New) {
            self.mode = match first {
                b'E' => Mode::Echo,
                b'U' => Mode::Sink { checker: Checker::new(Rc::clone(body)), received: 0, reported: 0 },
                b'D' => Mode::Source { sender: Sender::new(Rc::clone(body)) },
                _ => Mode::Http { request: Vec::new() },
            };
            if matches!(self.mode, Mode::Sink { .. } | Mode::Source { .. }) {
                bytes = bytes.get(1..).unwrap_or_default();
            }
        }
        match &mut self.mode {
            Mode::New | Mode::Echo => self.send(bytes),
            Mode::Sink { checker, received, reported } => {
                if !checker.take(bytes) {
                    return Err(io::Error::other("wrong bytes"));
                }
                *received += u64::try_from(bytes.len()).unwrap_or_default();
                let every = if *reported == 0 { BLOCK_BYTES } else { REPORT_EVERY };
                if *received - *reported < every {
                    return Ok(());
                }
                *reported = *received;
                let report = received.to_le_bytes();
                self.send(&report)
            }
            Mode::Source { .. } => Ok(()),
            Mode::Http { request } => {
                request.extend_from_slice(bytes);
                let mut n_answers = 0;
                while let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head: Vec<u8> = request.drain(..end + 4).collect();
                    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                    self.ending |= head.contains("connection: close");
                    n_answers += 1;
                }
                if request.len() > HTTP_REQUEST_LIMIT {
                    return Err(io::Error::other("the request's head is too long"));
                }
                let [keep, close] = answers;
                let answer = if self.ending { close } else { keep };
                self.send(&answer.repeat(n_answers))
            }
        }
    }

    /// The client has ended its side.
    fn end(&mut self) -> io::Result<Next> {
        if let Mode::Source { sender } = &mut self.mode {
            sender.finish();
            self.ending = true;
            return Ok(Next::Keep);
        }
        if let Mode::Sink { checker, received, .. } = &self.mode
            && checker.complete
            && !self.ending
        {
            let report = received.to_le_bytes();
            self.ending = true;
            self.send(&report)?;
        }
        Ok(Next::Close)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let n =
            if self.pending.is_empty() { unless_blocked(self.stream.write(bytes))?.unwrap_or(0) } else { 0 };
        self.pending.extend_from_slice(bytes.get(n..).unwrap_or_default());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let left = self.pending.get(self.sent..).unwrap_or_default();
        self.sent += unless_blocked(self.stream.write(left))?.unwrap_or(0);
        if self.sent >= self.pending.len() {
            self.pending = Vec::new();
            self.sent = 0;
        }
        Ok(())
    }

    fn wait_again(&mut self, poller: &Poller, token: usize) -> io::Result<()> {
        let interest = match &self.mode {
            Mode::Source { .. } if self.ending => Interest::Write,
            Mode::Source { .. } => Interest::Both,
            _ if !self.pending.is_empty() => Interest::Write,
            _ => Interest::Read,
        };
        if interest != self.interest {
            poller.change(&self.stream, token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
