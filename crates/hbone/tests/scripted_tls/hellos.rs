//! What comes instead of a good ClientHello, and good ones in unusual clothes. Each refusal has its alert and its code.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hello::{
    ALPN, EARLY_DATA, Hello, KEY_SHARE, PRE_SHARED_KEY, SIGNATURES, SUPPORTED_GROUPS, VERSIONS, key_share,
    record, shorts, vector,
};
use crate::support::run;
use crate::{Bench, alert, exchange};

const UNEXPECTED_MESSAGE: u8 = 10;
const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;

#[test]
fn what_is_no_good_hello_gets_its_alert() {
    let old = |version| Hello { version, ..Hello::good().without(VERSIONS) };
    let only = |suites: &[u16]| Hello { suites: suites.to_vec(), ..Hello::good() };
    let twice = {
        let mut hello = Hello::good();
        hello.extensions.push((ALPN, vector(2, &vector(1, b"h2"))));
        hello
    };
    let p521 = Hello::good().with(SUPPORTED_GROUPS, vector(2, &shorts(&[25])));
    let two_messages = [Hello::good().message(), Hello::good().message()].concat();
    let cases: Vec<(&str, Vec<u8>, u8)> = vec![
        ("TLS 1.0", old([3, 1]).record(), PROTOCOL_VERSION),
        ("TLS 1.1", old([3, 2]).record(), PROTOCOL_VERSION),
        ("TLS 1.2", old([3, 3]).record(), PROTOCOL_VERSION),
        ("only 1.2 listed", Hello::good().with(VERSIONS, vector(1, &[3, 3])).record(), PROTOCOL_VERSION),
        ("only ChaCha20", only(&[0x1303]).record(), HANDSHAKE_FAILURE),
        ("only suites of 1.2", only(&[0xc02b, 0xc02c]).record(), HANDSHAKE_FAILURE),
        ("no suites", only(&[]).record(), DECODE_ERROR),
        ("only P-521", p521.with(KEY_SHARE, key_share(25, &[4; 133])).record(), HANDSHAKE_FAILURE),
        ("no groups", Hello::good().without(SUPPORTED_GROUPS).record(), HANDSHAKE_FAILURE),
        ("no key share", Hello::good().without(KEY_SHARE).record(), HANDSHAKE_FAILURE),
        ("no signatures", Hello::good().without(SIGNATURES).record(), HANDSHAKE_FAILURE),
        (
            "a share too short",
            Hello::good().with(KEY_SHARE, key_share(29, &[9; 31])).record(),
            ILLEGAL_PARAMETER,
        ),
        (
            "a share of zeros",
            Hello::good().with(KEY_SHARE, key_share(29, &[0; 32])).record(),
            ILLEGAL_PARAMETER,
        ),
        ("an empty protocol", Hello::good().with(ALPN, vector(2, &vector(1, b""))).record(), DECODE_ERROR),
        ("compression", Hello { compression: vec![1], ..Hello::good() }.record(), ILLEGAL_PARAMETER),
        ("an extension twice", twice.record(), ILLEGAL_PARAMETER),
        ("a cut extension", Hello::good().with(SIGNATURES, vec![0, 9, 4]).record(), DECODE_ERROR),
        ("a session id of 33 octets", Hello { session: vec![1; 33], ..Hello::good() }.record(), DECODE_ERROR),
        ("two messages in a record", record(22, &two_messages), UNEXPECTED_MESSAGE),
        ("a record too long", [&[22, 3, 1, 0x48, 0x01][..], &[0; 18_433]].concat(), DECODE_ERROR),
        ("an empty handshake record", record(22, &[]), DECODE_ERROR),
        (
            "an empty record in a hello",
            [record(22, &Hello::good().message()[..9]), record(22, &[])].concat(),
            DECODE_ERROR,
        ),
        ("content before the handshake", record(23, &[0; 40]), UNEXPECTED_MESSAGE),
        ("a change of cipher", record(20, &[1]), UNEXPECTED_MESSAGE),
        ("a heartbeat", record(24, &[1, 0, 3, 1, 2, 3]), DECODE_ERROR),
        ("a HelloRequest", record(22, &[0, 0, 0, 0]), UNEXPECTED_MESSAGE),
        ("a Finished", record(22, &[20, 0, 0, 4, 1, 2, 3, 4]), UNEXPECTED_MESSAGE),
        ("a KeyUpdate", record(22, &[24, 0, 0, 1, 0]), UNEXPECTED_MESSAGE),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 2, 3], DECODE_ERROR),
    ];
    run(async {
        let mut bench = Bench::new().await;
        let mut wrong = Vec::new();
        for (what, bytes, wanted) in cases {
            let (mut near, verdict) = bench.dial().await;
            let got = exchange(&mut near, &bytes).await;
            drop(near);
            let code = verdict.await.unwrap();
            if alert(&got) != Some(wanted) || code != "tls-handshake-failed" {
                wrong.push(format!("{what}: alert {:?} ({} octets), code {code}", alert(&got), got.len()));
            }
            bench.neighbour_is_well().await;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

/// The type and version of the first record, and the type of its message.
const SERVER_HELLO: [u8; 3] = [22, 3, 3];

#[test]
fn unusual_hellos_are_answered() {
    let good = Hello::good().message();
    let in_records = |size: usize| good.chunks(size).flat_map(|part| record(22, part)).collect::<Vec<u8>>();
    let grease = Hello::good().with(VERSIONS, vector(1, &[0x7a, 0x7a, 3, 4, 3, 3])).with(0x6a6a, vec![0]);
    let identity = [&vector(2, &[1; 40])[..], &[0; 4]].concat();
    let ticket = [vector(2, &identity), vector(2, &vector(1, &[2; 48]))].concat();
    let early = Hello::good().with(EARLY_DATA, vec![]).with(PRE_SHARED_KEY, ticket.clone());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("as usual", Hello::good().record()),
        ("a record for each octet", in_records(1)),
        ("records of a hundred octets", in_records(100)),
        ("GREASE", grease.record()),
        ("no protocol", Hello::good().without(ALPN).record()),
        ("no session id", Hello { session: vec![], ..Hello::good() }.record()),
        ("unknown suites first", Hello { suites: vec![0x0a0a, 0x1303, 0x1301], ..Hello::good() }.record()),
        ("a ticket", Hello::good().with(PRE_SHARED_KEY, ticket).record()),
        ("a long padding", Hello::good().with(21, vec![0; 12_000]).record()),
        ("early data", [early.record(), record(23, &[0x5a; 300])].concat()),
        ("another share first", Hello::good().with(KEY_SHARE, key_share(23, &[4; 65])).record()),
    ];
    run(async {
        let mut bench = Bench::new().await;
        for (what, bytes) in cases {
            for segments in [bytes.len(), 1] {
                let (mut near, verdict) = bench.dial().await;
                near.set_nodelay(true).unwrap();
                for segment in bytes.chunks(segments) {
                    near.write_all(segment).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut head = [0; 6];
                near.read_exact(&mut head).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((&head[..3], head[5]), (&SERVER_HELLO[..], 2), "{what}");
                near.shutdown().await.unwrap();
                let code = verdict.await.unwrap();
                assert_eq!(code, "tls-peer-closed", "{what}");
                bench.neighbour_is_well().await;
            }
        }
    });
}

/// The answer comes before the refusal, whose alert is then sealed.
#[test]
fn other_protocols_are_refused_behind_the_server_hello() {
    run(async {
        let mut bench = Bench::new().await;
        let (mut near, verdict) = bench.dial().await;
        let hello = Hello::good().with(ALPN, vector(2, &vector(1, b"http/1.1"))).record();
        let got = exchange(&mut near, &hello).await;
        assert_eq!((&got[..3], got[5]), (&SERVER_HELLO[..], 2));
        assert_eq!(verdict.await.unwrap(), "tls-handshake-failed");
        bench.neighbour_is_well().await;
    });
}

#[test]
fn a_hello_that_breaks_off_is_a_closed_peer() {
    run(async {
        let mut bench = Bench::new().await;
        let hello = Hello::good().record();
        for cut in [0, 1, 4, 5, 6, 60, hello.len() - 1] {
            let (mut near, verdict) = bench.dial().await;
            assert!(exchange(&mut near, &hello[..cut]).await.is_empty(), "cut at {cut}");
            assert_eq!(verdict.await.unwrap(), "tls-peer-closed", "cut at {cut}");
        }
        for said in [record(21, &[1, 0]), record(21, &[2, 40])] {
            let (mut near, verdict) = bench.dial().await;
            assert!(exchange(&mut near, &said).await.is_empty());
            let code = verdict.await.unwrap();
            assert!(["tls-peer-closed", "tls-refused-by-peer"].contains(&code), "{code}");
        }
        bench.neighbour_is_well().await;
    });
}

#[test]
fn a_hello_without_end_is_bounded() {
    run(async {
        let mut bench = Bench::new().await;
        // 256 KiB of a message that announces 16 MiB, in records of 16 KiB.
        let start = record(22, &[&[1, 0xff, 0xff, 0xff][..], &[3; 16_380]].concat());
        let (mut near, verdict) = bench.dial().await;
        let bytes = [start, record(22, &[3; 16_384]).repeat(15)].concat();
        let got = exchange(&mut near, &bytes).await;
        assert!(alert(&got).is_some() || got.is_empty(), "{got:?}");
        assert_eq!(verdict.await.unwrap(), "tls-handshake-failed");
        bench.neighbour_is_well().await;
    });
}
