//! Everything about a tunnel that an operator or a test can set, with the contract's defaults.

use std::sync::Arc;
use std::time::Duration;

use crate::Metrics;

/// Settings of one HBONE connection. The same value serves both roles; a field that only one role reads says so.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Flow-control window each stream of ours starts with (`SETTINGS_INITIAL_WINDOW_SIZE`).
    pub stream_window: u32,
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
    /// How long that PING may stay unanswered.
    pub ping_timeout: Duration,
    /// Time for TLS and, after it, time until the peer's first SETTINGS (W16).
    pub handshake_timeout: Duration,
    /// Time a CONNECT may stay unanswered.
    pub answer_timeout: Duration,
    /// How long a drain waits for the answer to its PING before it fixes the last stream.
    pub drain_probe: Duration,
    /// TLS 1.3 records we seal under one key before we update it. The limit of the cipher suite holds where it is
    /// lower (RFC 8446 section 5.5).
    pub records_per_key: u64,
    /// Bounds on frames that cost us more than they cost the sender.
    pub budgets: Budgets,
    /// Where connections made with these settings are counted.
    pub metrics: Option<Arc<Metrics>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            server_header_list: 64 << 10,
            client_header_list: 16 << 10,
            server_streams: 200,
            client_streams: 100,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            drain_probe: Duration::from_secs(1),
            records_per_key: u64::MAX,
            budgets: Budgets::default(),
            metrics: None,
        }
    }
}

/// What a peer may spend. Each budget is a bucket: `burst` at once, `per_second` coming back.
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
    /// Frames on streams that are over.
    pub stale_frames: Budget,
    /// Frames without use to us: PRIORITY, unknown types, empty window updates.
    pub idle_frames: Budget,
    /// CONTINUATION frames of one header block.
    pub continuations: u32,
    /// Encoded bytes of one header block, whatever it decodes to.
    pub header_block: u32,
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
            stale_frames: generous,
            idle_frames: generous,
            continuations: 64,
            header_block: 256 << 10,
        }
    }
}
