//! From the handshake to records of our own: the configuration's key log, TLS 1.2, and bytes in any pieces.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use culvert_hbone::{
    ClientConnection, ConnectRequest, ExportError, ServerConnection, Settings, Tunnel, client, server,
};
use rustls::{ClientConfig, KeyLog, ServerConfig};
use support::{Tls, pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn connect(
    (near, far): (TcpStream, TcpStream),
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (ClientConnection, ServerConnection) {
    let settings = Settings { records_per_key: 3, ..Settings::default() };
    let (client, server) =
        tokio::join!(client::connect(near, client, &settings), server::accept(far, server, &settings));
    (client.unwrap(), server.unwrap())
}

async fn open(client: &ClientConnection, server: &ServerConnection) -> (Tunnel, Tunnel) {
    let request = ConnectRequest { authority: "a:1".into(), headers: Vec::new() };
    let (near, far) = tokio::join!(client.open(request), async { server.next().await.unwrap().accept(&[]) });
    (near.unwrap().1, far)
}

async fn carries(near: &mut Tunnel, far: &mut Tunnel) {
    for text in ["one", "two", "three", "four", "five"] {
        let mut buffer = vec![0; text.len()];
        near.write_all(text.as_bytes()).await.unwrap();
        far.read_exact(&mut buffer).await.unwrap();
        far.write_all(&buffer).await.unwrap();
        near.read_exact(&mut buffer).await.unwrap();
        assert_eq!(buffer, text.as_bytes());
    }
}

#[derive(Debug, Default)]
struct Seen(Mutex<BTreeMap<String, usize>>);

impl KeyLog for Seen {
    fn log(&self, label: &str, _client_random: &[u8], _secret: &[u8]) {
        *self.0.lock().unwrap().entry(label.to_owned()).or_default() += 1;
    }
}

#[test]
fn the_configurations_own_key_log_still_sees_every_secret_once() {
    run(async {
        let Tls { client, server, .. } = tls();
        let seen = Arc::new(Seen::default());
        let mut logged = ClientConfig::clone(&client);
        logged.key_log = seen.clone();
        let (client, server) = connect(pair().await, Arc::new(logged), server).await;
        let (mut near, mut far) = open(&client, &server).await;
        carries(&mut near, &mut far).await;
        let labels: Vec<(String, usize)> = seen.0.lock().unwrap().clone().into_iter().collect();
        let expected = [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "EXPORTER_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_TRAFFIC_SECRET_0",
        ]
        .map(|label| (label.to_owned(), 1));
        assert_eq!(labels, expected);
    });
}

#[test]
fn tls_1_2_stays_with_the_library_and_cannot_be_moved() {
    run(async {
        let (client, server) = support::tls12();
        let (client, server) = connect(pair().await, client, server).await;
        let (mut near, mut far) = open(&client, &server).await;
        carries(&mut near, &mut far).await;
        assert!(matches!(client.export(), Err(ExportError::ForeignRecords)));
        assert!(matches!(server.export(), Err(ExportError::ForeignRecords)));
        carries(&mut near, &mut far).await;
    });
}

/// Passes bytes on in pieces of at most `most`.
async fn dribble(from: TcpStream, to: TcpStream, most: usize) {
    let pass = async |mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf| {
        let mut piece = vec![0; most];
        while let Ok(n) = from.read(&mut piece).await {
            if n == 0 || to.write_all(&piece[..n]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    tokio::join!(pass(from_read, to_write), pass(to_read, from_write));
}

#[test]
fn the_handshake_and_what_follows_may_come_in_any_pieces() {
    for most in [1, 2, 5, 17, 700, 65_536] {
        run(async {
            let Tls { client, server, .. } = tls();
            let (near, near_middle) = pair().await;
            let (far_middle, far) = pair().await;
            near_middle.set_nodelay(true).unwrap();
            far_middle.set_nodelay(true).unwrap();
            spawn(dribble(near_middle, far_middle, most));
            let (client, server) = connect((near, far), client, server).await;
            let (mut near, mut far) = open(&client, &server).await;
            carries(&mut near, &mut far).await;
        });
    }
}
