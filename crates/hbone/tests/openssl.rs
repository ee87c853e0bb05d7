//! Our records against OpenSSL's, both roles: all suites, key updates from either side, tickets, close_notify.
//!
//! Needs `openssl` (3.0 or later) in the path. Where there is none the tests fail;
//! `CULVERT_SKIP_OPENSSL_TESTS=1` skips them, and each says so.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

mod support;

use std::io::Write as _;

use culvert_hbone::{ConnectRequest, ConnectionEnd, ServerConnection, Settings, client, server};
use support::process::{Folder, Process};
use support::{Tls, eventually, run, spawn, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Whether to leave the tests out; if not, there has to be an openssl.
#[expect(clippy::disallowed_methods, reason = "the test's own switch")]
fn skipped(name: &str) -> bool {
    if std::env::var_os("CULVERT_SKIP_OPENSSL_TESTS").is_some_and(|value| value == "1") {
        // Not by a macro: the harness would keep what a test that passes prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: CULVERT_SKIP_OPENSSL_TESTS=1");
        return true;
    }
    let found = std::process::Command::new("openssl").arg("version").output();
    assert!(
        found.is_ok_and(|done| done.status.success()),
        "{name} needs openssl in the path (set CULVERT_SKIP_OPENSSL_TESTS=1 to skip such tests)"
    );
    false
}

fn openssl(verb: &str, folder: &Folder, more: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.arg(verb).args(["-tls1_3", "-alpn", "h2", "-CAfile", &folder.path("roots.pem")]);
    command.args(["-cert", &folder.path("cert.pem"), "-key", &folder.path("key.pem")]);
    command.args(["-msg", "-msgfile", &folder.path("messages")]).args(more);
    command
}

/// How often OpenSSL has received, or sent, a message.
fn messages(folder: &Folder, received: bool, kind: &str) -> usize {
    let arrow = if received { "<<<" } else { ">>>" };
    let text = std::fs::read_to_string(folder.path("messages")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(arrow) && line.contains(kind)).count()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[l0, l1, l2, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn data(payload: &[u8]) -> Vec<u8> {
    frame(0, 0, 1, payload)
}

/// Preface, SETTINGS, `CONNECT a:1` on stream 1, and room for all that comes back.
fn hello() -> Vec<u8> {
    let request = [&[0x02, 7][..], b"CONNECT", &[0x01, 3], b"a:1"].concat();
    let room = (8_u32 << 20).to_be_bytes();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(4, 0, 0, &[]).as_slice(),
        &frame(1, 4, 1, &request),
        &frame(8, 0, 0, &room),
        &frame(8, 0, 1, &room),
    ]
    .concat()
}

/// SETTINGS, their acknowledgement, and `:status 200` on stream 1.
fn welcome() -> Vec<u8> {
    [frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), frame(1, 4, 1, &[0x88])].concat()
}

/// `openssl s_client` against our server, which sends back what comes on stream 1.
async fn client_process(
    tls: &Tls,
    folder: &Folder,
    suite: &str,
    settings: &Settings,
) -> (Process, ServerConnection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut process = Process::start(openssl(
        "s_client",
        folder,
        &["-brief", "-ciphersuites", suite, "-connect", &address],
    ));
    let (tcp, _) = listener.accept().await.unwrap();
    let connection = server::accept(tcp, tls.server.clone(), settings).await.unwrap();
    process.prints(b"CONNECTION ESTABLISHED").await;
    process.type_in(&hello()).await;
    let tunnel = connection.next().await.unwrap().accept(&[]);
    spawn(async move {
        let (mut read, mut write) = tokio::io::split(tunnel);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    (process, connection)
}

#[test]
fn openssl_as_client_with_every_suite_and_key_updates_from_it() {
    if skipped("openssl_as_client_with_every_suite_and_key_updates_from_it") {
        return;
    }
    for suite in SUITES {
        run(async {
            let tls = tls();
            let folder = Folder::new(&format!("client-{suite}"), &tls.pem);
            let (mut process, connection) = client_process(&tls, &folder, suite, &Settings::default()).await;
            process.type_in(&data(b"first")).await;
            process.prints(b"first").await;
            // Asks us to update too: once we have something to say, and once only.
            process.type_in(b"K\n").await;
            process.prints(b"KEYUPDATE").await;
            process.type_in(&data(b"second")).await;
            process.prints(b"second").await;
            assert_eq!(messages(&folder, true, "KeyUpdate"), 1, "{suite}: ours");
            process.errors.borrow_mut().clear();
            process.type_in(b"k\n").await;
            process.prints(b"KEYUPDATE").await;
            let large = vec![b'x'; 16_384];
            for _ in 0..40 {
                process.type_in(&data(&large)).await;
            }
            process.type_in(&data(b"third")).await;
            process.prints(b"third").await;
            assert_eq!(messages(&folder, false, "KeyUpdate"), 2, "{suite}: theirs");
            assert_eq!(messages(&folder, true, "KeyUpdate"), 1, "{suite}: ours");
            // The end of its input is a close_notify.
            process.close_input();
            assert!(connection.next().await.is_none());
            assert_eq!(connection.ended(), Some(ConnectionEnd::PeerClosed));
        });
    }
}

#[test]
fn our_key_updates_at_a_low_limit_and_our_close_notify_reach_openssl() {
    if skipped("our_key_updates_at_a_low_limit_and_our_close_notify_reach_openssl") {
        return;
    }
    for suite in SUITES {
        run(async {
            let tls = tls();
            let folder = Folder::new(&format!("limit-{suite}"), &tls.pem);
            let settings = Settings { records_per_key: 3, ..Settings::default() };
            let (mut process, connection) = client_process(&tls, &folder, suite, &settings).await;
            for round in 0..20 {
                let text = format!("round {round}.");
                process.type_in(&data(text.as_bytes())).await;
                process.prints(text.as_bytes()).await;
            }
            let updates = messages(&folder, true, "KeyUpdate");
            assert!(updates >= 5, "{suite}: {updates}");
            assert_eq!(messages(&folder, false, "KeyUpdate"), 0, "{suite}: ours do not ask");
            connection.close();
            assert!(process.child.wait().await.unwrap().success());
            assert_eq!(messages(&folder, true, "close_notify"), 1);
        });
    }
}

/// `openssl s_server` on a port of its own choice.
async fn server_process(folder: &Folder, suite: &str) -> (Process, TcpStream) {
    let process = Process::start(openssl(
        "s_server",
        folder,
        &["-accept", "127.0.0.1:0", "-ciphersuites", suite, "-Verify", "2", "-naccept", "1"],
    ));
    process.prints(b"\nACCEPT ").await;
    let address = || {
        let text = String::from_utf8_lossy(&process.output.borrow()).into_owned();
        let address = text.split("ACCEPT ").nth(1)?.lines().next()?.trim().to_owned();
        address.parse::<std::net::SocketAddr>().ok()
    };
    eventually("an address", || address().is_some()).await;
    let tcp = TcpStream::connect(address().unwrap()).await.unwrap();
    (process, tcp)
}

#[test]
fn openssl_as_server_with_tickets_and_key_updates_both_ways() {
    if skipped("openssl_as_server_with_tickets_and_key_updates_both_ways") {
        return;
    }
    for suite in SUITES {
        run(async {
            let tls = tls();
            let folder = Folder::new(&format!("server-{suite}"), &tls.pem);
            let (mut process, tcp) = server_process(&folder, suite).await;
            let settings = Settings { records_per_key: 4, ..Settings::default() };
            let connection = client::connect(tcp, tls.client.clone(), &settings).await.unwrap();
            let open = async {
                let request = ConnectRequest { authority: "a:1".into(), headers: Vec::new() };
                connection.open(request).await.unwrap().1
            };
            let answer = async {
                process.prints(b"PRI * HTTP/2.0").await;
                process.type_in(&welcome()).await;
                process
            };
            let (mut tunnel, mut process) = tokio::join!(open, answer);
            assert_eq!(messages(&folder, false, "NewSessionTicket"), 2, "tickets came first");
            for (round, command) in
                [b"", &b"K\n"[..], b"", b"k\n", b"K\n", b"", b"", b"", b""].into_iter().enumerate()
            {
                if !command.is_empty() {
                    let before = messages(&folder, false, "KeyUpdate");
                    process.type_in(command).await;
                    eventually("a key update", || messages(&folder, false, "KeyUpdate") > before).await;
                }
                let down = format!("down {round}.");
                process.type_in(&data(down.as_bytes())).await;
                let mut buffer = vec![0; down.len()];
                tunnel.read_exact(&mut buffer).await.unwrap();
                assert_eq!(buffer, down.as_bytes());
                let up = format!("up {round}.");
                tunnel.write_all(up.as_bytes()).await.unwrap();
                process.prints(up.as_bytes()).await;
            }
            // Two answers, and those our limit wanted.
            assert!(messages(&folder, true, "KeyUpdate") >= 3);
            connection.close();
            eventually("our close_notify", || messages(&folder, true, "close_notify") == 1).await;
        });
    }
}
