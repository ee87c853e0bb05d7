//! The server role: data-path 4.3, 4.7, 4.8 and 10.1.

use std::time::Duration;

use super::*;
use crate::Budget;
use crate::core::DATA_PAYLOAD;

#[track_caller]
fn fatal(script: &mut Script, bytes: &[u8], goaway: &str) {
    let did = script.send(bytes);
    assert_eq!(did.frames.last().map(String::as_str), Some(goaway), "{did:?}");
    assert!(did.actions.iter().any(|action| action.starts_with("ended")), "{did:?}");
}

/// One stream suffers, the connection and its other tunnels live.
#[track_caller]
fn stream_fault(bytes: &[u8], reset: &str) {
    let mut script = Script::ready();
    script.tunnel(1);
    script.tunnel(3);
    let did = script.send(bytes);
    assert_eq!(did.frames, [reset], "{did:?}");
    assert_eq!(script.send(&data(1, b"still", false)).actions, ["data 1 5"]);
    assert_eq!(script.send(&connect(101)).actions, ["request 101 CONNECT 10.0.0.1:80"]);
}

#[test]
fn first_frames_are_those_recorded() {
    let mut script = Script::server(Settings::default());
    assert_eq!(script.frames(), ["SETTINGS 3=200 4=4194304 5=1048576 6=65536 61674=1"]);
    let did = script.send(&[&frame::PREFACE[..], &settings_frame(&[])].concat());
    assert_eq!(did.frames, ["SETTINGS ack", "WINDOW_UPDATE 0 16711681"]);
}

#[test]
fn payload_that_crosses_a_refusal_is_nobodys_fault_once() {
    let mut settings = Settings::default();
    settings.budgets.stale_frames = Budget { burst: 0, per_second: 0 };
    let mut script = Script::ready_with(settings);
    for stream in [1, 3, 5] {
        script.send(&connect(stream));
        script.core.answer(stream, 503, &[], true);
        assert_eq!(
            script.frames(),
            [format!("HEADERS {stream} :status=503 END_STREAM"), format!("RST_STREAM {stream} NO_ERROR")]
        );
        assert_eq!(script.send(&data(stream, b"early", true)), Did::default());
    }
    let did = script.send(&data(5, b"and again", true));
    assert_eq!(did.frames[0], "GOAWAY 5 ENHANCE_YOUR_CALM");
}

#[test]
fn payload_that_crosses_a_refusal_for_want_of_room_is_nobodys_fault_either() {
    let mut settings = Settings { server_streams: 1, ..Settings::default() };
    settings.budgets.stale_frames = Budget { burst: 1, per_second: 0 };
    let mut script = Script::ready_with(settings);
    script.send(&connect(1));
    assert_eq!(script.send(&connect(3)).frames, ["RST_STREAM 3 REFUSED_STREAM"]);
    assert_eq!(script.send(&data(3, b"early", false)), Did::default());
    assert_eq!(script.send(&data(3, b"and again", false)).frames[0], "GOAWAY 1 ENHANCE_YOUR_CALM");
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut script = Script::server(Settings::default());
    let padded = raw(kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[&[5][..], b"pad", &[0; 5]].concat());
    let input = [&frame::PREFACE[..], &settings_frame(&[(4, 70_000)]), &connect(1), &padded].concat();
    let mut actions = Vec::new();
    for byte in input {
        actions.extend(script.send(&[byte]).actions);
    }
    let expected = ["window 0", "request 1 CONNECT 10.0.0.1:80", "data 1 1", "data 1 1", "data 1 1", "end 1"];
    assert_eq!(actions, expected);
}

#[test]
fn the_excess_of_streams_is_refused_and_slots_come_back() {
    let mut script = Script::ready();
    for n in 0..240 {
        let did = script.send(&connect(1 + 2 * n));
        if n < 200 {
            assert_eq!(did.actions.len(), 1);
        } else {
            assert_eq!(did.frames, [format!("RST_STREAM {} REFUSED_STREAM", 1 + 2 * n)]);
            assert!(did.actions.is_empty());
        }
    }
    for n in 0..40 {
        script.core.answer(1 + 2 * n, 503, &[], true);
    }
    script.frames();
    for n in 0..10 {
        assert_eq!(script.send(&connect(1001 + 2 * n)).actions.len(), 1);
    }
}

#[test]
fn header_lists_above_the_limit_get_431() {
    let mut script = Script::ready();
    let big = "v".repeat(1000);
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("x-big", big.as_str()), 64).collect();
    let list = |n: usize| [&CONNECT[..], &many[..n]].concat();
    assert_eq!(script.send(&headers(1, &list(62), false)).actions.len(), 1);
    let did = script.send(&headers(3, &list(64), false));
    assert_eq!(did.frames, ["HEADERS 3 :status=431 END_STREAM", "RST_STREAM 3 PROTOCOL_ERROR"]);
    assert!(did.actions.is_empty());
}

/// As long as one frame may be, it is read: the table is kept in step, and nobody else notices.
#[test]
fn a_header_block_of_any_length_a_frame_may_have_gets_431() {
    // `x-late: a` with incremental indexing, then what is far above the limit of a list.
    let indexed = [&[0x40, 6][..], b"x-late", &[1], b"a"].concat();
    let big = block(&[("x-big", &"v".repeat(1000))]);
    let huge = [block(&CONNECT), indexed, big.repeat(1000)].concat();
    assert!(huge.len() > 1_000_000 && huge.len() < 1 << 20);
    let pieces = huge.chunks(huge.len() / 60).map(|piece| raw(kind::CONTINUATION, 0, 3, piece));
    let pieces: Vec<u8> = [raw(kind::HEADERS, 0, 3, &[])].into_iter().chain(pieces).flatten().collect();
    for request in [
        raw(kind::HEADERS, flag::END_HEADERS, 3, &huge),
        [pieces, raw(kind::CONTINUATION, flag::END_HEADERS, 3, &[])].concat(),
    ] {
        let mut script = Script::ready();
        script.tunnel(1);
        let did = script.send(&request);
        assert_eq!(did.frames, ["HEADERS 3 :status=431 END_STREAM", "RST_STREAM 3 PROTOCOL_ERROR"]);
        assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"], "the other tunnel goes on");
        let known = [block(&CONNECT), vec![0x80 | 62]].concat();
        let mut actions = Vec::new();
        let known = raw(kind::HEADERS, flag::END_HEADERS, 5, &known);
        script.core.receive(script.now, &known, &mut actions);
        let [Action::Request { head, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(head.headers, [("x-late".to_owned(), b"a".to_vec())]);
        script.core.consumed(1, 1, script.now);
        assert_eq!(script.core.held(), u64::try_from(head.octets()).unwrap());
    }
}

#[test]
fn a_header_block_without_end_ends_the_connection() {
    let mut script = Script::ready();
    script.send(&raw(kind::HEADERS, 0, 1, &block(&CONNECT)));
    for _ in 0..64 {
        assert!(script.send(&raw(kind::CONTINUATION, 0, 1, b"")).frames.is_empty());
    }
    fatal(&mut script, &raw(kind::CONTINUATION, 0, 1, b""), "GOAWAY 0 ENHANCE_YOUR_CALM");
}

#[test]
fn five_hundred_fields_are_fine() {
    let mut script = Script::ready();
    let many: Vec<(&str, &str)> = CONNECT.into_iter().chain(std::iter::repeat_n(("x-a", "b"), 500)).collect();
    assert_eq!(script.send(&headers(1, &many, false)).actions.len(), 1);
}

#[test]
fn a_header_block_may_come_in_continuations_with_padding_and_priority() {
    let mut script = Script::ready();
    let block = block(&CONNECT);
    let (first, rest) = block.split_at(5);
    let payload = [&[4][..], &[0, 0, 0, 0, 16], first, &[0; 4]].concat();
    script.send(&raw(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &payload));
    script.send(&raw(kind::CONTINUATION, 0, 1, &rest[..3]));
    let did = script.send(&raw(kind::CONTINUATION, flag::END_HEADERS, 1, &rest[3..]));
    assert_eq!(did.actions, ["request 1 CONNECT 10.0.0.1:80"]);
}

#[test]
fn a_priority_of_wrong_length_is_a_fault_also_of_a_stream_that_is_over() {
    let mut script = Script::ready();
    script.send(&headers(1, &CONNECT, true));
    script.core.answer(1, 503, &[], true);
    script.frames();
    let did = script.send(&raw(kind::PRIORITY, 0, 1, &[0; 4]));
    assert_eq!(did.frames, ["RST_STREAM 1 FRAME_SIZE_ERROR"]);
    assert!(did.actions.is_empty());
}

#[test]
fn malformed_requests_are_reset_alone() {
    let with = |extra: (&'static str, &'static str)| vec![CONNECT[0], CONNECT[1], extra];
    let authority = |value: &'static str| vec![CONNECT[0], (":authority", value)];
    let cases: Vec<Vec<(&str, &str)>> = vec![
        authority(""),
        authority("::1:80"),
        authority("a b:80"),
        authority("user@"),
        with((":authority", "10.0.0.1:81")),
        vec![CONNECT[1]],
        vec![("x-a", "b"), CONNECT[0], CONNECT[1]],
        with((":scheme", "https")),
        with((":path", "/")),
        with((":protocol", "websocket")),
        with((":status", "200")),
        with((":unknown", "x")),
        vec![(":method", "connect"), CONNECT[1]],
        vec![(":method", "GET"), CONNECT[1]],
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("te", "gzip")),
        with(("X-Upper", "x")),
        with(("x-a", "b\r\nc")),
        with(("content-length", "x")),
    ];
    for fields in cases {
        let mut script = Script::ready();
        script.tunnel(1);
        let did = script.send(&headers(3, &fields, false));
        assert_eq!(did.frames, ["RST_STREAM 3 PROTOCOL_ERROR"], "{fields:?}");
        assert!(did.actions.is_empty());
        assert_eq!(script.send(&data(1, b"still", false)).actions, ["data 1 5"]);
    }
}

#[test]
fn requests_the_caller_has_to_judge_are_passed_on() {
    for authority in
        ["10.0.0.1", "h:http", "h:99999", "user@h:80", "[::1]:80", "h.:80", "[::ffff:1.2.3.4]:7000", ":80"]
    {
        let mut script = Script::ready();
        let did = script.send(&headers(1, &[CONNECT[0], (":authority", authority)], false));
        assert_eq!(did.actions, [format!("request 1 CONNECT {authority}")]);
    }
    let mut script = Script::ready();
    assert_eq!(script.send(&headers(1, &CONNECT[..1], false)).actions, ["request 1 CONNECT -"]);
    let get = [(":method", "GET"), (":scheme", "https"), (":authority", "h:80"), (":path", "/")];
    assert_eq!(script.send(&headers(3, &get, false)).actions, ["request 3 GET h:80"]);
    assert_eq!(script.send(&headers(5, &CONNECT, true)).actions, ["request 5 CONNECT 10.0.0.1:80", "end 5"]);
    let te = [CONNECT[0], CONNECT[1], ("te", "trailers"), ("expect", "100-continue")];
    assert_eq!(script.send(&headers(7, &te, false)).actions.len(), 1);
}

#[test]
fn refusals_tell_a_client_that_is_not_done_to_stop() {
    let mut script = Script::ready();
    script.send(&connect(1));
    script.core.answer(1, 400, &[], true);
    assert_eq!(script.frames(), ["HEADERS 1 :status=400 END_STREAM", "RST_STREAM 1 NO_ERROR"]);
    // DATA that was under way is ignored, and given back to the connection's window.
    let did = script.send(&data(1, b"late", false));
    assert_eq!(did, Did::default());
    script.send(&headers(3, &CONNECT, true));
    script.core.answer(3, 503, &[], true);
    assert_eq!(script.frames(), ["HEADERS 3 :status=503 END_STREAM"]);
    assert_eq!(script.core.open_streams(), 0);
}

#[test]
fn faults_of_a_stream_end_that_stream() {
    stream_fault(&window(3, 0), "RST_STREAM 3 PROTOCOL_ERROR");
    stream_fault(&window(3, 0x7fff_ffff), "RST_STREAM 3 FLOW_CONTROL_ERROR");
    stream_fault(&headers(3, &[("x-a", "b")], false), "RST_STREAM 3 PROTOCOL_ERROR");
    stream_fault(&headers(3, &[(":status", "200")], true), "RST_STREAM 3 PROTOCOL_ERROR");
    stream_fault(&raw(kind::PRIORITY, 0, 3, &[0; 4]), "RST_STREAM 3 FRAME_SIZE_ERROR");
    let twice = [data(3, b"x", true), data(3, b"y", false)].concat();
    stream_fault(&twice, "RST_STREAM 3 STREAM_CLOSED");
    stream_fault(
        &[data(3, b"x", true), headers(3, &[("x-a", "b")], true)].concat(),
        "RST_STREAM 3 STREAM_CLOSED",
    );
}

#[test]
fn faults_of_the_connection_end_it_with_the_code_of_the_rfc() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (window(0, 0x7fff_ffff), "FLOW_CONTROL_ERROR"),
        (window(0, 0), "PROTOCOL_ERROR"),
        (window(3, 1), "PROTOCOL_ERROR"),
        (raw(kind::WINDOW_UPDATE, 0, 1, &[0; 3]), "FRAME_SIZE_ERROR"),
        (data(0, b"x", false), "PROTOCOL_ERROR"),
        (data(3, b"x", false), "PROTOCOL_ERROR"),
        (connect(2), "PROTOCOL_ERROR"),
        (raw(kind::PUSH_PROMISE, 4, 1, &[0; 4]), "PROTOCOL_ERROR"),
        (settings_frame(&[(2, 7)]), "PROTOCOL_ERROR"),
        (settings_frame(&[(4, 0x8000_0000)]), "FLOW_CONTROL_ERROR"),
        (settings_frame(&[(5, 16_383)]), "PROTOCOL_ERROR"),
        (raw(kind::SETTINGS, 0, 0, &[0; 5]), "FRAME_SIZE_ERROR"),
        (raw(kind::SETTINGS, 1, 0, &[0; 6]), "FRAME_SIZE_ERROR"),
        (raw(kind::SETTINGS, 0, 1, &[]), "PROTOCOL_ERROR"),
        (raw(kind::PING, 0, 0, &[0; 7]), "FRAME_SIZE_ERROR"),
        (raw(kind::PING, 0, 1, &[0; 8]), "PROTOCOL_ERROR"),
        (raw(kind::RST_STREAM, 0, 1, &[0; 3]), "FRAME_SIZE_ERROR"),
        (reset(3, ErrorCode::CANCEL), "PROTOCOL_ERROR"),
        (raw(kind::GOAWAY, 0, 0, &[0; 7]), "FRAME_SIZE_ERROR"),
        (raw(kind::HEADERS, 4, 3, &[0x80]), "COMPRESSION_ERROR"),
        ([raw(kind::HEADERS, 0, 3, &[]), data(1, b"x", false)].concat(), "PROTOCOL_ERROR"),
        ([raw(kind::HEADERS, 0, 3, &[]), raw(kind::CONTINUATION, 4, 5, &[])].concat(), "PROTOCOL_ERROR"),
        (raw(kind::CONTINUATION, 4, 1, &[]), "PROTOCOL_ERROR"),
        (raw(kind::DATA, flag::PADDED, 1, &[5, 0, 0]), "PROTOCOL_ERROR"),
        (raw(kind::DATA, flag::PADDED, 1, &[]), "FRAME_SIZE_ERROR"),
        (frame::head(1_048_577, kind::DATA, 0, 1).to_vec(), "FRAME_SIZE_ERROR"),
    ];
    for (bytes, code) in cases {
        let mut script = Script::ready();
        script.tunnel(1);
        fatal(&mut script, &bytes, &format!("GOAWAY 1 {code}"));
        assert_eq!(script.send(&connect(5)), Did::default(), "nothing after the end");
    }
    let mut script = Script::server(Settings::default());
    script.frames();
    fatal(&mut script, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GOAWAY 0 PROTOCOL_ERROR");
    let mut script = Script::server(Settings::default());
    script.frames();
    let ping_first = [&frame::PREFACE[..], &raw(kind::PING, 0, 0, &[0; 8])].concat();
    fatal(&mut script, &ping_first, "GOAWAY 0 PROTOCOL_ERROR");
}

#[test]
fn what_means_nothing_is_ignored() {
    let mut script = Script::ready();
    script.tunnel(1);
    for bytes in [
        raw(0x42, 0xff, 1, b"whatever"),
        raw(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        raw(kind::PRIORITY, 0, 7, &[0, 0, 0, 0, 1]),
    ] {
        assert_eq!(script.send(&bytes), Did::default());
    }
    assert_eq!(script.send(&settings_frame(&[(0x99, 1)])).frames, ["SETTINGS ack"]);
    assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"]);
}

#[test]
fn content_length_is_held_against_the_data() {
    let length = [CONNECT[0], CONNECT[1], ("content-length", "5")];
    let mut script = Script::ready();
    script.send(&headers(1, &length, false));
    assert_eq!(script.accept(1), ["HEADERS 1 :status=200"]);
    assert_eq!(script.send(&data(1, b"hello world", false)).frames, ["RST_STREAM 1 PROTOCOL_ERROR"]);
    script.send(&headers(3, &length, false));
    assert_eq!(script.send(&data(3, b"hell", true)).frames, ["RST_STREAM 3 PROTOCOL_ERROR"]);
    script.send(&headers(5, &length, false));
    assert_eq!(script.send(&data(5, b"hello", true)).actions, ["data 5 5", "end 5"]);
}

#[test]
fn trailers_end_the_stream() {
    let mut script = Script::ready();
    script.tunnel(1);
    assert_eq!(script.send(&headers(1, &[("x-a", "b")], true)).actions, ["end 1"]);
    script.core.finish(1);
    assert_eq!(script.frames(), ["DATA 1 0 END_STREAM"]);
    assert_eq!(script.core.open_streams(), 0);
}

#[test]
fn data_on_a_stream_that_is_over_is_answered_and_the_connection_lives() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.send(&data(1, b"", true));
    script.core.finish(1);
    script.frames();
    assert_eq!(script.send(&data(1, b"x", false)).frames, ["RST_STREAM 1 STREAM_CLOSED"]);
    script.tunnel(3);
    assert_eq!(script.send(&reset(3, ErrorCode::CANCEL)).actions, ["broken 3 Reset(CANCEL)"]);
    assert_eq!(script.send(&data(3, b"x", false)).frames, ["RST_STREAM 3 STREAM_CLOSED"]);
    assert_eq!(script.send(&connect(5)).actions.len(), 1);
}

#[test]
fn an_owner_that_leaves_cancels_or_has_said_all() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.core.abandon(1);
    assert_eq!(script.frames(), ["RST_STREAM 1 CANCEL"]);
    script.tunnel(3);
    script.core.finish(3);
    script.core.abandon(3);
    assert_eq!(script.frames(), ["DATA 3 0 END_STREAM", "RST_STREAM 3 NO_ERROR"]);
}

#[test]
fn windows_are_given_back_at_half_also_for_streams_that_are_gone() {
    let settings = Settings { stream_window: 1000, connection_window: 70_000, ..Settings::default() };
    let mut script = Script::ready_with(settings);
    script.tunnel(1);
    script.send(&data(1, &[0; 600], false));
    script.core.consumed(1, 499, script.now);
    assert!(script.frames().is_empty());
    script.core.consumed(1, 101, script.now);
    assert_eq!(script.frames(), ["WINDOW_UPDATE 1 600"]);
    // Overrun of one stream: it is reset, its bytes count for the connection and come back.
    assert_eq!(script.send(&data(1, &[0; 1001], false)).frames, ["RST_STREAM 1 FLOW_CONTROL_ERROR"]);
    let mut given_back = 0;
    for _ in 0..100 {
        for frame in script.send(&data(1, &[0; 16_000], false)).frames {
            let increment: i64 = frame.strip_prefix("WINDOW_UPDATE 0 ").unwrap().parse().unwrap();
            given_back += increment;
        }
    }
    assert_eq!(given_back + i64::from(script.core.uncredited), 600 + 1001 + 1_600_000);
    assert_eq!(script.core.recv_window + i64::from(script.core.uncredited), 70_000);
}

#[test]
fn an_overrun_of_the_connection_ends_it() {
    let settings = Settings { connection_window: 65_535, ..Settings::default() };
    let mut script = Script::ready_with(settings);
    script.tunnel(1);
    script.send(&data(1, &[0; 30_000], false));
    fatal(&mut script, &data(1, &[0; 36_000], false), "GOAWAY 1 FLOW_CONTROL_ERROR");
}

#[test]
fn padding_counts_for_the_windows_and_is_given_back() {
    let settings = Settings { stream_window: 1000, ..Settings::default() };
    let mut script = Script::ready_with(settings);
    script.tunnel(1);
    let padded = raw(kind::DATA, flag::PADDED, 1, &[&[200][..], b"pad", &[0; 200]].concat());
    for _ in 0..20 {
        let did = script.send(&padded);
        assert_eq!(did.actions, ["data 1 3"]);
        script.core.consumed(1, 3, script.now);
    }
}

#[test]
fn a_client_with_no_window_is_obeyed() {
    let mut script = Script::server(Settings::default());
    script.send(&[&frame::PREFACE[..], &settings_frame(&[(4, 0)])].concat());
    script.tunnel(1);
    assert_eq!(script.write(1, 1000), 0);
    assert_eq!(script.send(&window(1, 10)).actions, ["window 1"]);
    assert_eq!(script.write(1, 1000), 10);
    script.send(&window(1, 5000));
    assert_eq!(script.write(1, 990), 990);
    // A later, smaller initial window makes this one negative.
    script.send(&settings_frame(&[(4, 5000)]));
    assert_eq!(script.write(1, 20_000), 5000 + 4010);
    script.send(&settings_frame(&[(4, 0)]));
    script.send(&window(1, 4999));
    assert_eq!(script.write(1, 1), 0);
    script.send(&window(1, 2));
    assert_eq!(script.write(1, 9), 1);
}

#[test]
fn data_frames_fill_a_record_whatever_the_peer_allows() {
    let mut script = Script::server(Settings::default());
    script.send(&[&frame::PREFACE[..], &settings_frame(&[(5, 1 << 20), (4, 1 << 24)])].concat());
    script.tunnel(1);
    assert_eq!(script.write(1, 1 << 20), DATA_PAYLOAD);
    assert_eq!(script.frames(), ["DATA 1 16375"]);
}

#[test]
fn silence_is_asked_about_and_noise_is_not() {
    let mut script = Script::ready();
    assert!(script.wait(Duration::from_millis(9_999)).frames.is_empty());
    let asked = script.wait(Duration::from_millis(1)).frames;
    assert_eq!(asked, ["PING culvert?"]);
    script.send(&raw(kind::PING, flag::ACK, 0, b"culvert?"));
    assert_eq!(script.wait(Duration::from_secs(10)).frames, ["PING culvert?"]);
    script.send(&raw(kind::PING, flag::ACK, 0, b"culvert?"));
    for _ in 0..10 {
        assert!(script.wait(Duration::from_secs(9)).frames.is_empty());
        script.send(&raw(0x42, 0, 0, b""));
    }
    script.wait(Duration::from_secs(10));
    let did = script.wait(Duration::from_secs(20));
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions, ["ended hbone-ping-timeout"]);
}

// W16
#[test]
fn a_peer_that_says_nothing_after_tls_is_let_go() {
    let mut script = Script::server(Settings::default());
    script.send(&frame::PREFACE[..10]);
    let did = script.wait(Duration::from_secs(10));
    assert_eq!(did.actions, ["ended hbone-preface-timeout"]);
}

// Recording H2-03: an answered PING is asked again 10 s later, an unanswered one ends the connection 20 s later.
#[test]
fn a_silent_client_is_asked_and_let_go() {
    let mut script = Script::ready();
    for _ in 0..3 {
        assert_eq!(script.wait(Duration::from_secs(10)).frames, ["PING culvert?"]);
        script.send(&raw(kind::PING, flag::ACK, 0, b"culvert?"));
    }
    assert_eq!(script.wait(Duration::from_secs(10)).frames, ["PING culvert?"]);
    let did = script.wait(Duration::from_secs(20));
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions, ["ended hbone-ping-timeout"]);
}

#[test]
fn pings_are_answered() {
    let mut script = Script::ready();
    assert_eq!(script.send(&raw(kind::PING, 0, 0, b"12345678")).frames, ["PING ack 12345678"]);
}

#[test]
fn a_drain_lets_streams_finish_that_run_or_cross_it_and_refuses_new_ones() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.core.drain(script.now);
    assert_eq!(script.frames(), ["GOAWAY 2147483647 NO_ERROR", "PING culvert."]);
    // W20: between the two GOAWAYs, whose peer may not have read the first.
    assert_eq!(script.send(&connect(3)).actions, ["request 3 CONNECT 10.0.0.1:80"]);
    let did = script.send(&raw(kind::PING, flag::ACK, 0, b"culvert."));
    assert_eq!(did.frames, ["GOAWAY 3 NO_ERROR"]);
    assert_eq!(script.send(&connect(5)).frames, ["RST_STREAM 5 REFUSED_STREAM"]);
    script.core.answer(3, 503, &[], true);
    assert_eq!(script.frames(), ["HEADERS 3 :status=503 END_STREAM", "RST_STREAM 3 NO_ERROR"]);
    assert_eq!(script.send(&data(1, b"more", true)).actions, ["data 1 4", "end 1"]);
    script.core.consumed(1, 4, script.now);
    script.core.finish(1);
    let mut actions = Vec::new();
    script.core.settle_connection(&mut actions);
    assert_eq!(actions.iter().map(render_action).collect::<Vec<_>>(), ["ended hbone-connection-closed"]);
    assert_eq!(script.frames(), ["DATA 1 0 END_STREAM"]);
}

#[test]
fn a_drain_without_streams_or_without_an_answer_ends_too() {
    let mut script = Script::ready();
    script.core.drain(script.now);
    let did = script.send(&raw(kind::PING, flag::ACK, 0, b"culvert."));
    assert_eq!(did.frames, ["GOAWAY 2147483647 NO_ERROR", "PING culvert.", "GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions, ["ended hbone-connection-closed"]);
    let mut script = Script::ready();
    script.core.drain(script.now);
    script.frames();
    let did = script.wait(Duration::from_secs(1));
    assert_eq!(did.frames, ["GOAWAY 0 NO_ERROR"]);
    assert_eq!(did.actions, ["ended hbone-connection-closed"]);
}

#[test]
fn after_the_clients_goaway_the_connection_ends_with_the_last_tunnel() {
    let mut script = Script::ready();
    script.tunnel(1);
    assert_eq!(script.send(&goaway(0, ErrorCode::NO_ERROR)).actions, ["going away"]);
    assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"]);
    script.core.consumed(1, 1, script.now);
    script.core.finish(1);
    let did = script.send(&data(1, b"", true));
    assert_eq!(did.frames, ["DATA 1 0 END_STREAM", "GOAWAY 1 NO_ERROR"]);
    assert_eq!(did.actions, ["end 1", "ended hbone-peer-going-away"]);
}

#[test]
fn floods_as_large_as_the_recorded_ones_pass() {
    let mut script = Script::ready();
    script.tunnel(1);
    for _ in 0..5000 {
        script.send(&raw(kind::PING, 0, 0, &[0; 8]));
    }
    for _ in 0..3000 {
        script.send(&settings_frame(&[]));
        assert!(script.send(&data(1, b"", false)).frames.is_empty());
    }
    assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"]);
}
