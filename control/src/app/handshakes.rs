//! TLS handshakes under way: how many there may be, and whose ends when there are too many.
//!
//! Nobody who has yet to prove anything may keep others waiting. So a newcomer is always let in, and for it the oldest
//! handshake of the address that has the most is ended: who opens many and finishes none ends only their own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

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
    /// By address, then in the order they began.
    by_peer: HashMap<IpAddr, BTreeMap<u64, Option<AbortHandle>>>,
}

/// A place among the running handshakes, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Handshakes,
    peer: IpAddr,
    id: u64,
}

impl Handshakes {
    /// At most `limit` at once.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, running: Arc::default() }
    }

    /// A place for a newcomer.
    pub(super) fn enter(&self, peer: IpAddr) -> Place {
        let peer = peer.to_canonical();
        let (id, evicted) = {
            let mut running = self.running.lock();
            let evicted = if running.count >= self.limit { running.evict() } else { None };
            (running.add(peer), evicted)
        };
        // Not under the lock: what is aborted gives its place back.
        if let Some(evicted) = evicted {
            evicted.abort();
        }
        Place { handshakes: self.clone(), peer, id }
    }

    /// Says how the handshake of a place can be ended; at once if it has lost its place already.
    pub(super) fn endable(&self, (peer, id): (IpAddr, u64), handle: AbortHandle) {
        let mut running = self.running.lock();
        match running.by_peer.get_mut(&peer).and_then(|of_peer| of_peer.get_mut(&id)) {
            Some(place) => *place = Some(handle),
            None => handle.abort(),
        }
    }
}

impl Running {
    fn add(&mut self, peer: IpAddr) -> u64 {
        let id = self.next;
        self.next += 1;
        self.count += 1;
        self.by_peer.entry(peer).or_default().insert(id, None);
        id
    }

    fn remove(&mut self, peer: IpAddr, id: u64) -> Option<AbortHandle> {
        let of_peer = self.by_peer.get_mut(&peer)?;
        let removed = of_peer.remove(&id);
        if of_peer.is_empty() {
            self.by_peer.remove(&peer);
        }
        self.count -= usize::from(removed.is_some());
        removed.flatten()
    }

    /// The oldest of the busiest address; of equally busy ones, of the one whose oldest is older.
    fn evict(&mut self) -> Option<AbortHandle> {
        let oldest = |of_peer: &BTreeMap<u64, _>| of_peer.keys().next().copied();
        let busiest = self.by_peer.iter().filter_map(|(peer, of_peer)| {
            let id = oldest(of_peer)?;
            Some(((of_peer.len(), std::cmp::Reverse(id)), *peer, id))
        });
        let (_, peer, id) = busiest.max_by_key(|(rank, ..)| *rank)?;
        self.remove(peer, id)
    }
}

impl Place {
    /// What [`Handshakes::endable`] knows it by.
    pub(super) fn key(&self) -> (IpAddr, u64) {
        (self.peer, self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.running.lock().remove(self.peer, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn counts(handshakes: &Handshakes) -> BTreeMap<IpAddr, usize> {
        let running = handshakes.running.lock();
        assert_eq!(running.count, running.by_peer.values().map(BTreeMap::len).sum::<usize>());
        running.by_peer.iter().map(|(peer, of_peer)| (*peer, of_peer.len())).collect()
    }

    #[tokio::test]
    async fn who_opens_many_ends_only_their_own() {
        let group = runtime::tasks::TaskGroup::new("test");
        let handshakes = Handshakes::new(4);
        let begin = |peer| {
            let place = handshakes.enter(peer);
            let key = place.key();
            let handle = group.spawn("handshake", async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            handshakes.endable(key, handle.clone());
            handle
        };
        let honest = begin(ip(1));
        let flood: Vec<_> = (0..10).map(|_| begin(ip(2))).collect();
        assert_eq!(counts(&handshakes), [(ip(1), 1), (ip(2), 3)].into());
        let another = begin(ip(3));
        assert_eq!(counts(&handshakes), [(ip(1), 1), (ip(2), 2), (ip(3), 1)].into());
        tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while flood.iter().filter(|handle| handle.is_finished()).count() < 8 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        // The last two of the flood are the youngest.
        assert!(flood[..8].iter().all(AbortHandle::is_finished));
        assert!(!honest.is_finished() && !another.is_finished() && !flood[9].is_finished());
        group.cancel();
        group.join().await.unwrap();
        assert_eq!(counts(&handshakes), BTreeMap::new());
    }

    #[test]
    fn a_handshake_that_lost_its_place_before_it_began_ends() {
        let event_loop = tokio::runtime::Builder::new_current_thread().build().unwrap();
        event_loop.block_on(async {
            let handshakes = Handshakes::new(1);
            let first = handshakes.enter(ip(1));
            let _second = handshakes.enter(ip(1));
            let group = runtime::tasks::TaskGroup::new("test");
            let handle = group.spawn("handshake", std::future::pending());
            handshakes.endable(first.key(), handle.clone());
            group.join().await.unwrap();
            assert!(handle.is_finished());
        });
    }
}
