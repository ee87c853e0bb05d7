//! Everything about a tunnel that an operator or a test can set, with the contract's defaults.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Memory, Metrics};

/// Settings of one HBONE connection. The same value serves both roles; a field that only one role reads says so.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest flow-control window of a stream, and the one it starts with (`SETTINGS_INITIAL_WINDOW_SIZE`) as long
    /// as there are few.
    pub stream_window: u32,
    /// Window below which streams never go, where `stream_window` is larger.
    pub smallest_window: u32,
    /// Flow-control window of the whole connection.
    pub connection_window: u32,
    /// Largest frame we accept (`SETTINGS_MAX_FRAME_SIZE`).
    pub max_frame_size: u32,
    /// Largest header list the server accepts before it answers 431.
    pub server_header_list: u32,
    /// Largest header list the client accepts in an answer.
    pub client_header_list: u32,
    /// Streams a server lets its peer have open at a time (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    pub server_streams: u32,
    /// Streams a client has open on one connection at most, whatever the peer would allow.
    pub client_streams: u32,
    /// Silence after which a PING asks whether the peer is still there.
    pub ping_interval: Duration,
    /// A moment at which connections that have been silent for a while, though not for so long, ask all the same: at it, and
    /// after every `ping_interval` again. Then a process is woken for all of them at once. None: each has its own time.
    pub ping_beat: Option<Instant>,
    /// How long that PING may stay unanswered.
    pub ping_timeout: Duration,
    /// Time for TLS and, after it, time until the peer's first SETTINGS (W16).
    pub handshake_timeout: Duration,
    /// Time a CONNECT may stay unanswered.
    pub answer_timeout: Duration,
    /// A server says that it takes DATA ahead of its answer to CONNECT, and a client sends it to those who say so.
    pub early_data: bool,
    /// How long a drain waits for the answer to its PING before it fixes the last stream.
    pub drain_probe: Duration,
    /// TLS 1.3 records we seal under one key before we update it. The limit of the cipher suite holds where it is
    /// lower (RFC 8446 section 5.5).
    pub records_per_key: u64,
    /// Bounds on frames that cost us more than they cost the sender.
    pub budgets: Budgets,
    /// Where connections made with these settings are counted.
    pub metrics: Option<Arc<Metrics>>,
    /// What all connections made with these settings may hold together.
    pub memory: Option<Arc<Memory>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            smallest_window: 64 << 10,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            server_header_list: 64 << 10,
            client_header_list: 16 << 10,
            server_streams: 200,
            client_streams: 100,
            ping_interval: Duration::from_secs(10),
            ping_beat: None,
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            early_data: true,
            drain_probe: Duration::from_secs(1),
            records_per_key: u64::MAX,
            budgets: Budgets::default(),
            metrics: None,
            memory: None,
        }
    }
}

impl Settings {
    /// [`Settings::smallest_window`], within what a stream may have at all.
    pub(crate) fn window_floor(&self) -> u32 {
        self.smallest_window.min(self.stream_window)
    }
}

/// What a peer may spend. Each [`Budget`] is a bucket: `burst` at once, `per_second` coming back.
///
/// Who goes beyond a budget of a stream loses that stream (RST_STREAM ENHANCE_YOUR_CALM). Who goes beyond one of the
/// connection gets no more streams on it (GOAWAY ENHANCE_YOUR_CALM), but those that run go on: they are others'.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Streams the peer resets before we have answered them.
    pub resets: Budget,
    /// SETTINGS frames, each of which wants an acknowledgement.
    pub settings: Budget,
    /// PING frames, each of which wants an answer.
    pub pings: Budget,
    /// DATA frames without payload, per stream.
    pub empty_data: Budget,
    /// DATA frames of less than 64 octets, per stream. An application that writes octet by octet stays far below:
    /// what it writes while its proxy is busy leaves in one frame.
    pub small_data: Budget,
    /// WINDOW_UPDATE of less than 64 octets that end a stall, per stream and for the connection: each has us send a
    /// frame with next to nothing.
    pub small_windows: Budget,
    /// Frames on streams that are over.
    pub stale_frames: Budget,
    /// Frames without use to us: PRIORITY, unknown types, empty window updates.
    pub idle_frames: Budget,
    /// CONTINUATION frames of one header block.
    pub continuations: u32,
    /// Encoded bytes of one header block, whatever it decodes to. What is longer than one frame may be cannot be
    /// refused by itself: the peer's table is lost with it, and so is the connection.
    pub header_block: u32,
    /// Octets that the streams of one tunnel may hold, or have been promised, together.
    pub tunnel_memory: u64,
    /// How long octets may wait for their reader while the process is short of memory and their tunnel holds more than its
    /// share for as long.
    pub slow_readers: Duration,
    /// How long our SETTINGS, smaller windows among them, may stay without acknowledgement.
    pub settings_timeout: Duration,
}

/// A bound on what a peer can have us keep or do. Each is counted when a peer goes beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Limit {
    /// [`Settings::server_header_list`] or [`Settings::client_header_list`].
    HeaderList,
    /// [`Budgets::header_block`].
    HeaderBlock,
    /// [`Budgets::continuations`].
    Continuations,
    /// [`Settings::server_streams`].
    Streams,
    /// [`Budgets::resets`].
    Resets,
    /// [`Budgets::settings`].
    Settings,
    /// [`Budgets::pings`].
    Pings,
    /// [`Budgets::empty_data`].
    EmptyData,
    /// [`Budgets::small_data`].
    SmallData,
    /// [`Budgets::small_windows`].
    SmallWindows,
    /// [`Budgets::stale_frames`].
    StaleFrames,
    /// [`Budgets::idle_frames`].
    IdleFrames,
    /// [`Budgets::tunnel_memory`].
    TunnelMemory,
    /// [`Memory::new`].
    ProcessMemory,
    /// [`Budgets::slow_readers`].
    SlowReaders,
    /// [`Budgets::settings_timeout`].
    SettingsTimeout,
}

impl Limit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::HeaderList,
        Self::HeaderBlock,
        Self::Continuations,
        Self::Streams,
        Self::Resets,
        Self::Settings,
        Self::Pings,
        Self::EmptyData,
        Self::SmallData,
        Self::SmallWindows,
        Self::StaleFrames,
        Self::IdleFrames,
        Self::TunnelMemory,
        Self::ProcessMemory,
        Self::SlowReaders,
        Self::SettingsTimeout,
    ];

    /// Its name in metrics and documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeaderList => "header-list",
            Self::HeaderBlock => "header-block",
            Self::Continuations => "continuations",
            Self::Streams => "streams",
            Self::Resets => "resets",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::EmptyData => "empty-data",
            Self::SmallData => "small-data",
            Self::SmallWindows => "small-windows",
            Self::StaleFrames => "stale-frames",
            Self::IdleFrames => "idle-frames",
            Self::TunnelMemory => "tunnel-memory",
            Self::ProcessMemory => "process-memory",
            Self::SlowReaders => "slow-readers",
            Self::SettingsTimeout => "settings-timeout",
        }
    }
}

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// How many at once.
    pub burst: u32,
    /// How many come back each second.
    pub per_second: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        let generous = Budget { burst: 10_000, per_second: 200 };
        Self {
            resets: Budget { burst: 100, per_second: 10 },
            settings: generous,
            pings: generous,
            empty_data: generous,
            small_data: Budget { burst: 200_000, per_second: 100_000 },
            small_windows: Budget { burst: 100_000, per_second: 10_000 },
            stale_frames: generous,
            idle_frames: generous,
            continuations: 64,
            header_block: 1 << 20,
            tunnel_memory: 96 << 20,
            slow_readers: Duration::from_secs(10),
            settings_timeout: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_on_its_page() {
        let page = include_str!("../../../docs/limits.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let named: Vec<&str> = rows.map(|(name, _)| name).collect();
        assert_eq!(named, Limit::ALL.map(Limit::name));
        assert!(Limit::ALL.into_iter().enumerate().all(|(n, limit)| n == limit as usize));
    }
}
