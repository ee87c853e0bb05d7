//! A listener that knows no rule: it answers every request with 200 and sends every byte back. What it does right must
//! pass, what it does wrong must fail: a suite that cannot fail judges nothing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use clap::Parser as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::args::Cli;
use crate::cases;
use crate::expectations::Expectations;
use crate::http2::frame::{Frame, PREFACE, flag, kind};
use crate::http2::peer::Answer;
use crate::identity::Identity;
use crate::lab::Lab;
use crate::run::{self, Verdict};

fn config() -> Arc<ServerConfig> {
    let identity = Identity::self_signed("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(identity.chain, identity.key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Listens; each connection is handed to `serve`.
fn listen(serve: fn(TcpStream, Arc<ServerConfig>)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = config();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, config) = (socket.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || serve(socket, config));
        }
    });
    address
}

/// Ends when the client does.
fn naive(socket: TcpStream, config: Arc<ServerConfig>) {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let mut preface = [0; PREFACE.len()];
    if tls.read_exact(&mut preface).is_err() {
        return;
    }
    let mut inbox = Vec::new();
    let mut out = Frame::settings(&[]).encode();
    let mut buffer = [0; 16_384];
    loop {
        while let Some(frame) = Frame::take(&mut inbox) {
            let answer = match frame.kind {
                // :status 200 by its index.
                kind::HEADERS => Frame::headers(frame.stream, [0x88]),
                kind::DATA => Frame { flags: frame.flags & flag::END_STREAM, ..frame },
                kind::SETTINGS if !frame.has(flag::ACK) => Frame::settings_ack(),
                kind::PING => Frame { flags: flag::ACK, ..frame },
                _ => continue,
            };
            answer.encode_to(&mut out);
        }
        if tls.write_all(&out).is_err() {
            return;
        }
        out.clear();
        match tls.read(&mut buffer) {
            Ok(count @ 1..) => inbox.extend(&buffer[..count]),
            _ => return,
        }
    }
}

/// Asks for an answer whenever it has read a part of a frame. 200 for DATA that has come whole.
fn interrupting(socket: TcpStream, config: Arc<ServerConfig>) {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let mut preface = [0; PREFACE.len()];
    tls.read_exact(&mut preface).unwrap();
    tls.write_all(&Frame::settings(&[]).encode()).unwrap();
    let (mut inbox, mut buffer) = (Vec::new(), [0; 16_384]);
    while let Ok(count @ 1..) = tls.read(&mut buffer) {
        inbox.extend(&buffer[..count]);
        while let Some(frame) = Frame::take(&mut inbox) {
            if frame.kind == kind::DATA && frame.payload.iter().all(|octet| *octet == b'f') {
                tls.write_all(&Frame::headers(frame.stream, [0x88]).encode()).unwrap();
            }
        }
        if !inbox.is_empty() && tls.write_all(&Frame::ping([1; 8]).encode()).is_err() {
            return;
        }
    }
}

#[test]
fn nothing_comes_between_the_bytes_of_a_frame() {
    let lab = lab(listen(interrupting));
    let mut peer = lab.open().unwrap();
    let stream = peer.next_stream();
    peer.send(&Frame::data(stream, vec![b'f'; 8 << 20]));
    assert_eq!(peer.answer(stream), Answer::Status(200));
}

fn lab(target: SocketAddr) -> Lab {
    let target = target.to_string();
    let words = ["culvert conformance", "--target", &target, "--echo", "127.0.0.1:80"];
    let args = Cli::try_parse_from(words).unwrap().run.unwrap();
    Lab::new(&args, runtime::clock::monotonic() + run::CASE_LIMIT).unwrap()
}

/// Verdicts by id.
fn judge(target: SocketAddr, ids: &[&str]) -> BTreeMap<&'static str, Verdict> {
    let mut lab = lab(target);
    let chosen: Vec<_> = cases::all().filter(|case| ids.contains(&case.id)).collect();
    assert_eq!(chosen.len(), ids.len());
    let judged = run::run(&mut lab, &chosen, &Expectations::default(), false, |_| ());
    judged.into_iter().map(|one| (one.id, one.verdict)).collect()
}

fn assert_all(verdicts: &BTreeMap<&'static str, Verdict>, wanted: Verdict) {
    let others: Vec<_> = verdicts.iter().filter(|(_, verdict)| **verdict != wanted).collect();
    assert!(others.is_empty(), "not {wanted:?}: {others:?}");
}

#[test]
fn what_a_naive_listener_does_right_passes() {
    let target = listen(naive);
    let right = [
        "HB-TLS-01",
        "HB-TLS-12",
        "HB-TLS-37",
        "HB-ID-01",
        "HB-CONNECT-01",
        "HB-CONNECT-02",
        "HB-CONNECT-04",
        "HB-SETTINGS-01",
        "HB-SETTINGS-04",
        "HB-HEADER-01",
        "HB-HEADER-10",
        "HB-FRAME-01",
        "HB-FRAME-05",
        "HB-FRAME-08",
        "HB-FRAME-10",
        "HB-STREAM-05",
        "HB-STREAM-08",
        "HB-HALF-07",
        "HB-GOAWAY-01",
        "HB-FLOOD-01",
    ];
    assert_all(&judge(target, &right), Verdict::Pass);
}

#[test]
fn what_a_naive_listener_does_wrong_fails() {
    let target = listen(naive);
    let wrong = [
        "HB-ID-02",
        "HB-ID-04",
        "HB-ID-15",
        "HB-TLS-13",
        "HB-AUTH-03",
        "HB-AUTH-06",
        "HB-AUTH-08",
        "HB-AUTH-11",
        "HB-AUTH-19",
        "HB-AUTH-20",
        "HB-PSEUDO-01",
        "HB-PSEUDO-04",
        "HB-PSEUDO-07",
        "HB-PSEUDO-11",
        "HB-HEADER-12",
        "HB-HEADER-17",
        "HB-HEADER-20",
        "HB-HEADER-22",
        "HB-HEADER-25",
        "HB-STATUS-06",
        "HB-STATUS-10",
        "HB-CONNECT-03",
        "HB-SETTINGS-02",
        "HB-FRAME-07",
        "HB-FRAME-44",
        "HB-FLOOD-15",
    ];
    assert_all(&judge(target, &wrong), Verdict::Fail);
}

/// Where the target's whole answer is to close, only refusals can pass.
#[test]
fn a_listener_that_closes_at_once_passes_for_nothing_but_refusals() {
    let target = listen(|socket, _| drop(socket));
    let all: Vec<&str> = cases::all().map(|case| case.id).collect();
    let verdicts = judge(target, &all);
    let passed: Vec<_> = verdicts.iter().filter(|(_, verdict)| **verdict == Verdict::Pass).collect();
    let refusals = ["HB-TLS-", "HB-ID-", "HB-FRAME-37", "HB-FRAME-38", "HB-FRAME-39"];
    let others: Vec<_> =
        passed.iter().filter(|(id, _)| !refusals.iter().any(|known| id.starts_with(known))).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(passed.len() < 30, "{passed:?}");
    for id in ["HB-TLS-01", "HB-TLS-09", "HB-ID-01", "HB-ID-14"] {
        assert_eq!(verdicts[id], Verdict::Fail, "{id}");
    }
}
