//! Live tunnels taken out of one engine and put into another, while bytes are under way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod support;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use culvert_hbone::{
    ClientConnection, ConnectRequest, ConnectionEnd, ErrorCode, ExportError, ImportError, LiveTunnel,
    OpenError, RelayEnd, ServerConnection, Settings, Tunnel, TunnelError, client, relay, server,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::traffic::{Relays, application, noise, tokio_socket};
use support::{pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn connect_both(settings: &Settings) -> (ClientConnection, ServerConnection) {
    let tls = tls();
    let (near, far) = pair().await;
    let (client, server) =
        tokio::join!(client::connect(near, tls.client, settings), server::accept(far, tls.server, settings));
    (client.unwrap(), server.unwrap())
}

fn request() -> ConnectRequest {
    ConnectRequest { authority: "10.0.0.1:80".into(), headers: vec![("x-a".into(), "b".into())] }
}

async fn open_both(client: &ClientConnection, server: &ServerConnection) -> (Tunnel, Tunnel) {
    let (near, far) =
        tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
    (near.unwrap().1, far)
}

fn move_client(client: &ClientConnection, settings: &Settings) -> culvert_hbone::ImportedClient {
    let (live, tcp) = client.export().unwrap();
    let live = LiveTunnel::from_bytes(live.as_bytes().to_vec());
    client::import(live, tokio_socket(tcp), settings).unwrap()
}

fn move_server(server: &ServerConnection, settings: &Settings) -> culvert_hbone::ImportedServer {
    let (live, tcp) = server.export().unwrap();
    server::import(live, tokio_socket(tcp), settings).unwrap()
}

async fn random_traffic(seed: u64, settings: &Settings) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut client, mut server) = connect_both(settings).await;
    let (mut near, mut far) = (Relays::default(), Relays::default());
    let mut applications = Vec::new();
    let streams = random.random_range(1..6_usize);
    for stream in 0..streams as u64 {
        let (a, b) = open_both(&client, &server).await;
        let (near_app, near_proxy) = pair().await;
        let (far_app, far_proxy) = pair().await;
        near.start(a, near_proxy);
        far.start(b, far_proxy);
        let (up, down) = (noise(&mut random, 1 << 20), noise(&mut random, 1 << 20));
        applications.push((spawn(application(near_app, up.clone(), seed + stream)), down.clone()));
        applications.push((spawn(application(far_app, down, seed + stream + 100)), up));
    }
    let mut moves = 0;
    while moves < 12 {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..6000))).await;
        if random.random_bool(0.5) {
            let moved = move_client(&client, settings);
            assert!(matches!(client.ended(), Some(ConnectionEnd::Moved)));
            client = moved.connection;
            assert!(moved.requests.is_empty());
            let apps = near.stop().await;
            near.resume(moved.tunnels, apps);
        } else {
            let moved = move_server(&server, settings);
            server = moved.connection;
            let apps = far.stop().await;
            far.resume(moved.tunnels, apps);
        }
        moves += 1;
    }
    for (application, expected) in applications {
        assert!(application.await.unwrap() == expected, "seed {seed}: bytes differ");
    }
    for relays in [&mut near, &mut far] {
        assert_eq!(relays.finish().await, streams, "seed {seed}");
    }
    // The connection is as good as new.
    let (mut a, mut b) = open_both(&client, &server).await;
    a.write_all(b"after").await.unwrap();
    a.shutdown().await.unwrap();
    let mut text = String::new();
    b.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "after");
}

#[test]
fn random_traffic_survives_moves_at_random_moments() {
    let settings = [
        Settings::default(),
        Settings { records_per_key: 7, ..Settings::default() },
        Settings { stream_window: 70_000, connection_window: 100_000, ..Settings::default() },
    ];
    for (seed, settings) in (0..6).zip(settings.iter().cycle()) {
        run(random_traffic(seed, settings));
    }
}

/// What goes to another thread: the value, the tunnel's socket, and the applications' by stream.
type Parcel = (Vec<u8>, std::net::TcpStream, Vec<(u32, std::net::TcpStream)>);

#[test]
fn a_tunnel_moves_from_thread_to_thread() {
    run(async {
        let (client, server) = connect_both(&Settings::default()).await;
        let (a, b) = open_both(&client, &server).await;
        let (mut near_app, near_proxy) = pair().await;
        let (mut far_app, far_proxy) = pair().await;
        let far = spawn(relay(b, far_proxy, &Arc::default()));
        let near = spawn(relay(a, near_proxy, &Arc::default()));
        near_app.write_all(b"before").await.unwrap();
        let mut buffer = [0; 6];
        far_app.read_exact(&mut buffer).await.unwrap();
        let (live, tcp) = client.export().unwrap();
        let RelayEnd::Moved(app) = near.await.unwrap() else { panic!("not moved") };
        let parcel: Parcel = (live.as_bytes().to_vec(), tcp, vec![(1, app)]);
        drop((live, client));
        // While it is in nobody's hands both ends go on writing.
        near_app.write_all(b"between").await.unwrap();
        near_app.shutdown().await.unwrap();
        far_app.write_all(b"also between").await.unwrap();
        far_app.shutdown().await.unwrap();
        let other = std::thread::spawn(move || {
            run(async move {
                let (live, tcp, apps) = parcel;
                let live = LiveTunnel::from_bytes(live);
                let moved = client::import(live, tokio_socket(tcp), &Settings::default()).unwrap();
                let [tunnel] = <[Tunnel; 1]>::try_from(moved.tunnels).unwrap();
                let [(1, app)] = <[_; 1]>::try_from(apps).unwrap() else { panic!("another stream") };
                assert!(matches!(relay(tunnel, tokio_socket(app), &Arc::default()).await, RelayEnd::Clean));
            });
        });
        let (mut up, mut down) = (String::new(), String::new());
        far_app.read_to_string(&mut up).await.unwrap();
        near_app.read_to_string(&mut down).await.unwrap();
        assert_eq!((up.as_str(), down.as_str()), ("between", "also between"));
        assert!(matches!(far.await.unwrap(), RelayEnd::Clean));
        // It lingers until its own connection has said goodbye, which this thread has to answer.
        while !other.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        other.join().unwrap();
    });
}

#[test]
fn requests_without_answer_move_too() {
    run(async {
        let settings = Settings::default();
        let (client, server) = connect_both(&settings).await;
        let client = Rc::new(client);
        let ask = || {
            let client = client.clone();
            spawn(async move { client.open(request()).await })
        };
        let waiting = [ask(), ask()];
        // One request has been handed out and is not answered, the other nobody has asked for.
        let handed_out = server.next().await.unwrap();
        let moved = move_server(&server, &settings);
        assert!(moved.tunnels.is_empty());
        handed_out.cancelled().await;
        drop(handed_out);
        let server = moved.connection;
        let moved = move_client(&client, &settings);
        for asked in waiting {
            let error = asked.await.unwrap().unwrap_err();
            assert!(matches!(error, OpenError::ConnectionEnded(ConnectionEnd::Moved)), "{error}");
        }
        assert_eq!(moved.requests.len(), 2);
        let first = server.next().await.unwrap();
        assert_eq!((first.authority(), first.header("x-a")), (Some("10.0.0.1:80"), Some("b")));
        let mut tunnel = first.accept(&[("x-c", "d")]);
        server.next().await.unwrap().refuse(503);
        let [accepted, refused] = <[_; 2]>::try_from(moved.requests).unwrap();
        assert_eq!((accepted.id(), refused.id()), (1, 3));
        let (head, mut near) = accepted.answer().await.unwrap();
        assert_eq!(head.headers, vec![("x-c".to_owned(), b"d".to_vec())]);
        assert!(matches!(refused.answer().await, Err(OpenError::Status(503))));
        tunnel.write_all(b"through").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "through");
    });
}

#[test]
fn what_nobody_has_taken_and_how_a_stream_ended_move_too() {
    run(async {
        let settings = Settings::default();
        let (client, server) = connect_both(&settings).await;
        let (mut ended, far_ended) = open_both(&client, &server).await;
        let (mut cut, far_cut) = open_both(&client, &server).await;
        ended.write_all(b"all of it").await.unwrap();
        ended.shutdown().await.unwrap();
        cut.write_all(b"a part").await.unwrap();
        // Both are with the server's streams, untaken, once a third stream behind them has been accepted.
        let _third = open_both(&client, &server).await;
        cut.abort();
        let _fourth = open_both(&client, &server).await;
        let moved = move_server(&server, &settings);
        drop((far_ended, far_cut));
        let mut tunnels: HashMap<u32, Tunnel> =
            moved.tunnels.into_iter().map(|tunnel| (tunnel.id(), tunnel)).collect();
        assert_eq!(tunnels.len(), 4);
        let mut text = String::new();
        tunnels.get_mut(&1).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all of it");
        let mut buffer = [0; 6];
        let cut = tunnels.get_mut(&3).unwrap();
        cut.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"a part");
        let error = cut.read(&mut buffer).await.unwrap_err().downcast::<TunnelError>().unwrap();
        assert!(matches!(error, TunnelError::PeerReset(ErrorCode::CANCEL)), "{error}");
    });
}

#[test]
fn a_moved_connection_is_over_here_and_says_nothing() {
    run(async {
        let settings = Settings::default();
        let (client, server) = connect_both(&settings).await;
        let (mut near, mut far) = open_both(&client, &server).await;
        let (live, tcp) = client.export().unwrap();
        assert!(matches!(client.export(), Err(ExportError::Ended(ConnectionEnd::Moved))));
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
        let error = client.open(request()).await.unwrap_err();
        assert!(matches!(error, OpenError::ConnectionEnded(ConnectionEnd::Moved)), "{error}");
        // Neither RST_STREAM nor GOAWAY nor close_notify may leave: the peer must not notice.
        client.close();
        drop((near, client));
        let moved = client::import(live, tokio_socket(tcp), &settings).unwrap();
        let mut near = moved.tunnels.into_iter().next().unwrap();
        near.write_all(b"still here").await.unwrap();
        let mut buffer = [0; 10];
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"still here");
    });
}

#[test]
fn a_value_of_another_version_role_or_shape_is_refused() {
    run(async {
        let settings = Settings::default();
        let (client, _server) = connect_both(&settings).await;
        let (live, _tcp) = client.export().unwrap();
        let import = async |bytes: Vec<u8>| {
            let live = LiveTunnel::from_bytes(bytes);
            client::import(live, pair().await.0, &settings).unwrap_err()
        };
        assert_eq!(format!("{live:?}"), format!("LiveTunnel({} octets)", live.as_bytes().len()));
        let bytes = live.as_bytes().to_vec();
        for at in [0, 5] {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert!(matches!(import(other).await, ImportError::Version));
        }
        for length in [6, 7, 100, bytes.len() - 1] {
            assert!(matches!(import(bytes[..length].to_vec()).await, ImportError::Malformed { .. }));
        }
        assert!(matches!(import([bytes, vec![0]].concat()).await, ImportError::Malformed { .. }));
        let error = server::import(live, pair().await.0, &settings).unwrap_err();
        assert!(matches!(error, ImportError::Role));
    });
}

/// It is sealed, and waits for the end of the turn.
#[test]
fn what_was_not_sent_yet_moves_too() {
    run(async {
        let (client, server) = connect_both(&Settings::default()).await;
        let (a, b) = open_both(&client, &server).await;
        let (mut near_app, near_proxy) = pair().await;
        let (mut far_app, far_proxy) = pair().await;
        let _far = spawn(relay(b, far_proxy, &Arc::default()));
        let counters = Arc::default();
        let mut near = std::pin::pin!(relay(a, near_proxy, &counters));
        near_app.write_all(&[7; 20_000]).await.unwrap();
        while counters.to_peer() == 0 {
            tokio::task::yield_now().await;
            std::future::poll_fn(|cx| {
                assert!(near.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        // In the same turn: the driver has not sent anything.
        let moved = move_client(&client, &Settings::default());
        let RelayEnd::Moved(app) = near.await else { panic!("not moved") };
        let [tunnel] = <[Tunnel; 1]>::try_from(moved.tunnels).unwrap();
        let _near = spawn(relay(tunnel, tokio_socket(app), &Arc::default()));
        near_app.shutdown().await.unwrap();
        let mut got = Vec::new();
        far_app.read_to_end(&mut got).await.unwrap();
        assert!(got == [7; 20_000], "{} octets", got.len());
    });
}
