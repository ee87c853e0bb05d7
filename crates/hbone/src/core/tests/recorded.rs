//! The recorded exchanges with the reference that can be told as frames: the same frames go in, and what comes out
//! is compared with what was observed. Where we differ on purpose, the difference is the test.

use serde_json::Value;

use super::*;
use crate::core::Capacity;

fn recording(id: &str) -> Value {
    let path = format!("{}/../../tests/data/hbone/{id}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str::<Value>(&text).unwrap()["observed"].take()
}

/// Recorded frames in the words of this module.
fn frames(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(frame_text).collect()
}

fn frame_text(frame: &Value) -> String {
    let stream = &frame["stream"];
    let code = frame["code"].as_str().unwrap_or_default();
    match frame["type"].as_str().unwrap() {
        "SETTINGS" if frame["ack"] == true => "SETTINGS ack".into(),
        "SETTINGS" => {
            let id = |name: &str| match name {
                "ENABLE_PUSH" => 2,
                "MAX_CONCURRENT_STREAMS" => 3,
                "INITIAL_WINDOW_SIZE" => 4,
                "MAX_FRAME_SIZE" => 5,
                "MAX_HEADER_LIST_SIZE" => 6,
                other => panic!("{other}"),
            };
            let values: Vec<_> = frame["settings"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| format!("{}={v}", id(k)))
                .collect();
            format!("SETTINGS {}", values.join(" "))
        }
        "WINDOW_UPDATE" => format!("WINDOW_UPDATE {stream} {}", frame["increment"]),
        "HEADERS" => {
            let fields: Vec<_> = frame["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|h| format!("{}={}", h[0].as_str().unwrap(), h[1].as_str().unwrap()))
                .collect();
            format!("HEADERS {stream} {}", fields.join(" "))
        }
        "RST_STREAM" => format!("RST_STREAM {stream} {code}"),
        "GOAWAY" => format!("GOAWAY {} {code}", frame["last"]),
        "PING" => "PING culvert.".into(),
        "DATA" if frame["end_stream"] == true => format!("DATA {stream} {} END_STREAM", frame["len"]),
        "DATA" => format!("DATA {stream} {}", frame["len"]),
        other => panic!("{other}"),
    }
}

/// A tunnel on stream 1, then `bytes`.
fn after_tunnel(bytes: &[u8]) -> (Script, Did) {
    let mut script = Script::ready();
    script.tunnel(1);
    let did = script.send(bytes);
    (script, did)
}

#[track_caller]
fn next_stream_works(script: &mut Script) {
    assert_eq!(script.send(&connect(9)).actions, ["request 9 CONNECT 10.0.0.1:80"]);
}

// One value more than was recorded, which peers ignore unless they are ours: payload ahead of the answer.
#[test]
fn h2_01_first_frames() {
    for early_data in [false, true] {
        let mut script = Script::server(Settings { early_data, ..Settings::default() });
        let mut seen = script.frames();
        seen.extend(script.send(&[&frame::PREFACE[..], &settings_frame(&[])].concat()).frames);
        let mut expected = frames(&recording("H2-01")["frames"]);
        if early_data {
            expected[0].push_str(" 61674=1");
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn cl_01_first_frames() {
    let observed = recording("CL-01");
    let expected = frames(&observed["frames_before_data"]);
    let request = observed["frames_before_data"][2]["headers"].as_array().unwrap().clone();
    let field = |i: usize, j: usize| request[i][j].as_str().unwrap().to_owned();
    let headers: Vec<_> = (2..request.len()).map(|i| (field(i, 0), field(i, 1))).collect();
    let mut script = Script::client(Settings::default());
    script.core.open(&field(1, 1), &headers, script.now).unwrap();
    assert_eq!(script.frames(), expected);
    script.send(&[settings_frame(&[]), self::headers(1, &[(":status", "200")], false)].concat());
    script.frames();
    script.write(1, 5);
    script.core.finish(1);
    assert_eq!(script.frames(), frames(&observed["frames_after"]));
}

#[test]
fn h2_04_more_streams_than_allowed() {
    let observed = recording("H2-04");
    let mut script = Script::ready();
    let mut first_reset = None;
    let (mut answered, mut resets) = (0, 0);
    for n in 0..240_u32 {
        let did = script.send(&connect(1 + 2 * n));
        if did.actions.is_empty() {
            assert!(did.frames[0].ends_with(observed["reset"][0].as_str().unwrap()));
            first_reset.get_or_insert(n + 1);
            resets += 1;
        } else {
            answered += 1;
        }
    }
    assert_eq!(Value::from(answered), observed["answered_200"]);
    assert_eq!(Value::from(resets), observed["reset_count"]);
    assert_eq!(Value::from(first_reset), observed["first_reset_is_stream_number"]);
}

#[test]
fn h2_05_client_goaway() {
    let stream = recording("H2-05")["stream"].take();
    let (mut script, did) = after_tunnel(&goaway(0, ErrorCode::NO_ERROR));
    assert!(did.frames.is_empty());
    script.core.finish(1);
    script.frames();
    let did = script.send(&data(1, b"", true));
    let expected =
        format!("GOAWAY {} {}", stream["goaway"]["last"], stream["goaway"]["code"].as_str().unwrap());
    assert_eq!(did.frames, [expected]);
    assert!(did.actions.last().unwrap().starts_with("ended"), "close_notify follows");
}

#[test]
fn faults_that_end_what_they_ended_there() {
    for (id, bytes) in [
        ("H2-08", window(1, 0x7fff_ffff)),
        ("H2-09", window(0, 0x7fff_ffff)),
        ("H2-10", [&frame::head(1_048_577, kind::DATA, 0, 1)[..], &[0; 100]].concat()),
    ] {
        let observed = recording(id);
        let (mut script, did) = after_tunnel(&bytes);
        assert_eq!(did.frames, frames(&observed["after"]), "{id}");
        if observed["end"].is_null() {
            next_stream_works(&mut script);
        } else {
            assert!(did.actions.last().unwrap().starts_with("ended"));
        }
    }
}

// W94: there the whole connection ended with GOAWAY(PROTOCOL_ERROR).
#[test]
fn h2_06_and_h2_20_end_one_stream_here() {
    assert_eq!(frames(&recording("H2-06")["after"]), ["GOAWAY 1 PROTOCOL_ERROR"]);
    let (mut script, did) = after_tunnel(&window(1, 0));
    assert_eq!(did.frames, ["RST_STREAM 1 PROTOCOL_ERROR"]);
    next_stream_works(&mut script);
    assert_eq!(frames(&recording("H2-20")["after"]), ["GOAWAY 1 PROTOCOL_ERROR"]);
    let (mut script, did) = after_tunnel(&[data(1, b"x", true), data(1, b"y", false)].concat());
    assert_eq!(did.frames, ["RST_STREAM 1 STREAM_CLOSED"]);
    assert_eq!(did.actions[..2], ["data 1 1", "end 1"]);
    next_stream_works(&mut script);
}

#[test]
fn h2_17_and_h2_21_what_is_legal_changes_nothing() {
    assert!(frames(&recording("H2-17")["after"]).is_empty());
    let odd = [raw(0x42, 0, 1, b"x"), raw(kind::PRIORITY, 0, 1, &[0; 5])].concat();
    let (mut script, did) = after_tunnel(&odd);
    assert_eq!(did, Did::default());
    next_stream_works(&mut script);
    let padded = raw(kind::DATA, flag::PADDED, 1, &[&[50][..], b"pad", &[0; 50]].concat());
    let (mut script, did) = after_tunnel(&padded);
    assert_eq!(did.actions, ["data 1 3"]);
    script.write(1, 3);
    assert_eq!(script.frames(), frames(&recording("H2-21")["after"]));
}

#[test]
fn h2_31_and_cl_25_windows_of_the_peer() {
    let observed = recording("H2-31");
    let mut script = Script::server(Settings::default());
    script.send(&[&frame::PREFACE[..], &settings_frame(&[(4, 0)])].concat());
    script.tunnel(1);
    let mut sent = script.write(1, 1000);
    assert_eq!(Value::from(sent), observed["before_window"]);
    script.send(&window(1, 10));
    sent += script.write(1, 1000);
    assert_eq!(Value::from(sent), observed["after_10"]);
    script.send(&window(1, 5000));
    sent += script.write(1, 1000 - sent);
    assert_eq!(Value::from(sent), observed["after_5000"]);

    let observed = recording("CL-25");
    let mut script = Script::client(Settings::default());
    script.send(&settings_frame(&[(4, 100)]));
    script.core.open("h:1", &[], script.now).unwrap();
    script.send(&headers(1, &[(":status", "200")], false));
    assert_eq!(Value::from(script.write(1, 1000)), observed["before"][0]);
    script.send(&window(1, 50));
    assert_eq!(Value::from(script.write(1, 900)), observed["after_50"][1]);
    assert_eq!(script.core.capacity(1), Capacity::Octets(0));
}

#[test]
fn h2_33_data_on_a_stream_that_is_over() {
    let observed = recording("H2-33");
    let (mut script, _) = after_tunnel(&data(1, b"", true));
    script.core.finish(1);
    script.frames();
    assert_eq!(script.send(&data(1, b"x", false)).frames, frames(&observed["both_ended"]["after"]));
    next_stream_works(&mut script);
    let (mut script, _) = after_tunnel(&reset(1, ErrorCode::CANCEL));
    assert_eq!(script.send(&data(1, b"x", false)).frames, frames(&observed["peer_reset"]["after"]));
    next_stream_works(&mut script);
    let mut script = Script::ready();
    script.send(&connect(1));
    script.core.answer(1, 400, &[], true);
    script.frames();
    assert_eq!(script.send(&data(1, b"x", false)).frames, frames(&observed["answered_400"]["after"]));
    next_stream_works(&mut script);
}

#[test]
fn st_11_an_overrun_of_the_stream_window() {
    let observed = recording("ST-11");
    let (mut script, _) = after_tunnel(b"");
    let mut resets = Vec::new();
    for _ in 0..12 * 64 {
        resets.extend(script.send(&data(1, &[0; 16_384], false)).frames);
    }
    resets.retain(|frame| frame.starts_with("RST"));
    assert_eq!(resets, [format!("RST_STREAM 1 {}", observed["peer"]["rst"].as_str().unwrap())]);
    next_stream_works(&mut script);
}

#[test]
fn requests_by_their_headers() {
    let big = "v".repeat(70 << 10);
    let method = (":method", "CONNECT");
    let authority = (":authority", "10.0.0.1:7000");
    let cases: Vec<(&str, Vec<(&str, &str)>, bool)> = vec![
        ("CN-01", vec![method, authority], false),
        ("CN-09", vec![method, (":authority", "10.0.0.1")], false),
        ("CN-12", vec![method, (":authority", "10.0.0.1:http")], false),
        ("CN-14", vec![method, (":authority", "[::ffff:10.0.0.1]:7000")], false),
        ("CN-20", vec![method], false),
        ("CN-36", vec![(":method", "GET"), (":scheme", "https"), authority, (":path", "/")], false),
        ("CN-38", vec![method, (":scheme", "https"), authority, (":path", "/")], false),
        ("CN-43", vec![method, authority, (":authority", "10.0.0.1:7001")], false),
        ("CN-48", vec![method, authority], true),
        ("HD-18", vec![method, authority, ("connection", "close")], false),
        ("HD-23", vec![method, authority, ("x-big", &big)], false),
        ("HD-26", vec![method, authority, ("expect", "100-continue")], false),
    ];
    for (id, fields, end_stream) in cases {
        let observed = recording(id);
        let mut script = Script::ready();
        let mut did = script.send(&headers(1, &fields, end_stream));
        let status = observed["status"].as_str();
        if did.actions.first().is_some_and(|action| action.starts_with("request")) {
            // The caller judges; here it judges as there.
            let status: u16 = status.unwrap().parse().unwrap();
            script.core.answer(1, status, &[], status != 200);
            did.frames.extend(script.frames());
        }
        let mut expected: Vec<String> = Vec::new();
        if let Some(status) = status {
            let end = if observed["end_stream"] == "headers" { " END_STREAM" } else { "" };
            expected.push(format!("HEADERS 1 :status={status}{end}"));
        }
        if let Some(code) = observed["rst"].as_str() {
            expected.push(format!("RST_STREAM 1 {code}"));
        }
        assert_eq!(did.frames, expected, "{id}");
    }
}

#[test]
fn hd_17_content_length() {
    let observed = recording("HD-17");
    let mut script = Script::ready();
    script.send(&headers(1, &[CONNECT[0], CONNECT[1], ("cookie", "a=b"), ("content-length", "5")], false));
    script.accept(1);
    let did = script.send(&data(1, b"hello world", false));
    assert_eq!(did.frames, [format!("RST_STREAM 1 {}", observed["rst"].as_str().unwrap())]);
}

#[test]
fn cl_08_and_cl_10_goaway_from_the_server() {
    for (id, last) in [("CL-08", 0x7fff_ffff), ("CL-10", 0)] {
        let observed = recording(id);
        let mut script = Script::client(Settings::default());
        script.send(&settings_frame(&[]));
        script.core.open("h:1", &[], script.now).unwrap();
        script.send(&headers(1, &[(":status", "200")], false));
        script.frames();
        let mut did = script.send(&goaway(last, ErrorCode::NO_ERROR));
        if last != 0 {
            script.core.finish(1);
            script.frames();
            did = script.send(&data(1, b"", true));
        }
        assert_eq!(did.frames, frames(&observed["client_frames_after"]), "{id}");
    }
}

#[test]
fn lc_03_drain() {
    let observed = recording("LC-03");
    let (mut script, _) = after_tunnel(b"");
    script.core.drain(script.now);
    let mut seen = script.frames();
    seen.extend(script.send(&raw(kind::PING, flag::ACK, 0, b"culvert.")).frames);
    assert_eq!(seen, frames(&observed["tunnel_connection"]));
    let mut script = Script::ready();
    script.core.drain(script.now);
    let mut seen = script.frames();
    let did = script.send(&raw(kind::PING, flag::ACK, 0, b"culvert."));
    seen.extend(did.frames);
    assert_eq!(seen, frames(&observed["idle_connection"]["frames"]));
    assert!(did.actions.last().unwrap().starts_with("ended"), "close_notify follows");
}
