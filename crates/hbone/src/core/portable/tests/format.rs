//! The format of a live tunnel, pinned: whoever changes any part of it takes the next version. The value is set by hand,
//! so that what a tunnel does may change, and what one is may not.
#![allow(clippy::unwrap_used, reason = "a test that fails says so")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::super::*;
use crate::core::budget::Bucket;
use crate::core::reader::Reader as Frames;
use crate::core::relief::Wait;
use crate::core::tests::epoch;
use crate::core::window::{Pace, Path as Round};
use crate::core::{frame, hpack};
use crate::link::{Inbox, StreamPart};
use crate::live::VERSION;
use crate::record::testing::{Direction, Parts, Secret, Suite};
use crate::{Budget, Budgets};

/// The version, and the digest of what it declares and of a value of it.
const PINNED: (u16, &str) = (5, "43da085b77d6bde61748f9182b6931a0d400f3b09b3307ef9d5a07f42beba2c9");

#[test]
fn a_change_of_the_format_takes_the_next_version() {
    let now = epoch();
    let mut to = Writer::new(now);
    records().put(&mut to);
    core(now).put(&mut to);
    streams().put(&mut to);
    let value = to.into_bytes();
    let pinned = digest(&SHA256, &[declared().as_bytes(), &value].concat());
    let pinned = pinned.as_ref().iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02x}").unwrap();
        text
    });
    assert!(
        (VERSION, pinned.as_str()) == PINNED,
        "the format of live tunnels is not what version {} was: if a part of it has changed, take the next number \
         in live.rs, and pin {pinned} here",
        PINNED.0
    );
}

/// Every list of fields and variants in the sources, and every line that writes a part by hand.
fn declared() -> String {
    fn look(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                look(&path, found);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let lists = text.split("portable!(").skip(1).filter_map(|rest| rest.split(");").next());
                found.extend(lists.map(|list| list.split_whitespace().collect::<String>()));
                let written = |line: &&str| {
                    ["put(to)", "put(&mut to)", "to.raw(", "to.octets("].iter().any(|by| line.contains(by))
                };
                let written = text.lines().map(str::trim).filter(written).collect::<Vec<_>>().join("\n");
                // A file that has to do with it, or not: how many there are is no part of the format.
                found.extend(Some(written).filter(|lines| !lines.is_empty()));
            }
        }
    }
    let mut found = Vec::new();
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    assert!(found.len() > 20, "only {} lists", found.len());
    found.join("\n")
}

fn records() -> Parts {
    let secret = |suite, length| Secret::new(suite, Zeroizing::new(vec![7; length])).unwrap();
    Parts {
        role: Role::Server,
        read: Direction::new(secret(Suite::Aes128GcmSha256, 32), 1).unwrap(),
        write: Direction::new(secret(Suite::Aes256GcmSha384, 48), 2).unwrap(),
        carry: vec![23],
        message: vec![4, 0],
        idle: 3,
        owes_update: true,
    }
}

fn core(now: Instant) -> Core {
    let bucket = |burst| Bucket::new(Budget { burst, per_second: 1 }, now);
    let later = |millis| now + Duration::from_millis(millis);
    let head = frame::head(70_000, frame::kind::HEADERS, 0, 9);
    let mut reader = Frames::new(true, 80_000);
    let mut bytes =
        &[&frame::PREFACE[..], &frame::head(0, frame::kind::SETTINGS, 0, 0), &head, &[1; 5]].concat()[..];
    while let Ok(Some(_)) = reader.next(&mut bytes) {}
    let mut decoder = hpack::Decoder::new(4096);
    decoder.decode(&[&[0x40, 6][..], b"x-name", &[1], b"v"].concat(), 100).unwrap();
    let stream = Stream {
        recv_open: true,
        send_open: false,
        answered: true,
        granted: 11,
        recv_window: 12,
        window: 13,
        pace: Pace::new(later(14)),
        unconsumed: 15,
        wait: Wait::new(later(15)),
        request: 16,
        content_left: Some(Box::new(17)),
        empty_data: bucket(18),
        small_data: bucket(19),
        small_windows: bucket(20),
        left_the_count: false,
    };
    let budgets = Budgets::default();
    Core {
        role: Role::Server,
        settings: Settings {
            stream_window: 21,
            connection_window: 22,
            max_frame_size: 80_000,
            server_header_list: 23,
            client_header_list: 24,
            server_streams: 25,
            budgets,
            ..Settings::default()
        },
        reader,
        decoder,
        owe_table_size: true,
        open_block: Some(OpenBlock { stream: 9, end_stream: true, block: vec![26], continuations: 27 }),
        out: vec![28],
        streams: BTreeMap::from([(7, Box::new(stream))]),
        over: VecDeque::from([
            (1, Over::ResetByUs),
            (3, Over::Ended),
            (5, Over::Refused),
            (5, Over::ResetByPeer),
        ]),
        forgotten: 29,
        open_streams: 1,
        next_stream: 31,
        highest_seen: 33,
        highest_accepted: 32,
        peer: Peer {
            known: true,
            initial_window: 34,
            max_streams: Some(35),
            max_header_list: Some(36),
            takes_early: true,
            goaway: Some(ErrorCode::CANCEL),
            most_granted: 37,
        },
        send_window: 38,
        recv_window: 39,
        uncredited: 40,
        buffered: 15,
        requests: 16,
        path: Round::default(),
        announced: 41,
        unacknowledged: VecDeque::from([(42, later(54))]),
        enforced: 43,
        pressed: None,
        exceeded: Vec::new(),
        drain: Drain::Probing { until: later(44) },
        shedding: true,
        released: true,
        ended: false,
        preface_until: later(45),
        last_heard: later(46),
        ping_sent: Some(later(47)),
        buckets: Buckets {
            resets: bucket(48),
            settings: bucket(49),
            pings: bucket(50),
            stale_frames: bucket(51),
            idle_frames: bucket(52),
            small_windows: bucket(53),
        },
        stats: Stats::default(),
    }
}

fn streams() -> Vec<StreamPart> {
    let faults = [
        StreamFault::Reset(ErrorCode::CANCEL),
        StreamFault::Fault { code: ErrorCode::CANCEL, what: "" },
        StreamFault::NotProcessed(ErrorCode::CANCEL),
        StreamFault::Unread,
    ];
    let header = || vec![("name".to_owned(), b"value".to_vec())];
    let part = |(id, fault)| StreamPart {
        id,
        request: Some(RequestHead {
            method: "CONNECT".to_owned(),
            authority: Some("h:1".to_owned()),
            headers: header(),
            content_length: Some(1),
        }),
        answer: Some(AnswerHead { status: 200, headers: header(), content_length: Some(2) }),
        asked: true,
        early: 3,
        inbox: Inbox(vec![4]),
        ended: true,
        broken: Some(fault),
    };
    (1..).zip(faults).map(part).collect()
}
