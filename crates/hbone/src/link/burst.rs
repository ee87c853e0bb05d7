//! How sealed records are handed to the socket: a message that is a little longer than one burst of the kernel in two
//! calls.
//!
//! The kernel sends up to 64 KiB in whole segments at once. Of a message of 64 KiB, as records somewhat longer, the last
//! few hundred octets are a burst of their own. With paced congestion control (BBR) they may have to wait until the first
//! has been acknowledged. What is sent then counts as a sample of the path's bandwidth, one segment in a round trip, for the
//! kernel notes only at the beginning of a call that the application has nothing more to send. Ten such messages, and every
//! end waits its 4 ms on a path of many gigabits. In two calls of about the same length it is noted at the second, and
//! neither is short.

use std::io::{self, IoSlice};

use super::Link;
use crate::record::RECORD;

/// The shortest burst of largest size: seven segments of an MTU of 9,000 fit into 64 KiB, eight do not.
const BURST: usize = 60 << 10;

impl Link {
    /// Writes what the socket takes of the pieces.
    pub(super) fn write(&self, pieces: [&[u8]; 3]) -> io::Result<usize> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let mut written = 0;
        for end in [first_call(total), total] {
            let part = section(pieces, written, end);
            written += match part {
                [[], [], []] => return Ok(written),
                [one, [], []] | [[], one, []] | [[], [], one] => {
                    self.with_socket(|socket| socket.write(one))?
                }
                part => self.with_socket(|socket| socket.write_vectored(&part.map(IoSlice::new)))?,
            };
            if written < end {
                break;
            }
        }
        Ok(written)
    }
}

/// How many of so many octets the first call takes; all, if one burst is enough or many are due. Whole records where these are
/// full, so that the peer can open what has arrived.
fn first_call(octets: usize) -> usize {
    if octets <= BURST || octets > 2 * BURST {
        return octets;
    }
    (octets + RECORD) / (2 * RECORD) * RECORD
}

/// The octets from `from` up to `to` of what the pieces are together.
fn section(pieces: [&[u8]; 3], from: usize, to: usize) -> [&[u8]; 3] {
    let mut before = 0;
    pieces.map(|piece| {
        let within = |at: usize| at.saturating_sub(before).min(piece.len());
        let part = piece.get(within(from)..within(to)).unwrap_or_default();
        before += piece.len();
        part
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_end_of_a_message_is_short() {
        // What 64 KiB are in five DATA frames and records, and a few others, at the MTUs 1,500, 9,000 and that of `lo`.
        for octets in [65_536 + 5 * (RECORD - 16_384 + 9), 62_000, 65_536, 70_000, 90_000, 2 * BURST] {
            let first = first_call(octets);
            for segment in [1_448, 8_948, 65_483] {
                let burst = 65_536 / segment * segment;
                for call in [first, octets - first] {
                    // What is less than a segment does not keep the kernel from seeing that there is no more.
                    assert!(call < burst + segment, "{call} of {octets} octets in segments of {segment}");
                    assert!(call > BURST / 4, "{call} of {octets} octets");
                }
            }
        }
    }

    #[test]
    fn one_call_where_one_burst_is_enough_and_where_many_are_due() {
        for octets in [0, 1, RECORD, 3 * RECORD, BURST, 2 * BURST + 1, 16 * RECORD] {
            assert_eq!(first_call(octets), octets);
        }
    }

    #[test]
    fn full_records_are_not_cut() {
        assert_eq!(first_call(4 * RECORD + 67), 2 * RECORD);
        assert_eq!(first_call(5 * RECORD) % RECORD, 0);
    }

    #[test]
    fn sections_reach_over_pieces() {
        let pieces: [&[u8]; 3] = [b"abc", b"", b"defg"];
        assert_eq!(section(pieces, 0, 7), pieces);
        assert_eq!(section(pieces, 0, 2), [b"ab".as_slice(), b"", b""]);
        assert_eq!(section(pieces, 2, 5), [b"c".as_slice(), b"", b"de"]);
        assert_eq!(section(pieces, 5, 7), [b"".as_slice(), b"", b"fg"]);
        assert_eq!(section(pieces, 7, 7), [b"".as_slice(); 3]);
    }
}
