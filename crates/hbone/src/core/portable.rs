//! A core as part of a live tunnel: every field, and what must hold between them.

use super::fields::{AnswerHead, RequestHead};
use super::frame::MAX_31;
use super::stream::Stream;
use super::{Buckets, Core, Drain, OpenBlock, Over, Peer, REMEMBERED, Role, Stats, StreamFault, frame};
use crate::live::codec::{Malformed, Portable, Reader, Writer, portable};
use crate::{ErrorCode, Settings};

portable!(enum Role { 1 => Client, 2 => Server });
portable!(enum Drain { 0 => None, 1 => Probing { until }, 2 => Final });
portable!(enum Over { 1 => ResetByUs, 2 => Ended, 3 => Refused, 4 => ResetByPeer });
portable!(struct Peer { known, initial_window, max_streams, max_header_list, takes_early, goaway, most_granted });
portable!(struct OpenBlock { stream, end_stream, block, continuations });
portable!(struct Buckets { resets, settings, pings, stale_frames, idle_frames, small_windows });
portable!(struct AnswerHead { status, headers, content_length });
portable!(struct RequestHead { method, authority, headers, content_length });
portable!(struct Stream {
    recv_open, send_open, answered, granted, recv_window, window, pace, unconsumed, wait, request, content_left,
    empty_data, small_data, small_windows, left_the_count,
});

/// The rule a peer broke is told once; elsewhere it is only known that there was one.
const BEFORE: &str = "broken before the tunnel was moved";

impl Portable for StreamFault {
    fn put(&self, to: &mut Writer) {
        let (tag, code) = match self {
            Self::Reset(code) => (1_u8, code),
            Self::Fault { code, .. } => (2, code),
            Self::NotProcessed(code) => (3, code),
            Self::Unread => (4, &ErrorCode::ENHANCE_YOUR_CALM),
        };
        tag.put(to);
        code.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (tag, code) = (u8::take(from)?, ErrorCode::take(from)?);
        match tag {
            1 => Ok(Self::Reset(code)),
            2 => Ok(Self::Fault { code, what: BEFORE }),
            3 => Ok(Self::NotProcessed(code)),
            4 => Ok(Self::Unread),
            _ => Err(Malformed("unknown fault")),
        }
    }
}

/// What our SETTINGS and windows have promised to this peer: a new process may be set otherwise, but not for it.
struct Promised {
    stream_window: u32,
    connection_window: u32,
    max_frame_size: u32,
    server_header_list: u32,
    client_header_list: u32,
    server_streams: u32,
}

portable!(struct Promised {
    stream_window, connection_window, max_frame_size, server_header_list, client_header_list, server_streams,
});

impl Promised {
    fn of(settings: &Settings) -> Self {
        Self {
            stream_window: settings.stream_window,
            connection_window: settings.connection_window,
            max_frame_size: settings.max_frame_size,
            server_header_list: settings.server_header_list,
            client_header_list: settings.client_header_list,
            server_streams: settings.server_streams,
        }
    }

    fn keep_in(self, settings: &Settings) -> Settings {
        let Self {
            stream_window,
            connection_window,
            max_frame_size,
            server_header_list,
            client_header_list,
            server_streams,
        } = self;
        Settings {
            stream_window,
            connection_window,
            max_frame_size,
            server_header_list,
            client_header_list,
            server_streams,
            ..settings.clone()
        }
    }
}

impl Portable for Core {
    fn put(&self, to: &mut Writer) {
        let Self {
            role,
            settings,
            reader,
            decoder,
            owe_table_size,
            open_block,
            out,
            streams,
            over,
            forgotten,
            // Counted again when they are read.
            open_streams: _,
            next_stream,
            highest_seen,
            highest_accepted,
            peer,
            send_window,
            recv_window,
            uncredited,
            // Added up again.
            buffered: _,
            requests: _,
            path,
            announced,
            unacknowledged,
            enforced,
            // The memory of another process.
            pressed: _,
            // Counted before the export.
            exceeded: _,
            drain,
            shedding,
            released,
            // A connection that has ended is not exported.
            ended: _,
            preface_until,
            last_heard,
            ping_sent,
            buckets,
            // The process that counted them has added them to its totals.
            stats: _,
        } = self;
        role.put(to);
        Promised::of(settings).put(to);
        reader.put(to);
        decoder.put(to);
        owe_table_size.put(to);
        open_block.put(to);
        out.put(to);
        streams.put(to);
        over.put(to);
        forgotten.put(to);
        next_stream.put(to);
        highest_seen.put(to);
        highest_accepted.put(to);
        peer.put(to);
        send_window.put(to);
        recv_window.put(to);
        uncredited.put(to);
        path.put(to);
        announced.put(to);
        unacknowledged.put(to);
        enforced.put(to);
        drain.put(to);
        shedding.put(to);
        released.put(to);
        preface_until.put(to);
        last_heard.put(to);
        ping_sent.put(to);
        buckets.put(to);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut core = Self {
            role: Portable::take(from)?,
            settings: Promised::take(from)?.keep_in(from.settings),
            reader: Portable::take(from)?,
            decoder: Portable::take(from)?,
            owe_table_size: Portable::take(from)?,
            open_block: Portable::take(from)?,
            out: Portable::take(from)?,
            streams: Portable::take(from)?,
            over: Portable::take(from)?,
            forgotten: Portable::take(from)?,
            open_streams: 0,
            next_stream: Portable::take(from)?,
            highest_seen: Portable::take(from)?,
            highest_accepted: Portable::take(from)?,
            peer: Portable::take(from)?,
            send_window: Portable::take(from)?,
            recv_window: Portable::take(from)?,
            uncredited: Portable::take(from)?,
            buffered: 0,
            requests: 0,
            path: Portable::take(from)?,
            announced: Portable::take(from)?,
            unacknowledged: Portable::take(from)?,
            enforced: Portable::take(from)?,
            pressed: None,
            exceeded: Vec::new(),
            drain: Portable::take(from)?,
            shedding: Portable::take(from)?,
            released: Portable::take(from)?,
            ended: false,
            preface_until: Portable::take(from)?,
            last_heard: Portable::take(from)?,
            ping_sent: Portable::take(from)?,
            buckets: Portable::take(from)?,
            stats: Stats::default(),
        };
        let open = core.streams.values().filter(|stream| !stream.left_the_count).count();
        core.open_streams = u32::try_from(open).map_err(|_| Malformed("too many streams"))?;
        core.buffered = core.streams.values().map(|stream| stream.unconsumed).fold(0, u64::saturating_add);
        core.requests = core.streams.values().map(|stream| u64::from(stream.request)).sum();
        core.judge().map(|()| core)
    }
}

impl Core {
    /// Refuses values that no core can have: later arithmetic relies on it.
    fn judge(&self) -> Result<(), Malformed> {
        let must = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(Malformed(what)) };
        let max = i64::from(MAX_31);
        let is_window = |window: i64| (-max..=max).contains(&window);
        must(self.settings.stream_window <= MAX_31, "stream window")?;
        must(self.settings.connection_window <= MAX_31, "connection window")?;
        let frame = usize::try_from(self.settings.max_frame_size).unwrap_or(usize::MAX);
        must((frame::DEFAULT_MAX_FRAME..1 << 24).contains(&frame), "frame size")?;
        must(self.reader.is_sound(frame), "position in the frames")?;
        must(self.decoder.is_sound(), "header table")?;
        must(self.over.len() <= REMEMBERED && self.forgotten <= MAX_31, "streams that are over")?;
        must(is_window(self.send_window) && is_window(self.recv_window), "window")?;
        must(self.peer.initial_window <= MAX_31, "initial window")?;
        must(self.highest_seen <= MAX_31 && self.highest_accepted <= self.highest_seen, "stream ids")?;
        must(self.next_stream % 2 == 1 && self.next_stream <= MAX_31 + 2, "next stream")?;
        must(self.uncredited <= MAX_31, "credit")?;
        must(i64::from(self.uncredited) + self.recv_window.max(0) <= max, "credit")?;
        must(self.announced <= MAX_31 && self.enforced <= MAX_31, "windows announced")?;
        must(
            self.unacknowledged.len() <= 64
                && self.unacknowledged.iter().all(|(window, _)| *window <= MAX_31),
            "windows announced",
        )?;
        must((0..=2 * max).contains(&self.peer.most_granted), "windows granted")?;
        must(self.path.is_sound(), "path")?;
        for (id, stream) in &self.streams {
            must(*id != 0 && !self.is_idle(*id), "stream id")?;
            let own = stream.granted + i64::from(self.peer.initial_window);
            must((-2 * max..=2 * max).contains(&stream.granted) && own <= max, "stream window")?;
            must(stream.granted <= self.peer.most_granted, "windows granted")?;
            must(is_window(stream.recv_window) && stream.window <= MAX_31, "stream window")?;
            must(stream.left_the_count != stream.is_open(), "open streams")?;
            must(stream.unconsumed <= u64::from(MAX_31), "octets not consumed")?;
            must(stream.request <= self.settings.server_header_list, "request")?;
            must(stream.pace.is_sound() && stream.wait.is_sound(), "pace")?;
        }
        if let Some(open) = &self.open_block {
            let longest = usize::try_from(self.settings.budgets.header_block).unwrap_or(usize::MAX);
            must(open.block.len() <= longest, "header block")?;
            must(open.continuations <= self.settings.budgets.continuations, "header block")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
