//! What an application says ahead of the answer to its CONNECT.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectRequest, ConnectionEnd, Counters, ErrorCode, LiveTunnel, Memory, OpenError,
    RelayEnd, ResponseHead, ServerConnection, Settings, Tunnel, client, relay, server,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::traffic::{application, noise, tokio_socket};
use support::{eventually, pair, run, run_within, spawn, tls};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Octets of a request that waits for its answer.
const REQUEST: u64 = ("CONNECT".len() + "10.0.0.1:80".len()) as u64;

fn request() -> ConnectRequest {
    ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() }
}

fn with_memory() -> (Settings, Arc<Memory>) {
    let memory = Arc::new(Memory::new(1 << 30));
    (Settings { memory: Some(memory.clone()), ..Settings::default() }, memory)
}

/// Both ends, after a first request: by then the client knows the server's SETTINGS.
async fn acquainted(near: &Settings, far: &Settings) -> (Rc<ClientConnection>, ServerConnection) {
    let (a, b) = pair().await;
    acquainted_over(a, b, near, far).await
}

async fn acquainted_over(
    a: TcpStream,
    b: TcpStream,
    near: &Settings,
    far: &Settings,
) -> (Rc<ClientConnection>, ServerConnection) {
    let tls = tls();
    let (client, server) =
        tokio::join!(client::connect(a, tls.client, near), server::accept(b, tls.server, far));
    let (client, server) = (client.unwrap(), server.unwrap());
    let (first, ()) =
        tokio::join!(client.open(request()), async { server.next().await.unwrap().refuse(503) });
    assert!(matches!(first, Err(OpenError::Status(503))));
    (Rc::new(client), server)
}

type Opened = (TcpStream, Result<(ResponseHead, Tunnel), OpenError>);

/// An application, and the request that its proxy makes for it.
async fn ask(client: &Rc<ClientConnection>) -> (TcpStream, JoinHandle<Opened>) {
    let (app, proxy) = pair().await;
    let client = client.clone();
    let opening = spawn(async move {
        let opened = client.open_for(request(), &proxy).await;
        (proxy, opened)
    });
    (app, opening)
}

/// Whether payload or the end lies ready.
async fn has_something(tunnel: &mut Tunnel) -> bool {
    poll_fn(|cx| {
        let mut octet = [0];
        Poll::Ready(Pin::new(&mut *tunnel).poll_read(cx, &mut ReadBuf::new(&mut octet)).is_ready())
    })
    .await
}

#[test]
fn an_application_is_heard_before_the_answer_its_end_included() {
    run(async {
        let (far, memory) = with_memory();
        let (client, server) = acquainted(&Settings::default(), &far).await;
        let (mut app, opening) = ask(&client).await;
        app.write_all(b"a request").await.unwrap();
        app.shutdown().await.unwrap();
        let incoming = server.next().await.unwrap();
        eventually("nine octets ahead of the answer", || memory.held() == REQUEST + 9).await;
        let mut tunnel = incoming.accept(&[]);
        let mut said = String::new();
        tunnel.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "a request");
        tunnel.write_all(b"an answer").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let (proxy, opened) = opening.await.unwrap();
        let counters = Arc::new(Counters::default());
        assert!(matches!(relay(opened.unwrap().1, proxy, &counters).await, RelayEnd::Clean));
        said.clear();
        app.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "an answer");
        assert_eq!((counters.to_peer(), counters.to_app()), (9, 9));
    });
}

#[test]
fn at_most_one_frame_goes_ahead() {
    run(async {
        let (far, memory) = with_memory();
        let (client, server) = acquainted(&Settings::default(), &far).await;
        let (mut app, opening) = ask(&client).await;
        let all = vec![7; 100_000];
        app.write_all(&all).await.unwrap();
        let incoming = server.next().await.unwrap();
        eventually("a frame ahead of the answer", || memory.held() == REQUEST + 16_375).await;
        // A round trip later there is no more.
        let (other, ()) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().refuse(503) });
        assert!(other.is_err());
        assert_eq!(memory.held(), REQUEST + 16_375);
        let mut tunnel = incoming.accept(&[]);
        let (proxy, opened) = opening.await.unwrap();
        let relaying = spawn(relay(opened.unwrap().1, proxy, &Arc::default()));
        let mut got = vec![0; all.len()];
        tunnel.read_exact(&mut got).await.unwrap();
        assert!(got == all);
        drop((tunnel, app));
        assert!(matches!(relaying.await.unwrap(), RelayEnd::Broken(_)));
    });
}

// data-path 4.5: nothing of the application is sent ahead of 200, unless the peer says that it takes it.
#[test]
fn a_peer_that_does_not_ask_for_it_gets_nothing_before_it_answers() {
    run(async {
        let off = Settings { early_data: false, ..Settings::default() };
        for (near, far) in [(&Settings::default(), &off), (&off, &Settings::default())] {
            let (client, server) = acquainted(near, far).await;
            let (mut app, opening) = ask(&client).await;
            app.write_all(b"patience").await.unwrap();
            let incoming = server.next().await.unwrap();
            // What had been sent ahead would have come before this.
            let (other, ()) =
                tokio::join!(client.open(request()), async { server.next().await.unwrap().refuse(503) });
            assert!(other.is_err());
            let mut tunnel = incoming.accept(&[]);
            assert!(!has_something(&mut tunnel).await);
            let (proxy, opened) = opening.await.unwrap();
            let _relaying = spawn(relay(opened.unwrap().1, proxy, &Arc::default()));
            let mut said = [0; 8];
            tunnel.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"patience");
        }
    });
}

// The first request of a connection is sent before the peer's SETTINGS have come.
#[test]
fn a_peer_that_is_not_known_yet_gets_nothing_before_it_answers() {
    run(async {
        let (a, b) = pair().await;
        let (tls, far) = (tls(), with_memory());
        let (mut app, proxy) = pair().await;
        app.write_all(b"patience").await.unwrap();
        let connected = Rc::new(RefCell::new(None));
        let slot = connected.clone();
        let opening = spawn(async move {
            let client = Rc::new(client::connect(a, tls.client, &Settings::default()).await.unwrap());
            *slot.borrow_mut() = Some(client.clone());
            let opened = client.open_for(request(), &proxy).await;
            (proxy, opened)
        });
        let server = server::accept(b, tls.server, &far.0).await.unwrap();
        let incoming = server.next().await.unwrap();
        let client = connected.borrow_mut().take().unwrap();
        let (other, ()) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().refuse(503) });
        assert!(other.is_err());
        assert_eq!(far.1.held(), REQUEST);
        drop(incoming);
        let (mut proxy, opened) = opening.await.unwrap();
        assert!(matches!(opened, Err(OpenError::Reset(ErrorCode::CANCEL))));
        let mut said = [0; 8];
        proxy.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"patience", "nothing was taken from the application");
    });
}

#[test]
fn a_refusal_loses_what_was_said_visibly_and_costs_the_connection_nothing() {
    run(async {
        let (near, far) =
            (Settings::default(), Settings { connection_window: 70_000, ..Settings::default() });
        let (client, server) = acquainted(&near, &far).await;
        // In all more than the connection's window, and more refusals than a peer may reset.
        for n in 0..300 {
            let (mut app, opening) = ask(&client).await;
            app.write_all(&vec![1; if n % 2 == 0 { 16_000 } else { 5 }]).await.unwrap();
            let incoming = server.next().await.unwrap();
            match n % 3 {
                0 => incoming.refuse(401),
                1 => incoming.refuse(503),
                _ => drop(incoming),
            }
            let (proxy, opened) = opening.await.unwrap();
            match opened.unwrap_err() {
                OpenError::Status(401) if n % 3 == 0 => {}
                OpenError::Status(503) if n % 3 == 1 => {}
                OpenError::Reset(ErrorCode::CANCEL) if n % 3 == 2 => {}
                other => panic!("request {n}: {other}"),
            }
            drop(proxy);
            // Taken or not, what an application has said and nobody has heard ends by a reset.
            let end = app.read(&mut [0]).await;
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "request {n}");
        }
        let (_app, opening) = ask(&client).await;
        let _tunnel = server.next().await.unwrap().accept(&[]);
        opening.await.unwrap().1.unwrap();
    });
}

#[test]
fn an_application_that_resets_ends_its_request() {
    run(async {
        let (client, server) = acquainted(&Settings::default(), &Settings::default()).await;
        let (mut app, opening) = ask(&client).await;
        app.write_all(b"never mind").await.unwrap();
        let incoming = server.next().await.unwrap();
        app.set_zero_linger().unwrap();
        drop(app);
        let (_, opened) = opening.await.unwrap();
        assert!(matches!(opened.unwrap_err(), OpenError::AppRead(_, std::io::ErrorKind::ConnectionReset)));
        incoming.cancelled().await;
    });
}

/// Passes on what a server says, and counts the records.
async fn count_records(server: TcpStream, client: TcpStream, count: Rc<Cell<usize>>) {
    let ((mut from_server, mut to_server), (mut from_client, mut to_client)) =
        (server.into_split(), client.into_split());
    spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    loop {
        let mut record = vec![0; 5];
        if from_server.read_exact(&mut record).await.is_err() {
            return;
        }
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        from_server.read_exact(&mut record[5..]).await.unwrap();
        count.set(count.get() + 1);
        to_client.write_all(&record).await.unwrap();
    }
}

#[test]
fn the_answer_leaves_together_with_what_the_application_answers() {
    run(async {
        let ((a, between_a), (b, between_b)) = (pair().await, pair().await);
        let records = Rc::new(Cell::new(0));
        spawn(count_records(between_b, between_a, records.clone()));
        let (client, server) = acquainted_over(a, b, &Settings::default(), &Settings::default()).await;
        for _ in 0..5 {
            let (mut app, opening) = ask(&client).await;
            app.write_all(b"ping").await.unwrap();
            let incoming = server.next().await.unwrap();
            let before = records.get();
            let (far_app, far_proxy) = pair().await;
            let far = spawn(relay(incoming.accept(&[]), far_proxy, &Arc::default()));
            // One that answers at once and has nothing more to say.
            let (mut read, mut write) = far_app.into_split();
            let mut said = [0; 4];
            read.read_exact(&mut said).await.unwrap();
            write.write_all(b"pong").await.unwrap();
            write.shutdown().await.unwrap();
            let (proxy, opened) = opening.await.unwrap();
            let near = spawn(relay(opened.unwrap().1, proxy, &Arc::default()));
            let mut got = String::new();
            app.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "pong");
            // Where the machine was so slow that the answer had to leave alone, another turn tells.
            let answer = records.get() - before;
            app.shutdown().await.unwrap();
            assert!(matches!(near.await.unwrap(), RelayEnd::Clean));
            assert!(matches!(far.await.unwrap(), RelayEnd::Clean));
            if answer == 1 {
                return;
            }
        }
        panic!("the answer never left with the payload");
    });
}

/// Lets a relay run once; nobody else gets a turn.
async fn step(relay: &mut Pin<Box<dyn Future<Output = RelayEnd>>>) {
    poll_fn(|cx| {
        assert!(relay.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// What another stream says in the same turn, in a batch or not, is company: nothing waits for ever, or out of order.
#[test]
fn an_answer_that_waits_leaves_with_what_others_say() {
    run(async {
        let (client, server) = acquainted(&Settings::default(), &Settings::default()).await;
        let (mut other, opening) = ask(&client).await;
        let tunnel = server.next().await.unwrap().accept(&[]);
        let (proxy, opened) = opening.await.unwrap();
        spawn(relay(opened.unwrap().1, proxy, &Arc::default()));
        let (mut far_other, far_proxy) = pair().await;
        let mut relay_of_other: Pin<Box<dyn Future<Output = RelayEnd>>> =
            Box::pin(relay(tunnel, far_proxy, &Arc::default()));
        let sizes = [1_usize, 16_384, 4_096, 60_000, 16_384, 4_097, 16_375, 300];
        for (turn, size) in sizes.into_iter().cycle().take(64).enumerate() {
            let (mut app, opening) = ask(&client).await;
            app.write_all(b"a request").await.unwrap();
            let incoming = server.next().await.unwrap();
            // The event loop learns that the other application has something to say.
            step(&mut relay_of_other).await;
            far_other.write_all(&vec![7; size]).await.unwrap();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            // Both in one turn, whichever comes first.
            if turn % 2 == 0 {
                step(&mut relay_of_other).await;
            }
            let mut tunnel = incoming.accept(&[]);
            step(&mut relay_of_other).await;
            let (_proxy, opened) = opening.await.unwrap();
            opened.unwrap();
            other.read_exact(&mut vec![0; size]).await.unwrap();
            let mut said = [0; 9];
            tunnel.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"a request");
        }
    });
}

#[test]
fn an_answer_that_waits_for_nothing_leaves_by_itself() {
    run(async {
        let (client, server) = acquainted(&Settings::default(), &Settings::default()).await;
        for more in [&b""[..], b"and more"] {
            let (mut app, opening) = ask(&client).await;
            app.write_all(b"an application that does not answer").await.unwrap();
            let incoming = server.next().await.unwrap();
            let _tunnel = incoming.accept(&[]);
            app.write_all(more).await.unwrap();
            opening.await.unwrap().1.unwrap();
        }
        // Nor is it forgotten when the connection is drained meanwhile.
        let (mut app, opening) = ask(&client).await;
        app.write_all(b"x").await.unwrap();
        let _tunnel = server.next().await.unwrap().accept(&[]);
        server.drain();
        opening.await.unwrap().1.unwrap();
    });
}

#[test]
fn a_request_with_early_data_moves_and_is_counted_where_it_goes_on() {
    run(async {
        let (far, memory) = with_memory();
        let (client, server) = acquainted(&Settings::default(), &far).await;
        let (mut app, opening) = ask(&client).await;
        app.write_all(b"before").await.unwrap();
        let incoming = server.next().await.unwrap();
        eventually("octets ahead of the answer", || memory.held() == REQUEST + 6).await;
        let (live, tcp) = client.export().unwrap();
        let (proxy, opened) = opening.await.unwrap();
        assert!(matches!(opened.unwrap_err(), OpenError::ConnectionEnded(ConnectionEnd::Moved)));
        let live = LiveTunnel::from_bytes(live.as_bytes().to_vec());
        let moved = client::import(live, tokio_socket(tcp), &Settings::default()).unwrap();
        let [asked] = <[_; 1]>::try_from(moved.requests).unwrap();
        let mut tunnel = incoming.accept(&[]);
        let (_, near) = asked.answer().await.unwrap();
        let counters = Arc::new(Counters::default());
        let relaying = spawn(relay(near, proxy, &counters));
        app.write_all(b" and after").await.unwrap();
        app.shutdown().await.unwrap();
        let mut said = String::new();
        tunnel.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "before and after");
        tunnel.shutdown().await.unwrap();
        assert!(matches!(relaying.await.unwrap(), RelayEnd::Clean));
        assert_eq!(counters.to_peer(), 16);
        // And to this peer, of which the new engine knows what it said, the next request goes with its payload.
        let (mut app, opening) = ask(&Rc::new(moved.connection)).await;
        app.write_all(b"next").await.unwrap();
        let _incoming = server.next().await.unwrap();
        eventually("octets ahead of the next answer", || memory.held() == REQUEST + 4).await;
        opening.abort();
    });
}

/// Serves requests after a while, some not at all; what applications say comes back to them.
async fn serve(server: ServerConnection, seed: u64, echoed: Rc<RefCell<usize>>) {
    let mut random = StdRng::seed_from_u64(seed);
    while let Some(incoming) = server.next().await {
        let (patience, refused) = (random.random_range(0..2000), random.random_bool(0.2));
        let echoed = echoed.clone();
        spawn(async move {
            tokio::time::sleep(Duration::from_micros(patience)).await;
            if refused {
                return incoming.refuse(503);
            }
            let (app, proxy) = pair().await;
            spawn(async move {
                let (mut read, mut write) = app.into_split();
                let n = tokio::io::copy(&mut read, &mut write).await.unwrap();
                *echoed.borrow_mut() += usize::try_from(n).unwrap();
                write.shutdown().await.unwrap();
            });
            let end = relay(incoming.accept(&[]), proxy, &Arc::default()).await;
            assert!(matches!(end, RelayEnd::Clean), "{end:?}");
        });
    }
}

// Whatever is said before, around and after the answer arrives once and in order, or not at all and visibly.
#[test]
fn random_applications_lose_nothing() {
    run_within(Duration::from_secs(60), async {
        for seed in 0..4 {
            let mut random = StdRng::seed_from_u64(seed);
            let settings =
                Settings { stream_window: 70_000, connection_window: 100_000, ..Settings::default() };
            let (client, server) = acquainted(&settings, &settings).await;
            let echoed = Rc::new(RefCell::new(0));
            spawn(serve(server, seed, echoed.clone()));
            let mut running = Vec::new();
            for n in 0..40 {
                let most = [2, 200, 20_000, 200_000][random.random_range(0..4)];
                let up = noise(&mut random, most);
                let client = client.clone();
                running.push(spawn(async move {
                    let (app, proxy) = pair().await;
                    let speaking = spawn(application(app, up.clone(), n));
                    let counters = Arc::new(Counters::default());
                    match client.open_for(request(), &proxy).await {
                        Ok((_, tunnel)) => {
                            let end = relay(tunnel, proxy, &counters).await;
                            assert!(matches!(end, RelayEnd::Clean), "{end:?}");
                            let back = speaking.await.unwrap();
                            assert!(back == up, "{} octets of {}", back.len(), up.len());
                            assert_eq!(counters.to_peer(), up.len() as u64);
                            up.len()
                        }
                        Err(OpenError::Status(503)) => {
                            speaking.abort();
                            0
                        }
                        Err(other) => panic!("{other}"),
                    }
                }));
            }
            let mut all = 0;
            for one in running {
                all += one.await.unwrap();
            }
            assert_eq!(*echoed.borrow(), all);
        }
    });
}
