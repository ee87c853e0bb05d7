//! What the plaintext relay costs its thread, copied and spliced: CPU per gigabyte, and what went through.
//!
//! `cargo run --release -p culvert-net --example relay_cost`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use culvert_net::relay::{ByteCounts, Way, relay_by};
use rustix::time::{ClockId, clock_gettime};

const SECONDS: u64 = 2;

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn adopted(socket: TcpStream) -> tokio::net::TcpStream {
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    tokio::net::TcpStream::from_std(socket).unwrap()
}

/// Sends pieces of this size for a while and relays them; gives gigabytes, seconds, and seconds of CPU: of the
/// relay's thread, and of all three.
fn bulk(way: Way, piece: usize) -> (f64, f64, f64, f64) {
    let ((mut source, a), (b, mut sink)) = (pair(), pair());
    let all = seconds(ClockId::ProcessCPUTime);
    let sender = std::thread::spawn(move || {
        let bytes = vec![7; piece];
        let until = seconds(ClockId::Monotonic) + SECONDS as f64;
        while seconds(ClockId::Monotonic) < until {
            source.write_all(&bytes).unwrap();
        }
    });
    let receiver = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while sink.read(&mut buffer).unwrap() > 0 {}
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counts = ByteCounts::default();
    let (began, cpu) = (seconds(ClockId::Monotonic), seconds(ClockId::ThreadCPUTime));
    runtime.block_on(async { relay_by(way, adopted(a), adopted(b), &counts).await.unwrap() });
    let (took, cpu) = (seconds(ClockId::Monotonic) - began, seconds(ClockId::ThreadCPUTime) - cpu);
    sender.join().unwrap();
    receiver.join().unwrap();
    let all = seconds(ClockId::ProcessCPUTime) - all;
    (counts.a_to_b.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1e9, took, cpu, all)
}

/// Questions and answers of this size, one at a time; gives their number, and seconds of the relay's thread.
fn echoes(way: Way, size: usize) -> (f64, f64) {
    let ((mut near, a), (b, mut far)) = (pair(), pair());
    let server = std::thread::spawn(move || {
        let mut buffer = vec![0; size];
        while far.read_exact(&mut buffer).is_ok() {
            far.write_all(&buffer).unwrap();
        }
    });
    let client = std::thread::spawn(move || {
        let (mut n, mut buffer) = (0, vec![7; size]);
        let until = seconds(ClockId::Monotonic) + 1.0;
        while seconds(ClockId::Monotonic) < until {
            near.write_all(&buffer).unwrap();
            near.read_exact(&mut buffer).unwrap();
            n += 1;
        }
        n
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cpu = seconds(ClockId::ThreadCPUTime);
    runtime.block_on(async { relay_by(way, adopted(a), adopted(b), &ByteCounts::default()).await.unwrap() });
    let cpu = seconds(ClockId::ThreadCPUTime) - cpu;
    server.join().unwrap();
    (f64::from(client.join().unwrap()), cpu)
}

fn main() {
    for _ in 0..3 {
        for piece in [4 << 10, 64 << 10, 1 << 20] {
            for way in [Way::Copy, Way::Adaptive] {
                let (gigabytes, took, cpu, all) = bulk(way, piece);
                let (gbits, cost, total) = (8.0 * gigabytes / took, cpu / gigabytes, all / gigabytes);
                println!(
                    "bulk in pieces of {piece}: {way:?} {gbits:.1} Gb/s, {cost:.3} CPU s/GB, all {total:.3}"
                );
            }
        }
        for size in [64, 16 << 10, 256 << 10] {
            for way in [Way::Copy, Way::Adaptive] {
                let (n, cpu) = echoes(way, size);
                println!("ping-pong of {size}: {way:?} {n}/s, {:.1} CPU us each", 1e6 * cpu / n);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
