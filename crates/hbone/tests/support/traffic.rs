//! Applications that send random traffic through relays, and relays that follow a connection when it moves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use culvert_hbone::{Counters, RelayEnd, Tunnel, relay};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::spawn;

pub(crate) fn tokio_socket(tcp: std::net::TcpStream) -> TcpStream {
    TcpStream::from_std(tcp).unwrap()
}

/// The relays of one end by stream.
#[derive(Default)]
pub(crate) struct Relays {
    pub(crate) running: HashMap<u32, JoinHandle<RelayEnd>>,
    pub(crate) counters: HashMap<u32, Arc<Counters>>,
    pub(crate) clean: usize,
}

impl Relays {
    pub(crate) fn start(&mut self, tunnel: Tunnel, app: TcpStream) {
        let id = tunnel.id();
        let counters = self.counters.entry(id).or_default().clone();
        self.running.insert(id, spawn(relay(tunnel, app, &counters)));
    }

    /// After an export: every relay ends, with its socket unless it was done.
    pub(crate) async fn stop(&mut self) -> HashMap<u32, TcpStream> {
        let mut apps = HashMap::new();
        for (id, running) in self.running.drain() {
            match running.await.unwrap() {
                RelayEnd::Moved(app) => _ = apps.insert(id, tokio_socket(app)),
                RelayEnd::Clean => self.clean += 1,
                RelayEnd::Broken(error) => panic!("stream {id}: {error}"),
            }
        }
        apps
    }

    pub(crate) fn resume(&mut self, tunnels: Vec<Tunnel>, mut apps: HashMap<u32, TcpStream>) {
        for tunnel in tunnels {
            // A relay that was done has dropped its tunnel here, but its end may not have been seen by the core.
            if let Some(app) = apps.remove(&tunnel.id()) {
                self.start(tunnel, app);
            }
        }
        assert!(apps.is_empty(), "every socket finds its tunnel: {apps:?}");
    }
}

/// An application that sends `up` in random pieces, half-closes, and reads until the end.
pub(crate) async fn application(socket: TcpStream, up: Vec<u8>, seed: u64) -> Vec<u8> {
    let (mut read, mut write) = socket.into_split();
    let send = async move {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rest = up.as_slice();
        while !rest.is_empty() {
            let most = if random.random_bool(0.5) { 3000 } else { 200_000 };
            let (now, later) = rest.split_at(random.random_range(1..=most).min(rest.len()));
            write.write_all(now).await.unwrap();
            rest = later;
            tokio::time::sleep(Duration::from_micros(random.random_range(0..300))).await;
        }
        write.shutdown().await.unwrap();
        write
    };
    let receive = async move {
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.unwrap();
        all
    };
    // The writing half stays open until both are done: dropping it would be no more than its shutdown.
    let (_write, all) = tokio::join!(send, receive);
    all
}

pub(crate) fn noise(random: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..most)];
    random.fill_bytes(&mut bytes);
    bytes
}

impl Relays {
    /// Waits until all are done, and says how many were.
    pub(crate) async fn finish(&mut self) -> usize {
        for (id, running) in self.running.drain() {
            let end = running.await.unwrap();
            assert!(matches!(end, RelayEnd::Clean), "stream {id}: {end:?}");
            self.clean += 1;
        }
        self.clean
    }
}
