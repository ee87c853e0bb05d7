//! Streams that have ended while their last octets wait for the socket: what never leaves is no clean end.

/// Of a stream whose last octets are not sealed, or not offered to the socket.
const NOT_OFFERED: u64 = u64::MAX;

/// Who waits for the end of a stream holds an application's socket, but the stream no longer counts as one of the tunnel's:
/// so many of those before another one wait at a time. Of the others nobody knows whether their end has left; they count as
/// clean.
const MOST_AWAITED: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// Octets of records that the socket was ever offered.
    offered: u64,
    /// In order.
    ends: Vec<End>,
    /// What waited will not leave any more.
    dropped: bool,
}

#[derive(Debug)]
struct End {
    stream: u32,
    /// Somebody wants to know when it has left.
    is_awaited: bool,
    /// How many octets the socket has to take until it has the last.
    at: u64,
}

impl Unsent {
    /// So much already waits for the socket.
    pub(super) fn of_waiting(octets: usize) -> Self {
        Self { offered: as_u64(octets), ..Self::default() }
    }

    /// The last octets of a stream are in the output.
    pub(super) fn add(&mut self, stream: u32) {
        self.ends.push(End { stream, is_awaited: false, at: NOT_OFFERED });
    }

    /// The socket is offered so many octets more; with them, unless there is output, all that was said.
    pub(super) fn note_offered(&mut self, octets: usize, is_all: bool) {
        self.offered += as_u64(octets);
        if is_all {
            let new = self.ends.iter_mut().rev().take_while(|end| end.at == NOT_OFFERED);
            new.for_each(|end| end.at = self.offered);
        }
    }

    /// Of what it was offered, the socket has taken all but so much: gives the streams it has all of, and whether somebody
    /// waits for that.
    pub(super) fn take_sent(&mut self, waiting: usize) -> impl Iterator<Item = (u32, bool)> {
        let taken = self.offered.saturating_sub(as_u64(waiting));
        let may_leave = !self.dropped;
        let sent = self.ends.iter().take_while(|end| may_leave && end.at <= taken).count();
        self.ends.drain(..sent).map(|end| (end.stream, end.is_awaited))
    }

    /// Nothing of what waits will leave any more.
    pub(super) fn drop_all(&mut self) {
        self.dropped = true;
    }

    /// Last octets of this stream have not left.
    pub(super) fn has(&self, stream: u32) -> bool {
        self.ends.iter().any(|end| end.stream == stream)
    }

    /// The same for somebody who waits for it, unless [`MOST_AWAITED`] are waited for already.
    pub(super) fn awaits(&mut self, stream: u32) -> bool {
        let mut awaited = 0;
        for end in &mut self.ends {
            if end.stream == stream {
                end.is_awaited |= awaited < MOST_AWAITED;
                return end.is_awaited;
            }
            awaited += usize::from(end.is_awaited);
        }
        false
    }

    /// Gives back what a burst has made large.
    pub(super) fn let_go(&mut self) {
        self.ends.shrink_to_fit();
    }
}

fn as_u64(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(unsent: &mut Unsent, waiting: usize) -> Vec<(u32, bool)> {
        unsent.take_sent(waiting).collect()
    }

    #[test]
    fn a_stream_has_left_with_its_own_last_octet() {
        let mut unsent = Unsent::default();
        [1, 3].into_iter().for_each(|stream| unsent.add(stream));
        unsent.note_offered(100, true);
        unsent.add(5);
        unsent.note_offered(50, true);
        assert_eq!(sent(&mut unsent, 51), []);
        assert!(unsent.awaits(3) && unsent.has(1));
        assert_eq!(sent(&mut unsent, 50), [(1, false), (3, true)]);
        assert!(!unsent.awaits(3) && unsent.has(5));
        assert_eq!(sent(&mut unsent, 0), [(5, false)]);
    }

    /// A peer that reads nothing and has streams end one after the other.
    #[test]
    fn a_bounded_number_is_waited_for() {
        let mut unsent = Unsent::default();
        let streams: Vec<u32> = (0..1000).map(|n| 2 * n + 1).collect();
        streams.iter().for_each(|stream| unsent.add(*stream));
        let mut awaited = || streams.iter().filter(|stream| unsent.awaits(**stream)).count();
        assert_eq!((awaited(), awaited()), (MOST_AWAITED, MOST_AWAITED));
    }

    #[test]
    fn what_is_not_sealed_has_not_left_nor_what_was_dropped() {
        let mut unsent = Unsent::default();
        unsent.add(1);
        unsent.note_offered(100, false);
        assert_eq!(sent(&mut unsent, 0), []);
        unsent.note_offered(20, true);
        assert_eq!(sent(&mut unsent, 0), [(1, false)]);
        unsent.add(3);
        unsent.drop_all();
        unsent.note_offered(20, true);
        assert_eq!(sent(&mut unsent, 0), []);
    }

    #[test]
    fn what_waited_before_the_move_counts() {
        let mut unsent = Unsent::of_waiting(100);
        unsent.add(1);
        unsent.note_offered(0, true);
        assert_eq!(sent(&mut unsent, 1), []);
        assert_eq!(sent(&mut unsent, 0), [(1, false)]);
    }
}
