//! Against the `h2` crate as client and as server.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::sync::Arc;

use culvert_hbone::{ConnectRequest, Settings, client, server};
use h2::Reason;
use rustls::pki_types::ServerName;
use support::{pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn noise(length: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

async fn send_all(stream: &mut h2::SendStream<bytes::Bytes>, bytes: Vec<u8>) {
    let mut rest = bytes::Bytes::from(bytes);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let n = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        stream.send_data(rest.split_to(n.min(rest.len())), false).unwrap();
    }
    stream.send_data(bytes::Bytes::new(), true).unwrap();
}

async fn receive_all(mut stream: h2::RecvStream) -> Vec<u8> {
    let mut got = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        got.extend_from_slice(&chunk);
    }
    got
}

fn windows() -> [Settings; 3] {
    [
        Settings::default(),
        Settings { stream_window: 3_000, connection_window: 65_535, ..Settings::default() },
        Settings { stream_window: 100_000, connection_window: 150_000, ..Settings::default() },
    ]
}

#[test]
fn h2_as_client_exchanges_large_data_with_our_server() {
    run(async {
        for (settings, h2_window) in windows().into_iter().zip([65_535, 1_000, 4 << 20]) {
            let tls = tls();
            let (near, far) = pair().await;
            let server = spawn(async move {
                let connection = server::accept(far, tls.server, &settings).await.unwrap();
                while let Some(incoming) = connection.next().await {
                    assert_eq!(incoming.header("x-long").unwrap().len(), 20_000);
                    let tunnel = incoming.accept(&[("baggage", "a=b")]);
                    spawn(async move {
                        let (mut read, mut write) = tokio::io::split(tunnel);
                        tokio::io::copy(&mut read, &mut write).await.unwrap();
                        write.shutdown().await.unwrap();
                    });
                }
            });
            let name = ServerName::try_from("server").unwrap();
            let stream = tokio_rustls::TlsConnector::from(tls.client).connect(name, near).await.unwrap();
            let (send, connection) =
                h2::client::Builder::new().initial_window_size(h2_window).handshake(stream).await.unwrap();
            let driver = spawn(connection);
            let mut tasks = Vec::new();
            for _ in 0..4 {
                let mut send = send.clone().ready().await.unwrap();
                tasks.push(spawn(async move {
                    let request = http::Request::builder()
                        .method("CONNECT")
                        .uri("10.0.0.1:80")
                        .header("x-long", "v".repeat(20_000))
                        .body(())
                        .unwrap();
                    let (answer, mut body) = send.send_request(request, false).unwrap();
                    let answer = answer.await.unwrap();
                    assert_eq!(answer.status(), 200);
                    assert_eq!(answer.headers()["baggage"], "a=b");
                    let bytes = noise(400_000);
                    let receive = spawn(receive_all(answer.into_body()));
                    send_all(&mut body, bytes.clone()).await;
                    assert!(receive.await.unwrap() == bytes);
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            drop(send);
            driver.await.unwrap().unwrap();
            server.await.unwrap();
        }
    });
}

#[test]
fn h2_as_server_exchanges_large_data_with_our_client() {
    run(async {
        for (settings, h2_window) in windows().into_iter().zip([65_535, 1_000, 4 << 20]) {
            let tls = tls();
            let (near, far) = pair().await;
            let server = spawn(async move {
                let stream = tokio_rustls::TlsAcceptor::from(tls.server).accept(far).await.unwrap();
                let mut connection = h2::server::Builder::new()
                    .initial_window_size(h2_window)
                    .max_concurrent_streams(2)
                    .handshake::<_, bytes::Bytes>(stream)
                    .await
                    .unwrap();
                while let Some(accepted) = connection.accept().await {
                    let (request, mut respond) = accepted.unwrap();
                    assert_eq!(request.method(), "CONNECT");
                    spawn(async move {
                        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                        let bytes = receive_all(request.into_body()).await;
                        send_all(&mut body, bytes).await;
                    });
                }
            });
            let connection = client::connect(near, tls.client, &settings).await.unwrap();
            let mut tasks = Vec::new();
            for _ in 0..5 {
                let connection = connection.clone();
                tasks.push(spawn(async move {
                    let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: vec![] };
                    let (_, tunnel) = connection.open(request).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(tunnel);
                    let bytes = noise(300_000);
                    let sent = bytes.clone();
                    let sender = spawn(async move {
                        write.write_all(&sent).await.unwrap();
                        write.shutdown().await.unwrap();
                        write
                    });
                    let mut got = Vec::new();
                    read.read_to_end(&mut got).await.unwrap();
                    assert!(got == bytes);
                    sender.await.unwrap();
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            drop(connection);
            server.await.unwrap();
        }
    });
}

#[test]
fn h2_understands_our_refusals_resets_and_drain() {
    run(async {
        let tls = tls();
        let (near, far) = pair().await;
        let settings = Settings::default();
        let accepting = spawn(async move { server::accept(far, tls.server, &settings).await.unwrap() });
        let name = ServerName::try_from("server").unwrap();
        let stream =
            tokio_rustls::TlsConnector::from(Arc::clone(&tls.client)).connect(name, near).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = spawn(connection);
        let ours = accepting.await.unwrap();
        let request = || http::Request::builder().method("CONNECT").uri("10.0.0.1:80").body(()).unwrap();

        let (answer, _body) = send.send_request(request(), false).unwrap();
        ours.next().await.unwrap().refuse(503);
        assert_eq!(answer.await.unwrap().status(), 503);

        let (answer, _body) = send.send_request(request(), false).unwrap();
        drop(ours.next().await.unwrap());
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::CANCEL));

        let (answer, mut body) = send.send_request(request(), false).unwrap();
        let mut tunnel = ours.next().await.unwrap().accept(&[]);
        let mut incoming = answer.await.unwrap().into_body();
        ours.drain();
        tunnel.write_all(b"still here").await.unwrap();
        assert_eq!(incoming.data().await.unwrap().unwrap(), "still here");
        body.send_data("x".into(), true).unwrap();
        let mut one = Vec::new();
        tunnel.read_to_end(&mut one).await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert!(receive_all(incoming).await.is_empty());
        drop((tunnel, send));
        assert!(ours.next().await.is_none());
        driver.await.unwrap().unwrap();
    });
}

/// RFC 9113 section 6.9.1: END_STREAM needs no window. A peer that grants credit only at the end must hear of the end.
#[test]
fn an_application_that_ends_with_the_window_ends_the_stream() {
    run(async {
        let tls = tls();
        let (near, far) = pair().await;
        let (mut app, app_far) = pair().await;
        let server = spawn(async move {
            let connection = server::accept(far, tls.server, &Settings::default()).await.unwrap();
            let incoming = connection.next().await.unwrap();
            let tunnel = incoming.accept(&[]);
            culvert_hbone::relay(tunnel, app_far, &Arc::default()).await
        });
        let name = ServerName::try_from("server").unwrap();
        let stream = tokio_rustls::TlsConnector::from(tls.client).connect(name, near).await.unwrap();
        let (send, connection) =
            h2::client::Builder::new().initial_window_size(5_000).handshake(stream).await.unwrap();
        let _driver = spawn(connection);
        let request = http::Request::builder().method("CONNECT").uri("10.0.0.1:80").body(()).unwrap();
        let (answer, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        app.write_all(&noise(5_000)).await.unwrap();
        let mut got = 0;
        while got < 5_000 {
            // Nothing is given back.
            got += answer.data().await.unwrap().unwrap().len();
        }
        app.shutdown().await.unwrap();
        while let Some(last) = answer.data().await {
            assert!(last.unwrap().is_empty());
        }
        body.send_data(bytes::Bytes::new(), true).unwrap();
        assert!(matches!(server.await.unwrap(), culvert_hbone::RelayEnd::Clean));
    });
}
