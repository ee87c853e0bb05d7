//! How a connection and its streams come to an end: drains, closes, faults, and the passing of time.

use std::time::{Duration, Instant};

use super::frame::{self, MAX_31};
use super::{Action, Core, DRAIN, Drain, LIVENESS, StreamFault};
use crate::{ConnectionEnd, ErrorCode, Limit};

/// Over what part of the interval those who ask with the beat are spread: thousands at the very same moment would keep
/// everybody else waiting.
const SPREAD: u32 = 16;

/// Time from `heard` to the next beat, or a little after it; never more than `interval`. Where the beat is so near that asking
/// would make no sense, time to a moment that is far enough from it for the next one to be the beat.
fn until_beat(heard: Instant, beat: Instant, interval: Duration) -> Duration {
    let rest = |of: Duration, by: Duration| {
        let nanoseconds = of.as_nanos().checked_rem(by.as_nanos()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    };
    let since = match heard.checked_duration_since(beat) {
        Some(since) => rest(since, interval),
        None => interval.saturating_sub(rest(beat.saturating_duration_since(heard), interval)),
    };
    let left = interval.saturating_sub(since);
    let until = if left >= interval / 5 { left } else { left + interval * 7 / 10 };
    (until + rest(since, interval / SPREAD)).min(interval)
}

impl Core {
    /// Server: graceful drain. Running streams go on, and so do those whose requests cross the first GOAWAY; once the
    /// last stream is fixed, new ones are refused.
    pub(crate) fn drain(&mut self, now: Instant) {
        if self.ended || !matches!(self.drain, Drain::None) {
            return;
        }
        if self.shedding {
            // The last stream was fixed when the flood was refused, and may not go up again (RFC 9113 section 6.8).
            self.drain = Drain::Final;
            return;
        }
        frame::goaway(&mut self.out, MAX_31, ErrorCode::NO_ERROR);
        frame::ping(&mut self.out, false, DRAIN);
        self.drain = Drain::Probing { until: now + self.settings.drain_probe };
    }

    /// Nobody will open a stream here any more: closes when the last one is over.
    pub(crate) fn release(&mut self, actions: &mut Vec<Action<'_>>) {
        self.released = true;
        self.finish_if_idle(actions);
    }

    /// Closes now, whatever is running.
    pub(crate) fn close(&mut self, end: ConnectionEnd, actions: &mut Vec<Action<'_>>) {
        if self.ended {
            return;
        }
        let code = match &end {
            ConnectionEnd::Protocol { code, .. } => *code,
            _ => ErrorCode::NO_ERROR,
        };
        if !matches!(self.drain, Drain::Final) || code != ErrorCode::NO_ERROR {
            frame::goaway(&mut self.out, self.highest_accepted, code);
        }
        self.ended = true;
        actions.push(Action::Ended(end));
    }

    /// When [`Core::tick`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let liveness = match self.ping_sent {
            _ if !self.peer.known => self.preface_until,
            Some(sent) => sent + self.settings.ping_timeout,
            None => self.ping_due(),
        };
        let probe = match self.drain {
            Drain::Probing { until } => Some(until),
            _ => None,
        };
        let others = [probe, self.acknowledgement_due(), self.look_due()];
        Some(others.into_iter().flatten().fold(liveness, Instant::min))
    }

    /// When a peer that stays silent is asked whether it is there.
    fn ping_due(&self) -> Instant {
        let (heard, interval) = (self.last_heard, self.settings.ping_interval);
        self.settings.ping_beat.map_or(heard + interval, |beat| heard + until_beat(heard, beat, interval))
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Vec<Action<'_>>) {
        if self.ended {
            return;
        }
        if let Drain::Probing { until } = self.drain
            && until <= now
        {
            self.fix_last_stream(actions);
        }
        if self.acknowledgement_due().is_some_and(|due| due <= now) {
            self.shed_for(Limit::SettingsTimeout, ErrorCode::SETTINGS_TIMEOUT, actions);
            self.finish_if_idle(actions);
        }
        self.look_at_memory(now, actions);
        if self.ended {
            return;
        }
        if !self.peer.known {
            if self.preface_until <= now {
                let limit: Duration = self.settings.handshake_timeout;
                self.close(ConnectionEnd::PrefaceTimeout(limit), actions);
            }
            return;
        }
        match self.ping_sent {
            Some(sent) if sent + self.settings.ping_timeout <= now => {
                self.close(ConnectionEnd::PingTimeout, actions)
            }
            None if self.ping_due() <= now => {
                frame::ping(&mut self.out, false, LIVENESS);
                self.ping_sent = Some(now);
            }
            _ => {}
        }
    }

    /// A fault of the whole connection.
    pub(super) fn fail(&mut self, code: ErrorCode, what: &'static str, actions: &mut Vec<Action<'_>>) {
        self.close(ConnectionEnd::Protocol { code, what }, actions);
    }

    /// A fault of one stream.
    pub(super) fn fail_stream(
        &mut self,
        stream: u32,
        code: ErrorCode,
        what: &'static str,
        actions: &mut Vec<Action<'_>>,
    ) {
        let known = self.streams.contains_key(&stream);
        self.reset(stream, code);
        if known {
            actions.push(Action::Broken { stream, why: StreamFault::Fault { code, what } });
        }
    }

    pub(super) fn fix_last_stream(&mut self, actions: &mut Vec<Action<'_>>) {
        frame::goaway(&mut self.out, self.highest_accepted, ErrorCode::NO_ERROR);
        self.drain = Drain::Final;
        self.finish_if_idle(actions);
    }

    /// Ends the connection when nothing is left that could still happen on it.
    pub(super) fn finish_if_idle(&mut self, actions: &mut Vec<Action<'_>>) {
        if self.ended || self.open_streams > 0 {
            return;
        }
        let going = self.peer.goaway.map(|code| ConnectionEnd::GoAway { code });
        if let Some(end) = going {
            self.close(end, actions);
        } else if self.shedding {
            let (code, what) = (ErrorCode::ENHANCE_YOUR_CALM, "a budget was exceeded");
            self.close(ConnectionEnd::Protocol { code, what }, actions);
        } else if self.released || matches!(self.drain, Drain::Final) {
            self.close(ConnectionEnd::Closed, actions);
        }
    }

    /// To be called after calls that may have ended the last stream.
    pub(crate) fn settle_connection(&mut self, actions: &mut Vec<Action<'_>>) {
        self.finish_if_idle(actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::epoch;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// Whenever they began, and wherever the beat is from there.
    #[test]
    fn silent_connections_come_to_ask_together() {
        let beat = epoch() + Duration::from_secs(25);
        for n in 0..500 {
            let mut heard = beat + Duration::from_millis(117) * n - 2 * INTERVAL;
            for asked in 0..4 {
                let until = until_beat(heard, beat, INTERVAL);
                assert!((INTERVAL / 5..=INTERVAL).contains(&until), "{n}: after {until:?}");
                heard += until;
                let after = (heard + 10 * INTERVAL).duration_since(beat).as_millis() % 10_000;
                assert!(asked < 2 || after < 700, "{n}: {after} ms after the beat");
                // The answer.
                heard += Duration::from_millis(3);
            }
        }
    }
}
