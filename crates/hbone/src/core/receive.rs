//! Frames from the peer: what each kind does, and which fault of whom ends what.
//!
//! A fault of one stream ends that stream; only what breaks the connection's own state (framing, compression,
//! settings, its window) ends the connection, as RFC 9113 section 5.4 has it.

use std::time::Instant;

use super::frame::{self, DEFAULT_MAX_FRAME, Head, MAX_31, flag, kind, setting};
use super::reader::{MAX_SETTINGS, Malformed, Piece};
use super::relief::Wait;
use super::{Action, Core, DRAIN, Drain, Over, RTT, Role, StreamFault, hpack};
use crate::{ErrorCode, Limit};

/// DATA below this length costs us more than the line it came over.
const SMALL: usize = 64;

/// Octets of a SETTINGS frame that cost as much as a frame of its own.
const SETTINGS_UNIT: usize = 64;

/// A fault of the whole connection.
pub(super) struct Fatal(pub(super) ErrorCode, pub(super) &'static str);

pub(super) type Outcome = Result<(), Fatal>;

impl Core {
    /// Takes received bytes and appends what follows from them.
    pub(crate) fn receive<'i>(&mut self, now: Instant, mut bytes: &'i [u8], actions: &mut Vec<Action<'i>>) {
        if bytes.is_empty() {
            return;
        }
        self.last_heard = now;
        self.ping_sent = None;
        while !self.ended {
            let outcome = match self.reader.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(piece)) => self.piece(now, piece, actions),
                Err(malformed) => Err(fatal_framing(malformed)),
            };
            if let Err(Fatal(code, what)) = outcome {
                self.fail(code, what, actions);
            }
        }
        self.finish_if_idle(actions);
    }

    fn piece<'i>(&mut self, now: Instant, piece: Piece<'i>, actions: &mut Vec<Action<'i>>) -> Outcome {
        match piece {
            Piece::DataStart(head) => self.data_start(now, head, actions),
            Piece::BlockStart(head) => self.block_start(head),
            Piece::Data { stream, bytes, padding, finished, end_stream } => {
                self.data_payload(stream, bytes, padding, actions);
                if finished && end_stream {
                    self.end_of_stream(stream, actions);
                }
                Ok(())
            }
            Piece::Frame(head, payload) => self.frame(now, head, &payload, actions),
        }
    }

    fn frame(&mut self, now: Instant, head: Head, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Outcome {
        if self.open_block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "frame inside a header block"));
        }
        match head.kind {
            kind::HEADERS => self.headers(now, head, payload, actions),
            kind::CONTINUATION => self.continuation(now, head, payload, actions),
            kind::SETTINGS => self.settings_frame(now, head, payload, actions),
            kind::PING => self.ping(now, head, payload, actions),
            kind::WINDOW_UPDATE => self.window_update(now, head, payload, actions),
            kind::RST_STREAM => self.rst_stream(now, head, payload, actions),
            kind::GOAWAY => self.goaway(head, payload, actions),
            kind::PUSH_PROMISE => Err(Fatal(ErrorCode::PROTOCOL_ERROR, "PUSH_PROMISE")),
            kind::PRIORITY => self.priority(now, head, actions),
            _ => {
                self.spend_idle(now, actions);
                Ok(())
            }
        }
    }

    fn data_start(&mut self, now: Instant, head: Head, actions: &mut Vec<Action<'_>>) -> Outcome {
        if self.open_block.is_some() {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "frame inside a header block"));
        }
        if self.is_idle(head.stream) {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "DATA on an idle stream"));
        }
        let length = i64::try_from(head.length).unwrap_or(i64::MAX);
        self.recv_window -= length;
        if self.recv_window < 0 {
            return Err(Fatal(ErrorCode::FLOW_CONTROL_ERROR, "connection window overrun"));
        }
        let answered = self.role == Role::Server;
        let small = head.length < SMALL && !head.has(flag::END_STREAM);
        let budgets = &self.settings.budgets;
        let (empty_data, small_data) = (budgets.empty_data, budgets.small_data);
        let Some(state) = self.streams.get_mut(&head.stream) else {
            self.stale_data(now, head, actions);
            return Ok(());
        };
        let fault = if !state.recv_open {
            (ErrorCode::STREAM_CLOSED, "DATA after END_STREAM")
        } else if !answered && !state.answered {
            (ErrorCode::PROTOCOL_ERROR, "DATA before the answer")
        } else if length > 0 && state.recv_window < length {
            (ErrorCode::FLOW_CONTROL_ERROR, "stream window overrun")
        } else if head.length == 0 && small && !state.empty_data.take(empty_data, now) {
            self.note_excess(Limit::EmptyData);
            (ErrorCode::ENHANCE_YOUR_CALM, "too many empty DATA frames")
        } else if small && !state.small_data.take(small_data, now) {
            self.note_excess(Limit::SmallData);
            (ErrorCode::ENHANCE_YOUR_CALM, "too many small DATA frames")
        } else {
            return Ok(());
        };
        self.fail_stream(head.stream, fault.0, fault.1, actions);
        Ok(())
    }

    /// Passes payload on. Whoever takes it, the connection's window gets it back.
    fn data_payload<'i>(
        &mut self,
        stream: u32,
        bytes: &'i [u8],
        padding: u32,
        actions: &mut Vec<Action<'i>>,
    ) {
        let octets = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.credit_connection(octets + padding);
        let Some(state) = self.streams.get_mut(&stream).filter(|state| state.recv_open) else { return };
        if let Some(left) = state.content_left.as_deref_mut() {
            let Some(less) = left.checked_sub(u64::from(octets)) else {
                self.fail_stream(stream, ErrorCode::PROTOCOL_ERROR, "more DATA than content-length", actions);
                return;
            };
            *left = less;
        }
        state.recv_window -= i64::from(octets + padding);
        if state.unread() == 0 {
            state.wait = Wait::new(self.last_heard);
        }
        state.unconsumed += u64::from(octets + padding);
        self.buffered += u64::from(octets + padding);
        if padding > 0 {
            self.skip_padding(stream, padding, self.last_heard);
        }
        if !bytes.is_empty() {
            actions.push(Action::Data { stream, bytes });
        }
    }

    pub(super) fn end_of_stream(&mut self, stream: u32, actions: &mut Vec<Action<'_>>) {
        let Some(state) = self.streams.get_mut(&stream).filter(|state| state.recv_open) else { return };
        if state.content_left.as_deref().is_some_and(|left| *left > 0) {
            self.fail_stream(stream, ErrorCode::PROTOCOL_ERROR, "less DATA than content-length", actions);
            return;
        }
        state.recv_open = false;
        actions.push(Action::End { stream });
        self.settle(stream);
    }

    fn settings_frame(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        if head.stream != 0 {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "SETTINGS on a stream"));
        }
        let weight = 1 + u32::try_from(head.length / SETTINGS_UNIT).unwrap_or(u32::MAX);
        if !self.buckets.settings.take_some(weight, self.settings.budgets.settings, now) {
            self.shed(Limit::Settings, actions);
        }
        if head.has(flag::ACK) {
            if head.length > 0 {
                return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS ack with payload"));
            }
            self.acknowledged();
            return Ok(());
        }
        if !head.length.is_multiple_of(6) {
            return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS of odd length"));
        }
        if head.length > MAX_SETTINGS {
            // What is not read is not in force, and no other frame can come before it ends.
            self.note_excess(Limit::Settings);
            return Err(Fatal(ErrorCode::ENHANCE_YOUR_CALM, "too many SETTINGS in one frame"));
        }
        let (values, _) = payload.as_chunks::<6>();
        let before = (self.peer.initial_window, self.peer.max_streams);
        for [i0, i1, v0, v1, v2, v3] in values {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            self.apply_setting(u16::from_be_bytes([*i0, *i1]), value)?;
        }
        self.check_windows()?;
        frame::settings_ack(&mut self.out);
        let first = !std::mem::replace(&mut self.peer.known, true);
        if first && self.role == Role::Server {
            self.widen_connection();
        }
        self.lower_announcement(now);
        if first || self.peer.initial_window > before.0 || self.peer.max_streams != before.1 {
            actions.push(Action::Window { stream: 0 });
        }
        Ok(())
    }

    fn apply_setting(&mut self, id: u16, value: u32) -> Outcome {
        match id {
            setting::ENABLE_PUSH if value > u32::from(self.role == Role::Server) => {
                Err(Fatal(ErrorCode::PROTOCOL_ERROR, "bad ENABLE_PUSH"))
            }
            setting::INITIAL_WINDOW_SIZE if value > MAX_31 => {
                Err(Fatal(ErrorCode::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large"))
            }
            setting::MAX_FRAME_SIZE
                if value > 0x00ff_ffff || usize::try_from(value).is_ok_and(|v| v < DEFAULT_MAX_FRAME) =>
            {
                Err(Fatal(ErrorCode::PROTOCOL_ERROR, "bad MAX_FRAME_SIZE"))
            }
            setting::INITIAL_WINDOW_SIZE => {
                self.peer.initial_window = value;
                Ok(())
            }
            setting::HEADER_TABLE_SIZE => {
                self.owe_table_size |= usize::try_from(value).is_ok_and(|value| value < hpack::DEFAULT_TABLE);
                Ok(())
            }
            setting::MAX_CONCURRENT_STREAMS => {
                self.peer.max_streams = Some(value);
                Ok(())
            }
            setting::MAX_HEADER_LIST_SIZE => {
                self.peer.max_header_list = Some(value);
                Ok(())
            }
            setting::EARLY_DATA => {
                self.peer.takes_early = value == 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// No stream's window may be above the maximum. Looks at the streams only if one could be: SETTINGS are cheap to
    /// send.
    fn check_windows(&mut self) -> Outcome {
        let room = i64::from(MAX_31) - i64::from(self.peer.initial_window);
        if self.peer.most_granted <= room {
            return Ok(());
        }
        self.peer.most_granted = self.streams.values().map(|state| state.granted).fold(0, i64::max);
        if self.peer.most_granted <= room {
            return Ok(());
        }
        Err(Fatal(ErrorCode::FLOW_CONTROL_ERROR, "stream window above its maximum"))
    }

    fn ping(&mut self, now: Instant, head: Head, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Outcome {
        let Ok(opaque) = <[u8; 8]>::try_from(payload) else {
            return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "PING of wrong length"));
        };
        if head.stream != 0 {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "PING on a stream"));
        }
        if !self.buckets.pings.take(self.settings.budgets.pings, now) {
            // Unanswered: the peer has had its say.
            self.shed(Limit::Pings, actions);
        } else if !head.has(flag::ACK) {
            frame::ping(&mut self.out, true, opaque);
        } else if opaque == RTT {
            self.measured(now);
        } else if opaque == DRAIN && matches!(self.drain, Drain::Probing { .. }) {
            self.fix_last_stream(actions);
        }
        Ok(())
    }

    fn window_update(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        let Ok(increment) = <[u8; 4]>::try_from(payload).map(|bytes| u32::from_be_bytes(bytes) & MAX_31)
        else {
            return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "WINDOW_UPDATE of wrong length"));
        };
        if head.stream == 0 {
            if increment == 0 {
                return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE of zero"));
            }
            let was_empty = self.send_window <= 0;
            self.send_window += i64::from(increment);
            if self.send_window > i64::from(MAX_31) {
                return Err(Fatal(ErrorCode::FLOW_CONTROL_ERROR, "connection window above its maximum"));
            }
            if was_empty {
                let budget = self.settings.budgets.small_windows;
                if is_small(increment) && !self.buckets.small_windows.take(budget, now) {
                    self.shed(Limit::SmallWindows, actions);
                }
                actions.push(Action::Window { stream: 0 });
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream"));
        }
        let initial = i64::from(self.peer.initial_window);
        let budget = self.settings.budgets.small_windows;
        let Some(state) = self.streams.get_mut(&head.stream) else {
            self.spend_idle(now, actions);
            return Ok(());
        };
        let was_empty = state.granted + initial <= 0;
        state.granted += i64::from(increment);
        self.peer.most_granted = self.peer.most_granted.max(state.granted);
        if increment == 0 {
            self.fail_stream(head.stream, ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE of zero", actions);
        } else if state.granted + initial > i64::from(MAX_31) {
            let what = "stream window above its maximum";
            self.fail_stream(head.stream, ErrorCode::FLOW_CONTROL_ERROR, what, actions);
        } else if was_empty && is_small(increment) && !state.small_windows.take(budget, now) {
            self.note_excess(Limit::SmallWindows);
            let what = "too many small window updates";
            self.fail_stream(head.stream, ErrorCode::ENHANCE_YOUR_CALM, what, actions);
        } else if was_empty {
            actions.push(Action::Window { stream: head.stream });
        }
        Ok(())
    }

    fn rst_stream(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        actions: &mut Vec<Action<'_>>,
    ) -> Outcome {
        let Ok(code) = <[u8; 4]>::try_from(payload).map(|bytes| ErrorCode(u32::from_be_bytes(bytes))) else {
            return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "RST_STREAM of wrong length"));
        };
        if self.is_idle(head.stream) {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "RST_STREAM on an idle stream"));
        }
        let Some(state) = self.streams.get(&head.stream) else {
            self.spend_idle(now, actions);
            return Ok(());
        };
        let early = self.role == Role::Server && !state.answered;
        self.stats.resets_received += 1;
        self.forget(head.stream, Over::ResetByPeer);
        actions.push(Action::Broken { stream: head.stream, why: StreamFault::Reset(code) });
        if early && !self.buckets.resets.take(self.settings.budgets.resets, now) {
            self.shed(Limit::Resets, actions);
        }
        Ok(())
    }

    /// The peer goes beyond a budget of the whole connection: no more streams on it, but those that run go on. They
    /// belong to others.
    fn shed(&mut self, limit: Limit, actions: &mut Vec<Action<'_>>) {
        self.shed_for(limit, ErrorCode::ENHANCE_YOUR_CALM, actions);
    }

    pub(super) fn shed_for(&mut self, limit: Limit, code: ErrorCode, actions: &mut Vec<Action<'_>>) {
        self.note_excess(limit);
        if !std::mem::replace(&mut self.shedding, true) {
            frame::goaway(&mut self.out, self.highest_accepted, code);
            actions.push(Action::GoingAway);
        }
    }

    fn goaway(&mut self, head: Head, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Outcome {
        if head.stream != 0 {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "GOAWAY on a stream"));
        }
        let Some(([l0, l1, l2, l3, c0, c1, c2, c3], _debug)) = payload.split_first_chunk::<8>() else {
            return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "GOAWAY too short"));
        };
        let last = u32::from_be_bytes([*l0, *l1, *l2, *l3]) & MAX_31;
        let code = ErrorCode(u32::from_be_bytes([*c0, *c1, *c2, *c3]));
        self.peer.goaway = Some(code);
        actions.push(Action::GoingAway);
        if self.role == Role::Client {
            let unseen: Vec<u32> = self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id).collect();
            for stream in unseen {
                self.forget(stream, Over::Ended);
                actions.push(Action::Broken { stream, why: StreamFault::NotProcessed(code) });
            }
        }
        Ok(())
    }

    fn priority(&mut self, now: Instant, head: Head, actions: &mut Vec<Action<'_>>) -> Outcome {
        if head.stream == 0 {
            return Err(Fatal(ErrorCode::PROTOCOL_ERROR, "PRIORITY on stream 0"));
        }
        if head.length != 5 {
            if self.is_idle(head.stream) {
                return Err(Fatal(ErrorCode::FRAME_SIZE_ERROR, "PRIORITY of wrong length"));
            }
            if self.streams.contains_key(&head.stream) {
                self.fail_stream(
                    head.stream,
                    ErrorCode::FRAME_SIZE_ERROR,
                    "PRIORITY of wrong length",
                    actions,
                );
            } else {
                frame::rst_stream(&mut self.out, head.stream, ErrorCode::FRAME_SIZE_ERROR);
            }
        }
        self.spend_idle(now, actions);
        Ok(())
    }

    /// DATA on a stream that is over: late if we reset it, a fault of the peer's otherwise. A peer may have a whole
    /// window under way, so only frames that carry next to nothing are held against it; behind a refusal the first of
    /// them may just have crossed it.
    fn stale_data(&mut self, now: Instant, head: Head, actions: &mut Vec<Action<'_>>) {
        if let Some((_, how @ Over::Refused)) = self.over.iter_mut().rev().find(|(id, _)| *id == head.stream)
        {
            *how = Over::ResetByUs;
            return;
        }
        if self.how_over(head.stream) != Some(Over::ResetByUs) {
            frame::rst_stream(&mut self.out, head.stream, ErrorCode::STREAM_CLOSED);
            self.remember(head.stream, Over::ResetByUs);
        }
        if head.length < SMALL {
            self.spend_stale(now, actions);
        }
    }

    pub(super) fn spend_stale(&mut self, now: Instant, actions: &mut Vec<Action<'_>>) {
        if !self.buckets.stale_frames.take(self.settings.budgets.stale_frames, now) {
            self.shed(Limit::StaleFrames, actions);
        }
    }

    fn spend_idle(&mut self, now: Instant, actions: &mut Vec<Action<'_>>) {
        if !self.buckets.idle_frames.take(self.settings.budgets.idle_frames, now) {
            self.shed(Limit::IdleFrames, actions);
        }
    }

    /// The peer has no business with this stream yet, or ever.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        match self.role {
            Role::Server => stream.is_multiple_of(2) || stream > self.highest_seen,
            Role::Client => stream.is_multiple_of(2) || stream >= self.next_stream,
        }
    }
}

/// A window update that allows next to nothing.
fn is_small(increment: u32) -> bool {
    usize::try_from(increment).is_ok_and(|increment| increment < SMALL)
}

fn fatal_framing(malformed: Malformed) -> Fatal {
    match malformed {
        Malformed::Preface => Fatal(ErrorCode::PROTOCOL_ERROR, "no HTTP/2 preface"),
        Malformed::NotSettings => Fatal(ErrorCode::PROTOCOL_ERROR, "first frame is not SETTINGS"),
        Malformed::TooLong => Fatal(ErrorCode::FRAME_SIZE_ERROR, "frame above the maximum"),
        Malformed::Padding => Fatal(ErrorCode::PROTOCOL_ERROR, "too much padding"),
        Malformed::NoPadLength => Fatal(ErrorCode::FRAME_SIZE_ERROR, "DATA without its pad length"),
    }
}
