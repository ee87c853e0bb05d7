//! Our client and our server against each other over loopback.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectionEnd, Counters, ErrorCode, IncomingConnect, Limit, Memory, Metrics, OpenError,
    RelayEnd, ServerConnection, Settings, Tunnel, TunnelError, client, relay, server,
};
use support::{eventually, noise, pair, request, reset, run, spawn, tls, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn connect_both(settings: &Settings) -> (ClientConnection, ServerConnection) {
    let tls = tls();
    let (near, far) = pair().await;
    let (client, server) =
        tokio::join!(client::connect(near, tls.client, settings), server::accept(far, tls.server, settings));
    (client.unwrap(), server.unwrap())
}

async fn open_both(settings: &Settings) -> (ClientConnection, ServerConnection, Tunnel, Tunnel) {
    let (client, server) = connect_both(settings).await;
    let (near, far) =
        tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
    let near = near.unwrap().1;
    (client, server, near, far)
}

#[test]
fn a_request_becomes_a_tunnel_that_carries_both_ways() {
    run(async {
        let (client, server) = connect_both(&Settings::default()).await;
        assert_eq!(server.peer_chain().len(), 1);
        assert_eq!(client.peer_chain().len(), 1);
        let serve = async {
            let incoming: IncomingConnect = server.next().await.unwrap();
            assert_eq!(incoming.method(), "CONNECT");
            assert_eq!(incoming.authority(), Some("10.0.0.1:80"));
            assert_eq!(incoming.header("baggage"), Some("service.name=client"));
            incoming.accept(&[("baggage", "service.name=server")])
        };
        let (opened, mut far) = tokio::join!(client.open(request()), serve);
        let (head, mut near) = opened.unwrap();
        assert_eq!(head.headers, vec![("baggage".to_owned(), b"service.name=server".to_vec())]);
        near.write_all(b"ping").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ping");
        far.write_all(b"pong").await.unwrap();
        far.shutdown().await.unwrap();
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "pong");
    });
}

#[test]
fn a_refusal_is_a_status_and_the_connection_lives() {
    run(async {
        let (client, server) = connect_both(&Settings::default()).await;
        for status in [400, 401, 503] {
            let (opened, ()) =
                tokio::join!(client.open(request()), async { server.next().await.unwrap().refuse(status) });
            let error = opened.unwrap_err();
            assert!(matches!(error, OpenError::Status(s) if s == status), "{error}");
        }
        let (opened, far) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
        drop((opened.unwrap(), far));
    });
}

/// Two relays with an application's socket at each end.
struct Chain {
    near_app: TcpStream,
    far_app: TcpStream,
    near: tokio::task::JoinHandle<RelayEnd>,
    far: tokio::task::JoinHandle<RelayEnd>,
    near_counters: Arc<Counters>,
    far_counters: Arc<Counters>,
    client: ClientConnection,
    server: ServerConnection,
}

async fn chain(settings: &Settings) -> Chain {
    let (client, server, near, far) = open_both(settings).await;
    let (near_app, near_proxy) = pair().await;
    let (far_app, far_proxy) = pair().await;
    let (near_counters, far_counters) = (Arc::<Counters>::default(), Arc::<Counters>::default());
    Chain {
        near_app,
        far_app,
        near: spawn(told("near", relay(near, near_proxy, &near_counters))),
        far: spawn(told("far", relay(far, far_proxy, &far_counters))),
        near_counters,
        far_counters,
        client,
        server,
    }
}

// A-PO-13
#[test]
fn a_large_transfer_is_exact_both_ways() {
    run(async {
        for settings in [
            Settings::default(),
            Settings { stream_window: 70_000, connection_window: 100_000, ..Settings::default() },
        ] {
            let Chain {
                near_app,
                far_app,
                near,
                far,
                near_counters,
                far_counters,
                client: _client,
                server: _server,
            } = chain(&settings).await;
            let (up, down) = (noise(12 << 20), noise(9 << 20));
            let ends = [(near_app, up.clone(), down.clone()), (far_app, down.clone(), up.clone())].map(
                |(app, send, expect)| {
                    spawn(async move {
                        let (mut read, mut write) = app.into_split();
                        let sender = spawn(async move {
                            let mut rest = &send[..];
                            while !rest.is_empty() {
                                let n = rest.len().min(1 + rand::random_range(0..200_000));
                                write.write_all(&rest[..n]).await.unwrap();
                                rest = &rest[n..];
                            }
                            write.shutdown().await.unwrap();
                            write
                        });
                        let mut got = Vec::new();
                        read.read_to_end(&mut got).await.unwrap();
                        assert!(got == expect);
                        sender.await.unwrap();
                    })
                },
            );
            for end in ends {
                end.await.unwrap();
            }
            assert!(matches!(near.await.unwrap(), RelayEnd::Clean));
            assert!(matches!(far.await.unwrap(), RelayEnd::Clean));
            for counters in [
                (near_counters.to_peer(), far_counters.to_app()),
                (far_counters.to_peer(), near_counters.to_app()),
            ] {
                assert_eq!(counters.0, counters.1);
            }
            assert_eq!(near_counters.to_peer(), up.len() as u64);
            assert_eq!(near_counters.to_app(), down.len() as u64);
        }
    });
}

#[test]
fn many_small_pieces_wait_for_a_slow_reader_in_order() {
    run(async {
        let (_client, _server, mut near, mut far) = open_both(&Settings::default()).await;
        let sent = noise(200_000);
        for piece in sent.chunks(37) {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        while got.len() < 1000 {
            got.push(far.read_u8().await.unwrap());
        }
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
    });
}

#[test]
fn a_writer_goes_on_when_the_socket_takes_everything_at_once() {
    run(async {
        let (tls, settings) = (tls(), Settings::default());
        let (a, b) = pair().await;
        socket2::SockRef::from(&b).set_send_buffer_size(4 << 20).unwrap();
        let (client, server) =
            tokio::join!(client::connect(a, tls.client, &settings), server::accept(b, tls.server, &settings));
        let (client, server) = (client.unwrap(), server.unwrap());
        let (near, far) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
        let (mut near, mut far) = (near.unwrap().1, far);
        // More than a connection's plain output may hold. A task of its own: nobody else's wake-up may help it.
        let bytes = noise(300_000);
        let sent = bytes.clone();
        let writer = spawn(async move {
            for _ in 0..40 {
                far.write_all(&sent).await.unwrap();
            }
            far
        });
        for _ in 0..40 {
            let mut received = vec![0; bytes.len()];
            near.read_exact(&mut received).await.unwrap();
            assert!(received == bytes);
        }
        drop(writer.await.unwrap());
    });
}

#[test]
fn half_close_lets_the_other_direction_go_on() {
    run(async {
        let mut c = chain(&Settings::default()).await;
        c.near_app.write_all(b"req").await.unwrap();
        c.near_app.shutdown().await.unwrap();
        let mut text = String::new();
        c.far_app.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "req");
        c.far_app.write_all(b"late").await.unwrap();
        let mut four = [0; 4];
        c.near_app.read_exact(&mut four).await.unwrap();
        c.far_app.write_all(b"r").await.unwrap();
        drop(c.far_app);
        text.clear();
        c.near_app.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "r");
        assert!(matches!(c.near.await.unwrap(), RelayEnd::Clean));
        assert!(matches!(c.far.await.unwrap(), RelayEnd::Clean));
    });
}

#[test]
fn a_reset_by_either_application_reaches_the_other_as_a_reset() {
    run(async {
        for from_near in [true, false] {
            let c = chain(&Settings::default()).await;
            let (mut giver, mut taker) =
                if from_near { (c.near_app, c.far_app) } else { (c.far_app, c.near_app) };
            giver.write_all(b"abc").await.unwrap();
            let mut three = [0; 3];
            taker.read_exact(&mut three).await.unwrap();
            reset(giver);
            let error = taker.read(&mut three).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            let (giving, taking) = if from_near { (c.near, c.far) } else { (c.far, c.near) };
            assert!(matches!(giving.await.unwrap(), RelayEnd::Broken(TunnelError::AppRead(..))));
            let end = taking.await.unwrap();
            assert!(
                matches!(end, RelayEnd::Broken(TunnelError::PeerReset(ErrorCode::CONNECT_ERROR))),
                "{end:?}"
            );
        }
    });
}

/// Writes until neither the tunnel nor a socket takes any more.
async fn fill(app: &TcpStream) {
    let (bytes, mut refusals) = (vec![7; 1 << 20], 0);
    while refusals < 1000 {
        match app.try_write(&bytes) {
            Ok(_) => refusals = 0,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                refusals += 1;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A server refuses an upload and closes: it has not read everything, so its answer is followed by a reset, which is met
/// first where it is written to. data-path 4.8
#[test]
fn what_was_said_before_a_reset_arrives_before_it() {
    run(async {
        let answer = noise(100_000);
        for from_near in [true, false] {
            let c = chain(&Settings::default()).await;
            let (mut server, mut client) =
                if from_near { (c.near_app, c.far_app) } else { (c.far_app, c.near_app) };
            fill(&client).await;
            server.write_all(&answer).await.unwrap();
            drop(server);
            let mut seen = vec![0; answer.len()];
            client.read_exact(&mut seen).await.unwrap();
            assert!(seen == answer);
            assert_eq!(client.read(&mut seen).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            let end = if from_near { c.near } else { c.far }.await.unwrap();
            assert!(matches!(end, RelayEnd::Broken(TunnelError::AppWrite(..))), "{end:?}");
        }
    });
}

/// Nobody reads the application's socket while the peer's window is closed: that it is reset shows all the same.
#[test]
fn a_reset_is_noticed_while_the_window_is_closed() {
    run(async {
        let Chain { near_app, mut far_app, near, far, client: _client, server: _server, .. } =
            chain(&Settings::default()).await;
        fill(&near_app).await;
        reset(near_app);
        let end = near.await.unwrap();
        assert!(matches!(end, RelayEnd::Broken(TunnelError::AppRead(..))), "{end:?}");
        let end = far.await.unwrap();
        assert!(matches!(end, RelayEnd::Broken(TunnelError::PeerReset(ErrorCode::CONNECT_ERROR))), "{end:?}");
        let error = far_app.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn loss_of_the_connection_is_a_reset_and_an_error() {
    run(async {
        let Chain { mut near_app, mut far_app, near, far, client, server, .. } =
            chain(&Settings::default()).await;
        near_app.write_all(b"abc").await.unwrap();
        let mut three = [0; 3];
        far_app.read_exact(&mut three).await.unwrap();
        server.close();
        let error = near_app.read(&mut three).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let end = near.await.unwrap();
        assert!(matches!(end, RelayEnd::Broken(TunnelError::ConnectionEnded(_))), "{end:?}");
        assert!(matches!(
            far.await.unwrap(),
            RelayEnd::Broken(TunnelError::ConnectionEnded(ConnectionEnd::Closed))
        ));
        eventually("client sees the end", || client.ended().is_some()).await;
    });
}

#[test]
fn dropping_a_relay_cancels_the_stream() {
    run(async {
        let Chain { mut near_app, far, near, mut far_app, client: _client, server: _server, .. } =
            chain(&Settings::default()).await;
        near.abort();
        let end = far.await.unwrap();
        assert!(matches!(end, RelayEnd::Broken(TunnelError::PeerReset(ErrorCode::CANCEL))), "{end:?}");
        // What was cut must not look complete, on either side.
        for app in [&mut near_app, &mut far_app] {
            let error = app.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_drain_lets_tunnels_finish_that_run_or_cross_it_and_refuses_new_ones() {
    run(async {
        let (client, server, mut near, mut far) = open_both(&Settings::default()).await;
        server.drain();
        // Sent in the same tick as the GOAWAY.
        let (crossing, served) = tokio::join!(client.open(request()), async {
            server.next().await.map(|incoming| incoming.accept(&[]))
        });
        drop((crossing.unwrap(), served.unwrap()));
        let error = client.open(request()).await.unwrap_err();
        assert!(matches!(error, OpenError::NotProcessed(_)), "{error:?}");
        near.write_all(b"more").await.unwrap();
        let mut four = [0; 4];
        far.read_exact(&mut four).await.unwrap();
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        assert!(server.next().await.is_none());
        assert!(matches!(server.ended(), Some(ConnectionEnd::Closed | ConnectionEnd::GoAway { .. })));
        eventually("client sees the end", || client.ended().is_some()).await;
    });
}

// A-PO-02
#[test]
fn buffered_data_stays_readable_after_the_connection_is_gone() {
    run(async {
        let (client, server, mut near, mut far) = open_both(&Settings::default()).await;
        far.write_all(b"0123456789").await.unwrap();
        let mut three = [0; 3];
        near.read_exact(&mut three).await.unwrap();
        client.close();
        let mut seven = [0; 7];
        near.read_exact(&mut seven).await.unwrap();
        assert_eq!(&seven, b"3456789");
        assert!(near.read(&mut three).await.is_err());
        drop(server);
    });
}

#[test]
fn the_connection_closes_when_handle_and_tunnels_are_gone() {
    run(async {
        let (client, server, mut near, mut far) = open_both(&Settings::default()).await;
        drop(client);
        near.write_all(b"x").await.unwrap();
        let mut one = [0; 1];
        far.read_exact(&mut one).await.unwrap();
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        assert!(server.next().await.is_none());
    });
}

#[test]
fn who_holds_the_memory_of_the_process_is_refused_and_nobody_else() {
    run(async {
        // A window, four MiB, is above the limit, but not by a quarter.
        let memory = Arc::new(Memory::new(7 << 19));
        let settings = Settings { memory: Some(memory.clone()), ..Settings::default() };
        let (silent, silent_server) = connect_both(&settings).await;
        let (client, server, mut near, mut far) = open_both(&settings).await;
        let (bytes, mut sent) = (vec![7; 64 << 10], 0);
        while let Ok(n) = tokio::time::timeout(Duration::from_millis(100), near.write(&bytes)).await {
            sent += n.unwrap();
        }
        eventually("memory is short", || memory.held() > memory.limit()).await;
        assert!(matches!(client.open(request()).await, Err(OpenError::Reset(ErrorCode::REFUSED_STREAM))));
        let (opened, _far) =
            tokio::join!(silent.open(request()), async { silent_server.next().await.unwrap().accept(&[]) });
        opened.unwrap();
        let mut all = vec![0; sent];
        far.read_exact(&mut all).await.unwrap();
        eventually("nothing is held", || memory.held() == 0).await;
        let (opened, _far) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
        opened.unwrap();
    });
}

/// Far above the limit nothing is waited for: the stream that nobody reads is given up, and its memory with it.
#[test]
fn a_stream_that_nobody_reads_is_given_up_when_memory_is_out() {
    run(async {
        let (memory, metrics) = (Arc::new(Memory::new(1 << 20)), Arc::<Metrics>::default());
        let settings =
            Settings { memory: Some(memory.clone()), metrics: Some(metrics.clone()), ..Settings::default() };
        let (client, server, mut near, mut far) = open_both(&settings).await;
        let bytes = vec![7; 4 << 20];
        let error = near.write_all(&bytes).await.err();
        let mut got = vec![0; 16];
        let told = match error {
            Some(error) => error,
            None => near.read(&mut got).await.unwrap_err(),
        };
        assert!(told.to_string().contains("ENHANCE_YOUR_CALM"), "{told}");
        let error = far.read(&mut got).await.unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref::<TunnelError>().unwrap();
        assert_eq!(error.code(), "tunnel-slow-reader");
        eventually("nothing is held", || memory.held() == 0).await;
        assert_eq!(metrics.exceeded(Limit::SlowReaders), 1);
        let (opened, _far) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
        opened.unwrap();
    });
}

#[test]
fn a_missing_client_certificate_is_refused_on_both_sides() {
    run(async {
        let tls = tls();
        let (near, far) = pair().await;
        let settings = Settings::default();
        let server = spawn({
            let settings = settings.clone();
            async move { server::accept(far, tls.server, &settings).await.map(drop) }
        });
        let client = client::connect(near, tls.anonymous, &settings).await.unwrap();
        let error = client.open(request()).await.unwrap_err();
        assert_eq!(error.code(), "tls-refused-by-peer", "{error}");
        assert_eq!(server.await.unwrap().unwrap_err().code(), "tls-no-client-certificate");
    });
}

#[test]
fn a_relay_and_an_open_stay_small() {
    fn size<F>(_: &F) -> usize {
        size_of::<F>()
    }
    run(async {
        let (client, _server, near, _far) = open_both(&Settings::default()).await;
        let (app, _other) = pair().await;
        assert!(size(&relay(near, app, &Arc::default())) <= 128);
        let open = client.open(request());
        assert!(size(&open) <= 1024, "{}", size(&open));
        let (tcp, _other) = pair().await;
        let (tls, settings) = (tls(), Settings::default());
        let connect = client::connect(tcp, tls.client, &settings);
        assert!(size(&connect) <= 2048, "{}", size(&connect));
    });
}
