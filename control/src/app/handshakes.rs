//! TLS handshakes under way: how many there may be, and whose ends when there are too many.
//!
//! Nobody who has yet to prove anything may keep others waiting. So a newcomer is always let in, and for it the oldest
//! handshake of the address that has the most is ended: who opens many and finishes none ends only their own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The handshakes of one port. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    limit: usize,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    count: usize,
    next: u64,
    /// By address, then in the order they began; dropping one tells its place.
    by_peer: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
}

/// A place among the running handshakes, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Handshakes,
    peer: IpAddr,
    id: u64,
    held: oneshot::Receiver<()>,
}

impl Handshakes {
    /// At most `limit` at once.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, running: Arc::default() }
    }

    /// A place for a newcomer.
    pub(super) fn enter(&self, peer: IpAddr) -> Place {
        let peer = peer.to_canonical();
        let (holder, held) = oneshot::channel();
        let mut running = self.running.lock();
        if running.count >= self.limit {
            running.evict();
        }
        let id = running.add(peer, holder);
        Place { handshakes: self.clone(), peer, id, held }
    }
}

impl Running {
    fn add(&mut self, peer: IpAddr, holder: oneshot::Sender<()>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.count += 1;
        self.by_peer.entry(peer).or_default().insert(id, holder);
        id
    }

    fn remove(&mut self, peer: IpAddr, id: u64) {
        let Some(of_peer) = self.by_peer.get_mut(&peer) else { return };
        self.count -= usize::from(of_peer.remove(&id).is_some());
        if of_peer.is_empty() {
            self.by_peer.remove(&peer);
        }
    }

    /// The oldest of the busiest address; of equally busy ones, of the one whose oldest is older.
    fn evict(&mut self) {
        let oldest = |of_peer: &BTreeMap<u64, _>| of_peer.keys().next().copied();
        let busiest = self.by_peer.iter().filter_map(|(peer, of_peer)| {
            let id = oldest(of_peer)?;
            Some(((of_peer.len(), std::cmp::Reverse(id)), *peer, id))
        });
        if let Some((_, peer, id)) = busiest.max_by_key(|(rank, ..)| *rank) {
            self.remove(peer, id);
        }
    }
}

impl Place {
    /// Resolves when the place has been given to a newcomer.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the end of the channel is the message.
        _ = (&mut self.held).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.running.lock().remove(self.peer, self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn counts(handshakes: &Handshakes) -> BTreeMap<IpAddr, usize> {
        let running = handshakes.running.lock();
        assert_eq!(running.count, running.by_peer.values().map(BTreeMap::len).sum::<usize>());
        running.by_peer.iter().map(|(peer, of_peer)| (*peer, of_peer.len())).collect()
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn who_opens_many_ends_only_their_own() {
        let handshakes = Handshakes::new(4);
        let mut honest = handshakes.enter(ip(1));
        let mut flood: Vec<_> = (0..10).map(|_| handshakes.enter(ip(2))).collect();
        assert_eq!(counts(&handshakes), [(ip(1), 1), (ip(2), 3)].into());
        let mut another = handshakes.enter(ip(3));
        assert_eq!(counts(&handshakes), [(ip(1), 1), (ip(2), 2), (ip(3), 1)].into());
        // The last two of the flood are the youngest.
        let lost: Vec<_> = flood.iter_mut().map(is_lost).collect();
        assert_eq!(lost, (0..10).map(|n| n < 8).collect::<Vec<_>>());
        assert!(!is_lost(&mut honest) && !is_lost(&mut another));
        drop((honest, flood, another));
        assert_eq!(counts(&handshakes), BTreeMap::new());
    }

    #[test]
    fn a_place_is_free_again_once_its_handshake_is_over() {
        let handshakes = Handshakes::new(1);
        drop(handshakes.enter(ip(1)));
        let mut first = handshakes.enter(ip(1));
        assert!(!is_lost(&mut first));
        let mut second = handshakes.enter(ip(1));
        assert!(is_lost(&mut first) && !is_lost(&mut second));
        drop(first);
        assert!(!is_lost(&mut second), "what has lost its place takes nobody else's");
    }
}
