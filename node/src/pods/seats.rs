//! Which thread serves an HBONE connection.
//!
//! The kernel spreads connections over the threads' listeners by chance. That does for many that are short, but a peer
//! has few of these: they live long and carry everything. So one that was accepted where clearly more of them are than
//! elsewhere is handed over, once and before anything was read from it; from then on it is its new thread's alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::drain::{Drain, Guard};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Connections on their way to one thread of a pod; when there are more the accepting thread serves them.
const UNDER_WAY: usize = 64;

/// HBONE connections of each thread, all pods together.
#[derive(Clone, Debug)]
pub(crate) struct Loads(Arc<[AtomicUsize]>);

/// Counts as one of a thread's connections until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    loads: Loads,
    thread: usize,
}

impl Loads {
    pub(crate) fn new(n_threads: usize) -> Self {
        Self((0..n_threads).map(|_| AtomicUsize::new(0)).collect())
    }

    /// One more for a thread.
    pub(crate) fn place(&self, thread: usize) -> Place {
        if let Some(load) = self.0.get(thread) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        Place { loads: self.clone(), thread }
    }

    /// By thread.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.0.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.thread) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The thread that should serve a connection that `own` has accepted. Where there are many a difference of a quarter is
/// no reason to move.
fn choose(counts: &[usize], own: usize) -> usize {
    let here = counts.get(own).copied().unwrap_or(0);
    match counts.iter().enumerate().min_by_key(|(_, count)| **count) {
        Some((other, least)) if here > least + least / 4 => other,
        _ => own,
    }
}

/// A connection on its way to its thread.
#[derive(Debug)]
pub(crate) struct HandedOver {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    since: Instant,
    transparent: bool,
    place: Place,
    /// A drain waits for it on its way, too.
    guard: Guard,
}

/// A connection on the thread that serves it.
#[derive(Debug)]
pub(crate) struct Seated {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) since: Instant,
    pub(crate) transparent: bool,
    pub(crate) place: Place,
    pub(crate) guard: Guard,
}

impl HandedOver {
    /// On its thread. Nothing if the thread's event loop does not take it.
    pub(crate) fn take(self) -> Option<Seated> {
        let Self { stream, peer, since, transparent, place, guard } = self;
        match TcpStream::from_std(stream) {
            Ok(stream) => Some(Seated { stream, peer, since, transparent, place, guard }),
            Err(error) => {
                tracing::warn!(target: "ztunnel::proxy", %error, %peer, "failed to take over a connection");
                None
            }
        }
    }
}

/// The ways to all threads of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    loads: Loads,
    ways: Vec<mpsc::Sender<HandedOver>>,
}

/// Where one thread takes its connections from.
pub(crate) type Arrivals = mpsc::Receiver<HandedOver>;

impl Seats {
    /// One for each thread.
    pub(crate) fn new(loads: &Loads) -> (Self, Vec<Arrivals>) {
        let (ways, arrivals) = loads.0.iter().map(|_| mpsc::channel(UNDER_WAY)).unzip();
        (Self { loads: loads.clone(), ways }, arrivals)
    }

    /// Finds the thread for a connection that `own` has accepted: it is given back if that is `own`, otherwise handed
    /// over.
    pub(crate) fn seat(
        &self,
        own: usize,
        (stream, peer): (TcpStream, SocketAddr),
        transparent: bool,
        drain: &Drain,
    ) -> Option<Seated> {
        let (since, guard) = (Instant::now(), drain.guard());
        let thread = choose(&self.loads.counts(), own);
        let place = self.loads.place(thread);
        let Some(way) = self.ways.get(thread).filter(|_| thread != own) else {
            return Some(Seated { stream, peer, since, transparent, place, guard });
        };
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(target: "ztunnel::proxy", %error, %peer, "failed to hand over a connection");
                return None;
            }
        };
        match way.try_send(HandedOver { stream, peer, since, transparent, place, guard }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                HandedOver { place: self.loads.place(own), ..back }.take()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_where_clearly_fewer_are() {
        for (counts, own, thread) in [
            (&[0, 0][..], 1, 1),
            (&[1, 0], 0, 1),
            (&[1, 0], 1, 1),
            (&[2, 1], 0, 1),
            (&[4, 3], 0, 1),
            (&[5, 4], 0, 0),
            (&[6, 4], 0, 1),
            (&[125, 100], 0, 0),
            (&[126, 100], 0, 1),
            (&[3, 2, 1, 1], 0, 2),
            (&[7], 0, 0),
        ] {
            assert_eq!(choose(counts, own), thread, "{counts:?} at {own}");
        }
    }

    #[test]
    fn a_place_counts_until_it_is_dropped() {
        let loads = Loads::new(2);
        let places = [loads.place(1), loads.place(1), loads.place(0)];
        assert_eq!(loads.counts(), [1, 2]);
        drop(places);
        assert_eq!(loads.counts(), [0, 0]);
    }
}
