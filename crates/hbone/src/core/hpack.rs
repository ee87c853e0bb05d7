//! HPACK (RFC 7541): a complete decoder, and an encoder that needs no state.
//!
//! The encoder uses the static table and plain literals only, so there is nothing to keep in step with the peer's
//! decoder; the headers of a CONNECT are few and differ from request to request.

mod huffman;
mod tables;
#[cfg(test)]
mod tests;

use tables::{DynamicTable, OVERHEAD, STATIC};

/// One header field as it came off the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Field {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + OVERHEAD
    }
}

/// The block cannot be decoded: the two ends no longer agree on the tables, so the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadBlock(pub(crate) &'static str);

/// A decoded block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldList {
    pub(crate) fields: Vec<Field>,
    /// The list was longer than allowed; `fields` holds what came before.
    pub(crate) oversized: bool,
}

/// Decoder state of one direction of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    dynamic: DynamicTable,
    /// What our SETTINGS allow the peer's encoder to use.
    allowed: usize,
}

/// Default of `SETTINGS_HEADER_TABLE_SIZE`, which we leave alone.
pub(crate) const DEFAULT_TABLE: usize = 4096;

crate::live::codec::portable!(struct Field { name, value });
crate::live::codec::portable!(struct Decoder { dynamic, allowed });

impl Decoder {
    /// Whether a decoder that came from elsewhere keeps its limits.
    pub(crate) fn is_sound(&self) -> bool {
        self.allowed <= DEFAULT_TABLE && self.dynamic.is_sound(self.allowed)
    }

    pub(crate) fn new(allowed: usize) -> Self {
        Self { dynamic: DynamicTable::new(allowed), allowed }
    }

    /// Decodes one whole header block. A list above `limit` is decoded to its end to keep the tables in step, but
    /// not kept.
    pub(crate) fn decode(&mut self, block: &[u8], limit: usize) -> Result<FieldList, BadBlock> {
        let mut input = Input(block);
        let mut list = FieldList::default();
        let mut size = 0;
        let mut may_resize = true;
        while let Some(first) = input.peek() {
            let (field, remember) = match first {
                0x80.. => (self.lookup(input.integer(7)?)?, false),
                0x40.. => (self.literal(&mut input, 6)?, true),
                0x20.. => {
                    if !may_resize {
                        return Err(BadBlock("table size update after a field"));
                    }
                    let wanted = input.integer(5)?;
                    if wanted > self.allowed {
                        return Err(BadBlock("table size update above the setting"));
                    }
                    self.dynamic.resize(wanted);
                    continue;
                }
                _ => (self.literal(&mut input, 4)?, false),
            };
            may_resize = false;
            size += field.size();
            if size > limit {
                list.oversized = true;
            }
            match (list.oversized, remember) {
                (true, true) => self.dynamic.insert(field.into_field()),
                (true, false) => {}
                (false, true) => {
                    let field = field.into_field();
                    self.dynamic.insert(field.clone());
                    list.fields.push(field);
                }
                (false, false) => list.fields.push(field.into_field()),
            }
        }
        Ok(list)
    }

    fn lookup(&self, index: usize) -> Result<Decoded<'_>, BadBlock> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|i| STATIC.get(i)) {
            return Ok(Decoded::Borrowed(name.as_bytes(), value.as_bytes()));
        }
        let distance = index.checked_sub(STATIC.len() + 1).ok_or(BadBlock("index zero"))?;
        let field = self.dynamic.get(distance).ok_or(BadBlock("index beyond the tables"))?;
        Ok(Decoded::Borrowed(&field.name, &field.value))
    }

    fn literal<'a>(&'a self, input: &mut Input<'_>, prefix: u8) -> Result<Decoded<'a>, BadBlock> {
        let name = match input.integer(prefix)? {
            0 => input.string()?,
            index => self.lookup(index)?.into_field().name,
        };
        Ok(Decoded::Owned(Field { name, value: input.string()? }))
    }

    #[cfg(test)]
    fn table_size(&self) -> usize {
        self.dynamic.size()
    }
}

/// A field that may still lie in a table: fields of an oversized list are never copied out.
enum Decoded<'a> {
    Borrowed(&'a [u8], &'a [u8]),
    Owned(Field),
}

impl Decoded<'_> {
    fn size(&self) -> usize {
        match self {
            Self::Borrowed(name, value) => name.len() + value.len() + OVERHEAD,
            Self::Owned(field) => field.size(),
        }
    }

    fn into_field(self) -> Field {
        match self {
            Self::Borrowed(name, value) => Field { name: name.to_vec(), value: value.to_vec() },
            Self::Owned(field) => field,
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, BadBlock> {
        let (first, rest) = self.0.split_first().ok_or(BadBlock("truncated"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer with the given number of prefix bits (section 5.1).
    fn integer(&mut self, prefix: u8) -> Result<usize, BadBlock> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0_u32, 7, 14, 21] {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BadBlock("integer too large"))
    }

    fn string(&mut self) -> Result<Vec<u8>, BadBlock> {
        let coded = self.peek().ok_or(BadBlock("truncated"))? & 0x80 != 0;
        let length = self.integer(7)?;
        let bytes = self.take(length)?;
        if !coded {
            return Ok(bytes.to_vec());
        }
        let mut out = Vec::with_capacity(length * 8 / 5);
        huffman::decode(bytes, &mut out).map_err(|huffman::BadCode| BadBlock("bad huffman code"))?;
        Ok(out)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadBlock> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BadBlock("truncated"))?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// Appends one field to a header block.
pub(crate) fn encode(name: &str, value: &[u8], out: &mut Vec<u8>) {
    let by_name = STATIC.iter().position(|(n, _)| *n == name);
    if let Some(index) = STATIC.iter().position(|(n, v)| *n == name && !v.is_empty() && v.as_bytes() == value)
    {
        put_integer(index + 1, 7, 0x80, out);
        return;
    }
    match by_name {
        Some(index) => put_integer(index + 1, 4, 0, out),
        None => {
            out.push(0);
            put_string(name.as_bytes(), out);
        }
    }
    put_string(value, out);
}

/// Appends the notice that the dynamic table is not used, which a decoder may insist on after it lowered the size.
pub(crate) fn encode_empty_table(out: &mut Vec<u8>) {
    put_integer(0, 5, 0x20, out);
}

fn put_string(bytes: &[u8], out: &mut Vec<u8>) {
    put_integer(bytes.len(), 7, 0, out);
    out.extend_from_slice(bytes);
}

#[expect(clippy::cast_possible_truncation, reason = "each byte is masked or compared before it is narrowed")]
fn put_integer(value: usize, prefix: u8, pattern: u8, out: &mut Vec<u8>) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
