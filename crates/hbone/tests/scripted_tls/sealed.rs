//! Records behind a good handshake, sealed by the test with the connection's own keys: what TLS 1.3 forbids there, or
//! merely makes odd. An offence ends this connection with its alert, and nobody else's.

use std::io::Cursor;
use std::rc::Rc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::run;
use crate::{Bench, ID, Verdict};

/// Content types.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CONTENT: u8 = 23;

/// One direction's keys.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    next: u64,
}

impl Keys {
    fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("the first suite offered")
        };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), next }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.next.to_be_bytes()).for_each(|(octet, number)| *octet ^= number);
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record with this inner plaintext, content type and padding included.
    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
        let head = [CONTENT, 3, 3, length[0], length[1]];
        let mut content = inner.to_vec();
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut content).unwrap();
        [&head[..], &content].concat()
    }

    fn sealed(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.seal(&[content, &[kind]].concat())
    }

    /// Content and type of the records of `wire`, as far as they open.
    fn open(&mut self, mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut opened = Vec::new();
        while let Some((head, rest)) = wire.split_first_chunk::<5>() {
            let (body, rest) = rest.split_at(usize::from(u16::from_be_bytes([head[3], head[4]])));
            wire = rest;
            let mut body = body.to_vec();
            let nonce = self.nonce();
            let inner = self.key.open_in_place(nonce, Aad::from(*head), &mut body).unwrap();
            let (kind, content) = inner.split_last().unwrap();
            opened.push((*kind, content.to_vec()));
        }
        opened
    }
}

/// A connection behind its handshake, with both directions' keys.
struct Peer {
    near: TcpStream,
    verdict: Verdict,
    send: Keys,
    receive: Keys,
    /// What the server said right behind the handshake.
    early: Vec<u8>,
}

async fn handshake(bench: &Rc<Bench>) -> Peer {
    let (mut near, verdict) = bench.dial().await;
    let config = bench.certificate.client_config(&[ID.parse().unwrap()]);
    let mut tls = rustls::ClientConnection::new(config, "server".try_into().unwrap()).unwrap();
    while tls.is_handshaking() || tls.wants_write() {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        near.write_all(&out).await.unwrap();
        if tls.is_handshaking() {
            // Record by record, so that what belongs to the connection stays outside.
            let record = next_record(&mut near).await.unwrap();
            tls.read_tls(&mut Cursor::new(&record)).unwrap();
            tls.process_new_packets().unwrap();
        }
    }
    let secrets = tls.dangerous_extract_secrets().unwrap();
    // The server's SETTINGS: its handshake is over too.
    let early = next_record(&mut near).await.unwrap();
    Peer { near, verdict, send: Keys::new(secrets.tx), receive: Keys::new(secrets.rx), early }
}

async fn next_record(near: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    near.read_exact(&mut record).await?;
    record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
    near.read_exact(&mut record[5..]).await?;
    Ok(record)
}

/// A client's first frames.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()
}

impl Peer {
    /// Sends all; returns the alert, behind which nothing may come, and the server's verdict.
    async fn say(mut self, bytes: &[u8]) -> (Option<u8>, &'static str) {
        let _ = self.near.write_all(bytes).await;
        let mut got = std::mem::take(&mut self.early);
        let _ = self.near.read_to_end(&mut got).await;
        drop(self.near);
        let records = self.receive.open(&got);
        let alert = records.iter().position(|(kind, _)| *kind == ALERT);
        assert!(alert.is_none_or(|at| at + 1 == records.len()), "records behind an alert");
        (alert.map(|at| records[at].1[1]), self.verdict.await.unwrap())
    }
}

#[test]
fn forbidden_records_end_their_connection_alone() {
    const BAD_RECORD_MAC: u8 = 20;
    const RECORD_OVERFLOW: u8 = 22;
    const UNEXPECTED_MESSAGE: u8 = 10;
    const DECODE_ERROR: u8 = 50;
    type Make = fn(&mut Keys) -> Vec<u8>;
    // Where the RFC has two rules for it, either alert will do; an empty list is any alert or none.
    let cases: [(&str, Make, &[u8]); 18] = [
        ("a changed octet", |keys| changed(keys.sealed(CONTENT, b"x"), 5), &[BAD_RECORD_MAC]),
        ("a changed tag", |keys| changed(keys.sealed(CONTENT, b"x"), 20), &[BAD_RECORD_MAC]),
        (
            "a record skipped",
            |keys| [keys.sealed(CONTENT, b"x"), keys.sealed(CONTENT, b"y")][1].clone(),
            &[BAD_RECORD_MAC],
        ),
        (
            "a record again",
            |keys| {
                let one = keys.sealed(CONTENT, b"");
                [one.clone(), one].concat()
            },
            &[BAD_RECORD_MAC],
        ),
        ("too short for a tag", |_| vec![CONTENT, 3, 3, 0, 3, 1, 2, 3], &[BAD_RECORD_MAC]),
        ("an empty record", |_| vec![CONTENT, 3, 3, 0, 0], &[BAD_RECORD_MAC]),
        ("content in the clear", |_| [&[CONTENT, 3, 3, 0, 40][..], &[7; 40]].concat(), &[BAD_RECORD_MAC]),
        ("an octet above the maximum", |keys| keys.sealed(CONTENT, &[0; 16_385]), &[RECORD_OVERFLOW]),
        (
            "a record above any maximum",
            |_| [&[CONTENT, 3, 3, 0x41, 1][..], &[0; 16_641]].concat(),
            &[RECORD_OVERFLOW, BAD_RECORD_MAC],
        ),
        ("padding alone", |keys| keys.seal(&[0; 30]), &[]),
        ("a HelloRequest", |keys| keys.sealed(HANDSHAKE, &[0, 0, 0, 0]), &[UNEXPECTED_MESSAGE]),
        (
            "renegotiation",
            |keys| keys.sealed(HANDSHAKE, &crate::hello::Hello::good().message()),
            &[UNEXPECTED_MESSAGE],
        ),
        (
            "a second Finished",
            |keys| keys.sealed(HANDSHAKE, &[&[20, 0, 0, 48][..], &[1; 48]].concat()),
            &[UNEXPECTED_MESSAGE],
        ),
        (
            "a certificate nobody asked for",
            |keys| keys.sealed(HANDSHAKE, &[11, 0, 0, 4, 0, 0, 0, 0]),
            &[UNEXPECTED_MESSAGE],
        ),
        ("a change of cipher", |_| vec![20, 3, 3, 0, 1, 1], &[UNEXPECTED_MESSAGE]),
        (
            "a handshake in the clear",
            |_| crate::hello::Hello::good().record(),
            &[UNEXPECTED_MESSAGE, BAD_RECORD_MAC],
        ),
        ("a type nobody knows", |keys| keys.sealed(99, b"x"), &[UNEXPECTED_MESSAGE, DECODE_ERROR]),
        (
            "records without content and without end",
            |keys| (0..100).flat_map(|_| keys.sealed(CONTENT, b"")).collect(),
            &[],
        ),
    ];
    run(async {
        let mut bench = Bench::new().await;
        let mut wrong = Vec::new();
        for (what, make, wanted) in cases {
            let mut peer = handshake(&bench).await;
            let bytes = [peer.send.sealed(CONTENT, &preface()), make(&mut peer.send)].concat();
            let (alert, code) = peer.say(&bytes).await;
            let told = wanted.is_empty() || alert.is_some_and(|alert| wanted.contains(&alert));
            if !told || code != "hbone-tls-record-error" {
                wrong.push(format!("{what}: alert {alert:?} (not {wanted:?}), code {code}"));
            }
            bench.neighbour_is_well().await;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

fn changed(mut record: Vec<u8>, at: usize) -> Vec<u8> {
    record[at] ^= 1;
    record
}

#[test]
fn odd_records_are_read() {
    run(async {
        let mut bench = Bench::new().await;
        // An answer to this PING shows that all before it was read.
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"are you?"].concat();
        let answer = [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], b"are you?"].concat();
        type Make = fn(&mut Keys, &[u8]) -> Vec<u8>;
        let cases: [(&str, Make); 4] = [
            ("an octet in each record", |keys, ping| {
                ping.iter().flat_map(|octet| keys.sealed(CONTENT, &[*octet])).collect()
            }),
            ("records without content", |keys, ping| {
                let empty: Vec<u8> = (0..20).flat_map(|_| keys.sealed(CONTENT, b"")).collect();
                [empty, keys.sealed(CONTENT, ping)].concat()
            }),
            ("as much padding as fits", |keys, ping| {
                let mut inner = [ping, &[CONTENT]].concat();
                inner.resize(16_385, 0);
                keys.seal(&inner)
            }),
            ("a warning that somebody has cancelled", |keys, ping| {
                [keys.sealed(ALERT, &[1, 90]), keys.sealed(CONTENT, ping)].concat()
            }),
        ];
        for (what, make) in cases {
            let mut peer = handshake(&bench).await;
            let bytes = [peer.send.sealed(CONTENT, &preface()), make(&mut peer.send, &ping)].concat();
            for segment in bytes.chunks(1000) {
                peer.near.write_all(segment).await.unwrap();
            }
            let mut content = Vec::new();
            let mut record = std::mem::take(&mut peer.early);
            loop {
                content.extend(peer.receive.open(&record).into_iter().flat_map(|(_, content)| content));
                if content.windows(answer.len()).any(|part| part == answer) {
                    break;
                }
                let next = next_record(&mut peer.near).await;
                record = next.unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            let goodbye = peer.send.sealed(ALERT, &[1, 0]);
            let (alert, code) = peer.say(&goodbye).await;
            assert_eq!((alert, code), (Some(0), "hbone-peer-closed"), "{what}");
            bench.neighbour_is_well().await;
        }
    });
}

#[test]
fn a_fatal_alert_ends_the_connection_as_a_fault() {
    run(async {
        let mut bench = Bench::new().await;
        let mut peer = handshake(&bench).await;
        let bytes = [peer.send.sealed(CONTENT, &preface()), peer.send.sealed(ALERT, &[2, 80])].concat();
        let (alert, code) = peer.say(&bytes).await;
        assert_eq!((alert, code), (None, "hbone-tls-record-error"));
        bench.neighbour_is_well().await;
    });
}
