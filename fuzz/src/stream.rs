//! Whole byte streams into one core.

use std::collections::BTreeMap;
use std::time::Duration;

use hbone::Settings;
use hbone::bare::{Bare, Event};

use crate::input::{Dice, Input, now};

/// Preface, empty SETTINGS, and the acknowledgement of the server's own.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// What a core did, with payload put together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    log: Vec<String>,
    payload: BTreeMap<u32, Vec<u8>>,
    frames: Vec<u8>,
}

/// What is known of a stream from events alone.
#[derive(Default)]
struct Stream {
    ended: bool,
    over: bool,
    unconsumed: usize,
}

/// Anything against a server.
pub fn server(data: &[u8]) {
    let mut input = Input(data);
    let settings = settings(input.byte());
    let begin = if input.byte() & 1 == 0 { BEGIN } else { b"" };
    let seed = input.short() as u32;
    let bytes = [begin, input.0].concat();
    check(&bytes, seed, || Bare::server(settings.clone(), now()), settings.connection_window);
}

/// Anything against a client that has sent three requests.
pub fn client(data: &[u8]) {
    let mut input = Input(data);
    let settings = settings(input.byte());
    let begin = if input.byte() & 1 == 0 { &BEGIN[24..] } else { b"" };
    let seed = input.short() as u32;
    let bytes = [begin, input.0].concat();
    let new = || {
        let mut core = Bare::client(settings.clone(), now());
        for _ in 0..3 {
            core.open("10.0.0.1:80", &[("x-a".into(), "b".into())], now()).expect("there is room");
        }
        core
    };
    check(&bytes, seed, new, settings.connection_window);
}

/// Small windows are overrun sooner.
fn settings(choice: u8) -> Settings {
    match choice % 3 {
        0 => Settings::default(),
        1 => Settings {
            stream_window: 300,
            connection_window: 70_000,
            max_frame_size: 16_384,
            ..Settings::default()
        },
        _ => Settings {
            server_streams: 2,
            server_header_list: 200,
            client_header_list: 200,
            ..Settings::default()
        },
    }
}

fn check(bytes: &[u8], seed: u32, new: impl Fn() -> Bare, window: u32) {
    // Pieces make no difference, but that the end after a GOAWAY waits for the end of a piece.
    let pieces = cut(bytes, seed);
    let [mut whole, mut cut] = [&[bytes][..], &pieces].map(|pieces| observe(new(), pieces));
    for seen in [&mut whole, &mut cut] {
        if let Some(at) = seen.log.iter().position(|event| event == "GoingAway") {
            seen.log.truncate(at);
            seen.frames.clear();
            seen.payload.clear();
        }
    }
    assert_eq!(whole, cut, "the cuts into pieces make a difference");
    use_it(new(), &pieces, seed, i64::from(window));
}

fn cut(mut bytes: &[u8], seed: u32) -> Vec<&[u8]> {
    let mut dice = Dice(seed);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let wanted = 1 + dice.roll(40);
        let (front, rest) = bytes.split_at(wanted.min(bytes.len()));
        pieces.push(front);
        bytes = rest;
    }
    pieces
}

/// Feeds a core without answering.
fn observe(mut core: Bare, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen::default();
    for piece in pieces {
        core.receive(now(), piece, |_, event| match event {
            Event::Data(stream, bytes) => seen.payload.entry(stream).or_default().extend_from_slice(bytes),
            other => seen.log.push(format!("{other:?}")),
        });
    }
    seen.frames = std::mem::take(core.output());
    well_formed(&seen.frames);
    seen
}

/// Feeds a core that answers, consumes, sends and gives up; what it says of streams must make sense throughout.
fn use_it(mut core: Bare, pieces: &[&[u8]], seed: u32, window: i64) {
    let mut dice = Dice(seed ^ 0x5bd1_e995);
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    let client = !core.output().is_empty() && core.output().starts_with(b"PRI");
    if client {
        streams.extend([1, 3, 5].map(|stream| (stream, Stream::default())));
    }
    let mut ended = false;
    let mut out = Vec::new();
    for piece in pieces {
        core.receive(now(), piece, |core, event| {
            assert!(!ended, "{event:?} after the end");
            match event {
                Event::Request(stream, _) => {
                    assert!(streams.insert(stream, Stream::default()).is_none(), "a stream opened twice");
                    match dice.roll(8) {
                        0 => core.answer(stream, 503, true),
                        1 => core.abandon(stream),
                        2 => {}
                        _ => core.answer(stream, 200, false),
                    }
                }
                Event::Data(stream, bytes) => {
                    let known = streams.get_mut(&stream).expect("payload of a stream that was opened");
                    assert!(!known.ended && !known.over, "payload after the end of {stream}");
                    known.unconsumed += bytes.len();
                }
                Event::End(stream) => {
                    let known = streams.get_mut(&stream).expect("the end of a stream that was opened");
                    assert!(!std::mem::replace(&mut known.ended, true), "two ends of {stream}");
                }
                Event::Reset(stream, _) | Event::Fault(stream, _) => {
                    let known = streams.get_mut(&stream).expect("the reset of a stream that was opened");
                    assert!(!std::mem::replace(&mut known.over, true), "{stream} is reset twice");
                }
                Event::Ended(_) => ended = true,
                Event::Answer(..) | Event::Window(_) | Event::GoingAway => {}
            }
        });
        for (stream, known) in &mut streams {
            match dice.roll(12) {
                0..5 => {
                    let octets = dice.roll(known.unconsumed + 1);
                    known.unconsumed -= octets;
                    core.consumed(*stream, octets, now());
                }
                5 | 6 => drop(core.write(*stream, &[b'x'; 700])),
                7 if dice.roll(6) == 0 => core.finish(*stream),
                8 if dice.roll(20) == 0 => {
                    core.abandon(*stream);
                    known.over = true;
                }
                _ => {}
            }
        }
        core.settle(|event| ended |= matches!(event, Event::Ended(_)));
        let (send, held) = core.connection_windows();
        assert!(ended || (0..=0x7fff_ffff).contains(&send), "send window {send}");
        assert!(held <= window.max(65_535), "more credit than the window: {held}");
        out.append(core.output());
    }
    well_formed(&out);
    if let Some(due) = core.deadline() {
        core.tick(due, |_| {});
        core.tick(due + Duration::from_secs(60), |_| {});
        well_formed(core.output());
    }
}

/// Our own frames: whole, of known kinds, on streams that fit their kind.
fn well_formed(mut bytes: &[u8]) {
    bytes = bytes.strip_prefix(&BEGIN[..24]).unwrap_or(bytes);
    while let Some(([l0, l1, l2, kind, _flags, s0, s1, s2, s3], rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        assert!(length <= 16_384 && *kind <= 9, "a frame of kind {kind} with {length} octets");
        match kind {
            0 | 1 | 3 | 9 => assert_ne!(stream, 0),
            4 | 6 | 7 => assert_eq!(stream, 0),
            8 => assert_ne!(&rest[..4], [0; 4], "a window update of nothing"),
            other => panic!("we never send frames of kind {other}"),
        }
        bytes = rest.get(length..).expect("a whole frame");
    }
    assert!(bytes.is_empty(), "half a frame");
}
