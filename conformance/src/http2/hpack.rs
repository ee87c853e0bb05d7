//! HPACK (RFC 7541): a decoder for what targets send, and encodings of every form, right and wrong, to send to them.

use std::collections::VecDeque;

use super::huffman;

/// A field: name and value as they stand on the wire.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// What our decoder lets the target's encoder keep (the protocol's default).
const TABLE_SIZE: usize = 4096;

/// Decodes header blocks of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE_SIZE }
    }
}

impl Decoder {
    /// The fields of a complete block; nothing if it is malformed.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(first) = rest.first().copied() {
            match first {
                0x80.. => fields.push(self.entry(integer(&mut rest, 7)?)?),
                0x40..=0x7f => {
                    let field = self.literal(&mut rest, 6)?;
                    self.insert(field.clone());
                    fields.push(field);
                }
                0x20..=0x3f => {
                    self.limit = integer(&mut rest, 5).filter(|limit| *limit <= TABLE_SIZE)?;
                    self.evict();
                }
                _ => fields.push(self.literal(&mut rest, 4)?),
            }
        }
        Some(fields)
    }

    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.table.get(index - STATIC.len()).cloned(),
        }
    }

    fn literal(&self, rest: &mut &[u8], prefix: u8) -> Option<Field> {
        let name = match integer(rest, prefix)? {
            0 => string(rest)?,
            index => self.entry(index)?.0,
        };
        Some((name, string(rest)?))
    }

    fn insert(&mut self, field: Field) {
        self.size += weight(&field);
        self.table.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some(oldest) = self.table.pop_back() else { break };
            self.size -= weight(&oldest);
        }
    }
}

fn weight((name, value): &Field) -> usize {
    name.len() + value.len() + 32
}

fn integer(rest: &mut &[u8], prefix: u8) -> Option<usize> {
    let (first, mut tail) = rest.split_first()?;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        for shift in (0..28).step_by(7) {
            let (octet, after) = tail.split_first()?;
            tail = after;
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                *rest = tail;
                return Some(value);
            }
        }
        return None;
    }
    *rest = tail;
    Some(value)
}

fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    if coded { huffman::decode(text) } else { Some(text.to_vec()) }
}

/// An integer with `prefix` bits in its first octet, whose other bits are `pattern`.
pub(crate) fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix: u8, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(pattern | octet(value));
        return;
    }
    out.push(pattern | octet(mask));
    let mut left = value - mask;
    while left >= 128 {
        out.push(octet(left & 0x7f) | 0x80);
        left >>= 7;
    }
    out.push(octet(left));
}

fn octet(value: usize) -> u8 {
    u8::try_from(value & 0xff).unwrap_or_default()
}

/// How a literal field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not entered into the table.
    Plain,
    /// Entered into the table of the target.
    Indexed,
    /// Never to be entered, by anybody.
    Never,
}

/// A literal with its name in full.
pub(crate) fn literal(out: &mut Vec<u8>, form: Form, coded: bool, name: &[u8], value: &[u8]) {
    out.push(match form {
        Form::Plain => 0x00,
        Form::Indexed => 0x40,
        Form::Never => 0x10,
    });
    for text in [name, value] {
        if coded {
            let text = huffman::encode(text);
            put_integer(out, 0x80, 7, text.len());
            out.extend(text);
        } else {
            put_integer(out, 0, 7, text.len());
            out.extend(text);
        }
    }
}

/// A block of plain literals: what most cases send.
pub(crate) fn block<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(&mut out, Form::Plain, false, name, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7541 appendix C.6: three answers with Huffman code and a table of 256 octets, so that entries are evicted.
    #[test]
    fn the_answers_of_the_rfc_decode() {
        let mut decoder = Decoder { limit: 256, ..Decoder::default() };
        let first = hex(
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        );
        let fields = decoder.decode(&first).unwrap();
        assert_eq!(fields[0], (b":status".to_vec(), b"302".to_vec()));
        assert_eq!(fields[3], (b"location".to_vec(), b"https://www.example.com".to_vec()));
        let fields = decoder.decode(&hex("4883640effc1c0bf")).unwrap();
        assert_eq!(fields[0], (b":status".to_vec(), b"307".to_vec()));
        assert_eq!(fields[3].1, b"https://www.example.com");
        assert_eq!(decoder.table.len(), 4);
    }

    #[test]
    fn what_is_encoded_decodes_in_every_form() {
        for form in [Form::Plain, Form::Indexed, Form::Never] {
            for coded in [false, true] {
                let mut out = Vec::new();
                literal(&mut out, form, coded, b"name", &[b'v'; 300]);
                let fields = Decoder::default().decode(&out).unwrap();
                assert_eq!(fields, [(b"name".to_vec(), vec![b'v'; 300])]);
            }
        }
    }

    #[test]
    fn what_is_cut_or_out_of_range_is_refused() {
        for wrong in [&[0xff][..], &[0x80], &[0xfe], &[0x40, 5, b'a'], &[0x3f, 0xff, 0xff, 0x7f], &[0xff; 12]]
        {
            assert_eq!(Decoder::default().decode(wrong), None, "{wrong:?}");
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
