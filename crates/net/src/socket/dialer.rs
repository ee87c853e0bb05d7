//! Dialling again and again from one namespace.
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Socket};

use super::dial::{DialOptions, Dialed, dial_with, prepare};
use crate::NetNamespace;

/// Sockets made in one visit to a namespace at most.
const MOST: usize = 8;

/// Dials from one namespace on one thread. A visit to the namespace is two system calls; where visits follow each other, each
/// makes more sockets than the one before, up to a bound, and the next dials find them ready.
///
/// Sockets that are ready end with this value, or when nobody dials: [`Dialer::let_idle_go`].
pub struct Dialer {
    namespace: Option<Arc<NetNamespace>>,
    options: DialOptions,
    ready: RefCell<[Ready; 2]>,
}

/// Sockets of one address family.
#[derive(Default)]
struct Ready {
    sockets: Vec<Socket>,
    /// How many the last visit made.
    made: usize,
    /// Somebody has dialled since it was asked the last time.
    used: bool,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("namespace", &self.namespace).field("ready", &self.n_ready()).finish()
    }
}

impl Dialer {
    /// Dials from `namespace` (`None`: the thread's own, which needs no visits). A source in the options is not used: it
    /// is given with each dial.
    pub fn new(namespace: Option<Arc<NetNamespace>>, options: DialOptions) -> Self {
        Self { namespace, options, ready: RefCell::default() }
    }

    /// Connects to `target`, from the foreign address `source` if given. The caller sets the time limit.
    pub async fn dial(&self, target: SocketAddr, source: Option<IpAddr>) -> io::Result<Dialed> {
        dial_with(target, source, |domain| self.socket(domain)).await
    }

    fn socket(&self, domain: Domain) -> io::Result<Socket> {
        let Some(namespace) = &self.namespace else { return prepare(domain, &self.options) };
        let mut ready = self.ready.borrow_mut();
        let [v4, v6] = &mut *ready;
        let Ready { sockets, made, used } = if domain == Domain::IPV6 { v6 } else { v4 };
        *used = true;
        if let Some(socket) = sockets.pop() {
            return Ok(socket);
        }
        let wanted = (*made * 2).clamp(1, MOST);
        let first = namespace.run(|| {
            let first = prepare(domain, &self.options)?;
            sockets.extend((1..wanted).map_while(|_| prepare(domain, &self.options).ok()));
            io::Result::Ok(first)
        });
        *made = wanted;
        first.map_err(io::Error::other)?
    }

    /// Closes what is ready for a family that nobody has dialled since the last call. `false` when there is nothing left
    /// to be closed the next time.
    pub fn let_idle_go(&self) -> bool {
        let mut ready = self.ready.borrow_mut();
        for family in ready.iter_mut() {
            if !std::mem::take(&mut family.used) {
                *family = Ready::default();
            }
        }
        ready.iter().any(|family| family.made > 0)
    }

    /// How many sockets are ready.
    pub fn n_ready(&self) -> usize {
        self.ready.borrow().iter().map(|ready| ready.sockets.len()).sum()
    }
}
