//! The destination behind a target (`culvert conformance destination`): an echo that also does what a case orders, and
//! remembers how connections ended.
//!
//! An order is the first line of a connection: [`ORDER`], a verb, its words. Anything else is echoed.
//!
//! | Order | What it does |
//! |---|---|
//! | `echo NAME` | sends back what comes |
//! | `sink NAME` | reads to the end, then says how many bytes came |
//! | `send COUNT NAME` | sends COUNT bytes, then reads to the end |
//! | `source COUNT NAME` | sends COUNT bytes and FIN, then reads to the end |
//! | `hold NAME` | reads nothing for up to 20 s, then resets |
//! | `reset NAME` | resets |
//! | `peer` | says the address it was reached from |
//! | `report NAME` | says how the connection called NAME ended, waiting up to 5 s for its end |

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use runtime::clock::monotonic;
use serde::{Deserialize, Serialize};

/// What an order starts with.
pub(crate) const ORDER: &str = "culvert-conformance/1";

/// Longest first line.
const LINE: usize = 200;
/// Connections served at a time; more are closed at once.
const CONNECTIONS: usize = 2_000;
/// Connections remembered.
const MEMORY: usize = 10_000;
/// Longest silence of a connection.
const IDLE: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(20);
const REPORT: Duration = Duration::from_secs(5);

/// How a connection looked from the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// After the order.
    pub(crate) bytes: u64,
    pub(crate) end: Ending,
}

/// How the other side ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    /// Not yet, or never opened.
    Open,
    Fin,
    Reset,
}

#[derive(Debug, Default)]
struct Memory {
    ended: Mutex<VecDeque<(String, Report)>>,
    changed: Condvar,
}

impl Memory {
    fn remember(&self, name: &str, report: Report) {
        let mut ended = self.ended.lock();
        if ended.len() >= MEMORY {
            ended.pop_front();
        }
        ended.push_back((name.to_owned(), report));
        self.changed.notify_all();
    }

    fn report(&self, name: &str) -> Report {
        let until = monotonic() + REPORT;
        let mut ended = self.ended.lock();
        loop {
            if let Some((_, report)) = ended.iter().find(|(known, _)| known == name) {
                return report.clone();
            }
            if self.changed.wait_until(&mut ended, until).timed_out() {
                return Report { bytes: 0, end: Ending::Open };
            }
        }
    }
}

/// Accepts until the process ends.
pub(crate) fn serve(listener: &TcpListener) {
    let memory = Arc::new(Memory::default());
    let open = Arc::new(AtomicUsize::new(0));
    for socket in listener.incoming() {
        // A failed accept is a matter of that connection.
        let Ok(socket) = socket else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (memory, open) = (Arc::clone(&memory), Arc::clone(&open));
        std::thread::spawn(move || {
            // How it ended is remembered where a case wants to know.
            let _ = attend(socket, &memory);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Binds.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// An address that answers to nobody: its queue of one is full. Lasts as long as what is returned.
pub(crate) fn silence(address: SocketAddr) -> io::Result<Vec<socket2::Socket>> {
    let socket = || socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
    let listener = socket()?;
    listener.bind(&address.into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?;
    let mut held = vec![listener];
    for _ in 0..3 {
        let filler = socket()?;
        filler.set_nonblocking(true)?;
        // It is under way, or waits for ever: both fill the queue.
        let _ = filler.connect(&address);
        held.push(filler);
    }
    Ok(held)
}

fn attend(mut socket: TcpStream, memory: &Memory) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(IDLE))?;
    socket.set_write_timeout(Some(IDLE))?;
    let (first, order) = first_line(&mut socket)?;
    let Some(order) = order else {
        socket.write_all(&first)?;
        return echo(&mut socket, &[], |_| ());
    };
    let words: Vec<&str> = order.split(' ').collect();
    match *words.as_slice() {
        ["echo", name] => echo(&mut socket, &first, |report| memory.remember(name, report)),
        ["sink", name] => {
            let report = read_to_end(&mut socket, first.len() as u64, |_| Ok(()));
            if report.end == Ending::Fin {
                socket.write_all(format!("{} bytes", report.bytes).as_bytes())?;
            }
            memory.remember(name, report);
            Ok(())
        }
        [verb @ ("send" | "source"), count, name] => {
            let mut sent = send(&mut socket, count.parse().unwrap_or_default());
            if verb == "source" {
                sent = sent.and_then(|()| socket.shutdown(Shutdown::Write));
            }
            let mut report = read_to_end(&mut socket, first.len() as u64, |_| Ok(()));
            if sent.is_err() {
                report.end = Ending::Reset;
            }
            memory.remember(name, report);
            sent
        }
        ["hold", name] => {
            memory.remember(name, hold(&socket));
            reset(&socket)
        }
        ["reset", name] => {
            memory.remember(name, Report { bytes: first.len() as u64, end: Ending::Open });
            reset(&socket)
        }
        ["peer"] => {
            let peer = socket.peer_addr()?.ip().to_canonical();
            socket.write_all(peer.to_string().as_bytes())
        }
        ["report", name] => {
            let report = serde_json::to_vec(&memory.report(name))?;
            socket.write_all(&report)
        }
        _ => socket.write_all(b"no such order"),
    }
}

/// What came first, and the order if it was one; then what came first is what follows it.
fn first_line(socket: &mut TcpStream) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer)?;
        got.extend(buffer.iter().take(count));
        let is_order = got.iter().zip(ORDER.as_bytes()).all(|(got, wanted)| got == wanted);
        if !is_order || count == 0 || got.len() > LINE && !got.contains(&b'\n') {
            return Ok((got, None));
        }
        if let Some(end) = got.iter().position(|octet| *octet == b'\n') {
            let rest = got.split_off(end + 1);
            let line = String::from_utf8_lossy(&got);
            let order = line.trim_end().strip_prefix(ORDER).map(|order| order.trim_start().to_owned());
            return Ok((rest, order));
        }
    }
}

fn echo(socket: &mut TcpStream, first: &[u8], ended: impl FnOnce(Report)) -> io::Result<()> {
    let mut writer = socket.try_clone()?;
    writer.write_all(first)?;
    let report = read_to_end(socket, first.len() as u64, |bytes| writer.write_all(bytes));
    let fin = report.end == Ending::Fin;
    ended(report);
    if fin { socket.shutdown(Shutdown::Write) } else { Ok(()) }
}

fn read_to_end(socket: &mut TcpStream, before: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Report {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = before;
    let end = loop {
        match socket.read(&mut buffer) {
            Ok(0) => break Ending::Fin,
            Ok(count) => {
                bytes += count as u64;
                if buffer.get(..count).is_none_or(|got| each(got).is_err()) {
                    break Ending::Reset;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Ending::Open,
            Err(_) => break Ending::Reset,
        }
    };
    Report { bytes, end }
}

/// The byte at `position` of what `send` and `source` send.
pub(crate) fn pattern(position: usize) -> u8 {
    u8::try_from(position % 251).unwrap_or_default()
}

fn send(socket: &mut TcpStream, count: usize) -> io::Result<()> {
    let piece: Vec<u8> = (0..251 * 64).map(pattern).collect();
    let mut left = count;
    while left > 0 {
        let now = left.min(piece.len());
        socket.write_all(piece.get(..now).unwrap_or_default())?;
        left -= now;
    }
    Ok(())
}

fn hold(socket: &TcpStream) -> Report {
    let until = monotonic() + HOLD;
    while monotonic() < until {
        if socket.take_error().ok().flatten().is_some() {
            return Report { bytes: 0, end: Ending::Reset };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Report { bytes: 0, end: Ending::Open }
}

fn reset(socket: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> SocketAddr {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener));
        address
    }

    fn ask(address: SocketAddr, text: &str) -> (Vec<u8>, io::Result<usize>) {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        let end = socket.read_to_end(&mut got);
        (got, end)
    }

    #[test]
    fn orders_are_done_and_everything_else_is_echoed() {
        let address = start();
        assert_eq!(ask(address, "culvert-or-not").0, b"culvert-or-not");
        assert_eq!(ask(address, "culvert-conformance/1 echo a\nxyz").0, b"xyz");
        assert_eq!(ask(address, "culvert-conformance/1 sink b\nxyz").0, b"3 bytes");
        let (got, _) = ask(address, "culvert-conformance/1 source 300 c\n");
        assert!(got.len() == 300 && got.iter().enumerate().all(|(at, octet)| *octet == pattern(at)));
        assert_eq!(ask(address, "culvert-conformance/1 peer\n").0, b"127.0.0.1");
        assert_eq!(
            ask(address, "culvert-conformance/1 reset d\n").1.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }

    #[test]
    fn a_silent_address_neither_accepts_nor_refuses() {
        let held = silence(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = held[0].local_addr().unwrap().as_socket().unwrap();
        let error = TcpStream::connect_timeout(&address, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn endings_are_told_apart() {
        let address = start();
        let _ = ask(address, "culvert-conformance/1 echo fin\nxyz");
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"culvert-conformance/1 echo rst\nxyz").unwrap();
        socket.read_exact(&mut [0; 3]).unwrap();
        reset(&socket).unwrap();
        drop(socket);
        let report = |name: &str| -> Report {
            serde_json::from_slice(&ask(address, &format!("culvert-conformance/1 report {name}\n")).0)
                .unwrap()
        };
        assert_eq!(report("fin"), Report { bytes: 3, end: Ending::Fin });
        assert_eq!(report("rst"), Report { bytes: 3, end: Ending::Reset });
    }
}
