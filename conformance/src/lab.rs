//! What cases work with: the target, the identities and destinations that were given, connections.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::RootCertStore;

use crate::args::RunArgs;
use crate::case::{Failure, Need, deviates};
use crate::destination::{ORDER, Report};
use crate::http2::peer::{Manners, Peer};
use crate::identity::{Identity, IdentityError, certificates};
use crate::tls::{Offer, Trust};

/// How long TCP may take to connect.
const CONNECT: Duration = Duration::from_secs(3);

/// Why no run could start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    /// The target's name.
    #[error("--target {target}: {reason}")]
    Target {
        /// As given.
        target: String,
        /// What the resolver says.
        reason: std::io::Error,
    },
    /// A PEM file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Roots.
    #[error("--ca: {0}")]
    Roots(rustls::Error),
    /// A wildcard address is no authority.
    #[error("--listen {0} is a wildcard: --destination must say how the target reaches it")]
    Wildcard(SocketAddr),
}

/// What was given, read.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) target: SocketAddr,
    pub(crate) identity: Option<Identity>,
    pub(crate) untrusted: Identity,
    pub(crate) denied: Option<Identity>,
    pub(crate) wrong_domain: Option<Identity>,
    pub(crate) expired: Option<Identity>,
    pub(crate) no_spiffe: Option<Identity>,
    pub(crate) trust: Trust,
    authorities: Vec<(Need, String)>,
    names: AtomicU64,
    run: u32,
    /// When the case must have come to an end.
    pub(crate) deadline: Instant,
}

impl Lab {
    pub(crate) fn new(args: &RunArgs, deadline: Instant) -> Result<Self, LabError> {
        let target = resolve(&args.target)?;
        let identity = Identity::read(&args.identity)?;
        let claimed = identity.as_ref().and_then(Identity::spiffe);
        let claimed = claimed.unwrap_or_else(|| "spiffe://cluster.local/ns/default/sa/default".to_owned());
        let mut trust = Trust { roots: None, server_id: args.server_id.clone() };
        if let Some(file) = &args.ca {
            let mut roots = RootCertStore::empty();
            for root in certificates(file)? {
                roots.add(root).map_err(LabError::Roots)?;
            }
            trust.roots = Some(Arc::new(roots));
        }
        let destination = match (&args.destination, args.listen) {
            (Some(authority), _) => Some(authority.clone()),
            (None, Some(listen)) if listen.ip().is_unspecified() => return Err(LabError::Wildcard(listen)),
            (None, listen) => listen.map(|listen| listen.to_string()),
        };
        let given = [
            (Need::Echo, args.echo.clone().or_else(|| destination.clone())),
            (Need::Destination, destination),
            (Need::V6, args.v6.clone()),
            (Need::Refusing, args.refusing.clone()),
            (Need::Forbidden, args.forbidden.clone()),
            (Need::Silent, args.silent.clone()),
            (Need::Foreign, args.foreign.clone()),
            (Need::Hostname, args.hostname.clone()),
        ];
        Ok(Self {
            target,
            untrusted: Identity::self_signed(&claimed)?,
            identity,
            denied: Identity::read(&args.denied)?,
            wrong_domain: Identity::read(&args.wrong_domain)?,
            expired: Identity::read(&args.expired)?,
            no_spiffe: Identity::read(&args.no_spiffe)?,
            trust,
            authorities: given.into_iter().filter_map(|(need, given)| Some((need, given?))).collect(),
            names: AtomicU64::new(0),
            run: std::process::id(),
            deadline,
        })
    }

    /// Was it given?
    pub(crate) fn has(&self, need: Need) -> bool {
        match need {
            Need::Denied => self.denied.is_some(),
            Need::WrongDomain => self.wrong_domain.is_some(),
            Need::Expired => self.expired.is_some(),
            Need::NoSpiffe => self.no_spiffe.is_some(),
            Need::Ca => self.trust.roots.is_some(),
            Need::ServerId => self.trust.server_id.is_some(),
            need => self.authorities.iter().any(|(given, _)| *given == need),
        }
    }

    /// The authority that answers a need.
    pub(crate) fn authority(&self, need: Need) -> Result<&str, Failure> {
        let given = self.authorities.iter().find(|(given, _)| *given == need);
        given
            .map(|(_, authority)| authority.as_str())
            .ok_or_else(|| Failure::NotRun(format!("needs {}", need.flag())))
    }

    pub(crate) fn echo(&self) -> Result<&str, Failure> {
        self.authority(Need::Echo)
    }

    /// A TCP connection.
    pub(crate) fn tcp(&self) -> Result<TcpStream, Failure> {
        let socket = TcpStream::connect_timeout(&self.target, CONNECT)?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// A connection after TLS and both prefaces, with good manners.
    pub(crate) fn open(&self) -> Result<Peer, Failure> {
        self.open_with(Manners::default())
    }

    pub(crate) fn open_with(&self, manners: Manners) -> Result<Peer, Failure> {
        let mut peer = self.offer(&Offer::of(self.identity.as_ref()), manners)?;
        peer.greet();
        if peer.wait(crate::http2::peer::PATIENCE, |seen| seen.settings.is_some()) {
            return Ok(peer);
        }
        deviates(format!("no SETTINGS came: {}", peer.seen.condition()))
    }

    /// A connection after our side of TLS, whatever the target thinks of it; no preface yet.
    pub(crate) fn offer(&self, offer: &Offer, manners: Manners) -> Result<Peer, Failure> {
        let client = match offer.client(&self.trust) {
            Ok(client) => client,
            Err(error) => return Err(Failure::NotRun(format!("this TLS library cannot offer it: {error}"))),
        };
        let socket = self.tcp()?;
        socket.set_nonblocking(true)?;
        let mut peer = Peer::new(socket, client, manners, self.deadline);
        peer.shake_hands();
        Ok(peer)
    }

    /// An open tunnel to the echo, on a connection of its own.
    pub(crate) fn innocent(&self) -> Result<Innocent, Failure> {
        let mut peer = self.open()?;
        let stream = peer.tunnel(self.echo()?)?;
        let mut innocent = Innocent { peer, stream };
        innocent.lives()?;
        Ok(innocent)
    }

    /// A name under which the destination remembers a connection.
    pub(crate) fn name(&self) -> String {
        format!("{:x}-{}", self.run, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a tunnel to the destination and tells it what to do on it.
    pub(crate) fn order(&self, peer: &mut Peer, order: &str) -> Result<u32, Failure> {
        let stream = peer.tunnel(self.authority(Need::Destination)?)?;
        peer.send_data(stream, format!("{ORDER} {order}\n").as_bytes())?;
        Ok(stream)
    }

    /// How the destination saw the connection called `name` end; asked through a new connection.
    pub(crate) fn report(&self, name: &str) -> Result<Report, Failure> {
        let mut peer = self.open()?;
        let stream = self.order(&mut peer, &format!("report {name}"))?;
        let limit = Duration::from_secs(10);
        peer.wait(limit, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
        let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
        serde_json::from_slice(data).or_else(|_| {
            deviates(format!("the destination's report did not come: {}", peer.seen.state(stream)))
        })
    }
}

fn resolve(target: &str) -> Result<SocketAddr, LabError> {
    let failed = |reason| LabError::Target { target: target.to_owned(), reason };
    let mut found = target.to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound)))
}

/// A tunnel that has done nothing wrong.
#[derive(Debug)]
pub(crate) struct Innocent {
    pub(crate) peer: Peer,
    pub(crate) stream: u32,
}

impl Innocent {
    /// It still carries bytes.
    pub(crate) fn lives(&mut self) -> Result<(), Failure> {
        match self.peer.echo(self.stream, b"still here") {
            Err(Failure::Deviation(got)) => deviates(format!("an innocent tunnel suffers: {got}")),
            other => other,
        }
    }
}
