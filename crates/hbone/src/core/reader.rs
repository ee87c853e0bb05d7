//! Cuts received bytes into frames. DATA payload is passed on as it lies in the caller's buffer. Of other frames that
//! arrive in pieces as much is put together as their kind can use, and the rest is read over: what is too long or too
//! short, or means nothing to us, is judged by its head.

use super::frame::{HEADER, Head, PREFACE, flag, kind};
use crate::live::codec::portable;

/// A SETTINGS frame longer than this is not read. There are a handful of settings, at six octets each.
pub(super) const MAX_SETTINGS: usize = 16 << 10;

/// What the next bytes are.
#[derive(Debug)]
pub(crate) enum Piece<'i> {
    /// A frame other than DATA, with as much of its payload as is [`of_use`].
    Frame(Head, Payload<'i>),
    /// HEADERS or CONTINUATION begin: none of their payload has been collected.
    BlockStart(Head),
    /// A DATA frame begins. The length in the head counts padding.
    DataStart(Head),
    /// Payload of the DATA frame, `padding` octets (with their length octet) to be credited, not delivered.
    Data { stream: u32, bytes: &'i [u8], padding: u32, finished: bool, end_stream: bool },
}

/// A payload, borrowed where it arrived in one piece.
#[derive(Debug)]
pub(crate) enum Payload<'i> {
    Borrowed(&'i [u8]),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Payload<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Bytes that cannot be cut any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not the client's preface.
    Preface,
    /// A frame longer than our SETTINGS allow.
    TooLong,
    /// The first frame is not SETTINGS.
    NotSettings,
    /// More padding than frame.
    Padding,
    /// Too short for the padding length it announces.
    NoPadLength,
}

#[derive(Debug, Clone)]
enum Stage {
    /// Octets of the preface seen.
    Preface(usize),
    Head,
    /// Collecting the payload of a frame other than DATA, as far as it is of use.
    Payload(Head),
    /// Octets of payload without use still to come.
    Skip(usize),
    /// The pad length octet of a DATA frame comes next.
    PadLength(Head),
    /// Octets of payload and of padding still to come.
    Data {
        head: Head,
        left: usize,
        padding: usize,
        padding_credit: u32,
    },
}

/// Position in the byte stream; holds at most one incomplete frame.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    stage: Stage,
    partial: Vec<u8>,
    max_frame: usize,
    /// The first frame of a peer must be SETTINGS.
    first: bool,
}

portable!(struct Head { length, kind, flags, stream });
portable!(enum Stage {
    0 => Preface(seen),
    1 => Head,
    2 => Payload(head),
    3 => PadLength(head),
    4 => Data { head, left, padding, padding_credit },
    5 => Skip(left),
});
portable!(struct Reader { stage, partial, max_frame, first });

impl Reader {
    /// Whether a reader that came from elsewhere holds what one of ours can hold.
    pub(crate) fn is_sound(&self, max_frame: usize) -> bool {
        let partial = self.partial.len();
        self.max_frame == max_frame
            && match self.stage {
                Stage::Preface(seen) => seen < PREFACE.len() && partial == 0,
                Stage::Head => partial < HEADER,
                Stage::Payload(head) => head.length <= max_frame && partial <= of_use(head),
                Stage::Skip(left) => left <= max_frame && partial == 0,
                Stage::PadLength(head) => (1..=max_frame).contains(&head.length) && partial == 0,
                Stage::Data { left, padding, padding_credit, .. } => {
                    left <= max_frame && padding <= 255 && padding_credit <= 256 && partial == 0
                }
            }
    }

    /// Octets of a frame that is not complete.
    pub(crate) fn collected(&self) -> usize {
        self.partial.len()
    }

    pub(crate) fn new(expect_preface: bool, max_frame: usize) -> Self {
        let stage = if expect_preface { Stage::Preface(0) } else { Stage::Head };
        Self { stage, partial: Vec::new(), max_frame, first: true }
    }

    /// The next piece, taken off the front of `bytes`; `None` when more bytes are needed.
    pub(crate) fn next<'i>(&mut self, bytes: &mut &'i [u8]) -> Result<Option<Piece<'i>>, Malformed> {
        loop {
            match self.stage {
                Stage::Preface(seen) => {
                    let expected = PREFACE.get(seen..).unwrap_or_default();
                    let got = take(bytes, expected.len());
                    if !expected.starts_with(got) {
                        return Err(Malformed::Preface);
                    }
                    let seen = seen + got.len();
                    if seen < PREFACE.len() {
                        self.stage = Stage::Preface(seen);
                        return Ok(None);
                    }
                    self.stage = Stage::Head;
                }
                Stage::Head => {
                    let Some(head) = self.read_head(bytes) else { return Ok(None) };
                    if std::mem::take(&mut self.first) && (head.kind != kind::SETTINGS || head.has(flag::ACK))
                    {
                        return Err(Malformed::NotSettings);
                    }
                    if head.length > self.max_frame {
                        return Err(Malformed::TooLong);
                    }
                    if matches!(head.kind, kind::HEADERS | kind::CONTINUATION) {
                        self.stage = Stage::Payload(head);
                        return Ok(Some(Piece::BlockStart(head)));
                    }
                    if head.kind != kind::DATA {
                        self.stage = Stage::Payload(head);
                        continue;
                    }
                    self.stage = match (head.has(flag::PADDED), head.length) {
                        (true, 0) => return Err(Malformed::NoPadLength),
                        (true, _) => Stage::PadLength(head),
                        (false, left) => Stage::Data { head, left, padding: 0, padding_credit: 0 },
                    };
                    return Ok(Some(Piece::DataStart(head)));
                }
                Stage::Payload(head) => {
                    let useful = of_use(head);
                    let Some(payload) = self.collect(bytes, useful) else { return Ok(None) };
                    self.stage = match head.length - useful {
                        0 => Stage::Head,
                        left => Stage::Skip(left),
                    };
                    return Ok(Some(Piece::Frame(head, payload)));
                }
                Stage::Skip(left) => {
                    let left = left - take(bytes, left).len();
                    if left > 0 {
                        self.stage = Stage::Skip(left);
                        return Ok(None);
                    }
                    self.stage = Stage::Head;
                }
                Stage::PadLength(head) => {
                    let [padding] = take(bytes, 1) else { return Ok(None) };
                    let left =
                        (head.length - 1).checked_sub(usize::from(*padding)).ok_or(Malformed::Padding)?;
                    let padding_credit = u32::from(*padding) + 1;
                    self.stage = Stage::Data { head, left, padding: usize::from(*padding), padding_credit };
                }
                Stage::Data { head, left, padding, padding_credit } => {
                    let payload = take(bytes, left);
                    let left = left - payload.len();
                    let padding = if left == 0 { padding - take(bytes, padding).len() } else { padding };
                    let finished = left == 0 && padding == 0;
                    if !finished && payload.is_empty() && padding_credit == 0 {
                        self.stage = Stage::Data { head, left, padding, padding_credit: 0 };
                        return Ok(None);
                    }
                    self.stage = if finished {
                        Stage::Head
                    } else {
                        Stage::Data { head, left, padding, padding_credit: 0 }
                    };
                    return Ok(Some(Piece::Data {
                        stream: head.stream,
                        bytes: payload,
                        padding: padding_credit,
                        finished,
                        end_stream: head.has(flag::END_STREAM),
                    }));
                }
            }
        }
    }

    fn read_head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        if self.partial.is_empty()
            && let Some((head, rest)) = bytes.split_first_chunk::<HEADER>()
        {
            *bytes = rest;
            return Some(Head::parse(head));
        }
        self.partial.extend_from_slice(take(bytes, HEADER - self.partial.len()));
        let head = Head::parse(self.partial.first_chunk::<HEADER>()?);
        self.partial.clear();
        Some(head)
    }

    fn collect<'i>(&mut self, bytes: &mut &'i [u8], length: usize) -> Option<Payload<'i>> {
        if self.partial.is_empty() && bytes.len() >= length {
            return Some(Payload::Borrowed(take(bytes, length)));
        }
        let part = take(bytes, length - self.partial.len());
        let together = self.partial.len() + part.len();
        if together > self.partial.capacity() {
            // Grows as a vector does, but never beyond the frame.
            self.partial.reserve_exact((together * 2).min(length) - self.partial.len());
        }
        self.partial.extend_from_slice(part);
        (self.partial.len() == length).then(|| Payload::Owned(std::mem::take(&mut self.partial)))
    }
}

/// How much of a frame's payload its kind can use. The rest is none, or makes the frame a fault: neither is collected.
pub(super) fn of_use(head: Head) -> usize {
    match head.kind {
        kind::HEADERS | kind::CONTINUATION => head.length,
        kind::PING if head.length == 8 => 8,
        kind::RST_STREAM | kind::WINDOW_UPDATE if head.length == 4 => 4,
        kind::SETTINGS if !head.has(flag::ACK) && is_settings(head.length) => head.length,
        // What follows is for people.
        kind::GOAWAY if head.length >= 8 => 8,
        _ => 0,
    }
}

fn is_settings(length: usize) -> bool {
    length <= MAX_SETTINGS && length.is_multiple_of(6)
}

/// Up to `count` bytes off the front.
fn take<'i>(bytes: &mut &'i [u8], count: usize) -> &'i [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}
