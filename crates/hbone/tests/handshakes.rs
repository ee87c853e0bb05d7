//! What TLS handshakes under way hold. A process of its own: it looks at the memory of the whole process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use culvert_hbone::{Settings, server};
use net::memory::{self, keep_little, release};
use rustls::pki_types::ServerName;
use support::{eventually, pair, run, spawn, tls};
use tokio::io::AsyncWriteExt;

const MANY: usize = 200;

/// A message that does not end, in records.
fn unfinished() -> Vec<u8> {
    let mut message = vec![1, 0, 0xf0, 0];
    message.resize(60_000, 7);
    let record =
        |part: &[u8]| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    message.chunks(15_000).flat_map(record).collect()
}

#[test]
fn a_handshake_under_way_holds_little() {
    keep_little();
    run(async {
        let tls = tls();
        let mut hello = Vec::new();
        let name = ServerName::try_from("10.0.0.1").unwrap();
        rustls::ClientConnection::new(tls.client.clone(), name).unwrap().write_tls(&mut hello).unwrap();
        for (what, said, most_kib) in [
            ("once before", vec![], 0),
            ("silent", vec![], 6),
            ("answered", hello, 14),
            ("unfinished", unfinished(), 192),
        ] {
            release();
            let before = memory::allocated();
            let mut ends = Vec::new();
            for _ in 0..MANY {
                let (mut near, far) = pair().await;
                let server = tls.server.clone();
                let task =
                    spawn(async move { server::accept(far, server, &Settings::default()).await.map(drop) });
                near.write_all(&said).await.unwrap();
                ends.push((near, task));
            }
            if what == "answered" {
                for (near, _) in &ends {
                    near.readable().await.unwrap();
                }
            }
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert!(ends.iter().all(|(_, task)| !task.is_finished()), "{what}");
            let held = memory::allocated().saturating_sub(before) / MANY as u64;
            println!("{what}: {held} octets each");
            assert!(most_kib == 0 || held <= most_kib << 10, "{what}: {held}");
            ends.iter().for_each(|(_, task)| task.abort());
            eventually("all are over", || ends.iter().all(|(_, task)| task.is_finished())).await;
        }
    });
}
