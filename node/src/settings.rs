//! What the traffic paths take from the configuration.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use net::socket::{DialOptions, Keepalive, ListenOptions, Transparent};

use crate::access_log;
use crate::config::{Config, DnsAddress, ResolverSettings};

/// How long any TCP dial may take.
pub(crate) const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection waits for its own pod to be known to discovery.
pub(crate) const LOCAL_WORKLOAD_LIMIT: Duration = Duration::from_secs(5);
/// Full windows for which a tunnel has memory, however large they are set.
const WINDOWS_PER_TUNNEL: u64 = 24;
/// Connections the kernel completes before they are accepted.
const BACKLOG: u32 = 1024;

/// Settings of the traffic paths.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Carry traffic at all.
    pub(crate) proxy: bool,
    pub(crate) hbone: hbone::Settings,
    pub(crate) pool_idle: Duration,
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound_plaintext: SocketAddr,
    pub(crate) inbound: SocketAddr,
    /// Where DNS is answered in each pod; none: it is not.
    pub(crate) dns: Option<DnsAddress>,
    pub(crate) mark: Option<u32>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) user_timeout: bool,
    pub(crate) reuse_port: bool,
    pub(crate) transparent: Transparent,
    /// Send baggage with 200 answers, read that of requests.
    pub(crate) response_baggage: bool,
    /// Applications that want a PROXY protocol header are dialled on loopback.
    pub(crate) localhost_app_tunnel: bool,
    pub(crate) policy_info_logging: bool,
    pub(crate) ipv6: bool,
    pub(crate) resolver: ResolverSettings,
    pub(crate) illegal_ports: Vec<u16>,
    pub(crate) drain_deadline: Duration,
    /// Time between two batches of access log lines of a thread.
    pub(crate) log_pause: Duration,
}

/// A moment at which the time of day is a whole number of intervals: then signs of life of all tunnels of a node, and of the
/// nodes that it talks to, come in the same part of a second, and a node at rest is left alone in between.
fn beat(interval: Duration) -> Instant {
    let (now, day) = (runtime::clock::monotonic(), runtime::clock::wall());
    let since = day.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let past = since.as_nanos().checked_rem(interval.as_nanos()).unwrap_or(0);
    let past = Duration::from_nanos(u64::try_from(past).unwrap_or(0));
    now.checked_sub(past).unwrap_or(now)
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let sockets = config.sockets;
        let keepalive = Keepalive {
            time: sockets.keepalive_time,
            interval: sockets.keepalive_interval,
            retries: sockets.keepalive_retries,
        };
        Self {
            proxy: config.proxy,
            hbone: hbone::Settings {
                stream_window: config.http2.stream_window,
                connection_window: config.http2.connection_window,
                max_frame_size: config.http2.frame_size,
                client_streams: u32::from(config.pool.max_streams_per_connection),
                budgets: hbone::Budgets {
                    tunnel_memory: hbone::Budgets::default()
                        .tunnel_memory
                        .max(WINDOWS_PER_TUNNEL * u64::from(config.http2.stream_window)),
                    ..hbone::Budgets::default()
                },
                ping_beat: Some(beat(hbone::Settings::default().ping_interval)),
                metrics: Some(Arc::default()),
                memory: Some(Arc::new(hbone::Memory::new(config.http2.memory))),
                ..hbone::Settings::default()
            },
            pool_idle: config.pool.unused_release_timeout,
            outbound: config.listen.outbound,
            inbound_plaintext: config.listen.inbound_plaintext,
            inbound: config.listen.inbound,
            dns: config.dns_proxy.then_some(config.listen.dns),
            mark: config.packet_mark,
            keepalive: sockets.keepalive.then_some(keepalive),
            user_timeout: sockets.user_timeout,
            reuse_port: !config.is_shared() || config.inpod_port_reuse,
            transparent: match config.require_original_source {
                Some(true) => Transparent::Mandatory,
                Some(false) => Transparent::Never,
                None => Transparent::BestEffort,
            },
            response_baggage: config.response_baggage,
            localhost_app_tunnel: config.localhost_app_tunnel,
            policy_info_logging: config.policy_info_logging,
            ipv6: config.ipv6,
            resolver: config.resolver.clone(),
            illegal_ports: config.illegal_ports.iter().copied().collect(),
            drain_deadline: config.termination_deadline,
            log_pause: access_log::PAUSE,
        }
    }

    /// How data sockets are dialled, from a foreign source if given.
    pub(crate) fn dial(&self, source: Option<IpAddr>) -> DialOptions {
        DialOptions { mark: self.mark, keepalive: self.keepalive, user_timeout: self.user_timeout, source }
    }

    /// How data sockets listen. Every thread has a listener of its own, so ports are shared.
    pub(crate) fn listen(&self, transparent: Transparent) -> ListenOptions {
        ListenOptions {
            mark: self.mark,
            reuse_port: self.reuse_port,
            transparent,
            backlog: BACKLOG,
            keepalive: self.keepalive,
            user_timeout: self.user_timeout,
        }
    }
}
