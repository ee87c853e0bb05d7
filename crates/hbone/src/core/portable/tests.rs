//! Freezing without sockets: two worlds take the same random steps, and in one of them an end is now and then exported
//! and read again, in the middle of anything. What both say to the last octet, and what both understand, must be equal.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that fails says so")]

mod format;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::core::tests::epoch;
use crate::core::{Action, Capacity, DATA_PAYLOAD};
use crate::record::testing::{Direction, Parts, Secret, Session, Suite};
use crate::{Budgets, Settings};

#[derive(Debug, Clone)]
enum Step {
    Open { padding: usize },
    Answer { nth: usize, status: u16 },
    Write { server: bool, nth: usize, length: usize },
    Finish { server: bool, nth: usize },
    Reset { server: bool, nth: usize },
    Consume { server: bool, nth: usize, length: usize },
    Seal { server: bool },
    Deliver { to_server: bool, length: usize },
    Wait { millis: u64 },
    Drain,
    Freeze { server: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let end = (any::<bool>(), 0..6_usize);
    prop_oneof![
        3 => (0..30_000_usize).prop_map(|padding| Step::Open { padding: padding.saturating_sub(20_000) }),
        3 => (0..6_usize, prop_oneof![4 => Just(200_u16), 1 => Just(503)])
            .prop_map(|(nth, status)| Step::Answer { nth, status }),
        8 => (end.clone(), 0..40_000_usize)
            .prop_map(|((server, nth), length)| Step::Write { server, nth, length }),
        2 => end.clone().prop_map(|(server, nth)| Step::Finish { server, nth }),
        1 => end.clone().prop_map(|(server, nth)| Step::Reset { server, nth }),
        6 => (end, 0..60_000_usize).prop_map(|((server, nth), length)| Step::Consume { server, nth, length }),
        6 => any::<bool>().prop_map(|server| Step::Seal { server }),
        12 => (any::<bool>(), prop_oneof![0..40_usize, 0..30_000_usize])
            .prop_map(|(to_server, length)| Step::Deliver { to_server, length }),
        2 => (0..3000_u64).prop_map(|millis| Step::Wait { millis }),
        1 => prop_oneof![5 => Just(Step::Wait { millis: 1 }), 1 => Just(Step::Drain)],
        8 => any::<bool>().prop_map(|server| Step::Freeze { server }),
    ]
}

fn settings() -> Settings {
    Settings {
        stream_window: 70_000,
        connection_window: 100_000,
        server_streams: 5,
        records_per_key: 5,
        budgets: Budgets { tunnel_memory: 200_000, ..Budgets::default() },
        ..Settings::default()
    }
}

/// One end with its records.
struct End {
    core: Core,
    session: Session,
    /// Sealed by this end and not yet with the other.
    wire: Vec<u8>,
    unconsumed: BTreeMap<u32, usize>,
    seen: Vec<String>,
    /// Everything this end has ever sealed.
    said: Vec<u8>,
}

fn secret(fill: u8) -> Secret {
    Secret::new(Suite::Aes128GcmSha256, Zeroizing::new(vec![fill; 32])).unwrap()
}

impl End {
    fn new(role: Role, settings: &Settings, now: Instant) -> Self {
        let (core, read, write) = match role {
            Role::Client => (Core::client(settings.clone(), now), 1, 2),
            Role::Server => (Core::server(settings.clone(), now), 2, 1),
        };
        let direction = |fill| Direction::new(secret(fill), 0).unwrap();
        let session =
            Session::after_handshake(role, direction(read), direction(write), settings.records_per_key);
        let (wire, unconsumed, seen, said) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Self { core, session, wire, unconsumed, seen, said }
    }

    fn pick(&self, nth: usize) -> Option<u32> {
        self.unconsumed.keys().copied().nth(nth % self.unconsumed.len().max(1))
    }

    fn write(&mut self, stream: u32, length: usize) {
        let Capacity::Octets(room) = self.core.capacity(stream) else { return };
        let length = length.min(room);
        for payload in vec![stream as u8; length].chunks(DATA_PAYLOAD) {
            let head = self.core.data(stream, payload.len(), false);
            self.core.output().extend_from_slice(&head);
            self.core.output().extend_from_slice(payload);
        }
    }

    fn seal(&mut self) {
        let start = self.said.len();
        self.session.seal(self.core.output(), &mut self.said).unwrap();
        self.core.output().clear();
        self.wire.extend_from_slice(&self.said[start..]);
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        let mut wire = [self.session.carry(), bytes].concat();
        let mut actions = Vec::new();
        let core = &mut self.core;
        let mut out = Vec::new();
        self.session
            .open(&mut wire, &mut out, &mut |content| core.receive(now, content, &mut actions))
            .unwrap();
        for action in actions {
            match &action {
                Action::Data { stream, bytes } => {
                    self.seen.push(format!("{stream}: {} octets", bytes.len()));
                    *self.unconsumed.entry(*stream).or_default() += bytes.len();
                    continue;
                }
                Action::Request { stream, .. } => _ = self.unconsumed.insert(*stream, 0),
                _ => {}
            }
            self.seen.push(format!("{action:?}"));
        }
    }

    fn freeze(&mut self, settings: &Settings, now: Instant) {
        let bytes = export(&self.core, self.session.parts(), now);
        let mut from = Reader::new(&bytes, now, settings);
        let parts = Parts::take(&mut from).unwrap();
        self.core = Core::take(&mut from).unwrap();
        assert!(from.is_empty());
        self.session = Session::revive(parts, settings.records_per_key).unwrap();
        assert!(*export(&self.core, self.session.parts(), now) == *bytes, "read and written again");
    }
}

fn export(core: &Core, parts: &Parts, now: Instant) -> Zeroizing<Vec<u8>> {
    let mut to = Writer::new(now);
    parts.put(&mut to);
    core.put(&mut to);
    to.into_bytes()
}

struct World {
    now: Instant,
    settings: Settings,
    client: End,
    server: End,
}

impl World {
    fn new(now: Instant) -> Self {
        let settings = settings();
        let client = End::new(Role::Client, &settings, now);
        let server = End::new(Role::Server, &settings, now);
        Self { now, settings, client, server }
    }

    fn end(&mut self, server: bool) -> &mut End {
        if server { &mut self.server } else { &mut self.client }
    }

    fn step(&mut self, step: &Step, freeze: bool) {
        let now = self.now;
        match *step {
            Step::Open { padding } => {
                let headers = [("x-padding".to_owned(), "x".repeat(padding))];
                if let Some(id) = self.client.core.open("10.0.0.1:80", &headers, now) {
                    self.client.unconsumed.insert(id, 0);
                }
            }
            Step::Answer { nth, status } => {
                if let Some(id) = self.server.pick(nth) {
                    self.server.core.answer(id, status, &[("via", "us")], status != 200);
                }
            }
            Step::Write { server, nth, length } => {
                if let Some(id) = self.end(server).pick(nth) {
                    self.end(server).write(id, length);
                }
            }
            Step::Finish { server, nth } => {
                if let Some(id) = self.end(server).pick(nth) {
                    self.end(server).core.finish(id);
                }
            }
            Step::Reset { server, nth } => {
                if let Some(id) = self.end(server).pick(nth) {
                    self.end(server).core.reset(id, ErrorCode::CANCEL);
                    self.end(server).unconsumed.remove(&id);
                }
            }
            Step::Consume { server, nth, length } => {
                let end = self.end(server);
                if let Some(id) = end.pick(nth) {
                    let waiting = end.unconsumed.get_mut(&id).unwrap();
                    let taken = length.min(*waiting);
                    *waiting -= taken;
                    end.core.consumed(id, taken, now);
                }
            }
            Step::Seal { server } => self.end(server).seal(),
            Step::Deliver { to_server, length } => {
                let wire = &mut self.end(!to_server).wire;
                let bytes: Vec<u8> = wire.drain(..length.min(wire.len())).collect();
                self.end(to_server).receive(&bytes, now);
            }
            Step::Wait { millis } => {
                self.now += Duration::from_millis(millis);
                let now = self.now;
                for server in [false, true] {
                    let mut actions = Vec::new();
                    self.end(server).core.tick(now, &mut actions);
                    let told = actions.iter().map(|action| format!("{action:?}")).collect::<Vec<_>>();
                    self.end(server).seen.extend(told);
                }
            }
            Step::Drain => self.server.core.drain(now),
            Step::Freeze { server } if freeze => {
                let settings = self.settings.clone();
                if !self.end(server).core.ended {
                    self.end(server).freeze(&settings, now);
                }
            }
            Step::Freeze { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_frozen_end_goes_on_as_if_nothing_had_happened(steps in prop::collection::vec(step(), 1..150)) {
        let now = epoch();
        let (mut plain, mut frozen) = (World::new(now), World::new(now));
        for step in &steps {
            plain.step(step, false);
            frozen.step(step, true);
        }
        for server in [false, true] {
            let (plain, frozen) = (plain.end(server), frozen.end(server));
            prop_assert_eq!(&plain.seen, &frozen.seen);
            prop_assert!(plain.said == frozen.said, "sealed bytes differ");
            prop_assert!(plain.core.output() == frozen.core.output(), "output differs");
            prop_assert_eq!(plain.core.open_streams(), frozen.core.open_streams());
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_harmless(
        steps in prop::collection::vec(step(), 1..60),
        server in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
        after in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut world = World::new(epoch());
        steps.iter().for_each(|step| world.step(step, false));
        let now = world.now;
        let end = world.end(server);
        let mut bytes = export(&end.core, end.session.parts(), now).to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let settings = settings();
        let mut from = Reader::new(&bytes, now, &settings);
        let Ok(parts) = Parts::take(&mut from) else { return Ok(()) };
        let Ok(core) = Core::take(&mut from) else { return Ok(()) };
        let Ok(session) = Session::revive(parts, 5) else { return Ok(()) };
        let end = world.end(server);
        end.core = core;
        end.session = session;
        // Whatever it believes now, it must not fall.
        let streams: Vec<u32> = end.core.streams.keys().copied().collect();
        for stream in streams {
            end.write(stream, 1000);
            end.core.consumed(stream, 1 << 20, now);
        }
        let mut frames = Vec::new();
        for update in [0, 1, 3] {
            frame::window_update(&mut frames, update, 1000);
            frame::settings(&mut frames, &[(4, 0x7fff_ffff), (4, 0)]);
            frame::settings_ack(&mut frames);
        }
        let mut actions = Vec::new();
        end.core.receive(now, &frames, &mut actions);
        end.core.receive(now, &after, &mut actions);
        end.core.tick(now + Duration::from_secs(3600), &mut actions);
        drop(actions);
        let mut out = Vec::new();
        let _ = end.session.seal(&[1; 100], &mut out);
        let peer = world.end(!server);
        peer.seal();
        let wire = std::mem::take(&mut peer.wire);
        let end = world.end(server);
        let mut wire = [end.session.carry(), &wire].concat();
        let _ = end.session.open(&mut wire, &mut out, &mut |_| {});
    }
}
