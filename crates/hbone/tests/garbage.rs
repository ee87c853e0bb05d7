//! What is no TLS, or not ours, on the server's port (recording TLS-31 and others).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::time::Duration;

use culvert_hbone::{AcceptError, Settings, server};
use support::{pair, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends `bytes` and returns all that came back, with the server's error.
async fn reply(bytes: &[u8], settings: Settings) -> (Vec<u8>, AcceptError) {
    let tls = tls();
    let (mut near, far) = pair().await;
    let server = spawn(async move { server::accept(far, tls.server, &settings).await.unwrap_err() });
    near.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let mut chunk = [0; 100];
    while let Ok(n) = near.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        got.extend_from_slice(&chunk[..n]);
    }
    drop(near);
    (got, server.await.unwrap())
}

#[test]
fn garbage_gets_the_recorded_alert() {
    run(async {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hbone/TLS-31.json");
        let recording: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let long_record = [&[22, 3, 1, 0x4e, 0x20][..], &[0; 20_000]].concat();
        for (name, bytes) in [
            ("http1", &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
            ("h2c", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("bytes", &[0x77; 64]),
            ("zeros", &[0; 64]),
            ("long_record", &long_record),
        ] {
            let (got, error) = reply(bytes, Settings::default()).await;
            let hex: String = got.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(recording["observed"][name]["received"], hex, "{name}");
            assert_eq!(error.code(), "tls-handshake-failed", "{name}: {error}");
        }
    });
}

// W16
#[test]
fn silence_after_tcp_connect_is_let_go() {
    run(async {
        let settings = Settings { handshake_timeout: Duration::from_millis(100), ..Settings::default() };
        let (got, error) = reply(&[22, 3, 1], settings).await;
        assert!(got.is_empty());
        assert_eq!(error.code(), "tls-handshake-timeout");
    });
}
