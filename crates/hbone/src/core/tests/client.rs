//! The client role: data-path 4.3, 4.4, 4.5 and 4.8.

use std::time::Duration;

use super::*;
use crate::core::frame::setting;

/// A client that knows its peer, with one request sent.
fn asked() -> Script {
    let mut script = Script::client(Settings::default());
    script.send(&settings_frame(&[(3, 200)]));
    script.core.open("10.0.0.1:80", &[], script.now).unwrap();
    script.frames();
    script
}

fn answer(stream: u32, status: &str, end_stream: bool) -> Vec<u8> {
    headers(stream, &[(":status", status)], end_stream)
}

#[test]
fn first_frames_are_those_recorded() {
    let mut script = Script::client(Settings::default());
    let extra =
        [("baggage".to_owned(), "a=b".to_owned()), ("traceparent".to_owned(), "00-1-2-00".to_owned())];
    assert_eq!(script.core.open("10.0.0.1:80", &extra, script.now), Some(1));
    assert_eq!(
        script.frames(),
        [
            "SETTINGS 2=0 4=4194304 5=1048576 6=16384",
            "WINDOW_UPDATE 0 16711681",
            "HEADERS 1 :method=CONNECT :authority=10.0.0.1:80 baggage=a=b traceparent=00-1-2-00",
        ]
    );
    assert_eq!(script.send(&settings_frame(&[])).frames, ["SETTINGS ack"]);
}

#[test]
fn payload_goes_ahead_of_the_answer_only_to_who_says_so() {
    let mut script = Script::client(Settings::default());
    assert!(!script.core.may_send_early());
    script.send(&settings_frame(&[(3, 200)]));
    assert!(!script.core.may_send_early());
    for (value, may) in [(0, false), (2, false), (1, true), (0, false)] {
        script.send(&settings_frame(&[(setting::EARLY_DATA, value)]));
        assert_eq!(script.core.may_send_early(), may, "{value}");
    }
    let mut script = Script::client(Settings { early_data: false, ..Settings::default() });
    script.send(&settings_frame(&[(setting::EARLY_DATA, 1)]));
    assert!(!script.core.may_send_early());
}

#[test]
fn answers_are_told_from_what_is_none() {
    assert_eq!(asked().send(&answer(1, "200", false)).actions, ["answer 1 200"]);
    assert_eq!(asked().send(&answer(1, "503", true)).actions, ["answer 1 503", "end 1"]);
    let mut script = asked();
    assert_eq!(script.send(&answer(1, "100", false)), Did::default());
    assert_eq!(script.send(&answer(1, "103", false)), Did::default());
    assert_eq!(script.send(&answer(1, "200", false)).actions, ["answer 1 200"]);
    let bad: Vec<Vec<u8>> = vec![
        answer(1, "100", true),
        answer(1, "20", false),
        answer(1, "2000", false),
        answer(1, "abc", false),
        headers(1, &[("x-a", "b")], false),
        headers(1, &[(":status", "200"), (":path", "/")], false),
        headers(1, &[(":status", "200"), (":status", "200")], false),
        data(1, b"early", false),
        headers(1, &[(":status", "200"), ("x-big", &"v".repeat(17_000))], false),
    ];
    for bytes in bad {
        let mut script = asked();
        let did = script.send(&bytes);
        assert_eq!(did.frames, ["RST_STREAM 1 PROTOCOL_ERROR"]);
        assert!(did.actions[0].starts_with("broken 1 Fault"), "{did:?}");
        assert!(script.core.has_room(), "the connection is still good");
    }
}

#[test]
fn an_http1_answer_ends_the_connection() {
    let mut script = Script::client(Settings::default());
    script.frames();
    let did = script.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(did.frames, ["GOAWAY 0 PROTOCOL_ERROR"]);
}

#[test]
fn streams_are_limited_by_us_and_by_the_peer() {
    let mut script = Script::client(Settings::default());
    for _ in 0..100 {
        assert!(script.core.open("h:1", &[], script.now).is_some());
    }
    assert!(script.core.open("h:1", &[], script.now).is_none());
    let mut script = Script::client(Settings::default());
    script.send(&settings_frame(&[(3, 2)]));
    assert_eq!(script.core.open("h:1", &[], script.now), Some(1));
    assert_eq!(script.core.open("h:1", &[], script.now), Some(3));
    assert!(!script.core.has_room());
    script.send(&reset(1, ErrorCode::REFUSED_STREAM));
    assert_eq!(script.core.open("h:1", &[], script.now), Some(5));
    script.send(&settings_frame(&[(3, 100)]));
    assert!(script.core.has_room());
}

#[test]
fn a_goaway_spares_the_streams_it_covers() {
    let mut script = asked();
    script.core.open("h:1", &[], script.now).unwrap();
    script.send(&answer(1, "200", false));
    let did = script.send(&goaway(1, ErrorCode::NO_ERROR));
    assert_eq!(did.actions, ["going away", "broken 3 NotProcessed(NO_ERROR)"]);
    assert!(script.core.open("h:1", &[], script.now).is_none());
    script.frames();
    assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"]);
    script.core.consumed(1, 1, script.now);
    script.core.finish(1);
    let did = script.send(&data(1, b"", true));
    assert_eq!(did.frames, ["DATA 1 0 END_STREAM", "GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions, ["end 1", "ended hbone-peer-going-away"]);
}

#[test]
fn a_goaway_below_a_live_tunnel_ends_it_and_the_connection() {
    let mut script = asked();
    script.send(&answer(1, "200", false));
    let did = script.send(&goaway(0, ErrorCode::NO_ERROR));
    assert_eq!(did.actions, ["going away", "broken 1 NotProcessed(NO_ERROR)", "ended hbone-peer-going-away"]);
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
}

#[test]
fn a_server_may_not_push_or_open() {
    for bytes in [
        raw(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        answer(2, "200", false),
        answer(3, "200", false),
        settings_frame(&[(2, 1)]),
    ] {
        assert_eq!(asked().send(&bytes).frames, ["GOAWAY 0 PROTOCOL_ERROR"]);
    }
}

#[test]
fn a_smaller_table_is_acknowledged_in_the_next_block() {
    let mut script = Script::client(Settings::default());
    script.frames();
    script.send(&settings_frame(&[(1, 0)]));
    script.core.open("h:1", &[], script.now).unwrap();
    let out = script.core.output().clone();
    assert_eq!(out.get(HEADER), Some(&0x20));
    script.frames();
    script.core.open("h:1", &[], script.now).unwrap();
    assert_ne!(script.core.output().get(HEADER), Some(&0x20));
}

#[test]
fn a_request_the_peer_would_refuse_is_not_sent() {
    let mut script = Script::client(Settings::default());
    script.send(&settings_frame(&[(6, 200)]));
    assert!(script.core.fits("h:1", &[]));
    assert!(!script.core.fits("h:1", &[("baggage".into(), "x".repeat(200))]));
}

// Recording CL-23: PING after 10 s of silence, the end 20 s later.
#[test]
fn unanswered_pings_end_the_connection_after_thirty_seconds() {
    let mut script = asked();
    assert_eq!(script.wait(Duration::from_secs(10)).frames, ["PING culvert?"]);
    let did = script.wait(Duration::from_secs(20));
    assert_eq!(did.actions, ["ended hbone-ping-timeout"]);
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
}

#[test]
fn a_server_without_settings_is_let_go() {
    let mut script = Script::client(Settings::default());
    script.core.open("h:1", &[], script.now).unwrap();
    assert_eq!(script.wait(Duration::from_secs(10)).actions, ["ended hbone-preface-timeout"]);
}

#[test]
fn a_released_connection_ends_with_its_last_stream() {
    let mut script = asked();
    let mut actions = Vec::new();
    script.core.release(&mut actions);
    assert!(actions.is_empty());
    let did = script.send(&[answer(1, "503", true), reset(1, ErrorCode::NO_ERROR)].concat());
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions.last().unwrap(), "ended hbone-connection-closed");
}
