//! Endings, resets, exact counts. A-PO-13
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use std::sync::atomic::Ordering;

use super::*;

/// A connection: (our end, the relay's end).
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// Runs `test` with the outer ends of a relayed pair; gives the relay's verdict and its counts.
async fn with<F: Future<Output = ()>>(
    test: impl FnOnce(TcpStream, TcpStream) -> F,
) -> (Result<(), RelayError>, u64, u64) {
    let ((client, a), (b, server)) = (connection().await, connection().await);
    let counts = ByteCounts::default();
    let both = async { tokio::join!(relay(a, b, &counts), test(client, server)) };
    let (verdict, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    (verdict, counts.a_to_b.load(Ordering::Relaxed), counts.b_to_a.load(Ordering::Relaxed))
}

/// Bytes that differ everywhere, so that a lost or swapped piece shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn large_data_both_ways_is_identical_and_counted_exactly() {
    let (up, down) = (pattern(3 << 20), pattern((5 << 20) + 7));
    let (verdict, n_up, n_down) = with(|mut client, mut server| async move {
        let (mut up_seen, mut down_seen) = (Vec::new(), Vec::new());
        let (mut client_read, mut client_write) = client.split();
        let (mut server_read, mut server_write) = server.split();
        let write = async {
            // Pieces of changing size.
            for (n, piece) in up.chunks(40_961).enumerate() {
                let (one, two) = piece.split_at(piece.len() / (n % 5 + 1));
                client_write.write_all(one).await.unwrap();
                client_write.write_all(two).await.unwrap();
            }
            client_write.shutdown().await.unwrap();
        };
        let answer = async {
            server_write.write_all(&down).await.unwrap();
            server_write.shutdown().await.unwrap();
        };
        let read_up = async {
            // A slow reader: the relay meets a full socket.
            let mut piece = vec![0; 65_536];
            loop {
                match server_read.read(&mut piece).await.unwrap() {
                    0 => break,
                    length => up_seen.extend_from_slice(&piece[..length]),
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(write, answer, read_up, async {
            client_read.read_to_end(&mut down_seen).await.unwrap();
        });
        assert!(up_seen == up && down_seen == down);
    })
    .await;
    verdict.unwrap();
    assert_eq!((n_up, n_down), (3 << 20, (5 << 20) + 7));
}

#[tokio::test]
async fn one_side_may_end_while_the_other_goes_on() {
    let (verdict, n_up, n_down) = with(|mut client, mut server| async move {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        server.write_all(b"a long answer").await.unwrap();
        drop(server);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "a long answer");
    })
    .await;
    verdict.unwrap();
    assert_eq!((n_up, n_down), (8, 13));
}

#[tokio::test]
async fn a_reset_stays_a_reset() {
    let (verdict, n_up, _) = with(|mut client, mut server| async move {
        client.write_all(b"half a sen").await.unwrap();
        let mut text = [0; 10];
        server.read_exact(&mut text).await.unwrap();
        rst_on_close(&client).unwrap();
        drop(client);
        assert_eq!(server.read(&mut text).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::A(_))), "{verdict:?}");
    assert_eq!(n_up, 10);

    let (verdict, ..) = with(|mut client, server| async move {
        rst_on_close(&server).unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::B(_))), "{verdict:?}");
}

/// Writes until neither the relay nor a socket takes any more.
async fn fill(client: &TcpStream) {
    let (bytes, mut refusals) = (vec![7; 1 << 20], 0);
    while refusals < 100 {
        match client.try_write(&bytes) {
            Ok(_) => refusals = 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refusals += 1;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A server refuses an upload and closes: it has not read everything, so its answer is followed by a reset, which the
/// relay meets first where it writes. data-path 4.8
#[tokio::test]
async fn what_was_said_before_a_reset_arrives_before_it() {
    let answer = pattern(100_000);
    for turned in [false, true] {
        let verdict = with(|client, server| async {
            let (mut client, mut server) = if turned { (server, client) } else { (client, server) };
            fill(&client).await;
            server.write_all(&answer).await.unwrap();
            drop(server);
            let mut seen = vec![0; answer.len()];
            client.read_exact(&mut seen).await.unwrap();
            assert!(seen == answer);
            assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        })
        .await
        .0;
        let as_it_was = if turned {
            matches!(verdict, Err(RelayError::A(_)))
        } else {
            matches!(verdict, Err(RelayError::B(_)))
        };
        assert!(as_it_was, "{verdict:?}");
    }
}

/// What the relay's socket has taken for a client is not with the client yet, if that is far away or slow.
#[tokio::test]
async fn what_was_said_before_a_reset_is_not_lost_on_its_way() {
    let answer = pattern(100_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let client = client.connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (mut client, a) = (client.unwrap(), accepted.unwrap().0);
    let (b, mut server) = connection().await;
    let counts = ByteCounts::default();
    let test = async {
        fill(&client).await;
        server.write_all(&answer).await.unwrap();
        drop(server);
        while counts.b_to_a.load(Ordering::Relaxed) < 100_000 {
            tokio::task::yield_now().await;
        }
        // The relay has nothing left to do for its own part.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut seen = vec![0; answer.len()];
        client.read_exact(&mut seen).await.unwrap();
        assert!(seen == answer);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    };
    let both = async { tokio::join!(relay(a, b, &counts), test) };
    let (verdict, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert!(matches!(verdict, Err(RelayError::B(_))), "{verdict:?}");
}

/// Both have gone while each had more to get: neither direction waits for the other.
#[tokio::test]
async fn two_sides_that_are_gone_end_the_relay() {
    let (verdict, ..) = with(|client, server| async move {
        fill(&client).await;
        fill(&server).await;
        // Octets are unread on both, so both reset.
        drop((client, server));
    })
    .await;
    assert!(verdict.is_err());
}

/// The other side does not take what the one that cut its connection said: that holds nobody for ever.
#[tokio::test(start_paused = true)]
async fn last_words_have_their_time() {
    let (verdict, ..) = with(|client, server| async move {
        fill(&client).await;
        fill(&server).await;
        drop(server);
        let begin = Instant::now();
        let error = client.ready(Interest::ERROR).await.unwrap();
        assert!(error.is_error() && begin.elapsed() >= LAST_WORDS);
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::B(_))), "{verdict:?}");
}

/// It has ended its side, waits for an answer, and dies: the silent far side hears of it.
#[tokio::test]
async fn a_reset_after_the_end_is_noticed_without_traffic() {
    let (verdict, ..) = with(|mut client, mut server| async move {
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        rst_on_close(&client).unwrap();
        drop(client);
        let end = server.ready(Interest::ERROR).await.unwrap();
        assert!(end.is_error());
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::A(_))), "{verdict:?}");
}

#[tokio::test]
async fn dropping_the_relay_resets_both() {
    let ((mut client, a), (b, mut server)) = (connection().await, connection().await);
    let counts = ByteCounts::default();
    let cut = tokio::time::timeout(Duration::from_millis(20), relay(a, b, &counts)).await;
    assert!(cut.is_err());
    for side in [&mut client, &mut server] {
        assert_eq!(side.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// Bulk goes through a pipe: exact, with an end that is an end, and the pipe is given back.
#[tokio::test]
async fn bulk_is_spliced_and_exact() {
    let (up, down) = (pattern(24 << 20), pattern(24 << 20));
    let (verdict, n_up, n_down) = with(|mut client, mut server| async move {
        let (mut up_seen, mut down_seen) = (vec![0; up.len()], Vec::new());
        let (mut client_read, mut client_write) = client.split();
        let (mut server_read, mut server_write) = server.split();
        let write = async {
            client_write.write_all(&up).await.unwrap();
            // A pause, a small piece, and bulk again.
            client_write.write_all(b"pause").await.unwrap();
        };
        let read = async {
            server_read.read_exact(&mut up_seen).await.unwrap();
            let mut text = [0; 5];
            server_read.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"pause");
        };
        tokio::join!(write, read);
        let answer = async {
            server_write.write_all(&down).await.unwrap();
            server_write.shutdown().await.unwrap();
        };
        tokio::join!(answer, async {
            client_read.read_to_end(&mut down_seen).await.unwrap();
        });
        assert!(up_seen == up && down_seen == down);
        client_write.shutdown().await.unwrap();
        assert_eq!(server_read.read(&mut [0; 1]).await.unwrap(), 0);
    })
    .await;
    verdict.unwrap();
    assert_eq!((n_up, n_down), ((24 << 20) + 5, 24 << 20));
    assert!(pump::kept_pipes() > 0, "it went through a pipe");
}

/// Two fast sockets never make the relay wait: the others on its thread get their turn all the same.
#[tokio::test]
async fn bulk_leaves_the_thread_to_others() {
    use std::io::{Read as _, Write as _};
    const LENGTH: usize = 512 << 20;
    let ((client, a), (b, server)) = (connection().await, connection().await);
    let [mut client, mut server] = [client, server].map(|stream| {
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    });
    let feed = std::thread::spawn(move || {
        let bytes = vec![7; 1 << 20];
        (0..LENGTH >> 20).for_each(|_| client.write_all(&bytes).unwrap());
    });
    let take = std::thread::spawn(move || {
        let (mut bytes, mut taken) = (vec![0; 1 << 20], 0);
        while taken < LENGTH {
            taken += server.read(&mut bytes).unwrap();
        }
    });
    let counts = ByteCounts::default();
    let (mut relay, mut most) = (std::pin::pin!(relay(a, b, &counts)), 0);
    let measured = std::future::poll_fn(|context| {
        let before = counts.a_to_b.load(Ordering::Relaxed);
        let polled = relay.as_mut().poll(context);
        most = most.max(counts.a_to_b.load(Ordering::Relaxed) - before);
        polled
    });
    tokio::time::timeout(Duration::from_secs(60), measured).await.unwrap().unwrap();
    feed.join().unwrap();
    take.join().unwrap();
    assert!(most <= pump::most_at_a_time(), "octets at a time: {most}");
}

/// A cut in the middle of bulk is a cut for the other side, and its pipe, which is not empty, is not used again.
#[tokio::test]
async fn a_reset_in_the_middle_of_bulk_stays_a_reset() {
    let (verdict, n_up, _) = with(|mut client, mut server| async move {
        let bytes = vec![7; 16 << 20];
        let (sent, got) = tokio::join!(
            async {
                client.write_all(&bytes).await.unwrap();
                // More than fits on the way: the relay holds some of it.
                let _ = tokio::time::timeout(Duration::from_millis(50), client.write_all(&bytes)).await;
                rst_on_close(&client).unwrap();
                drop(client);
            },
            async {
                let mut buffer = vec![0; 16 << 20];
                server.read_exact(&mut buffer).await.unwrap();
            }
        );
        let ((), ()) = (sent, got);
        let mut buffer = vec![0; 1 << 20];
        let end = loop {
            match server.read(&mut buffer).await {
                Ok(0) => panic!("looks complete"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::A(_))), "{verdict:?}");
    assert!(n_up >= 16 << 20);

    let before = pump::kept_pipes();
    let (verdict, ..) = with(|mut client, mut server| async move {
        let bytes = vec![7; 64 << 20];
        let reading = async {
            let mut buffer = vec![0; 16 << 20];
            server.read_exact(&mut buffer).await.unwrap();
            rst_on_close(&server).unwrap();
            drop(server);
        };
        let (sent, ()) = tokio::join!(client.write_all(&bytes), reading);
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    assert!(matches!(verdict, Err(RelayError::B(_))), "{verdict:?}");
    assert!(pump::kept_pipes() <= before, "a pipe with bytes in it is gone");
}
