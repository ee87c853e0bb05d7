//! Forwarding: the client's bytes go to the pod's own resolvers, the resolver's bytes come back. Only the id is ours
//! on the way, so that nobody can answer for the resolver by knowing the client's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::query::Query;
use super::{Transport, Upstream, read_message, write_message};

/// How long one resolver may think.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often each is asked.
const ATTEMPTS: u32 = 2;

/// Why a query could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// The pod has no resolver.
    #[error("no resolvers")]
    NoResolvers,
    /// The last resolver did not answer in time.
    #[error("request timed out")]
    TimedOut,
    /// The last resolver could not be asked.
    #[error("io error: {0}")]
    Io(#[from] io::Error),
}

/// Asks one resolver after the other, all of them twice; the first answer counts, whatever it says.
pub(super) async fn forward(
    packet: &[u8],
    query: &Query,
    transport: Transport,
    resolvers: &[SocketAddr],
    upstream: &Upstream,
) -> Result<Vec<u8>, ForwardError> {
    let mut failure = ForwardError::NoResolvers;
    for _ in 0..ATTEMPTS {
        for resolver in resolvers {
            let asked = async {
                match transport {
                    Transport::Udp => over_udp(packet, query, *resolver, upstream).await,
                    Transport::Tcp => over_tcp(packet, query, *resolver, upstream).await,
                }
            };
            match timeout(RESOLVER_TIMEOUT, asked).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = ForwardError::TimedOut,
            }
        }
    }
    Err(failure)
}

async fn over_udp(
    packet: &[u8],
    query: &Query,
    resolver: SocketAddr,
    upstream: &Upstream,
) -> io::Result<Vec<u8>> {
    let socket = (upstream.udp)(resolver)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    // Only the resolver's packets arrive, and its refusals (ICMP) are seen at once.
    socket.connect(resolver).await?;
    let exchange = Exchange::new(packet, query);
    socket.send(&exchange.request).await?;
    let deadline = Instant::now() + RESOLVER_TIMEOUT;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = timeout_at(deadline, socket.recv(&mut buffer)).await??;
        if let Some(reply) = buffer.get(..length).and_then(|reply| exchange.accept(reply)) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(
    packet: &[u8],
    query: &Query,
    resolver: SocketAddr,
    upstream: &Upstream,
) -> io::Result<Vec<u8>> {
    let mut stream = (upstream.tcp)(resolver).await?;
    let exchange = Exchange::new(packet, query);
    write_message(&mut stream, &exchange.request).await?;
    let reply = read_message(&mut stream).await?;
    exchange.accept(&reply).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A request under its own id.
struct Exchange<'a> {
    client_id: [u8; 2],
    id: [u8; 2],
    query: &'a Query,
    request: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(packet: &[u8], query: &'a Query) -> Self {
        let id = rand::rng().random::<u16>().to_be_bytes();
        let mut request = packet.to_vec();
        let mut client_id = [0; 2];
        if let Some(place) = request.first_chunk_mut::<2>() {
            client_id = std::mem::replace(place, id);
        }
        Self { client_id, id, query, request }
    }

    /// The reply with the client's id, if it is one to this request: same id, a response, the same question (or
    /// none, as some resolvers refuse).
    fn accept(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = reply.split_first_chunk::<2>()?;
        let n_questions = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]);
        let is_response = rest.first()? & 0x80 != 0 && reply.len() >= 12;
        if *id != self.id || !is_response || (n_questions > 0 && !self.asks_the_same(reply)) {
            return None;
        }
        Some([&self.client_id, rest].concat())
    }

    fn asks_the_same(&self, reply: &[u8]) -> bool {
        let question = |packet: &[u8]| -> Option<Vec<u8>> {
            let rest = packet.get(12..)?;
            let mut at = 0;
            loop {
                match usize::from(*rest.get(at)?) {
                    0 => break,
                    length if length < 64 => at += length + 1,
                    _ => return None,
                }
            }
            rest.get(..at + 5).map(<[u8]>::to_ascii_lowercase)
        };
        debug_assert!(!self.request.is_empty(), "a query to {} has bytes", self.query.name());
        question(&self.request).is_some_and(|asked| question(reply) == Some(asked))
    }
}
