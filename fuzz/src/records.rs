//! TLS records on a server's socket: anything instead of a handshake, or anything behind a good one. The server ends
//! such a connection in order and serves the next one.

use std::cell::OnceCell;
use std::io::Cursor;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::{ConnectRequest, Settings, client, server};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::ConnectionState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::input::Input;
use crate::support::{self, Tls};

thread_local!(static TLS: OnceCell<Rc<Tls>> = const { OnceCell::new() });

/// One input: how to begin, then bytes.
pub fn records(data: &[u8]) {
    let mut input = Input(data);
    let begin = input.byte();
    let cut = input.short();
    let tls = TLS.with(|tls| tls.get_or_init(|| Rc::new(support::tls())).clone());
    support::run(async {
        let (mut near, far) = support::pair().await;
        let settings = Settings { handshake_timeout: Duration::from_secs(5), ..Settings::default() };
        let config = tls.server.clone();
        let serving = support::spawn(async move {
            let Ok(connection) = server::accept(far, config, &settings).await else { return false };
            while connection.next().await.is_some() {}
            true
        });
        let _ = near.set_nodelay(true);
        let accepted = match begin % 3 {
            // Anything.
            0 => send(&mut near, input.0).await,
            // The client's own first flight, broken off and continued otherwise.
            1 => {
                let hello = first_flight(&tls);
                let cut = cut % (hello.len() + 1);
                send(&mut near, &[&hello[..cut], input.0].concat()).await
            }
            // A whole handshake and a request, then anything.
            _ => behind_a_handshake(&mut near, &tls, input.0).await,
        };
        drop(near);
        let served = serving.await.expect("no panic");
        assert!(served || !accepted);
    });
    if begin & 0x40 != 0 {
        support::run(serves_the_next(&tls));
    }
}

async fn send(near: &mut TcpStream, bytes: &[u8]) -> bool {
    let _ = near.write_all(bytes).await;
    let _ = near.shutdown().await;
    let _ = tokio::io::copy(near, &mut tokio::io::sink()).await;
    false
}

fn first_flight(tls: &Tls) -> Vec<u8> {
    let name = "server".try_into().expect("a name");
    let mut client = UnbufferedClientConnection::new(tls.client.clone(), name).expect("a client");
    let mut out = vec![0; 4096];
    let mut length = 0;
    if let Ok(ConnectionState::EncodeTlsData(mut message)) = client.process_tls_records(&mut []).state {
        length = message.encode(&mut out).expect("room");
    }
    out.truncate(length);
    out
}

async fn behind_a_handshake(near: &mut TcpStream, tls: &Tls, bytes: &[u8]) -> bool {
    let name = "server".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(tls.client.clone(), name).expect("a client");
    let mut chunk = vec![0; 16 << 10];
    while client.is_handshaking() || client.wants_write() {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).expect("a vector takes all");
        }
        near.write_all(&out).await.expect("the server is there");
        if client.is_handshaking() {
            let n = near.read(&mut chunk).await.expect("the server is there");
            client.read_tls(&mut Cursor::new(&chunk[..n])).expect("a cursor reads");
            client.process_new_packets().expect("a good server");
        }
    }
    // The server's first record behind it: its handshake is over too.
    near.read_exact(&mut chunk[..5]).await.expect("the server is there");
    send(near, bytes).await;
    true
}

/// The listener's next connection is served as if nothing had been.
async fn serves_the_next(tls: &Tls) {
    let (near, far) = support::pair().await;
    let config = Arc::clone(&tls.server);
    let serving = support::spawn(async move {
        let connection = server::accept(far, config, &Settings::default()).await.expect("a good client");
        let request = connection.next().await.expect("a request");
        request.accept(&[]);
        connection.next().await.is_none()
    });
    let connection =
        client::connect(near, tls.client.clone(), &Settings::default()).await.expect("a good server");
    let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
    let answer = connection.open(request).await;
    drop((answer.expect("an answer"), connection));
    assert!(serving.await.expect("no panic"));
}
