//! What a server must not send a client, section by section of RFC 9113: h2spec's questions, asked of the other role.
//! A fault of one stream leaves its neighbour alone; a fault of the connection ends it with the right code.

use super::*;

/// A client with two tunnels, 1 and 3, in use.
fn two_tunnels(settings: Settings) -> Script {
    let mut script = Script::client(settings);
    script.send(&[settings_frame(&[(3, 200)]), raw(kind::SETTINGS, flag::ACK, 0, &[])].concat());
    for stream in [1, 3] {
        assert_eq!(script.core.open("10.0.0.1:80", &[], script.now), Some(stream));
        script.send(&headers(stream, &[(":status", "200")], false));
    }
    script
}

fn ends_the_connection(what: &str, bytes: &[u8], code: &str) {
    let mut script = two_tunnels(Settings::default());
    let did = script.send(bytes);
    assert_eq!(did.frames.last().map(String::as_str), Some(format!("GOAWAY 0 {code}").as_str()), "{what}");
    let end =
        if code == "ENHANCE_YOUR_CALM" { "ended hbone-peer-flood" } else { "ended hbone-protocol-error" };
    assert_eq!(did.actions.last().map(String::as_str), Some(end), "{what}");
    assert_eq!(script.send(&data(3, b"x", false)), Did::default(), "{what}: nothing is heard after the end");
}

fn ends_stream_one(what: &str, bytes: &[u8], code: &str) {
    let mut script = two_tunnels(Settings::default());
    let did = script.send(bytes);
    assert_eq!(did.frames, [format!("RST_STREAM 1 {code}")], "{what}");
    assert!(did.actions.iter().any(|action| action.starts_with("broken 1 Fault")), "{what}: {did:?}");
    assert_eq!(script.send(&data(3, b"x", false)).actions, ["data 3 1"], "{what}: the neighbour goes on");
    assert!(script.core.has_room(), "{what}");
}

fn changes_nothing(what: &str, bytes: &[u8]) {
    let mut script = two_tunnels(Settings::default());
    assert_eq!(script.send(bytes), Did::default(), "{what}");
    assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"], "{what}");
}

#[test]
fn frames_that_break_the_connection_end_it() {
    let long = [&frame::head((1 << 20) + 1, kind::DATA, 0, 1)[..], &[0; 100]].concat();
    let ping_in_block =
        [raw(kind::HEADERS, 0, 1, &block(&[("x-a", "b")])), raw(kind::PING, 0, 0, &[0; 8])].concat();
    let unknown_in_block = [raw(kind::HEADERS, 0, 1, &[]), raw(0x77, 0, 0, &[])].concat();
    let other_continued =
        [raw(kind::HEADERS, 0, 1, &[]), raw(kind::CONTINUATION, flag::END_HEADERS, 3, &[])].concat();
    let ended_block =
        [headers(1, &[("x-a", "b")], true), raw(kind::CONTINUATION, flag::END_HEADERS, 1, &[])].concat();
    let setting = |id: u16, value: u32| settings_frame(&[(id, value)]);
    let cases: [(&str, Vec<u8>, &str); 37] = [
        ("4.2 frame above the maximum", long, "FRAME_SIZE_ERROR"),
        ("4.3 index beyond the tables", raw(kind::HEADERS, 5, 1, &[0xff, 0x7f]), "COMPRESSION_ERROR"),
        ("4.3 index zero", raw(kind::HEADERS, 5, 1, &[0x80]), "COMPRESSION_ERROR"),
        ("4.3 truncated block", raw(kind::HEADERS, 5, 1, &[0x40, 5, b'a']), "COMPRESSION_ERROR"),
        ("4.3 frame in a block", ping_in_block, "PROTOCOL_ERROR"),
        ("5.5 unknown frame in a block", unknown_in_block, "PROTOCOL_ERROR"),
        ("5.1 DATA on an idle stream", data(5, b"x", false), "PROTOCOL_ERROR"),
        ("5.1 RST_STREAM on an idle stream", reset(5, ErrorCode::CANCEL), "PROTOCOL_ERROR"),
        ("5.1 WINDOW_UPDATE on an idle stream", window(5, 1), "PROTOCOL_ERROR"),
        (
            "5.1.1 HEADERS on a stream nobody opened",
            headers(5, &[(":status", "200")], false),
            "PROTOCOL_ERROR",
        ),
        ("5.1.1 HEADERS on an even stream", headers(2, &[(":status", "200")], false), "PROTOCOL_ERROR"),
        ("6.1 DATA on stream 0", data(0, b"x", false), "PROTOCOL_ERROR"),
        ("6.1 more padding than frame", raw(kind::DATA, flag::PADDED, 1, &[5, 1, 2]), "PROTOCOL_ERROR"),
        ("6.1 no pad length", raw(kind::DATA, flag::PADDED, 1, &[]), "FRAME_SIZE_ERROR"),
        ("6.2 HEADERS on stream 0", headers(0, &[("x-a", "b")], true), "PROTOCOL_ERROR"),
        ("6.2 more padding than frame", raw(kind::HEADERS, 0xd, 1, &[5, 1, 2]), "PROTOCOL_ERROR"),
        ("6.2 no pad length", raw(kind::HEADERS, 0xd, 1, &[]), "FRAME_SIZE_ERROR"),
        ("6.2 no priority", raw(kind::HEADERS, 0x25, 1, &[0; 4]), "FRAME_SIZE_ERROR"),
        ("6.3 PRIORITY on stream 0", raw(kind::PRIORITY, 0, 0, &[0; 5]), "PROTOCOL_ERROR"),
        ("6.4 RST_STREAM on stream 0", reset(0, ErrorCode::CANCEL), "PROTOCOL_ERROR"),
        ("6.4 RST_STREAM of wrong length", raw(kind::RST_STREAM, 0, 1, &[0; 3]), "FRAME_SIZE_ERROR"),
        ("6.5 SETTINGS on a stream", raw(kind::SETTINGS, 0, 1, &[]), "PROTOCOL_ERROR"),
        ("6.5 ack with payload", raw(kind::SETTINGS, flag::ACK, 0, &[0; 6]), "FRAME_SIZE_ERROR"),
        ("6.5 odd length", raw(kind::SETTINGS, 0, 0, &[0; 7]), "FRAME_SIZE_ERROR"),
        ("6.5.2 a server that would let us push", setting(2, 1), "PROTOCOL_ERROR"),
        ("6.5.2 window too large", setting(4, 1 << 31), "FLOW_CONTROL_ERROR"),
        ("6.5.2 maximum frame too small", setting(5, 16_383), "PROTOCOL_ERROR"),
        ("6.5.2 maximum frame too large", setting(5, 1 << 24), "PROTOCOL_ERROR"),
        ("6.6 PUSH_PROMISE", raw(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]), "PROTOCOL_ERROR"),
        ("6.7 PING on a stream", raw(kind::PING, 0, 1, &[0; 8]), "PROTOCOL_ERROR"),
        ("6.7 PING of wrong length", raw(kind::PING, 0, 0, &[0; 7]), "FRAME_SIZE_ERROR"),
        ("6.8 GOAWAY on a stream", raw(kind::GOAWAY, 0, 1, &[0; 8]), "PROTOCOL_ERROR"),
        ("6.8 GOAWAY too short", raw(kind::GOAWAY, 0, 0, &[0; 7]), "FRAME_SIZE_ERROR"),
        ("6.9 connection window of zero more", window(0, 0), "PROTOCOL_ERROR"),
        ("6.9.1 connection window above 2^31-1", window(0, 0x7fff_ffff), "FLOW_CONTROL_ERROR"),
        ("6.10 CONTINUATION of another stream", other_continued, "PROTOCOL_ERROR"),
        ("6.10 CONTINUATION after the block", ended_block, "PROTOCOL_ERROR"),
    ];
    for (what, bytes, code) in cases {
        ends_the_connection(what, &bytes, code);
    }
    let short = raw(kind::WINDOW_UPDATE, 0, 0, &[0; 3]);
    ends_the_connection("6.9 WINDOW_UPDATE of wrong length", &short, "FRAME_SIZE_ERROR");
    let shifted = [setting(4, 0x7fff_ffff), window(1, 1), setting(4, 0x7fff_ffff)].concat();
    let mut script = two_tunnels(Settings::default());
    let did = script.send(&shifted);
    assert!(did.frames.contains(&"RST_STREAM 1 FLOW_CONTROL_ERROR".to_owned()), "{did:?}");
    let raised = [window(1, 0x7fff_0000 - 65_535), setting(4, 0x7fff_ffff)].concat();
    ends_the_connection("6.9.2 a setting that lifts a window too far", &raised, "FLOW_CONTROL_ERROR");
}

#[test]
fn faults_of_one_stream_end_it_alone() {
    let after_end = [data(1, b"", true), data(1, b"x", false)].concat();
    let trailers = |fields: &[(&str, &str)], end| headers(1, fields, end);
    for (what, bytes, code) in [
        ("5.1 DATA after END_STREAM", after_end, "STREAM_CLOSED"),
        ("6.3 PRIORITY of wrong length", raw(kind::PRIORITY, 0, 1, &[0; 4]), "FRAME_SIZE_ERROR"),
        ("6.9 stream window of zero more", window(1, 0), "PROTOCOL_ERROR"),
        ("6.9.1 stream window above 2^31-1", window(1, 0x7fff_ffff), "FLOW_CONTROL_ERROR"),
        ("8.1 trailers without END_STREAM", trailers(&[("x-a", "b")], false), "PROTOCOL_ERROR"),
        ("8.1 pseudo header in trailers", trailers(&[(":status", "200")], true), "PROTOCOL_ERROR"),
        ("8.2.1 upper case", trailers(&[("X-A", "b")], true), "PROTOCOL_ERROR"),
        ("8.2.1 control character", trailers(&[("x-a", "b\rc")], true), "PROTOCOL_ERROR"),
        ("8.2.2 connection-specific header", trailers(&[("connection", "close")], true), "PROTOCOL_ERROR"),
    ] {
        ends_stream_one(what, &bytes, code);
    }
}

#[test]
fn what_a_server_may_send_changes_nothing() {
    for (what, bytes) in [
        ("5.3 PRIORITY on a live, an idle and an even stream", {
            [1, 5, 8].map(|stream| raw(kind::PRIORITY, 0, stream, &[0; 5])).concat()
        }),
        ("5.5 unknown frames", [0, 1, 5].map(|stream| raw(0x77, 0xff, stream, &[7; 20])).concat()),
        ("6.1 DATA without payload", data(1, b"", false)),
        ("6.7 an answer to no PING", raw(kind::PING, flag::ACK, 0, &[9; 8])),
    ] {
        changes_nothing(what, &bytes);
    }
    let mut script = two_tunnels(Settings::default());
    let reserved = raw(kind::PING, 0xfe, 0, &[9; 8]);
    assert_eq!(script.send(&reserved).frames.len(), 1, "flags without meaning are ignored");
    let unknown = settings_frame(&[(0x99, 7), (0, 0)]);
    assert_eq!(script.send(&unknown).frames, ["SETTINGS ack"], "settings without meaning are ignored");
}

#[test]
fn a_server_that_overruns_a_window_is_stopped() {
    let settings = Settings { stream_window: 70_000, connection_window: 100_000, ..Settings::default() };
    let mut script = two_tunnels(settings.clone());
    // The connection's window comes back on receipt, the stream's only when somebody takes the octets.
    for n in 1..=7 {
        let expected = if n == 5 { vec!["WINDOW_UPDATE 0 50000"] } else { Vec::new() };
        assert_eq!(script.send(&data(1, &[0; 10_000], false)).frames, expected);
    }
    assert_eq!(script.send(&data(1, b"x", false)).frames, ["RST_STREAM 1 FLOW_CONTROL_ERROR"]);
    assert_eq!(script.send(&data(3, b"x", false)).actions, ["data 3 1"]);

    let mut script = two_tunnels(settings);
    let did = script.send(&data(1, &[0; 100_001], false));
    assert_eq!(did.frames, ["GOAWAY 0 FLOW_CONTROL_ERROR"]);
}

#[test]
fn a_server_that_floods_is_stopped() {
    let mut budgets = crate::Budgets::default();
    let few = crate::Budget { burst: 20, per_second: 0 };
    budgets.settings = few;
    budgets.pings = few;
    budgets.idle_frames = few;
    budgets.empty_data = few;
    budgets.stale_frames = few;
    for (what, bytes) in [
        ("SETTINGS", settings_frame(&[])),
        ("PING", raw(kind::PING, 0, 0, &[0; 8])),
        ("PRIORITY", raw(kind::PRIORITY, 0, 1, &[0; 5])),
        ("unknown frames", raw(0x77, 0, 0, &[])),
    ] {
        let mut script = two_tunnels(Settings { budgets: budgets.clone(), ..Settings::default() });
        let did = script.send(&bytes.repeat(30));
        let goaway = did.frames.iter().filter(|frame| *frame == "GOAWAY 0 ENHANCE_YOUR_CALM").count();
        assert_eq!(goaway, 1, "{what}");
        assert!(!script.core.has_room(), "no more streams on it");
        assert_eq!(script.send(&data(1, b"x", false)).actions, ["data 1 1"], "tunnels go on");
    }
    let mut script = two_tunnels(Settings { budgets, ..Settings::default() });
    let did = script.send(&data(1, b"", false).repeat(30));
    assert_eq!(did.frames.first().unwrap(), "RST_STREAM 1 ENHANCE_YOUR_CALM");
    assert_eq!(script.send(&data(3, b"x", false)).actions, ["data 3 1"], "the neighbour goes on");
}
