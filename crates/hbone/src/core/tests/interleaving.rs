//! A client core and a server core joined by byte queues that deliver in random pieces: whatever the order of opens,
//! data, consumption, resets and drains, bytes arrive in order and every octet of window is accounted for.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::core::{Capacity, DATA_PAYLOAD, StreamFault};

#[derive(Debug, Clone)]
enum Step {
    Open,
    Write { server: bool, nth: usize, length: usize },
    Finish { server: bool, nth: usize },
    Reset { server: bool, nth: usize },
    Consume { server: bool, nth: usize, length: usize },
    Deliver { to_server: bool, length: usize },
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let end = (any::<bool>(), 0..6_usize);
    prop_oneof![
        2 => Just(Step::Open),
        8 => (end.clone(), 0..40_000_usize).prop_map(|((server, nth), length)| Step::Write { server, nth, length }),
        2 => end.clone().prop_map(|(server, nth)| Step::Finish { server, nth }),
        1 => end.clone().prop_map(|(server, nth)| Step::Reset { server, nth }),
        6 => (end, 0..60_000_usize).prop_map(|((server, nth), length)| Step::Consume { server, nth, length }),
        12 => (any::<bool>(), 1..30_000_usize).prop_map(|(to_server, length)| Step::Deliver { to_server, length }),
        1 => prop_oneof![9 => Just(Step::Open), 1 => Just(Step::Drain)],
    ]
}

/// One end of a stream: what was sent, received and consumed.
#[derive(Debug, Default)]
struct End {
    sent: u64,
    received: u64,
    consumed: u64,
    finished: bool,
    peer_ended: bool,
    broken: bool,
}

struct Side {
    core: Core,
    ends: BTreeMap<u32, End>,
    wire: Vec<u8>,
}

/// The octet at a position of a stream: both ends know it.
fn octet(stream: u32, server: bool, position: u64) -> u8 {
    (u64::from(stream) * 31 + u64::from(server) * 7 + position * 13 + position / 251) as u8
}

impl Side {
    fn pick(&self, nth: usize) -> Option<u32> {
        self.ends.keys().copied().nth(nth % self.ends.len().max(1))
    }

    fn write(&mut self, server: bool, nth: usize, length: usize) {
        let Some(stream) = self.pick(nth) else { return };
        let mut left = length;
        while left > 0 {
            let Capacity::Octets(room) = self.core.capacity(stream) else { return };
            let n = left.min(room).min(DATA_PAYLOAD);
            if n == 0 {
                return;
            }
            let head = self.core.data(stream, n, false);
            let end = self.ends.get_mut(&stream).unwrap();
            let payload: Vec<u8> = (0..n as u64).map(|i| octet(stream, server, end.sent + i)).collect();
            end.sent += n as u64;
            self.core.output().extend_from_slice(&head);
            self.core.output().extend_from_slice(&payload);
            left -= n;
        }
    }

    fn consume(&mut self, nth: usize, length: usize, now: Instant) {
        let Some(stream) = self.pick(nth) else { return };
        let end = self.ends.get_mut(&stream).unwrap();
        let n = (end.received - end.consumed).min(length as u64);
        end.consumed += n;
        self.core.consumed(stream, n as usize, now);
    }

    fn take(&mut self) {
        let out = std::mem::take(self.core.output());
        self.wire.extend_from_slice(&out);
    }

    fn accept(&mut self, now: Instant, server: bool, bytes: &[u8]) -> Result<(), TestCaseError> {
        let mut actions = Vec::new();
        self.core.receive(now, bytes, &mut actions);
        for action in actions {
            match action {
                Action::Data { stream, bytes } => {
                    let end = self.ends.get_mut(&stream).unwrap();
                    for byte in bytes {
                        prop_assert_eq!(*byte, octet(stream, !server, end.received));
                        end.received += 1;
                    }
                }
                Action::End { stream } => self.ends.get_mut(&stream).unwrap().peer_ended = true,
                Action::Request { stream, .. } => {
                    self.ends.insert(stream, End::default());
                    self.core.answer(stream, 200, &[], false);
                }
                Action::Broken { stream, why } => {
                    prop_assert!(!matches!(why, StreamFault::Fault { .. }), "{why:?}");
                    self.ends.get_mut(&stream).unwrap().broken = true;
                }
                Action::Ended(end) => {
                    prop_assert!(!matches!(end, crate::ConnectionEnd::Protocol { .. }), "{end:?}");
                }
                Action::Answer { .. } | Action::Window { .. } | Action::GoingAway => {}
            }
        }
        self.check()
    }

    /// Window not used + used and not given back + not consumed = the whole window.
    fn check(&self) -> Result<(), TestCaseError> {
        let unconsumed: u64 = self.core.streams.values().map(|stream| stream.unconsumed).sum();
        prop_assert_eq!(unconsumed, self.core.buffered());
        for stream in self.core.streams.values().filter(|stream| stream.recv_open) {
            prop_assert!(
                stream.held() <= i64::from(self.core.enforced.max(self.core.settings.stream_window))
            );
        }
        let held = self.core.recv_window + i64::from(self.core.uncredited);
        prop_assert!(held <= i64::from(self.core.settings.connection_window));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn bytes_stay_in_order_and_credits_exact(steps in prop::collection::vec(step(), 1..150), small in any::<bool>()) {
        let settings = if small {
            Settings { stream_window: 20_000, connection_window: 66_000, ..Settings::default() }
        } else {
            Settings { connection_window: 150_000, stream_window: 100_000, ..Settings::default() }
        };
        let now = epoch();
        let new = |core| Side { core, ends: BTreeMap::new(), wire: Vec::new() };
        let mut client = new(Core::client(settings.clone(), now));
        let mut server = new(Core::server(settings.clone(), now));
        for step in steps {
            match step {
                Step::Open => {
                    if let Some(stream) = client.core.open("h:1", &[], now) {
                        client.ends.insert(stream, End::default());
                    }
                }
                Step::Write { server: true, nth, length } => server.write(true, nth, length),
                Step::Write { server: false, nth, length } => client.write(false, nth, length),
                Step::Consume { server: true, nth, length } => server.consume(nth, length, now),
                Step::Consume { server: false, nth, length } => client.consume(nth, length, now),
                Step::Finish { server: who, nth } => {
                    let side = if who { &mut server } else { &mut client };
                    if let Some(stream) = side.pick(nth) {
                        side.core.finish(stream);
                        side.ends.get_mut(&stream).unwrap().finished = true;
                    }
                }
                Step::Reset { server: who, nth } => {
                    let side = if who { &mut server } else { &mut client };
                    if let Some(stream) = side.pick(nth) {
                        side.core.abandon(stream);
                        side.ends.get_mut(&stream).unwrap().broken = true;
                    }
                }
                Step::Deliver { to_server, length } => deliver(&mut client, &mut server, now, to_server, length)?,
                Step::Drain => server.core.drain(now),
            }
            client.take();
            server.take();
        }
        // Let everything arrive and be consumed: nothing is lost, and the windows are whole again.
        for _ in 0..60 {
            deliver(&mut client, &mut server, now, true, usize::MAX)?;
            deliver(&mut client, &mut server, now, false, usize::MAX)?;
            for side in [&mut client, &mut server] {
                for nth in 0..side.ends.len() {
                    side.consume(nth, usize::MAX, now);
                }
                side.take();
            }
        }
        let sent: HashMap<u32, u64> = client.ends.iter().map(|(id, end)| (*id, end.sent)).collect();
        for (stream, end) in &server.ends {
            let other = &client.ends[stream];
            if !end.broken && !other.broken {
                prop_assert_eq!(end.received, sent[stream]);
                prop_assert_eq!(other.received, end.sent);
                prop_assert_eq!(end.peer_ended, other.finished);
                prop_assert_eq!(other.peer_ended, end.finished);
            }
        }
        for side in [&client, &server].into_iter().filter(|side| !side.core.ended) {
            let whole = i64::from(settings.connection_window);
            prop_assert_eq!(side.core.recv_window + i64::from(side.core.uncredited), whole);
        }
        if !client.core.ended && !server.core.ended {
            prop_assert_eq!(client.core.send_window, server.core.recv_window);
            prop_assert_eq!(server.core.send_window, client.core.recv_window);
        }
    }

    /// Whatever comes after the preface, the core ends it in order or goes on.
    #[test]
    fn no_input_upsets_the_core(
        frames in prop::collection::vec((0..11_u8, any::<u8>(), 0..6_u32, prop::collection::vec(any::<u8>(), 0..40)), 0..30),
        tail in prop::collection::vec(any::<u8>(), 0..100),
        client in any::<bool>(),
    ) {
        let mut script = if client { Script::client(Settings::default()) } else { Script::ready() };
        if client {
            script.core.open("h:1", &[], script.now);
            script.send(&settings_frame(&[]));
        }
        for (kind, flags, stream, payload) in frames {
            script.send(&raw(kind, flags, stream, &payload));
        }
        script.send(&tail);
    }
}

fn deliver(
    client: &mut Side,
    server: &mut Side,
    now: Instant,
    to_server: bool,
    length: usize,
) -> Result<(), TestCaseError> {
    let (from, to) = if to_server { (client, server) } else { (server, client) };
    from.take();
    let n = length.min(from.wire.len());
    let bytes: Vec<u8> = from.wire.drain(..n).collect();
    to.accept(now, to_server, &bytes)
}
