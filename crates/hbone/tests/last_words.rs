//! What is said last, by a path that is slow or by a peer that cuts the connection.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use culvert_hbone::{
    ConnectionEnd, Counters, Metrics, RelayEnd, Settings, TunnelError, client, relay, server,
};
use support::{eventually, noise, pair, request, reset, run, spawn, tls, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Forwards from one socket to another, but not while the gate is shut.
async fn forward(from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: Rc<Semaphore>) {
    let (mut from, mut buffer) = (from, vec![0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let _open = gate.acquire().await.unwrap();
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// The last tunnel has ended in order, and with it the connection; most of what it said is still on its way.
#[test]
fn a_slow_path_does_not_cut_what_was_said_last() {
    run(async {
        // The end comes with the bytes, or when the socket takes no more.
        tokio::join!(end_on_a_slow_path(0, false), end_on_a_slow_path(50, false));
    });
}

/// Nor does the end of the connection, which cuts another tunnel.
#[test]
fn a_cut_takes_nothing_from_a_tunnel_that_has_ended() {
    run(async {
        tokio::join!(end_on_a_slow_path(0, true), end_on_a_slow_path(50, true));
    });
}

async fn end_on_a_slow_path(turns_between: usize, with_another: bool) {
    let (tls, metrics) = (tls(), Arc::<Metrics>::default());
    let (settings, theirs) =
        (Settings { metrics: Some(metrics.clone()), ..Settings::default() }, Settings::default());
    let ((near, near_middle), (far_middle, far)) = (pair().await, pair().await);
    socket2::SockRef::from(&near).set_send_buffer_size(8192).unwrap();
    socket2::SockRef::from(&near_middle).set_recv_buffer_size(8192).unwrap();
    let (gate, open) = (Rc::new(Semaphore::new(1)), Rc::new(Semaphore::new(1)));
    let ((from_near, to_near), (from_far, to_far)) = (near_middle.into_split(), far_middle.into_split());
    let _path = [spawn(forward(from_near, to_far, gate.clone())), spawn(forward(from_far, to_near, open))];
    let (client, server) =
        tokio::join!(client::connect(near, tls.client, &settings), server::accept(far, tls.server, &theirs));
    let (client, server) = (client.unwrap(), server.unwrap());
    let open = || async {
        let (near, far) =
            tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
        (near.unwrap().1, far)
    };
    let (mut near, mut far) = open().await;
    let other = if with_another { Some(open().await) } else { None };
    far.shutdown().await.unwrap();
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);

    let shut = gate.acquire().await.unwrap();
    let bytes = noise(250_000);
    near.write_all(&bytes).await.unwrap();
    for _ in 0..turns_between {
        tokio::task::yield_now().await;
    }
    near.shutdown().await.unwrap();
    drop(near);
    if with_another {
        client.close();
    }
    drop(client);
    // Longer than a peer is waited for that was told goodbye and owes nothing.
    let said = tokio::time::timeout(Duration::from_millis(1500), metrics.all_closed()).await;
    assert!(said.is_err(), "a process that ended now would take it along");
    drop(shut);
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got == bytes, "{} of {}", got.len(), bytes.len());
    assert!(server.next().await.is_none());
    metrics.all_closed().await;
    drop(other);
}

/// All that a peer had to say is there, with its end, and our application has ended as well; but what that said is not
/// with the peer when it cuts the connection. That is no clean end; it is one if the peer takes it late.
#[test]
fn what_did_not_reach_a_peer_that_cut_the_connection_is_no_clean_end() {
    run(async {
        for (peer_ends_first, is_cut) in [(true, true), (false, true), (true, false), (false, false)] {
            let (tls, settings) = (tls(), Settings::default());
            let ((near, near_middle), (far_middle, far)) = (pair().await, pair().await);
            socket2::SockRef::from(&near).set_send_buffer_size(8192).unwrap();
            socket2::SockRef::from(&near_middle).set_recv_buffer_size(8192).unwrap();
            let (gate, open) = (Rc::new(Semaphore::new(1)), Rc::new(Semaphore::new(1)));
            let ((from_near, to_near), (from_far, to_far)) =
                (near_middle.into_split(), far_middle.into_split());
            let path = {
                let gate = gate.clone();
                spawn(async {
                    tokio::join!(forward(from_near, to_far, gate), forward(from_far, to_near, open))
                })
            };
            let (client, server) = tokio::join!(
                client::connect(near, tls.client, &settings),
                server::accept(far, tls.server, &settings)
            );
            let (client, server) = (client.unwrap(), server.unwrap());
            let (opened, mut far) =
                tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
            let (mut app, proxy) = pair().await;
            let counters = Arc::<Counters>::default();
            let relay = spawn(told("near", relay(opened.unwrap().1, proxy, &counters)));

            let shut = gate.acquire().await.unwrap();
            let (bytes, mut text) = (noise(60_000), String::new());
            for peer_ends in [peer_ends_first, !peer_ends_first] {
                if peer_ends {
                    far.write_all(b"all").await.unwrap();
                    far.shutdown().await.unwrap();
                    app.read_to_string(&mut text).await.unwrap();
                    assert_eq!(text, "all");
                } else {
                    // The end comes with the octets: nobody reads an application while the peer's socket is full.
                    assert_eq!(app.try_write(&bytes).unwrap(), bytes.len());
                    app.shutdown().await.unwrap();
                    eventually("all is with the tunnel", || counters.to_peer() == 60_000).await;
                }
            }
            assert!(!relay.is_finished());
            if is_cut {
                // With octets that nobody has read, this is a reset.
                path.abort();
            }
            drop(shut);
            let is_as_said = match relay.await.unwrap() {
                RelayEnd::Broken(TunnelError::ConnectionEnded(ConnectionEnd::Io(..))) => is_cut,
                RelayEnd::Clean => !is_cut,
                _ => false,
            };
            assert!(is_as_said, "peer first {peer_ends_first}, cut {is_cut}");
        }
    });
}

/// A peer that has said its last words, with their end, and cuts the connection: a write that finds out first takes
/// nothing of them away.
#[test]
fn what_a_peer_said_before_it_cut_the_connection_is_read_also_when_a_write_fails() {
    run(async {
        let tls = tls();
        let settings = Settings::default();
        let ((near, mut between), (mut beyond, far)) = (pair().await, pair().await);
        let both = async {
            let (client, server) = tokio::join!(
                client::connect(near, tls.client.clone(), &settings),
                server::accept(far, tls.server.clone(), &settings)
            );
            let (client, server) = (client.unwrap(), server.unwrap());
            let (opened, far) =
                tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
            let (mut near, mut far) = (opened.unwrap().1, far);
            near.write_all(b"question").await.unwrap();
            far.read_exact(&mut [0; 8]).await.unwrap();
            (client, server, near, far)
        };
        let (client, _server, mut near, mut far) = tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut between, &mut beyond) => unreachable!(),
            opened = both => opened,
        };
        far.write_all(b"last words").await.unwrap();
        far.shutdown().await.unwrap();
        let mut said = vec![0; 1000];
        let length = beyond.read(&mut said).await.unwrap();
        // In one turn of this thread: the driver has not read them when it writes.
        near.write_all(b"more").await.unwrap();
        assert_eq!(between.try_write(&said[..length]).unwrap(), length);
        reset(between);
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "last words");
        eventually("the connection is lost", || client.ended().is_some()).await;
        assert!(matches!(client.ended(), Some(ConnectionEnd::Io(..))), "{:?}", client.ended());
        assert!(near.write_all(b"more").await.is_err(), "and nothing looks as if it had arrived");
    });
}
