//! What a server may answer a client's hello with. The client ends with a code, and never sends a request.

use culvert_hbone::{Settings, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hello::{record, vector};
use crate::support::{pair, run, spawn};
use crate::{Bench, ID, alert};

/// A ServerHello: version, suite, echo of the session id, and extensions.
fn server_hello(
    version: [u8; 2],
    random: [u8; 32],
    session: &[u8],
    suite: u16,
    extensions: &[u8],
) -> Vec<u8> {
    let body =
        [&version[..], &random, &vector(1, session), &suite.to_be_bytes(), &[0], &vector(2, extensions)]
            .concat();
    record(22, &[&[2][..], &vector(3, &body)].concat())
}

/// `supported_versions`: 1.3.
const IS_TLS13: [u8; 6] = [0, 43, 0, 2, 3, 4];

/// What says that a ServerHello is a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[test]
fn bad_servers_are_left_with_an_alert() {
    type Make = fn(&[u8]) -> Vec<u8>;
    // The session id of the client's hello is what they are given.
    let cases: [(&str, Make, &[u8]); 14] = [
        ("garbage", |_| vec![0x77; 64], &[50]),
        ("HTTP/1.1", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), &[50]),
        ("TLS 1.2", |session| server_hello([3, 3], [1; 32], session, 0xc02b, &[]), &[70]),
        ("TLS 1.1", |session| server_hello([3, 2], [1; 32], session, 0xc02b, &[]), &[70]),
        (
            "a suite not offered",
            |session| server_hello([3, 3], [1; 32], session, 0x1303, &IS_TLS13),
            &[47, 40],
        ),
        ("another session id", |_| server_hello([3, 3], [1; 32], &[3; 32], 0x1302, &IS_TLS13), &[47, 109]),
        ("no key share", |session| server_hello([3, 3], [1; 32], session, 0x1302, &IS_TLS13), &[109, 47]),
        (
            "a share of a group not offered",
            |session| {
                let share = [&[0, 51, 0, 6][..], &[0, 25, 0, 2, 1, 1]].concat();
                server_hello([3, 3], [1; 32], session, 0x1302, &[&IS_TLS13[..], &share].concat())
            },
            &[47],
        ),
        (
            "a share of zeros",
            |session| {
                let share = [&[0, 51, 0, 36, 0, 29, 0, 32][..], &[0; 32]].concat();
                server_hello([3, 3], [1; 32], session, 0x1302, &[&IS_TLS13[..], &share].concat())
            },
            &[47],
        ),
        (
            "a retry that changes nothing",
            |session| server_hello([3, 3], RETRY, session, 0x1302, &IS_TLS13),
            &[47, 50, 109],
        ),
        (
            "a retry for the group that was sent",
            |session| {
                let group = [0, 51, 0, 2, 0, 29];
                server_hello([3, 3], RETRY, session, 0x1302, &[&IS_TLS13[..], &group].concat())
            },
            &[47],
        ),
        ("a HelloRequest", |_| record(22, &[0, 0, 0, 0]), &[10]),
        ("content", |_| record(23, &[0; 40]), &[10]),
        ("a record too long", |_| [&[22, 3, 3, 0x48, 1][..], &[0; 18_433]].concat(), &[50, 22]),
    ];
    run(async {
        let mut bench = Bench::new().await;
        let mut wrong = Vec::new();
        for (what, make, wanted) in cases {
            let (near, mut far) = pair().await;
            let config = bench.certificate.client_config(&[ID.parse().unwrap()]);
            let client = spawn(async move { client::connect(near, config, &Settings::default()).await });
            let mut hello = vec![0; 5];
            far.read_exact(&mut hello).await.unwrap();
            hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
            far.read_exact(&mut hello[5..]).await.unwrap();
            // Record and message heads, version, random; then the session id with its length.
            let session = hello[44..44 + usize::from(hello[43])].to_vec();
            far.write_all(&make(&session)).await.unwrap();
            let mut got = Vec::new();
            let _ = far.read_to_end(&mut got).await;
            let error = client.await.unwrap().unwrap_err();
            // A change of cipher may stand before it.
            let got = got.strip_prefix(&[20, 3, 3, 0, 1, 1]).unwrap_or(&got);
            if !alert(got).is_some_and(|alert| wanted.contains(&alert))
                || error.code() != "tls-handshake-failed"
            {
                wrong.push(format!("{what}: {got:?}, {}: {error}", error.code()));
            }
            bench.neighbour_is_well().await;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn servers_that_refuse_or_vanish_have_their_codes() {
    run(async {
        let mut bench = Bench::new().await;
        for (said, code) in [
            (vec![], "tls-peer-closed"),
            (record(22, &[2, 0, 0, 90, 3, 3]), "tls-peer-closed"),
            (record(21, &[2, 40]), "tls-refused-by-peer"),
            (record(21, &[2, 116]), "tls-refused-by-peer"),
            (record(21, &[1, 0]), "tls-peer-closed"),
        ] {
            let (near, mut far) = pair().await;
            let config = bench.certificate.client_config(&[ID.parse().unwrap()]);
            let client = spawn(async move { client::connect(near, config, &Settings::default()).await });
            let mut hello = [0; 300];
            let _ = far.read(&mut hello).await.unwrap();
            far.write_all(&said).await.unwrap();
            far.shutdown().await.unwrap();
            let error = client.await.unwrap().unwrap_err();
            assert_eq!(error.code(), code, "{said:?}: {error}");
            bench.neighbour_is_well().await;
        }
    });
}
