//! A resolver that knows what it is told, over UDP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Length of a message's head; the question follows.
const HEAD: usize = 12;

/// A running resolver; stops when dropped.
#[derive(Debug)]
pub struct Resolver {
    asked: Arc<Mutex<Vec<(String, u16)>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Answers at `address` with these records; every other name does not exist.
    pub fn start(address: SocketAddr, records: &[(&str, IpAddr)]) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut names = BTreeMap::<String, Vec<IpAddr>>::new();
        for (name, ip) in records {
            names.entry((*name).to_owned()).or_default().push(*ip);
        }
        let (asked, stopped) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, stop) = (Arc::clone(&asked), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                let Ok((n, client)) = socket.recv_from(&mut buffer) else { continue };
                let Some((name, kind, question)) = read(&buffer[..n]) else { continue };
                let answer = answer(&buffer[..n], question, kind, names.get(&name));
                log.lock().unwrap().push((name, kind));
                let _ = socket.send_to(&answer, client);
            }
        });
        Ok(Self { asked, stopped, thread: Some(thread) })
    }

    /// How often the IPv4 addresses of a name have been asked for.
    pub fn n_asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(of, kind)| of == name && *kind == TYPE_A).count()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Name and type of the question, and where it ends.
fn read(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEAD);
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

fn answer(packet: &[u8], question: usize, kind: u16, known: Option<&Vec<IpAddr>>) -> Vec<u8> {
    let of_kind = |ip: &&IpAddr| (kind == TYPE_A && ip.is_ipv4()) || (kind == TYPE_AAAA && ip.is_ipv6());
    let found: Vec<&IpAddr> = known.into_iter().flatten().filter(of_kind).collect();
    let mut answer = packet[..question.min(packet.len())].to_vec();
    // A response, recursion available; 3 is NXDOMAIN.
    answer[2] = 0x81;
    answer[3] = if known.is_some() { 0x80 } else { 0x83 };
    let counts = [1, u8::try_from(found.len()).unwrap(), 0, 0];
    for (at, count) in counts.into_iter().enumerate() {
        answer[4 + 2 * at] = 0;
        answer[5 + 2 * at] = count;
    }
    for ip in found {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        // The question's name, its type, class IN, an hour.
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0x0e, 0x10]);
        answer.extend(u16::try_from(octets.len()).unwrap().to_be_bytes());
        answer.extend(octets);
    }
    answer
}
