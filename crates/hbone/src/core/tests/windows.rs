//! Receive windows: by need, within the tunnel's memory, and never at the cost of another stream.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::core::{Capacity, DATA_PAYLOAD, StreamFault};
use crate::{Budgets, Limit};

/// A pipe with a rate and a delay: what goes in comes out in order, each octet when its time has come.
struct Pipe {
    delay: Duration,
    octets_per_second: u64,
    free_at: Instant,
    parts: VecDeque<(Instant, Vec<u8>)>,
}

impl Pipe {
    fn new(now: Instant, delay: Duration, octets_per_second: u64) -> Self {
        Self { delay, octets_per_second, free_at: now, parts: VecDeque::new() }
    }

    fn put(&mut self, now: Instant, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let time = Duration::from_secs_f64(bytes.len() as f64 / self.octets_per_second as f64);
            self.free_at = self.free_at.max(now) + time;
            self.parts.push_back((self.free_at + self.delay, bytes));
        }
    }

    /// Room for more before it would queue for longer than 10 ms.
    fn has_room(&self, now: Instant) -> bool {
        self.free_at < now + Duration::from_millis(10)
    }

    fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.parts.pop_front_if(|(due, _)| *due <= now).map(|(_, bytes)| bytes)
    }
}

/// A client that sends on `streams` tunnels as fast as it may, to a server whose applications take everything.
struct World {
    now: Instant,
    client: Core,
    server: Core,
    up: Pipe,
    down: Pipe,
    taken: u64,
}

impl World {
    fn new(settings: &Settings, delay: Duration, octets_per_second: u64) -> Self {
        let now = epoch();
        Self {
            now,
            client: Core::client(settings.clone(), now),
            server: Core::server(settings.clone(), now),
            up: Pipe::new(now, delay, octets_per_second),
            down: Pipe::new(now, delay, octets_per_second),
            taken: 0,
        }
    }

    /// One millisecond.
    fn step(&mut self, sending: &[u32]) {
        self.now += Duration::from_millis(1);
        while let Some(bytes) = self.up.take(self.now) {
            let mut actions = Vec::new();
            self.server.receive(self.now, &bytes, &mut actions);
            let mut took = Vec::new();
            for action in actions {
                match action {
                    Action::Request { stream, .. } => self.server.answer(stream, 200, &[], false),
                    Action::Data { stream, bytes } => took.push((stream, bytes.len())),
                    other => assert!(!matches!(other, Action::Ended(_) | Action::Broken { .. }), "{other:?}"),
                }
            }
            for (stream, octets) in took {
                self.taken += octets as u64;
                self.server.consumed(stream, octets, self.now);
            }
        }
        while let Some(bytes) = self.down.take(self.now) {
            self.client.receive(self.now, &bytes, &mut Vec::new());
        }
        let mut sent = true;
        while std::mem::take(&mut sent) {
            for stream in sending {
                let Capacity::Octets(room @ 1..) = self.client.capacity(*stream) else { continue };
                if self.up.has_room(self.now) {
                    let length = room.min(DATA_PAYLOAD);
                    let head = self.client.data(*stream, length, false);
                    self.client.output().extend_from_slice(&head);
                    let out = self.client.output();
                    out.resize(out.len() + length, 0);
                    sent = true;
                    let bytes = std::mem::take(out);
                    self.up.put(self.now, bytes);
                }
            }
        }
        let bytes = std::mem::take(self.client.output());
        self.up.put(self.now, bytes);
        let bytes = std::mem::take(self.server.output());
        self.down.put(self.now, bytes);
    }

    fn run(&mut self, milliseconds: u32, sending: &[u32]) -> u64 {
        let before = self.taken;
        (0..milliseconds).for_each(|_| self.step(sending));
        self.taken - before
    }

    fn open(&mut self) -> u32 {
        self.client.open("h:1", &[], self.now).unwrap()
    }

    fn window(&self, stream: u32) -> u32 {
        self.server.streams[&stream].window
    }
}

const MB: u64 = 1_000_000;

#[test]
fn one_stream_fills_a_long_link_from_the_smallest_window() {
    // 25 MB/s with a round trip of 100 ms: 2.5 MB under way.
    let settings = Settings { stream_window: 8 << 20, ..Settings::default() };
    let mut world = World::new(&settings, Duration::from_millis(50), 25 * MB);
    world.run(250, &[]);
    world.server.press(Some((1, world.now)));
    world.run(250, &[]);
    world.server.press(None);
    let stream = world.open();
    world.run(400, &[]);
    assert_eq!(world.window(stream), 64 << 10, "as small as it gets");
    world.run(3000, &[stream]);
    let moved = world.run(1000, &[stream]);
    assert!(moved > 24 * MB, "{moved} octets in a second, of 25 MB");
    assert!(world.window(stream) <= 8 << 20);
}

#[test]
fn a_stream_with_little_to_say_ends_up_with_a_small_window() {
    let mut world = World::new(&Settings::default(), Duration::from_millis(5), 100 * MB);
    let stream = world.open();
    world.run(100, &[]);
    world.run(200, &[stream]);
    assert_eq!(world.window(stream), 4 << 20, "1 MB per round trip, four times");
    for _ in 0..1300 {
        world.run(1, &[stream]);
        world.run(99, &[]);
    }
    assert!(world.window(stream) <= 256 << 10, "{}", world.window(stream));
    assert!(world.server.streams[&stream].held() <= 1 << 20);
}

#[test]
fn streams_whose_applications_do_not_read_leave_the_others_their_way() {
    let mut script = Script::ready();
    let mut sent = 0_u64;
    let streams: Vec<u32> = (0..199).map(|n| 3 + 2 * n).collect();
    script.tunnel(1);
    for stream in &streams {
        let did = script.send(&connect(*stream));
        assert_eq!(did.actions.len(), 1, "there is room for as many as the server allows");
        if did.frames.iter().any(|frame| frame.starts_with("SETTINGS")) {
            script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
        }
        script.accept(*stream);
        // An honest peer sends what it may, and no owner takes any of it.
        let may = script.core.streams[stream].recv_window.min(script.core.recv_window);
        let mut left = usize::try_from(may).unwrap();
        while left > 0 {
            let length = left.min(16_375);
            assert_eq!(script.send(&data(*stream, &vec![0; length], false)).actions.len(), 1);
            (left, sent) = (left - length, sent + length as u64);
        }
    }
    assert_eq!(script.core.buffered(), sent);
    let limit = Settings::default().budgets.tunnel_memory;
    assert!(sent < limit && sent > limit / 2, "{sent}");
    // Many times the connection's window goes through the one whose application reads.
    for _ in 0..10_000 {
        assert_eq!(script.send(&data(1, &[1; 16_000], false)).actions, ["data 1 16000"]);
        script.core.consumed(1, 16_000, script.now);
        script.now += Duration::from_micros(100);
    }
    // Those that did not read have lost nothing, and go on once they do.
    let held = script.core.streams[&3].unconsumed;
    assert_eq!(held, 4 << 20);
    script.core.consumed(3, 4 << 20, script.now);
    assert!(script.core.streams[&3].recv_window > 0);
}

#[test]
fn a_peer_that_ignores_smaller_windows_stalls_itself() {
    let settings = Settings {
        budgets: Budgets { tunnel_memory: 1 << 20, ..Budgets::default() },
        stream_window: 512 << 10,
        connection_window: 1 << 20,
        ..Settings::default()
    };
    let mut script = Script::ready_with(settings);
    (0..4).for_each(|n| script.tunnel(1 + 2 * n));
    for n in 0..4 {
        assert!(script.core.recv_window > 0);
        script.send(&data(1 + 2 * n, &vec![0; 512 << 10], false));
    }
    assert_eq!((script.core.buffered(), script.core.recv_window), (2 << 20, 0), "and not an octet more");
    assert_eq!(script.send(&connect(9)).frames, ["RST_STREAM 9 REFUSED_STREAM"]);
    assert_eq!(script.core.take_exceeded(), [(Limit::TunnelMemory, 1)]);
    (0..3).for_each(|n| script.core.consumed(1 + 2 * n, 512 << 10, script.now));
    assert_eq!(script.core.recv_window, 1 << 20, "consumption opens it again");
    assert_eq!(script.send(&connect(11)).actions.len(), 1);
}

#[test]
fn a_tunnel_above_its_share_of_memory_is_refused_streams() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.core.press(Some((1, script.now)));
    assert_eq!(script.frames(), ["SETTINGS 4=65536"]);
    assert_eq!(script.send(&connect(3)).frames, ["RST_STREAM 3 REFUSED_STREAM"]);
    assert_eq!(script.core.take_exceeded(), [(Limit::ProcessMemory, 1)]);
    script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
    for _ in 0..1000 {
        assert_eq!(script.send(&data(1, &[0; 16_000], false)).actions.len(), 1);
        script.core.consumed(1, 16_000, script.now);
        let window = script.core.streams[&1].recv_window;
        assert!((32_768..=65_536).contains(&window), "what is taken is given back: {window}");
    }
    script.core.press(None);
    assert_eq!(script.send(&connect(5)).actions.len(), 1);
}

/// Three streams that nobody reads, of 4, 3 and 2 MB, and one with a little; the process wants 5 MB back.
fn stalled() -> Script {
    let mut script = Script::ready();
    for (stream, frames) in [(1, 200), (3, 250), (5, 100), (7, 1)] {
        script.tunnel(stream);
        (0..frames).for_each(|_| drop(script.send(&data(stream, &[0; 16_000], false))));
    }
    script.frames();
    script.core.press(Some((5_000_000, script.now)));
    script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
    script
}

#[test]
fn streams_that_nobody_reads_are_given_up_while_memory_is_short_those_with_most_first() {
    let mut script = stalled();
    let did = script.wait(Duration::from_millis(9_999));
    assert_eq!(did, Did::default(), "applications may pause");
    let held = script.core.held();
    let did = script.wait(Duration::from_millis(1));
    assert_eq!(did.actions, ["broken 3 Unread", "broken 1 Unread"]);
    let resets = ["RST_STREAM 3 ENHANCE_YOUR_CALM", "RST_STREAM 1 ENHANCE_YOUR_CALM"];
    assert_eq!(did.frames[..2], resets);
    assert_eq!(held - script.core.held(), 450 * 16_000);
    assert_eq!(script.core.take_exceeded(), [(Limit::SlowReaders, 2)]);
    // Those with less go on, and what is late for the others is read over.
    script.core.press(None);
    assert_eq!(script.send(&data(1, &[0; 16_000], false)), Did::default());
    script.core.consumed(5, 100 * 16_000, script.now);
    for stream in [5, 7] {
        assert_eq!(script.send(&data(stream, b"on", false)).actions, [format!("data {stream} 2")]);
    }
}

/// Memory that is enough again spares them.
#[test]
fn streams_that_nobody_reads_are_kept_while_there_is_memory() {
    let mut script = stalled();
    script.wait(Duration::from_secs(9));
    script.core.press(None);
    let did = script.wait(Duration::from_secs(9));
    assert!(did.actions.is_empty() && !did.frames.iter().any(|frame| frame.starts_with("RST")), "{did:?}");
    // Short again, and for as long as before: what was before the pause no longer counts.
    script.wait(Duration::from_secs(1));
    script.core.press(Some((5_000_000, script.now)));
    script.send(&raw(kind::PING, flag::ACK, 0, b"culvert?"));
    assert_eq!(broken(script.wait(Duration::from_secs(9))), "");
    assert_eq!(broken(script.wait(Duration::from_secs(1))), "broken 3 Unread broken 1 Unread");
}

fn broken(did: Did) -> String {
    did.actions.into_iter().filter(|action| action.starts_with("broken")).collect::<Vec<_>>().join(" ")
}

/// Whose applications take all they get, however much that is, is nobody who does not read; and one octet in a while is
/// not reading.
#[test]
fn streams_are_given_up_for_what_has_waited_and_not_for_what_has_just_come() {
    let mut script = Script::ready();
    [1, 3, 5].into_iter().for_each(|stream| script.tunnel(stream));
    let come = |script: &mut Script, stream, octets| {
        (0..octets / 16_000).for_each(|_| drop(script.send(&data(stream, &[0; 16_000], false))));
        script.frames();
    };
    come(&mut script, 1, 3_200_000);
    come(&mut script, 3, 1_600_000);
    come(&mut script, 5, 320_000);
    script.core.press(Some((3_000_000, script.now)));
    script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
    for second in 1..=10 {
        script.core.consumed(1, 3_200_000, script.now);
        come(&mut script, 1, 32_000);
        script.core.consumed(3, 1, script.now);
        // Memory is not short for a moment.
        script.core.press(None);
        script.core.press(Some((3_000_000, script.now)));
        let did = broken(script.wait(Duration::from_secs(1)));
        assert_eq!(did, if second < 10 { "" } else { "broken 3 Unread broken 5 Unread" });
    }
    assert_eq!(script.core.held(), 32_000, "and enough is free or not, the stream that is read goes on");
}

/// Padding is nobody's to read: however much of it comes, the octets before it wait.
#[test]
fn padding_does_not_pass_for_reading() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.send(&data(1, &[0; 16_000], false));
    script.core.press(Some((16_000, script.now)));
    script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
    let mut padding = [0; 201];
    padding[0] = 200;
    for second in 1..=10 {
        script.send(&raw(kind::DATA, flag::PADDED, 1, &padding));
        script.core.press(Some((16_000, script.now)));
        let did = broken(script.wait(Duration::from_secs(1)));
        assert_eq!(did, if second < 10 { "" } else { "broken 1 Unread" });
    }
}

/// At once, those go first that have left most for longest.
#[test]
fn without_time_to_wait_streams_go_by_what_they_hold_and_for_how_long() {
    let mut script = Script::ready();
    for (stream, octets) in [(1, 100), (3, 160_000)] {
        script.tunnel(stream);
        (0..octets / 16_000).for_each(|_| drop(script.send(&data(stream, &[0; 16_000], false))));
        script.send(&data(stream, b"x", false));
    }
    script.wait(Duration::from_secs(8));
    script.tunnel(5);
    (0..100).for_each(|_| drop(script.send(&data(5, &[0; 16_000], false))));
    script.now += Duration::from_millis(100);
    script.core.press(Some((160_000, script.now)));
    let mut actions = Vec::new();
    script.core.relieve(script.now, &mut actions);
    assert_eq!(actions, [Action::Broken { stream: 3, why: StreamFault::Unread }]);
}

/// What was promised before memory was short is all that a peer gets while nobody reads.
#[test]
fn the_connections_window_waits_for_readers_while_memory_is_short() {
    let mut script = stalled();
    let said =
        |did: Vec<String>| did.into_iter().filter(|frame| frame.starts_with("WINDOW_UPDATE 0")).count();
    let mut frames = 0;
    while script.core.recv_window >= 16_000 {
        assert_eq!(said(script.send(&data(7, &[0; 16_000], false)).frames), 0);
        script.core.consumed(7, 16_000, script.now);
        script.frames();
        frames += 1;
        assert!(frames < 2000);
    }
    script.core.consumed(3, 2_000_000, script.now);
    assert_eq!(said(script.frames()), 1, "somebody reads");
    let mut script = stalled();
    while script.core.recv_window >= 16_000 {
        script.send(&data(7, &[0; 16_000], false));
        script.core.consumed(7, 16_000, script.now);
    }
    script.frames();
    script.core.press(None);
    assert_eq!(said(script.frames()), 1, "or there is memory");
}

/// A header block that would be refused, and does not end, is not kept while memory is short.
#[test]
fn a_large_block_without_end_is_given_up_with_its_connection() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.send(&raw(kind::HEADERS, 0, 3, &[0; 500_000]));
    script.core.press(Some((400_000, script.now)));
    let did = script.wait(Duration::from_secs(10));
    assert_eq!(did.frames.last().map(String::as_str), Some("GOAWAY 1 ENHANCE_YOUR_CALM"));
    assert_eq!(script.core.take_exceeded(), [(Limit::ProcessMemory, 1)]);
}

/// Until the peer acknowledges a smaller window it may use the larger one: not for ever (RFC 9113 section 6.5.3).
#[test]
fn settings_without_acknowledgement_cost_new_streams_but_no_tunnel() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.core.press(Some((1, script.now)));
    script.core.press(None);
    let mut said = Vec::new();
    for _ in 0..59 {
        said.extend(script.wait(Duration::from_secs(1)).frames);
        script.send(&data(1, b"x", false));
    }
    assert!(said.iter().all(|frame| frame == "SETTINGS 4=65536"), "{said:?}");
    let did = script.wait(Duration::from_secs(1));
    assert_eq!(
        (did.frames, did.actions),
        (vec!["GOAWAY 1 SETTINGS_TIMEOUT".into()], vec!["going away".into()])
    );
    assert_eq!(script.core.take_exceeded(), [(Limit::SettingsTimeout, 1)]);
    assert_eq!(script.send(&connect(3)).frames, ["RST_STREAM 3 REFUSED_STREAM"]);
    assert_eq!(script.send(&data(1, b"on", false)).actions, ["data 1 2"]);
    assert_eq!(script.write(1, 9), 9);
}

/// What is consumed between our SETTINGS and their acknowledgement is given back against the smaller window.
#[test]
fn a_stream_consumed_while_windows_shrink_does_not_starve() {
    let mut script = Script::ready();
    script.tunnel(1);
    for _ in 0..256 {
        script.send(&data(1, &[0; 16_384], false));
    }
    script.core.press(Some((1, script.now)));
    assert_eq!(script.frames(), ["SETTINGS 4=65536"]);
    script.core.consumed(1, 4 << 20, script.now);
    assert_eq!(script.frames(), ["PING culvert!", "WINDOW_UPDATE 1 65536"]);
    // The peer now counts 65536 less what it has sent and what the setting took: far below zero.
    let did = script.send(&raw(kind::SETTINGS, flag::ACK, 0, &[]));
    assert_eq!(did.frames, [format!("WINDOW_UPDATE 1 {}", (4 << 20) - 65_536)]);
    assert_eq!(script.core.streams[&1].recv_window, 65_536);
}

/// However often the peer moves its initial window, it costs the same, and what may be sent is exact.
#[test]
fn a_peer_that_plays_with_its_initial_window() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.send(&window(1, 1000));
    assert_eq!(script.write(1, 500), 500);
    for initial in [0, 70_000, 1, 65_535, 200_000] {
        let did = script.send(&settings_frame(&[(4, 5), (4, initial)]));
        assert_eq!(did.frames.last().map(String::as_str), Some("SETTINGS ack"));
        let expected = usize::try_from((i64::from(initial) + 500).min(script.core.send_window)).unwrap();
        assert_eq!(script.core.capacity(1), Capacity::Octets(expected));
    }
    script.send(&window(1, 0x7fff_ffff - 200_500));
    let did = script.send(&settings_frame(&[(4, 200_001)]));
    assert_eq!(did.frames, ["GOAWAY 1 FLOW_CONTROL_ERROR"]);
}

/// A window of zero is no fault: that stream waits, the others do not.
#[test]
fn a_stream_without_window_waits_alone() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.tunnel(3);
    while script.write(3, 16_000) > 0 {}
    script.send(&window(0, 1 << 20));
    assert_eq!(script.core.capacity(3), Capacity::Octets(0));
    assert_eq!(script.write(1, 16_000), 16_000);
    script.frames();
    script.wait(Duration::from_secs(9));
    assert_eq!(script.send(&window(3, 1000)).actions, ["window 3"]);
    assert_eq!(script.write(3, 16_000), 1000);
}

/// What a burst of output leaves behind goes back, what is still to be sent does not.
#[test]
fn output_of_a_burst_is_let_go() {
    let mut script = Script::ready();
    script.tunnel(1);
    script.write(1, 16_000);
    script.core.let_go();
    assert_eq!(script.frames(), ["DATA 1 16000"]);
    *script.core.output() = Vec::with_capacity(60_000);
    script.core.let_go();
    assert_eq!(script.core.output().capacity(), 0);
}

/// A PING that nobody answers is lost, and asked again: windows would not grow any more.
#[test]
fn a_measurement_without_answer_is_tried_again() {
    let mut script = Script::ready();
    script.tunnel(1);
    let asked = |script: &mut Script| {
        let mut frames = Vec::new();
        for _ in 0..16 {
            script.send(&data(1, &[0; 16 << 10], false));
            script.core.consumed(1, 16 << 10, script.now);
            frames.extend(script.frames());
        }
        frames.iter().filter(|frame| *frame == "PING culvert!").count()
    };
    assert_eq!(asked(&mut script), 1);
    script.now += Duration::from_secs(19);
    assert_eq!(asked(&mut script), 0, "it may still come");
    script.now += Duration::from_secs(1);
    assert_eq!(asked(&mut script), 1);
    script.now += Duration::from_millis(50);
    script.send(&raw(kind::PING, flag::ACK, 0, b"culvert!"));
    assert_eq!(script.core.path.round_trip(), Some(Duration::from_millis(50)));
}
