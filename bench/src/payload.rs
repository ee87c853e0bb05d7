//! What the load tool sends, and the check that it arrived: bytes whose place is known.
//!
//! A bulk stream is a sequence of [`BLOCK`]s, each with its number in front and the last one a marked header alone; the
//! body is a fixed pattern. The checker compares every header, and of each chunk that arrives the bytes at both ends: a byte
//! that is missing, doubled or in the wrong order moves everything after it. With [`Checker::strict`] it compares all.

/// Bytes of one block.
pub(crate) const BLOCK: usize = 65_536;
/// Bytes in front of a block's body: number (8, little endian), marker (1), zeros.
pub(crate) const HEADER: usize = 16;
/// How much of each end of a chunk is compared.
const SAMPLE: usize = 32;
const LAST: u8 = 1;
/// No period of the pattern divides a block, a page or a record.
const PERIOD: usize = 251;

/// `length` bytes of the pattern.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % PERIOD).unwrap_or_default()).collect()
}

/// A request of the ping-pong: `E` (which tells the server to echo), then the pattern.
pub(crate) fn request(size: usize) -> Vec<u8> {
    let mut bytes = pattern(size.max(1));
    if let Some(first) = bytes.first_mut() {
        *first = b'E';
    }
    bytes
}

fn header(number: u64, last: bool) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for (place, byte) in number.to_le_bytes().into_iter().chain([if last { LAST } else { 0 }]).enumerate() {
        if let Some(at) = header.get_mut(place) {
            *at = byte;
        }
    }
    header
}

/// Compares a piece at `offset` of what was expected, at its ends or wholly.
pub(crate) fn matches(piece: &[u8], expected: &[u8], strict: bool) -> bool {
    if piece.len() != expected.len() {
        return false;
    }
    if strict || piece.len() <= 2 * SAMPLE {
        return piece == expected;
    }
    let (head, tail) = (piece.get(..SAMPLE), piece.get(piece.len() - SAMPLE..));
    head == expected.get(..SAMPLE) && tail == expected.get(expected.len() - SAMPLE..)
}

/// Sends blocks: knows what comes next.
#[derive(Debug)]
pub(crate) struct Sender {
    body: std::rc::Rc<[u8]>,
    number: u64,
    offset: usize,
    last: bool,
}

/// The body that all senders and checkers of a process share.
pub(crate) fn body() -> std::rc::Rc<[u8]> {
    pattern(BLOCK - HEADER).into()
}

impl Sender {
    pub(crate) fn new(body: std::rc::Rc<[u8]>) -> Self {
        Self { body, number: 0, offset: 0, last: false }
    }

    /// Ends the stream with the block after the one that is under way.
    pub(crate) fn finish(&mut self) {
        self.last = true;
    }

    /// Writes up to `n_blocks` blocks with one call.
    pub(crate) fn write(
        &mut self,
        stream: &mut impl std::io::Write,
        n_blocks: u64,
    ) -> std::io::Result<Progress> {
        if self.last && self.offset == 0 {
            return self.write_last(stream);
        }
        // A block that is under way goes out as it began.
        let headers: Vec<[u8; HEADER]> =
            (0..n_blocks).map(|ahead| header(self.number + ahead, false)).collect();
        let n = if self.last { 1 } else { headers.len() };
        let mut slices = Vec::with_capacity(2 * n);
        for (place, header) in headers.iter().take(n).enumerate() {
            let offset = if place == 0 { self.offset } else { 0 };
            slices.push(std::io::IoSlice::new(header.get(offset..).unwrap_or_default()));
            slices.push(std::io::IoSlice::new(
                self.body.get(offset.saturating_sub(HEADER)..).unwrap_or_default(),
            ));
        }
        let written = stream.write_vectored(&slices)?;
        let place = self.offset + written;
        self.number += u64::try_from(place / BLOCK).unwrap_or_default();
        self.offset = place % BLOCK;
        Ok(Progress { written, complete: false })
    }

    fn write_last(&mut self, stream: &mut impl std::io::Write) -> std::io::Result<Progress> {
        // The last block is a header alone.
        let written = stream.write(&header(self.number, true))?;
        if written != HEADER {
            return Err(std::io::Error::other("the last header did not fit into the socket's buffer"));
        }
        Ok(Progress { written, complete: true })
    }
}

/// What one write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) written: usize,
    pub(crate) complete: bool,
}

/// Checks a stream of blocks as it arrives.
#[derive(Debug)]
pub(crate) struct Checker {
    body: std::rc::Rc<[u8]>,
    strict: bool,
    number: u64,
    offset: usize,
    marker: [u8; HEADER],
    /// The last block's header was seen.
    pub(crate) complete: bool,
}

impl Checker {
    pub(crate) fn new(body: std::rc::Rc<[u8]>) -> Self {
        Self { body, strict: false, number: 0, offset: 0, marker: [0; HEADER], complete: false }
    }

    /// Compares every byte.
    pub(crate) fn strict(body: std::rc::Rc<[u8]>) -> Self {
        Self { strict: true, ..Self::new(body) }
    }

    /// Takes the next bytes; false if they are not those that were sent.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.complete {
                return false;
            }
            if self.offset < HEADER {
                let n = bytes.len().min(HEADER - self.offset);
                let (piece, rest) = bytes.split_at(n);
                if let Some(place) = self.marker.get_mut(self.offset..self.offset + n) {
                    place.copy_from_slice(piece);
                }
                self.offset += n;
                bytes = rest;
                if self.offset == HEADER {
                    if self.marker == header(self.number, true) {
                        self.complete = true;
                    } else if self.marker != header(self.number, false) {
                        return false;
                    }
                }
                continue;
            }
            let n = bytes.len().min(BLOCK - self.offset);
            let (piece, rest) = bytes.split_at(n);
            let from = self.offset - HEADER;
            if !matches(piece, self.body.get(from..from + n).unwrap_or_default(), self.strict) {
                return false;
            }
            self.offset += n;
            bytes = rest;
            if self.offset == BLOCK {
                self.offset = 0;
                self.number += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes an odd number of bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl std::io::Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let n = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn write_vectored(&mut self, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn sent() -> Vec<u8> {
        let mut sender = Sender::new(body());
        let mut socket = Narrow(Vec::new(), 70_001);
        for _ in 0..5 {
            sender.write(&mut socket, 4).unwrap();
        }
        sender.finish();
        while !sender.write(&mut socket, 4).unwrap().complete {}
        socket.0
    }

    #[test]
    fn what_was_sent_is_accepted_in_any_pieces() {
        let sent = sent();
        for size in [1, 15, 4096, 65_537, sent.len()] {
            let mut checker = Checker::strict(body());
            assert!(sent.chunks(size).all(|piece| checker.take(piece)), "{size}");
            assert!(checker.complete);
        }
    }

    #[test]
    fn a_lost_byte_and_a_swapped_block_are_noticed_by_the_cheap_check_too() {
        let sent = sent();
        let mut lost = sent.clone();
        lost.remove(100_000);
        let mut swapped = sent.clone();
        swapped[BLOCK] ^= 1;
        for wrong in [lost, swapped, sent[..sent.len() - 1].to_vec()] {
            let mut checker = Checker::new(body());
            let accepted = wrong.chunks(16_375).all(|piece| checker.take(piece));
            assert!(!accepted || !checker.complete);
        }
    }
}
