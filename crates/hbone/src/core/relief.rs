//! What a tunnel gives up while the process is short of memory and it holds more than its share: the octets that have
//! waited for their readers, not those that have just come.

use std::time::{Duration, Instant};

use super::frame::MAX_31;
use super::moment::Moment;
use super::{Action, Core, StreamFault};
use crate::live::codec::portable;
use crate::{ErrorCode, Limit};

/// Since when a stream has waited for its owner: since the moment at which it held what the owner has not finished taking,
/// however often that takes a little.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    since: Moment,
    /// What is left of what was held then.
    left: u32,
}

impl Wait {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now.into(), left: 0 }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.left <= MAX_31
    }

    /// So much was taken, and so much is held.
    pub(super) fn note_taken(&mut self, octets: u32, held: u64, now: Instant) {
        match self.left.checked_sub(octets).filter(|left| *left > 0) {
            Some(left) => self.left = left,
            // Nobody waits: what comes next says since when.
            None if held == 0 => self.left = 0,
            None => *self = Self { since: now.into(), left: u32::try_from(held).unwrap_or(u32::MAX) },
        }
    }
}

/// While memory is short, a tunnel that holds more than its share looks that often whether it still does.
const LOOK: Duration = Duration::from_secs(1);

/// What it means for a tunnel that memory is, or was, short.
#[derive(Debug, Clone)]
pub(crate) struct Pressed {
    /// Octets it should give up, if any.
    excess: Option<u64>,
    /// Since when. A gap that is shorter than slow readers may take belongs to it: who fills memory may let go of a little
    /// whenever it wants.
    since: Instant,
    /// When it was last so.
    last: Instant,
    /// When it looks again.
    look: Instant,
}

portable!(struct Wait { since, left });

impl Core {
    /// The process is short of memory and this tunnel should hold that much less, since now or still; or no longer.
    /// Windows shrink to their floor, and new streams are refused. `true` if that is new.
    pub(crate) fn press(&mut self, excess: Option<(u64, Instant)>) -> bool {
        let before = self.is_pressed();
        let gap = self.settings.budgets.slow_readers;
        match (&mut self.pressed, excess) {
            (None, None) => {}
            (Some(pressed), None) => pressed.excess = None,
            (Some(pressed), Some((excess, now))) if now < pressed.last + gap => {
                (pressed.excess, pressed.last) = (Some(excess), now);
            }
            (pressed, Some((excess, now))) => {
                let new = Pressed { excess: Some(excess), since: now, last: now, look: now + LOOK };
                *pressed = Some(Box::new(new));
            }
        }
        match (before, excess) {
            (false, Some((_, now))) if self.peer.known => {
                self.lower_announcement(now);
                let floor = self.settings.window_floor();
                self.streams.values_mut().for_each(|state| state.window = state.window.min(floor));
            }
            (true, None) => self.credit_connection(0),
            _ => {}
        }
        before != excess.is_some()
    }

    /// When it looks again what it holds.
    pub(super) fn look_due(&self) -> Option<Instant> {
        let pressed = self.pressed.as_ref().filter(|pressed| pressed.excess.is_some());
        pressed.map(|pressed| pressed.look)
    }

    /// Time has passed: while memory is short for long enough, streams whose octets wait for that long are given up.
    pub(super) fn look_at_memory(&mut self, now: Instant, actions: &mut Vec<Action<'_>>) {
        if self.look_due().is_none_or(|due| now < due) {
            return;
        }
        let Some(pressed) = &mut self.pressed else { return };
        pressed.look = now + LOOK;
        let patience = self.settings.budgets.slow_readers;
        if pressed.since + patience <= now {
            self.give_up(patience, now, actions);
        }
    }

    /// Gives up what this tunnel should not hold, without waiting.
    pub(crate) fn relieve(&mut self, now: Instant, actions: &mut Vec<Action<'_>>) {
        self.give_up(Duration::ZERO, now, actions);
    }

    /// Gives up streams that hold what has waited for so long: first those where most has waited longest, as octets times
    /// seconds, so that neither one who has read all until just now goes first, nor one who has left little. A header block
    /// that is too large and does not end takes the connection with it: no other frame can come before it ends.
    fn give_up(&mut self, patience: Duration, now: Instant, actions: &mut Vec<Action<'_>>) {
        let Some(mut excess) = self.pressed.as_ref().and_then(|pressed| pressed.excess) else { return };
        let unread = self.streams.iter().filter_map(|(id, state)| {
            let (held, waits) = (state.unread(), state.wait.since.elapsed(now));
            (held > 0 && waits >= patience).then(|| (u128::from(held) * waits.as_micros(), held, *id))
        });
        let mut unread: Vec<_> = unread.collect();
        unread.sort_unstable_by(|a, b| b.cmp(a));
        for (_, held, stream) in unread {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(held);
            self.note_excess(Limit::SlowReaders);
            self.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
            actions.push(Action::Broken { stream, why: StreamFault::Unread });
        }
        if excess > 0 && self.incomplete() > u64::from(self.settings.server_header_list) {
            self.note_excess(Limit::ProcessMemory);
            self.fail(
                ErrorCode::ENHANCE_YOUR_CALM,
                "header block does not end, and memory is short",
                actions,
            );
        } else {
            self.finish_if_idle(actions);
        }
    }

    /// The process is short of memory, and this tunnel holds more than its share.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.as_ref().is_some_and(|pressed| pressed.excess.is_some())
    }

    /// The process had to do without a stream.
    pub(crate) fn note_pressed(&mut self) {
        self.note_excess(Limit::ProcessMemory);
    }
}
