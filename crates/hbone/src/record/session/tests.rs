//! Each rule of records after the handshake, by two sessions or one session and records made by hand.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

use aws_lc_rs::aead;
use rustls::AlertDescription as Alert;
use zeroize::Zeroizing;

use super::*;
use crate::record::schedule::{Secret, Suite};

const SUITES: [Suite; 3] = [Suite::Aes128GcmSha256, Suite::Aes256GcmSha384, Suite::Chacha20Poly1305Sha256];

fn secret(suite: Suite, fill: u8) -> Secret {
    Secret::new(suite, Zeroizing::new(vec![fill; suite.secret_length()])).unwrap()
}

fn pair(suite: Suite, records_per_key: u64) -> (Session, Session) {
    let make = |role, read, write| {
        let direction = |fill| Direction::new(secret(suite, fill), 0).unwrap();
        Session::after_handshake(role, direction(read), direction(write), records_per_key)
    };
    (make(Role::Client, 1, 2), make(Role::Server, 2, 1))
}

/// A session and the direction its peer would seal with.
fn scripted(role: Role) -> (Session, Direction) {
    let (client, server) = pair(Suite::Aes128GcmSha256, u64::MAX);
    let (session, fill) = if role == Role::Client { (client, 1) } else { (server, 2) };
    (session, Direction::new(secret(Suite::Aes128GcmSha256, fill), 0).unwrap())
}

/// What a session makes of received bytes: content, what it has to say, and the result.
fn open(session: &mut Session, received: &[u8]) -> (Vec<u8>, Vec<u8>, Result<bool, RecordFault>) {
    let mut wire = [session.carry(), received].concat();
    let (mut content, mut out) = (Vec::new(), Vec::new());
    let result = session.open(&mut wire, &mut out, &mut |bytes| content.extend_from_slice(bytes));
    (content, out, result)
}

fn record(peer: &mut Direction, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    peer.seal_into(content, kind, &mut out).unwrap();
    out
}

/// A record of which `inner` is the whole inner plaintext.
fn raw(peer: &mut Direction, inner: &[u8]) -> Vec<u8> {
    let (last, front) = inner.split_last().unwrap();
    record(peer, *last, front)
}

fn alert_of(role: Role, records: impl FnOnce(&mut Direction) -> Vec<u8>) -> Option<Alert> {
    let (mut session, mut peer) = scripted(role);
    let records = records(&mut peer);
    let (_, mut out, result) = open(&mut session, &records);
    result.unwrap_err();
    if out.is_empty() {
        return None;
    }
    let fill = if role == Role::Client { 2 } else { 1 };
    let mut reader = Direction::new(secret(Suite::Aes128GcmSha256, fill), 0).unwrap();
    let (kind, content) = reader.open(&mut out).unwrap();
    assert_eq!((kind, content[0]), (kind::ALERT, 2), "a fatal alert");
    Some(Alert::from(content[1]))
}

#[test]
fn content_of_any_size_comes_through_in_order() {
    for suite in SUITES {
        let (mut client, mut server) = pair(suite, u64::MAX);
        for size in [1, 100, CONTENT - 1, CONTENT, CONTENT + 1, 5 * CONTENT] {
            let plain: Vec<u8> = (0..=250).cycle().take(size).collect();
            let mut sealed = Vec::new();
            client.seal(&plain, &mut sealed).unwrap();
            // In two pieces at every kind of border.
            let cut = sealed.len() * 2 / 3;
            let (first, _, result) = open(&mut server, &sealed[..cut]);
            assert_eq!(result, Ok(false));
            let (second, out, result) = open(&mut server, &sealed[cut..]);
            assert_eq!((result, out.len()), (Ok(false), 0));
            assert!([first, second].concat() == plain, "{suite:?} {size}");
            assert!(server.carry().is_empty());
        }
    }
}

#[test]
fn slots_are_sealed_in_place() {
    for suite in SUITES {
        let (mut client, mut server) = pair(suite, u64::MAX);
        let contents = [CONTENT, CONTENT, 77];
        let mut slots = vec![9; 3 * RECORD];
        let mut before = Vec::new();
        let end = client.seal_slots(&mut slots, contents.into_iter(), &mut before).unwrap();
        assert!(before.is_empty());
        let (content, _, result) = open(&mut server, &slots[..end]);
        assert_eq!((result, content.len()), (Ok(false), 2 * CONTENT + 77));
        assert!(content.iter().all(|octet| *octet == 9));
    }
}

#[test]
fn our_key_is_updated_at_its_limit_and_the_peer_follows() {
    for suite in SUITES {
        let (mut client, mut server) = pair(suite, 3);
        let mut updates = 0;
        for round in 0..40_u8 {
            let mut sealed = Vec::new();
            if round % 2 == 0 {
                client.seal(&[round; 10], &mut sealed).unwrap();
            } else {
                let mut slots = vec![round; 2 * RECORD];
                let end = client.seal_slots(&mut slots, [CONTENT, 10].into_iter(), &mut sealed).unwrap();
                sealed.extend_from_slice(&slots[..end]);
            }
            updates += usize::from(client.parts().write.secret() != server.parts().read.secret());
            let (content, _, result) = open(&mut server, &sealed);
            assert_eq!(result, Ok(false));
            assert!(content.iter().all(|octet| *octet == round) && !content.is_empty());
            assert!(client.parts().write.sequence() <= 4, "limit and the update itself");
        }
        assert!(updates >= 19, "{updates}");
        assert_eq!(client.parts().write.secret(), server.parts().read.secret());
    }
}

#[test]
fn the_suite_limits_a_key_whatever_the_setting() {
    let (client, _) = pair(Suite::Aes256GcmSha384, u64::MAX);
    assert_eq!(client.records_per_key, 1 << 24);
    assert!(Suite::Aes128GcmSha256.records_per_key() < 23_726_566, "2^24.5");
}

#[test]
fn a_requested_update_is_answered_exactly_once() {
    let (mut server, mut peer) = scripted(Role::Server);
    let mut wire = Vec::new();
    for _ in 0..3 {
        wire.extend(record(&mut peer, kind::HANDSHAKE, &[24, 0, 0, 1, 1]));
        peer.update().unwrap();
    }
    wire.extend(record(&mut peer, kind::APPLICATION, b"under the fourth key"));
    let (content, out, result) = open(&mut server, &wire);
    assert_eq!((content.as_slice(), out.len(), result), (&b"under the fourth key"[..], 0, Ok(false)));
    assert!(server.owes_update());
    let mut sealed = Vec::new();
    server.seal(b"one", &mut sealed).unwrap();
    server.seal(b"two", &mut sealed).unwrap();
    assert!(!server.owes_update());
    let (mut client, _) = pair(Suite::Aes128GcmSha256, u64::MAX);
    let before = client.parts().read.secret().clone();
    let (content, _, result) = open(&mut client, &sealed);
    assert_eq!((content.as_slice(), result), (&b"onetwo"[..], Ok(false)));
    assert_eq!(client.parts().read.secret(), &before.next().unwrap(), "one update");
    assert!(!client.owes_update(), "ours does not ask back");
}

#[test]
fn an_update_without_request_is_not_answered() {
    let (mut server, mut peer) = scripted(Role::Server);
    let wire = record(&mut peer, kind::HANDSHAKE, &[24, 0, 0, 1, 0]);
    assert_eq!(open(&mut server, &wire).2, Ok(false));
    assert!(!server.owes_update());
}

#[test]
fn tickets_are_ignored_by_a_client_in_any_pieces() {
    let (mut client, mut peer) = scripted(Role::Client);
    let ticket = [&[4, 0, 1, 0][..], &[7; 256]].concat();
    let two = [ticket.as_slice(), &ticket].concat();
    let mut wire = Vec::new();
    for piece in two.chunks(100) {
        wire.extend(record(&mut peer, kind::HANDSHAKE, piece));
    }
    wire.extend(record(&mut peer, kind::APPLICATION, b"after"));
    let (content, out, result) = open(&mut client, &wire);
    assert_eq!((content.as_slice(), out.len(), result), (&b"after"[..], 0, Ok(false)));
}

#[test]
fn padding_is_taken_off_and_empty_records_are_legal() {
    let (mut server, mut peer) = scripted(Role::Server);
    let mut wire = raw(&mut peer, b"padded\x17\0\0\0\0\0");
    wire.extend(raw(&mut peer, b"\x17\0\0"));
    wire.extend(record(&mut peer, kind::APPLICATION, b""));
    assert_eq!(open(&mut server, &wire), (b"padded".to_vec(), Vec::new(), Ok(false)));
}

#[test]
fn the_largest_record_is_legal_and_no_larger_one() {
    let (mut server, mut peer) = scripted(Role::Server);
    let wire = record(&mut peer, kind::APPLICATION, &vec![1; CONTENT]);
    assert_eq!(open(&mut server, &wire).2, Ok(false));
    let keys = secret(Suite::Aes128GcmSha256, 2).keys().unwrap();
    let mut iv = keys.iv;
    iv[11] ^= 1;
    let header = [23, 3, 3, 0x40, 18];
    let mut padded = [vec![1; CONTENT], vec![23, 0]].concat();
    let (nonce, aad) = (aead::Nonce::assume_unique_for_key(iv), aead::Aad::from(header));
    keys.key.seal_in_place_append_tag(nonce, aad, &mut padded).unwrap();
    let padded = [&header[..], &padded].concat();
    assert!(matches!(
        open(&mut server, &padded).2,
        Err(RecordFault::Misbehaved { alert: Alert::RecordOverflow, .. })
    ));
    let (mut server, mut peer) = scripted(Role::Server);
    let mut long = record(&mut peer, kind::APPLICATION, b"x");
    long[3..5].copy_from_slice(&(16_384_u16 + 257).to_be_bytes());
    assert!(matches!(
        open(&mut server, &long).2,
        Err(RecordFault::Misbehaved { alert: Alert::RecordOverflow, .. })
    ));
}

#[test]
fn every_fault_of_the_peer_has_its_alert() {
    let handshake = |body: &'static [u8]| move |peer: &mut Direction| record(peer, kind::HANDSHAKE, body);
    let alert = |body: &'static [u8]| move |peer: &mut Direction| record(peer, kind::ALERT, body);
    let both = [Role::Client, Role::Server];
    for role in both {
        let is = |records: &dyn Fn(&mut Direction) -> Vec<u8>, expected, what: &str| {
            assert_eq!(alert_of(role, records), Some(expected), "{what} to a {role:?}");
        };
        is(&|peer| raw(peer, &[0, 0, 0]), Alert::UnexpectedMessage, "only padding");
        is(&|peer| raw(peer, b"x\x63"), Alert::UnexpectedMessage, "unknown type");
        is(&handshake(b""), Alert::UnexpectedMessage, "empty handshake record");
        is(&handshake(&[13, 0, 0, 3, 0, 0, 0]), Alert::UnexpectedMessage, "post-handshake authentication");
        is(&handshake(&[1, 0, 0, 0]), Alert::UnexpectedMessage, "renegotiation");
        is(&handshake(&[0, 0, 0, 0]), Alert::UnexpectedMessage, "HelloRequest");
        is(&handshake(&[24, 0, 0, 1, 2]), Alert::IllegalParameter, "unknown update");
        is(&handshake(&[24, 0, 0, 2, 0, 0]), Alert::DecodeError, "long update");
        is(&handshake(&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]), Alert::UnexpectedMessage, "two updates in one");
        is(&alert(b""), Alert::UnexpectedMessage, "empty alert");
        is(&alert(&[1]), Alert::DecodeError, "half an alert");
        is(&alert(&[1, 0, 1, 0]), Alert::DecodeError, "two alerts");
        let interleaved = |peer: &mut Direction| {
            [record(peer, kind::HANDSHAKE, &[24, 0]), record(peer, kind::APPLICATION, b"x")].concat()
        };
        is(&interleaved, Alert::UnexpectedMessage, "content inside a message");
        is(&|_| vec![20, 3, 3, 0, 1, 1], Alert::UnexpectedMessage, "change_cipher_spec");
        is(&|_| vec![21, 3, 3, 0, 2, 1, 0], Alert::UnexpectedMessage, "alert in the clear");
        is(&|_| vec![23, 3, 3, 0, 3, 1, 2, 3], Alert::BadRecordMac, "shorter than a tag");
        let broken = |peer: &mut Direction| {
            let mut record = record(peer, kind::APPLICATION, b"content");
            record[7] ^= 1;
            record
        };
        is(&broken, Alert::BadRecordMac, "a flipped bit");
        let replayed = |peer: &mut Direction| record(peer, kind::APPLICATION, b"x").repeat(2);
        is(&replayed, Alert::BadRecordMac, "a replayed record");
        let updates = |peer: &mut Direction| {
            let mut wire = Vec::new();
            for _ in 0..40 {
                wire.extend(record(peer, kind::HANDSHAKE, &[24, 0, 0, 1, 1]));
                peer.update().unwrap();
            }
            wire
        };
        is(&updates, Alert::UnexpectedMessage, "a flood of updates");
        let empty =
            |peer: &mut Direction| (0..40).flat_map(|_| record(peer, kind::APPLICATION, b"")).collect();
        is(&empty, Alert::UnexpectedMessage, "a flood of empty records");
    }
    let ticket = |peer: &mut Direction| record(peer, kind::HANDSHAKE, &[4, 0, 0, 1, 0]);
    assert_eq!(alert_of(Role::Server, ticket), Some(Alert::UnexpectedMessage), "a ticket to a server");
    let tickets =
        |peer: &mut Direction| (0..40).flat_map(|_| record(peer, kind::HANDSHAKE, &[4, 0, 0, 0])).collect();
    assert_eq!(alert_of(Role::Client, tickets), Some(Alert::UnexpectedMessage), "a flood of tickets");
    let long = |peer: &mut Direction| record(peer, kind::HANDSHAKE, &[4, 2, 0, 0]);
    assert_eq!(alert_of(Role::Client, long), Some(Alert::DecodeError), "a ticket of 128 KiB");
}

#[test]
fn an_alert_ends_the_connection_and_is_not_answered() {
    assert_eq!(alert_of(Role::Client, |peer| record(peer, kind::ALERT, &[2, 116])), None);
    let (mut client, mut peer) = scripted(Role::Client);
    let wire = record(&mut peer, kind::ALERT, &[2, 116]);
    let fault = open(&mut client, &wire).2.unwrap_err();
    assert_eq!(fault.to_string(), "received fatal alert: CertificateRequired");
}

#[test]
fn close_notify_closes_and_what_follows_is_not_read() {
    let (mut server, mut peer) = scripted(Role::Server);
    let mut wire = record(&mut peer, kind::APPLICATION, b"last");
    wire.extend(record(&mut peer, kind::ALERT, &[1, 90]));
    wire.extend(record(&mut peer, kind::ALERT, &[1, 0]));
    wire.extend(record(&mut peer, kind::APPLICATION, b"not this"));
    assert_eq!(open(&mut server, &wire), (b"last".to_vec(), Vec::new(), Ok(true)));
    let mut out = Vec::new();
    server.close_notify(&mut out);
    let (mut client, _) = pair(Suite::Aes128GcmSha256, u64::MAX);
    assert_eq!(open(&mut client, &out), (Vec::new(), Vec::new(), Ok(true)));
}

#[test]
fn bytes_of_no_kind_bring_it_down() {
    proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0..200_usize)| {
        let (mut server, mut peer) = scripted(Role::Server);
        let mut wire = record(&mut peer, kind::APPLICATION, &bytes);
        wire.truncate(cut);
        wire.extend_from_slice(&bytes);
        let (_, _, _) = open(&mut server, &wire);
    });
}
