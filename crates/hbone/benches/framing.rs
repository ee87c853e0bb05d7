//! Framing, counted in instructions: `.ci/instructions` runs `framing CASE TIMES` under valgrind and compares.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that fails says so")]

use std::time::Instant;

use culvert_hbone::Settings;
use culvert_hbone::bare::{Bare, Event};

#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a bench")]
fn epoch() -> Instant {
    Instant::now()
}

/// Two cores that know each other.
fn pair(now: Instant) -> (Bare, Bare) {
    let mut client = Bare::client(Settings::default(), now);
    let mut server = Bare::server(Settings::default(), now);
    for _ in 0..3 {
        carry(&mut client, &mut server, now);
        carry(&mut server, &mut client, now);
    }
    (client, server)
}

/// Hands over what one has to say. The other accepts requests and consumes what it gets.
fn carry(from: &mut Bare, to: &mut Bare, now: Instant) {
    let mut out = std::mem::take(from.output());
    to.receive(now, &out, |core, event| match event {
        Event::Request(stream, _) => core.answer(stream, 200, false),
        Event::Data(stream, bytes) => core.consumed(stream, bytes.len(), now),
        _ => {}
    });
    out.clear();
    if from.output().is_empty() {
        *from.output() = out;
    }
}

fn open(client: &mut Bare, server: &mut Bare, now: Instant) -> u32 {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = [
        header("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web"),
        header("forwarded", "for=\"10.0.0.1:41200\";host=cart.shop.svc.cluster.local"),
        header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    ];
    let stream = client.open("10.0.0.2:8080", &headers, now).unwrap();
    carry(client, server, now);
    carry(server, client, now);
    stream
}

/// A request, its answer, and the end in both directions.
fn connect(times: usize) {
    let now = epoch();
    let (mut client, mut server) = pair(now);
    for _ in 0..times {
        let stream = open(&mut client, &mut server, now);
        client.finish(stream);
        carry(&mut client, &mut server, now);
        server.finish(stream);
        carry(&mut server, &mut client, now);
    }
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
}

/// `octets` to the server, framed, read and consumed, with the window updates that follow.
fn transfer(octets: usize, times: usize) {
    let now = epoch();
    let (mut client, mut server) = pair(now);
    let stream = open(&mut client, &mut server, now);
    let payload = vec![b'x'; octets];
    for _ in 0..times {
        let mut left = payload.as_slice();
        while !left.is_empty() {
            let taken = client.write(stream, left);
            assert!(taken > 0);
            left = &left[taken..];
        }
        carry(&mut client, &mut server, now);
        carry(&mut server, &mut client, now);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    match case.as_str() {
        "connect" => connect(times),
        "small" => transfer(64, times),
        "bulk" => transfer(64 << 10, times),
        // `cargo test` and `cargo bench` pass flags of their own.
        _ => connect(1),
    }
}
