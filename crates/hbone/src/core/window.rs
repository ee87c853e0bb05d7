//! Windows we give the peer: how much it may send, on one stream and on all, before somebody here has taken it.
//!
//! Memory is what a window promises, so windows follow need. A stream begins with what SETTINGS announce; from then
//! on its window is four times the octets it delivers per round trip (half of a window may wait to be given back), between a floor and the setting, and it grows only
//! while all windows of the tunnel together stay within the tunnel's memory. With many streams the announcement
//! itself is lowered. The connection's own window is given back on receipt: streams whose applications do not read
//! hold their own windows and never that of the others.

use std::time::{Duration, Instant};

use super::frame::{self, DEFAULT_WINDOW, setting};
use super::moment::Moment;
use super::{Core, RTT};
use crate::live::codec::portable;

/// Round trips are never taken for shorter: an application or a peer may have to wait for its processor that long.
const SHORTEST_ROUND: Duration = Duration::from_millis(4);

/// A window that was too large for this long is halved.
const PATIENCE: Duration = Duration::from_secs(10);

/// Octets consumed before the path is measured (again): small exchanges never ask.
const WORTH_MEASURING: u64 = 128 << 10;

/// Time between two measurements.
const REMEASURE: Duration = Duration::from_secs(1);

/// What is known about the path to the peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    /// Smoothed round trip, queues included.
    round_trip: Option<Duration>,
    /// The PING under way.
    asked: Option<Instant>,
    measured: Option<Instant>,
    octets: u64,
}

/// How fast one stream is consumed.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    since: Moment,
    octets: u64,
    /// When at least half of the window was last needed.
    busy: Moment,
}

portable!(struct Path { round_trip, asked, measured, octets });
portable!(struct Pace { since, octets, busy });

/// More than anybody receives between two answers: sums stay far from their end.
const MOST: u64 = 1 << 48;

impl Path {
    pub(super) fn is_sound(&self) -> bool {
        self.octets <= MOST
    }

    #[cfg(test)]
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

impl Pace {
    pub(super) fn is_sound(&self) -> bool {
        self.octets <= MOST
    }

    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now.into(), octets: 0, busy: now.into() }
    }

    /// Four times the octets of one round trip, once one has passed since the last answer.
    fn round(&mut self, octets: u32, round_trip: Duration, now: Instant) -> Option<u32> {
        self.octets += u64::from(octets);
        let elapsed = self.since.elapsed(now);
        let round_trip = round_trip.max(SHORTEST_ROUND);
        if elapsed < round_trip {
            return None;
        }
        let fourfold = u128::from(self.octets) * 4 * round_trip.as_micros() / elapsed.as_micros().max(1);
        (self.since, self.octets) = (now.into(), 0);
        Some(u32::try_from(fourfold).unwrap_or(u32::MAX))
    }
}

impl Core {
    /// The owner has consumed payload: the stream's window is filled up again.
    pub(crate) fn consumed(&mut self, stream: u32, octets: usize, now: Instant) {
        self.take(stream, octets, true, now);
    }

    /// Padding is nobody's: it is given back at once, and does not tell that somebody reads.
    pub(super) fn skip_padding(&mut self, stream: u32, octets: u32, now: Instant) {
        self.take(stream, usize::try_from(octets).unwrap_or(0), false, now);
    }

    fn take(&mut self, stream: u32, octets: usize, is_read: bool, now: Instant) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let octets = u32::try_from(octets)
            .unwrap_or(u32::MAX)
            .min(u32::try_from(state.unconsumed).unwrap_or(u32::MAX));
        state.unconsumed -= u64::from(octets);
        self.buffered -= u64::from(octets);
        if is_read {
            state.wait.note_taken(octets, state.unconsumed, now);
        }
        if state.recv_open {
            self.measure(octets, now);
            self.fit_window(stream, octets, now);
            self.credit_stream(stream);
        }
        self.credit_connection(0);
        self.settle(stream);
    }

    /// The connection's window, given back at half. Beyond the tunnel's memory it waits for consumption; honest
    /// peers never get there, for their streams' windows together stay below.
    pub(super) fn credit_connection(&mut self, octets: u32) {
        self.uncredited += octets;
        let half = self.settings.connection_window / 2;
        let due = self.uncredited >= half;
        // While memory is short, what has not been read stays within the window too.
        let is_stalled = || self.is_pressed() && self.buffered > u64::from(half);
        if due && !self.ended && !self.is_full() && !is_stalled() {
            let increment = std::mem::take(&mut self.uncredited);
            self.recv_window += i64::from(increment);
            frame::window_update(&mut self.out, 0, increment);
        }
    }

    pub(super) fn widen_connection(&mut self) {
        let increment = self.settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if increment > 0 {
            frame::window_update(&mut self.out, 0, increment);
            self.recv_window += i64::from(increment);
        }
    }

    fn credit_stream(&mut self, stream: u32) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let missing = i64::from(state.window) - state.held();
        if missing > 0 && missing >= i64::from(state.window / 2) && !self.ended {
            state.recv_window += missing;
            // Below 2^31, as both ends of the difference are.
            frame::window_update(&mut self.out, stream, u32::try_from(missing).unwrap_or(0));
        }
    }

    /// Sets the size of a stream's window by its pace.
    fn fit_window(&mut self, stream: u32, octets: u32, now: Instant) {
        let Some(round_trip) = self.path.round_trip else { return };
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let Some(wanted) = state.pace.round(octets, round_trip, now) else { return };
        let (window, floor) = (state.window, self.settings.window_floor());
        if wanted >= window / 2 {
            state.pace.busy = now.into();
        } else if state.pace.busy.elapsed(now) >= PATIENCE {
            state.pace.busy = now.into();
            state.window = (window / 2).max(floor).min(window);
        }
        let wanted = wanted.min(self.settings.stream_window);
        if wanted > window
            && !self.is_pressed()
            && self.has_memory(wanted - window)
            && let Some(state) = self.streams.get_mut(&stream)
        {
            state.window = wanted;
        }
    }

    /// Asks for the round trip when much has arrived and nobody has asked for a while. A PING that the peer has not
    /// answered for as long as one that asks for a sign of life may take is lost: the peer, or we, had enough of PINGs.
    fn measure(&mut self, octets: u32, now: Instant) {
        let path = &mut self.path;
        path.octets += u64::from(octets);
        let since = |at: Instant| now.saturating_duration_since(at);
        let recent = path.measured.is_some_and(|at| since(at) < REMEASURE);
        let asked = path.asked.is_some_and(|at| since(at) < self.settings.ping_timeout);
        if path.octets < WORTH_MEASURING || asked || recent || self.ended {
            return;
        }
        path.octets = 0;
        path.asked = Some(now);
        frame::ping(&mut self.out, false, RTT);
    }

    /// The PING that asked for it has come back.
    pub(super) fn measured(&mut self, now: Instant) {
        let Some(asked) = self.path.asked.take() else { return };
        let sample = now.saturating_duration_since(asked);
        self.path.measured = Some(now);
        self.path.round_trip = Some(match self.path.round_trip {
            Some(smoothed) => (smoothed * 3 + sample) / 4,
            None => sample,
        });
    }

    /// The tunnel holds as much as it may.
    pub(super) fn is_full(&self) -> bool {
        self.held() >= self.settings.budgets.tunnel_memory
    }

    /// All windows of the tunnel, with what is not consumed, would stay within its memory with so much more.
    fn has_memory(&self, more: u32) -> bool {
        let limit = self.settings.budgets.tunnel_memory;
        let most =
            u64::from(self.open_streams + 1) * u64::from(self.enforced.max(self.settings.stream_window));
        if most <= limit {
            return true;
        }
        let held: u64 = self.streams.values().map(|state| u64::try_from(state.held()).unwrap_or(0)).sum();
        held + u64::from(more) <= limit
    }

    /// What a stream should begin with when there are so many: a quarter for each time their number is four times
    /// what the tunnel's memory has room for, so that all of them together fit.
    fn fitting_window(&self) -> u32 {
        let (whole, floor) = (self.settings.stream_window, self.settings.window_floor());
        if self.is_pressed() {
            return floor;
        }
        let room = self.settings.budgets.tunnel_memory / (3 * u64::from(whole)).max(1);
        let (mut room, mut window) = (room.max(1), whole);
        while u64::from(self.open_streams) > room && window > floor {
            (room, window) = (room * 4, (window / 4).max(floor));
        }
        window
    }

    /// Announces smaller windows when there are many streams or little memory. They stay small on this connection:
    /// a stream that needs more grows.
    pub(super) fn lower_announcement(&mut self, now: Instant) {
        let window = self.fitting_window();
        if window >= self.announced || self.ended {
            return;
        }
        self.announced = window;
        self.unacknowledged.push_back((window, now));
        frame::settings(&mut self.out, &[(setting::INITIAL_WINDOW_SIZE, window)]);
        for state in self.streams.values_mut() {
            state.window = state.window.min(window);
        }
    }

    /// The peer has acknowledged SETTINGS: from here on it is bound by them.
    pub(super) fn acknowledged(&mut self) {
        let Some((in_force, _)) = self.unacknowledged.pop_front() else { return };
        let bound = self.unacknowledged.iter().map(|(window, _)| *window).fold(in_force, u32::max);
        let excess = i64::from(self.enforced) - i64::from(bound);
        self.enforced = bound;
        if excess == 0 {
            return;
        }
        self.streams.values_mut().for_each(|state| state.recv_window -= excess);
        // What was consumed meanwhile may have left a stream with nothing, and nobody to consume again.
        let open: Vec<u32> =
            self.streams.iter().filter(|(_, state)| state.recv_open).map(|(id, _)| *id).collect();
        open.into_iter().for_each(|stream| self.credit_stream(stream));
    }

    /// When our SETTINGS have been without acknowledgement for too long. Until there is one the peer may use windows that
    /// were taken back.
    pub(super) fn acknowledgement_due(&self) -> Option<Instant> {
        let (_, since) = self.unacknowledged.front().filter(|_| !self.shedding)?;
        Some(*since + self.settings.budgets.settings_timeout)
    }

    /// Octets held for this tunnel: what owners have not consumed, requests they have not answered, frames and header
    /// blocks that are not complete, and frames that nobody has sent yet.
    pub(crate) fn held(&self) -> u64 {
        let output = u64::try_from(self.out.len()).unwrap_or(u64::MAX);
        self.buffered + self.requests + self.incomplete() + output
    }

    /// Octets of frames and header blocks that are not complete.
    pub(super) fn incomplete(&self) -> u64 {
        let block = self.open_block.as_ref().map_or(0, |open| open.block.len());
        u64::try_from(self.reader.collected() + block).unwrap_or(u64::MAX)
    }

    /// Octets handed to owners that have not consumed them.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> u64 {
        self.buffered
    }
}
