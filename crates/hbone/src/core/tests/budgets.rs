//! Peers that spend more than they may: the offender is refused, what belongs to others goes on.

use std::time::Duration;

use super::*;
use crate::{Budget, Budgets, Limit};

/// A server whose buckets hold ten, with a tunnel on stream 1 and one on stream 3.
fn ready() -> Script {
    let budget = Budget { burst: 10, per_second: 1 };
    let budgets = Budgets {
        resets: budget,
        settings: budget,
        pings: budget,
        empty_data: budget,
        small_data: budget,
        small_windows: budget,
        stale_frames: budget,
        idle_frames: budget,
        ..Budgets::default()
    };
    let mut script = Script::ready_with(Settings { budgets, ..Settings::default() });
    script.tunnel(1);
    script.tunnel(3);
    script
}

/// The innocent stream moves bytes in both directions.
#[track_caller]
fn innocent_goes_on(script: &mut Script) {
    assert_eq!(script.send(&data(1, &[7; 100], false)).actions, ["data 1 100"]);
    script.core.consumed(1, 100, script.now);
    assert_eq!(script.write(1, 9), 9);
    assert!(script.frames().contains(&"DATA 1 9".to_owned()));
}

/// The last of `limit` that was counted, with its number.
fn counted(script: &mut Script, limit: Limit) -> u64 {
    script.core.take_exceeded().into_iter().filter(|(found, _)| *found == limit).map(|(_, times)| times).sum()
}

#[test]
fn a_stream_that_floods_is_reset_alone() {
    for (frame, limit) in [
        (data(3, b"", false), Limit::EmptyData),
        (data(3, b"x", false), Limit::SmallData),
        (data(3, &[0; 54], false), Limit::SmallData),
    ] {
        let mut script = ready();
        for _ in 0..10 {
            assert!(script.send(&frame).frames.is_empty());
        }
        assert_eq!(script.send(&frame).frames, ["RST_STREAM 3 ENHANCE_YOUR_CALM"]);
        assert_eq!(counted(&mut script, limit), 1);
        innocent_goes_on(&mut script);
        assert_eq!(script.send(&connect(5)).actions.len(), 1, "new streams are welcome");
    }
}

#[test]
fn small_data_that_keeps_to_a_persons_pace_is_no_flood() {
    let mut script = ready();
    for _ in 0..1000 {
        assert_eq!(script.send(&data(3, b"k", false)).frames, [""; 0]);
        script.core.consumed(3, 1, script.now);
        script.now += Duration::from_secs(1);
    }
    // With the default, an application that writes octet by octet as fast as a socket goes.
    let mut script = Script::ready();
    script.tunnel(1);
    let key = data(1, b"k", false);
    for _ in 0..1_000_000 {
        let mut actions = Vec::new();
        script.core.receive(script.now, &key, &mut actions);
        assert_eq!(actions.len(), 1);
        script.core.consumed(1, 1, script.now);
        script.now += Duration::from_micros(12);
    }
}

#[test]
fn windows_opened_octet_by_octet_cost_the_stream() {
    let mut script = Script::server(Settings {
        budgets: Budgets { small_windows: Budget { burst: 10, per_second: 1 }, ..Budgets::default() },
        ..Settings::default()
    });
    script.send(&[&frame::PREFACE[..], &settings_frame(&[(4, 100)])].concat());
    script.tunnel(1);
    script.tunnel(3);
    assert_eq!(script.write(3, 1000), 100);
    for _ in 0..10 {
        assert_eq!(script.send(&window(3, 1)).actions, ["window 3"]);
        assert_eq!(script.write(3, 1000), 1);
    }
    script.frames();
    let did = script.send(&window(3, 1));
    assert_eq!(did.frames, ["RST_STREAM 3 ENHANCE_YOUR_CALM"]);
    assert_eq!(counted(&mut script, Limit::SmallWindows), 1);
    innocent_goes_on(&mut script);
    // Small updates of a window that is not empty cost nothing and are free.
    for _ in 0..1000 {
        assert_eq!(script.send(&window(1, 1)), Did::default());
    }
    assert_eq!(script.write(1, 5000), 91 + 1000);
}

#[test]
fn a_connection_that_floods_gets_no_more_streams_but_tunnels_go_on() {
    let ping = raw(kind::PING, 0, 0, &[0; 8]);
    let idle = raw(0x42, 0, 0, b"");
    for (frame, limit, answered) in [
        (ping, Limit::Pings, false),
        (settings_frame(&[]), Limit::Settings, true),
        (settings_frame(&[(4, 1), (4, 70_000)]), Limit::Settings, true),
        (idle, Limit::IdleFrames, false),
        (reset(3, ErrorCode::CANCEL), Limit::IdleFrames, false),
    ] {
        let mut script = ready();
        let mut said = Vec::new();
        for _ in 0..100 {
            said.extend(script.send(&frame).frames);
        }
        said.retain(|frame| frame != "PING ack \0\0\0\0\0\0\0\0");
        let acks = said.iter().filter(|frame| *frame == "SETTINGS ack").count();
        assert_eq!(acks, if answered { 100 } else { 0 }, "what is in force must be said");
        said.retain(|frame| frame != "SETTINGS ack");
        assert_eq!(said, ["GOAWAY 3 ENHANCE_YOUR_CALM"], "{limit:?}");
        assert!(counted(&mut script, limit) > 80, "{limit:?}");
        innocent_goes_on(&mut script);
        assert_eq!(script.send(&connect(5)).frames, ["RST_STREAM 5 REFUSED_STREAM"]);
        // An orderly end and a reset mean what they always do.
        assert_eq!(script.send(&data(1, b"", true)).actions, ["end 1"]);
        script.core.finish(1);
        assert_eq!(script.frames(), ["DATA 1 0 END_STREAM"]);
        let did = script.send(&reset(3, ErrorCode::CANCEL));
        assert_eq!(did.actions.last().map(String::as_str), Some("ended hbone-peer-flood"));
    }
}

/// The flood's GOAWAY has fixed the last stream; peers end the connection of whoever raises it (RFC 9113 section 6.8).
#[test]
fn a_drain_after_a_flood_lets_the_tunnels_finish() {
    let mut script = ready();
    let ping = raw(kind::PING, 0, 0, &[0; 8]);
    let said: Vec<String> = (0..20).flat_map(|_| script.send(&ping).frames).collect();
    assert_eq!(said.last().map(String::as_str), Some("GOAWAY 3 ENHANCE_YOUR_CALM"));
    script.core.drain(script.now);
    assert_eq!(script.frames(), [""; 0]);
    innocent_goes_on(&mut script);
    script.send(&data(1, b"", true));
    script.core.finish(1);
    let did = script.send(&reset(3, ErrorCode::CANCEL));
    assert_eq!(did.frames, ["DATA 1 0 END_STREAM", "GOAWAY 3 ENHANCE_YOUR_CALM"]);
    assert_eq!(did.actions.last().map(String::as_str), Some("ended hbone-peer-flood"));
}

/// The other way round the flood fixes it below what the drain's first GOAWAY said.
#[test]
fn a_flood_during_a_drain_fixes_the_last_stream() {
    let mut script = ready();
    script.core.drain(script.now);
    assert_eq!(script.frames()[0], format!("GOAWAY {} NO_ERROR", frame::MAX_31));
    let ping = raw(kind::PING, 0, 0, &[0; 8]);
    let said: Vec<String> = (0..20).flat_map(|_| script.send(&ping).frames).collect();
    assert_eq!(said.last().map(String::as_str), Some("GOAWAY 3 ENHANCE_YOUR_CALM"));
    assert_eq!(script.wait(Duration::from_secs(2)).frames, ["GOAWAY 3 NO_ERROR"]);
    innocent_goes_on(&mut script);
}

#[test]
fn settings_that_take_long_to_read_cost_more() {
    let mut script = ready();
    let many: Vec<(u16, u32)> = (0..100).map(|n| (0x100, n)).collect();
    script.send(&settings_frame(&many));
    assert_eq!(script.send(&settings_frame(&many)).frames, ["GOAWAY 3 ENHANCE_YOUR_CALM", "SETTINGS ack"]);
}

#[test]
fn streams_opened_to_be_reset() {
    let mut script = ready();
    let mut stream = 5;
    let did = loop {
        let did = script.send(&[connect(stream), reset(stream, ErrorCode::CANCEL)].concat());
        stream += 2;
        if !did.frames.is_empty() {
            break did;
        }
    };
    assert_eq!(did.frames, ["GOAWAY 25 ENHANCE_YOUR_CALM"]);
    assert_eq!(counted(&mut script, Limit::Resets), 1);
    assert_eq!(script.send(&connect(stream)).frames, [format!("RST_STREAM {stream} REFUSED_STREAM")]);
    innocent_goes_on(&mut script);
    script.send(&[reset(1, ErrorCode::CANCEL), reset(3, ErrorCode::CANCEL)].concat());
    assert!(script.core.deadline().is_none(), "ended with its last tunnel");
}

/// What is under way to streams that we reset is no fault of the peer's, however much it is.
#[test]
fn a_window_under_way_to_a_reset_stream_is_forgiven() {
    let mut script = ready();
    script.core.reset(3, ErrorCode::CONNECT_ERROR);
    script.frames();
    for _ in 0..4096 {
        assert!(script.send(&data(3, &[0; 1024], false)).actions.is_empty());
    }
    assert_eq!(counted(&mut script, Limit::StaleFrames), 0);
    innocent_goes_on(&mut script);
    for _ in 0..20 {
        script.send(&data(3, b"x", false));
    }
    assert_eq!(counted(&mut script, Limit::StaleFrames), 10);
    innocent_goes_on(&mut script);
}

#[test]
fn a_stream_that_is_over_is_told_once() {
    let mut script = ready();
    script.send(&reset(3, ErrorCode::CANCEL));
    assert_eq!(script.send(&data(3, b"x", false)).frames, ["RST_STREAM 3 STREAM_CLOSED"]);
    assert_eq!(script.send(&data(3, b"x", false)), Did::default());
}

/// Trailers that were under way when we reset their stream, however long ago that was, cost nobody else anything, and
/// are read for the header table.
#[test]
fn late_trailers_of_a_stream_that_is_forgotten_are_read_over() {
    let mut script = ready();
    for stream in (5..5 + 2 * 400).step_by(2) {
        script.send(&connect(stream));
        script.core.reset(stream, ErrorCode::CONNECT_ERROR);
    }
    script.frames();
    // `x-late: a` with incremental indexing: the table's first entry from here on.
    let indexed = [&[0x40, 6][..], b"x-late", &[1], b"a"].concat();
    let trailers = raw(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, &indexed);
    assert_eq!(script.send(&trailers), Did::default());
    innocent_goes_on(&mut script);
    let request = [block(&CONNECT), vec![0x80 | 62]].concat();
    let did = script.send(&raw(kind::HEADERS, flag::END_HEADERS, 1001, &request));
    assert_eq!(did.actions, ["request 1001 CONNECT 10.0.0.1:80"]);
    // Within a budget.
    let did: Vec<String> = (0..20).flat_map(|_| script.send(&headers(7, &[], true)).frames).collect();
    assert_eq!(did, ["GOAWAY 1001 ENHANCE_YOUR_CALM"]);
    innocent_goes_on(&mut script);
    // An id that was passed by is none that was forgotten.
    let did = script.send(&connect(999));
    assert_eq!(did.frames, ["GOAWAY 1001 PROTOCOL_ERROR"]);
}

#[test]
fn headers_on_a_stream_that_the_peer_has_reset_are_a_fault_of_that_stream() {
    let mut script = ready();
    script.send(&reset(3, ErrorCode::CANCEL));
    assert_eq!(script.send(&headers(3, &[], true)).frames, ["RST_STREAM 3 STREAM_CLOSED"]);
    assert_eq!(script.send(&headers(3, &[], true)), Did::default());
    innocent_goes_on(&mut script);
}

/// Nobody has told the peer to stop: it breaks the connection's own state.
#[test]
fn headers_after_an_orderly_end_of_both_sides_end_the_connection() {
    let mut script = ready();
    script.send(&data(3, b"", true));
    script.core.finish(3);
    script.frames();
    assert_eq!(script.send(&headers(3, &[], true)).frames, ["GOAWAY 3 STREAM_CLOSED"]);
}

#[test]
fn header_blocks_that_do_not_end_cut_the_connection() {
    let mut script = ready();
    script.send(&raw(kind::HEADERS, 0, 5, &[]));
    let did: Vec<String> =
        (0..65).flat_map(|_| script.send(&raw(kind::CONTINUATION, 0, 5, &[])).frames).collect();
    assert_eq!(did, ["GOAWAY 3 ENHANCE_YOUR_CALM"]);
    assert_eq!(counted(&mut script, Limit::Continuations), 1);
    let mut script = ready();
    script.send(&raw(kind::HEADERS, 0, 5, &[0; 1_000_000]));
    // Judged by its head.
    let did = script.send(&frame::head(100_000, kind::CONTINUATION, flag::END_HEADERS, 5));
    assert_eq!(did.frames, ["GOAWAY 3 ENHANCE_YOUR_CALM"]);
    assert_eq!(counted(&mut script, Limit::HeaderBlock), 1);
}

#[test]
fn long_header_lists_and_streams_beyond_the_limit_are_counted() {
    let mut script = ready();
    let long = headers(5, &[CONNECT[0], CONNECT[1], ("x-long", &"v".repeat(70_000))], false);
    assert_eq!(script.send(&long).frames[0], "HEADERS 5 :status=431 END_STREAM");
    assert_eq!(counted(&mut script, Limit::HeaderList), 1);
    for n in 0..200 {
        script.send(&connect(7 + 2 * n));
    }
    assert_eq!(counted(&mut script, Limit::Streams), 2);
    innocent_goes_on(&mut script);
}

#[test]
fn a_client_leaves_a_server_that_floods() {
    let budgets = Budgets { pings: Budget { burst: 10, per_second: 1 }, ..Budgets::default() };
    let mut script = Script::client(Settings { budgets, ..Settings::default() });
    script.send(&settings_frame(&[]));
    script.core.open("h:1", &[], script.now).unwrap();
    script.send(&headers(1, &[(":status", "200")], false));
    let did: Vec<String> =
        (0..11).flat_map(|_| script.send(&raw(kind::PING, 0, 0, &[0; 8])).actions).collect();
    assert_eq!(did, ["going away"]);
    assert!(script.core.is_going_away() && !script.core.has_room(), "the pool takes another connection");
    assert_eq!(script.send(&data(1, b"on", false)).actions, ["data 1 2"]);
}

#[test]
fn budgets_come_back() {
    let mut script = ready();
    for _ in 0..30 {
        assert_eq!(script.send(&raw(kind::PING, 0, 0, &[0; 8])).frames.len(), 1);
        script.now += Duration::from_secs(1);
    }
}

/// What a frame's kind cannot use is not collected, and not waited for.
#[test]
fn frames_are_judged_by_their_heads() {
    const MOST: usize = 1 << 20;
    for (kind, flags, stream, length, code) in [
        (kind::PING, 0, 0, MOST, "FRAME_SIZE_ERROR"),
        (kind::PING, 0, 0, 9, "FRAME_SIZE_ERROR"),
        (kind::WINDOW_UPDATE, 0, 1, MOST, "FRAME_SIZE_ERROR"),
        (kind::WINDOW_UPDATE, 0, 0, 5, "FRAME_SIZE_ERROR"),
        (kind::RST_STREAM, 0, 1, MOST, "FRAME_SIZE_ERROR"),
        (kind::SETTINGS, 0, 0, 100_001, "FRAME_SIZE_ERROR"),
        (kind::SETTINGS, flag::ACK, 0, 6, "FRAME_SIZE_ERROR"),
        (kind::SETTINGS, 0, 0, 6 * 100_000, "ENHANCE_YOUR_CALM"),
        (kind::PUSH_PROMISE, 0, 1, MOST, "PROTOCOL_ERROR"),
        (kind::CONTINUATION, 0, 1, MOST, "PROTOCOL_ERROR"),
        (kind::HEADERS, 0, 2, MOST, "PROTOCOL_ERROR"),
    ] {
        let mut script = ready();
        let did = script.send(&frame::head(length, kind, flags, stream));
        assert_eq!(did.frames, [format!("GOAWAY 3 {code}")], "kind {kind} of {length} octets");
        assert_eq!(counted(&mut script, Limit::Settings) > 0, code == "ENHANCE_YOUR_CALM");
    }
    // Inside a header block.
    let mut script = ready();
    script.send(&raw(kind::HEADERS, 0, 5, &[]));
    assert_eq!(script.send(&frame::head(MOST, 0x42, 0, 0)).frames, ["GOAWAY 3 PROTOCOL_ERROR"]);
}

#[test]
fn what_is_of_no_use_is_read_over() {
    const MOST: usize = 1 << 20;
    let rest = vec![0; MOST];
    for (head, useful, said, told) in [
        (frame::head(MOST, 0x42, 0, 1), &[][..], "", ""),
        (frame::head(MOST, kind::PRIORITY, 0, 3), &[], "RST_STREAM 3 FRAME_SIZE_ERROR", "broken 3"),
        (frame::head(MOST, kind::GOAWAY, 0, 0), &[0; 8], "", "going away"),
    ] {
        let mut script = ready();
        let did = script.send(&[&head[..], useful].concat());
        assert!(did.frames.concat() == said && did.actions.concat().starts_with(told), "at once: {did:?}");
        assert_eq!(told.is_empty(), did.actions.is_empty());
        assert_eq!(script.core.held(), 0);
        let (most, last) = rest[useful.len()..].split_at(900_000);
        assert_eq!(script.send(most), Did::default());
        assert_eq!(script.core.held(), 0, "nothing of it is kept");
        assert_eq!(script.send(last), Did::default());
        innocent_goes_on(&mut script);
    }
}

/// Whatever a peer makes us collect or keep is known, and known to be gone.
#[test]
fn frames_that_are_collected_and_answers_that_wait_are_counted() {
    let mut script = ready();
    assert_eq!(script.core.held(), 0);
    let unfinished = raw(kind::HEADERS, 0, 5, &[0; 200_000]);
    let (most, last) = unfinished.split_at(unfinished.len() - 1);
    script.send(most);
    assert_eq!(script.core.held(), 199_999, "part of a frame");
    script.send(last);
    assert_eq!(script.core.held(), 200_000, "part of a header block");

    let mut script = ready();
    let ping = raw(kind::PING, 0, 0, &[0; 8]);
    let mut actions = Vec::new();
    script.core.receive(script.now, &ping.repeat(8), &mut actions);
    assert_eq!(script.core.held(), 8 * 17, "answers that nobody sends");
    script.frames();
    assert_eq!(script.core.held(), 0);

    let long = "v".repeat(10_000);
    let request = |stream| headers(stream, &[CONNECT[0], CONNECT[1], ("x-long", &long)], false);
    script.send(&[request(5), request(7), request(9)].concat());
    assert!((30_000..31_000).contains(&script.core.held()), "requests that wait: {}", script.core.held());
    script.core.answer(5, 200, &[], false);
    script.core.answer(7, 503, &[], true);
    script.send(&reset(9, ErrorCode::CANCEL));
    assert_eq!(script.core.held(), 0);

    // They count against the tunnel's memory.
    let budgets = Budgets { tunnel_memory: 25_000, ..Budgets::default() };
    let mut script = Script::ready_with(Settings { budgets, ..Settings::default() });
    let did = script.send(&[request(1), request(3), request(5), request(7)].concat());
    assert_eq!(did.actions.len(), 3);
    assert_eq!(did.frames.last().map(String::as_str), Some("RST_STREAM 7 REFUSED_STREAM"));
}
