//! What tunnels hold while applications do not read, and what is left of it afterwards. A process of its own: it looks
//! at the memory of the whole process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::sync::Arc;

use culvert_hbone::{
    Budgets, ClientConnection, ConnectRequest, Counters, ErrorCode, Limit, Memory, Metrics, OpenError,
    RelayEnd, ServerConnection, Settings, Tunnel, client, relay, server,
};
use net::memory::{Usage, keep_little, release};
use support::{Tls, eventually, pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn connect(tls: &Tls, settings: &Settings) -> (ClientConnection, ServerConnection) {
    let (near, far) = pair().await;
    let (near, far) = tokio::join!(
        client::connect(near, tls.client.clone(), settings),
        server::accept(far, tls.server.clone(), settings)
    );
    (near.unwrap(), far.unwrap())
}

fn request() -> ConnectRequest {
    ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() }
}

async fn open(client: &ClientConnection, server: &ServerConnection) -> (Tunnel, Tunnel) {
    let (near, far) =
        tokio::join!(client.open(request()), async { server.next().await.unwrap().accept(&[]) });
    (near.unwrap().1, far)
}

/// Writes until nothing more is taken: the owner at the far end does not read.
async fn fill(tunnel: &mut Tunnel) -> usize {
    let (bytes, mut sent) = (vec![7; 64 << 10], 0);
    let quiet = std::time::Duration::from_millis(100);
    while let Ok(n) = tokio::time::timeout(quiet, tunnel.write(&bytes)).await {
        sent += n.unwrap();
    }
    sent
}

async fn drained(tunnel: &mut Tunnel, length: usize) {
    let mut left = length;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let n = tunnel.read(&mut buffer).await.unwrap();
        assert!(n > 0 && buffer[..n].iter().all(|byte| *byte == 7));
        left -= n;
    }
}

/// An innocent stream moves megabytes past the stalled ones, exactly, with its end an end.
async fn goes_on(client: &ClientConnection, server: &ServerConnection) {
    let (near, far) = open(client, server).await;
    let ((mut near_app, a), (mut far_app, b)) = (pair().await, pair().await);
    let counters = [Arc::<Counters>::default(), Arc::default()];
    let near = spawn(relay(near, a, &counters[0]));
    let far = spawn(relay(far, b, &counters[1]));
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (sent, got) = tokio::join!(
        async {
            near_app.write_all(&bytes).await.unwrap();
            near_app.shutdown().await.unwrap();
        },
        async {
            let mut got = Vec::new();
            far_app.read_to_end(&mut got).await.unwrap();
            got
        }
    );
    let () = sent;
    assert!(got == bytes);
    far_app.shutdown().await.unwrap();
    assert_eq!(near_app.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(matches!(near.await.unwrap(), RelayEnd::Clean));
    assert!(matches!(far.await.unwrap(), RelayEnd::Clean));
}

#[test]
fn stalled_streams_hold_their_windows_only_and_everything_goes_back() {
    keep_little();
    run(async {
        let (memory, metrics) = (Arc::new(Memory::new(64 << 20)), Arc::<Metrics>::default());
        // The applications of this test pause as long as they like.
        let budgets = Budgets { slow_readers: std::time::Duration::from_secs(3600), ..Budgets::default() };
        let settings = Settings {
            memory: Some(memory.clone()),
            metrics: Some(metrics.clone()),
            budgets,
            ..Settings::default()
        };
        let tls = tls();
        // Once before it counts: buffers of the thread, tables of the libraries.
        let (client, server) = connect(&tls, &settings).await;
        goes_on(&client, &server).await;
        release();
        let before = Usage::now().unwrap();

        let mut stalled = Vec::new();
        for _ in 0..12 {
            let (mut near, far) = open(&client, &server).await;
            let sent = fill(&mut near).await;
            stalled.push((near, far, sent));
        }
        let held: usize = stalled.iter().map(|(.., sent)| sent).sum();
        assert!(stalled.iter().all(|(.., sent)| *sent <= 4 << 20), "a window each");
        assert!(held > 16 << 20, "more than the connection's window: {held}");
        assert!(memory.held() >= held as u64 - (1 << 20), "and it is known");
        goes_on(&client, &server).await;

        // Over the process's limit: who holds more than a share is refused new streams, and nobody else.
        let (other, other_server) = connect(&tls, &settings).await;
        while memory.held() <= memory.limit() {
            let (mut near, far) = open(&other, &other_server).await;
            let sent = fill(&mut near).await;
            stalled.push((near, far, sent));
        }
        let full = Usage::now().unwrap();
        assert!(full.private > before.private + (48 << 20), "{before:?} {full:?}");
        assert!(matches!(client.open(request()).await, Err(OpenError::Reset(ErrorCode::REFUSED_STREAM))));
        goes_on(&other, &other_server).await;
        eventually("counted", || metrics.exceeded(Limit::ProcessMemory) > 0).await;

        for (near, far, sent) in &mut stalled {
            drained(far, *sent).await;
            near.write_all(&[7; 1000]).await.unwrap();
            drained(far, 1000).await;
        }
        eventually("nothing held", || memory.held() == 0).await;
        goes_on(&other, &other_server).await;
        drop((stalled, other, other_server));
        release();
        let after = Usage::now().unwrap();
        println!("before {before:?}\nfull   {full:?}\nafter  {after:?}");
        // The end of the heap, and a fifth.
        assert!(after.private <= before.private * 6 / 5 + (2 << 20), "{before:?} {after:?}");
    });
}
