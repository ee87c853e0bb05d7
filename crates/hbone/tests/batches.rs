//! What many streams say in one turn of the event loop leaves together.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that fails says so")]

mod support;

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use culvert_hbone::{
    ClientConnection, ConnectRequest, Counters, RelayEnd, ServerConnection, Settings, Tunnel, client, relay,
    server,
};
use socket2::SockRef;
use support::{pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A message that is larger than a DATA frame.
const MESSAGE: usize = 16 << 10;

/// A client and a server, and the path from the one to the other.
struct Ends {
    client: ClientConnection,
    server: ServerConnection,
    path: Rc<TcpStream>,
}

async fn ends() -> Ends {
    let (tls, settings) = (tls(), Settings::default());
    let ((near, near_middle), (far_middle, far)) = (pair().await, pair().await);
    let (near_middle, far_middle) = (Rc::new(near_middle), Rc::new(far_middle));
    spawn(forward(near_middle.clone(), far_middle.clone()));
    spawn(forward(far_middle, near_middle.clone()));
    let (client, server) = tokio::join!(
        client::connect(near, tls.client, &settings),
        server::accept(far, tls.server, &settings)
    );
    Ends { client: client.unwrap(), server: server.unwrap(), path: near_middle }
}

async fn forward(from: Rc<TcpStream>, to: Rc<TcpStream>) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        from.readable().await.unwrap();
        let Ok(n) = from.try_read(&mut buffer) else { continue };
        let mut rest = &buffer[..n];
        if n == 0 {
            return;
        }
        while !rest.is_empty() {
            to.writable().await.unwrap();
            if let Ok(n) = to.try_write(rest) {
                rest = &rest[n..];
            }
        }
    }
}

impl Ends {
    async fn open(&self) -> (Tunnel, Tunnel) {
        let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: vec![] };
        let (near, far) =
            tokio::join!(self.client.open(request), async { self.server.next().await.unwrap().accept(&[]) });
        (near.unwrap().1, far)
    }

    /// Octets under way from the client that have not been forwarded.
    fn under_way(&self) -> usize {
        let mut octets = [MaybeUninit::uninit(); 1 << 18];
        SockRef::from(&*self.path).peek(&mut octets).unwrap_or(0)
    }
}

/// A relay in the hands of the test.
struct Held {
    relay: Pin<Box<dyn Future<Output = RelayEnd>>>,
    counters: Arc<Counters>,
    app: TcpStream,
    far_app: TcpStream,
}

impl Held {
    async fn new(ends: &Ends) -> Self {
        let (near, far) = ends.open().await;
        let (app, proxy) = pair().await;
        let (far_app, far_proxy) = pair().await;
        spawn(relay(far, far_proxy, &Arc::default()));
        let counters = Arc::<Counters>::default();
        Self { relay: Box::pin(relay(near, proxy, &counters)), counters, app, far_app }
    }

    /// Lets it run once; nobody else gets a turn.
    async fn step(&mut self) {
        poll_fn(|cx| {
            assert!(self.relay.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}

/// Relays whose applications have all written a message that nobody has read.
async fn about_to_read(ends: &Ends, n: usize) -> Vec<Held> {
    let mut all = Vec::new();
    for i in 0..n {
        let mut held = Held::new(ends).await;
        held.step().await;
        held.app.write_all(&vec![i as u8; MESSAGE]).await.unwrap();
        all.push(held);
    }
    // The event loop has to learn that they are readable.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ends.under_way(), 0);
    all
}

#[test]
fn messages_of_one_turn_leave_together() {
    run(async {
        let ends = ends().await;
        let mut all = about_to_read(&ends, 3).await;
        for held in &mut all {
            held.step().await;
            assert_eq!(held.counters.to_peer(), MESSAGE as u64);
        }
        assert_eq!(ends.under_way(), 0, "they wait for the end of the turn");
        for (i, held) in all.iter_mut().enumerate() {
            let mut got = vec![0; MESSAGE];
            held.far_app.read_exact(&mut got).await.unwrap();
            assert!(got.iter().all(|octet| *octet == i as u8));
        }
    });
}

#[test]
fn a_full_batch_does_not_wait() {
    run(async {
        let ends = ends().await;
        let mut all = about_to_read(&ends, 5).await;
        for held in &mut all {
            held.step().await;
        }
        assert!(ends.under_way() >= 3 * MESSAGE, "{}", ends.under_way());
        for held in &mut all {
            held.far_app.read_exact(&mut vec![0; MESSAGE]).await.unwrap();
        }
    });
}

/// A batch that leaves no room for what an application says is not taken for the application's end.
#[test]
fn a_batch_without_room_leaves_first() {
    run(async {
        let ends = ends().await;
        let (mut near, mut far) = ends.open().await;
        let mut all = about_to_read(&ends, 1).await;
        let held = &mut all[0];
        // Sealed, that is a little more than fifteen of sixteen records.
        let said = vec![7; 15 * 16_375 + 100];
        poll_fn(|cx| {
            assert!(
                matches!(Pin::new(&mut near).poll_write(cx, &said), Poll::Ready(Ok(n)) if n == said.len())
            );
            assert!(held.relay.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(held.counters.to_peer(), MESSAGE as u64);
        held.far_app.read_exact(&mut vec![0; MESSAGE]).await.unwrap();
        far.read_exact(&mut vec![0; said.len()]).await.unwrap();
    });
}

/// Connections that find no buffer for a batch send at once, and those that had one give it back.
#[test]
fn more_connections_than_buffers_still_send_everything() {
    run(async {
        for _ in 0..2 {
            let mut connections = Vec::new();
            for _ in 0..4 {
                let ends = ends().await;
                let all = about_to_read(&ends, 2).await;
                connections.push((ends, all));
            }
            for (_, all) in &mut connections {
                for held in all {
                    held.step().await;
                }
            }
            let held_back = connections.iter().filter(|(ends, _)| ends.under_way() == 0).count();
            assert_eq!(held_back, 2);
            for (_, all) in &mut connections {
                for held in all {
                    held.far_app.read_exact(&mut vec![0; MESSAGE]).await.unwrap();
                }
            }
        }
    });
}

/// What is sealed for the batch, for the output and for the peer's requests keeps its order on every stream.
#[test]
fn small_and_large_messages_keep_their_order() {
    run(async {
        let ends = ends().await;
        let mut writers = Vec::new();
        for i in 0..6_usize {
            let (near, far) = ends.open().await;
            let (app, proxy) = pair().await;
            let (far_app, far_proxy) = pair().await;
            spawn(relay(near, proxy, &Arc::default()));
            spawn(relay(far, far_proxy, &Arc::default()));
            let sizes = [70, 20_000, 1, 4_096, 4_097, 16_375, 90_000, 300];
            let said: Vec<Vec<u8>> = (0..200)
                .map(|turn| vec![(turn * 7 + i) as u8; sizes[(turn * (i + 1)) % sizes.len()]])
                .collect();
            let (mut from, mut to, whole) = (app, far_app, said.concat());
            let writer = spawn(async move {
                for (turn, message) in said.iter().enumerate() {
                    from.write_all(message).await.unwrap();
                    if turn % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                from.shutdown().await.unwrap();
                from
            });
            let reader = spawn(async move {
                let mut got = Vec::new();
                to.read_to_end(&mut got).await.unwrap();
                assert!(got == whole, "{} of {} octets", got.len(), whole.len());
            });
            writers.push((writer, reader));
        }
        for (writer, reader) in writers {
            writer.await.unwrap();
            reader.await.unwrap();
        }
    });
}
