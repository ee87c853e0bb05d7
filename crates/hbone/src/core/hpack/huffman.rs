//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: lengths alone determine it, so only lengths are kept.

/// Code length in bits of each octet, then of EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const EOS: u16 = 256;

struct Table {
    /// Code of each symbol, right-aligned.
    codes: [u32; 257],
    /// Symbols by rising code.
    order: [u16; 257],
    /// First code of each length, right-aligned.
    first: [u32; LONGEST + 2],
    /// Where in `order` the codes of each length begin.
    start: [u16; LONGEST + 2],
}

static TABLE: Table = build();

#[expect(clippy::cast_possible_truncation, reason = "symbols are below 257, checked by the loop bounds")]
const fn build() -> Table {
    let mut table =
        Table { codes: [0; 257], order: [0; 257], first: [0; LONGEST + 2], start: [0; LONGEST + 2] };
    let (mut code, mut placed, mut length) = (0_u32, 0_usize, 1_usize);
    while length <= LONGEST {
        table.first[length] = code;
        table.start[length] = placed as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                table.codes[symbol] = code;
                table.order[placed] = symbol as u16;
                placed += 1;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    table.first[length] = code;
    table.start[length] = placed as u16;
    table
}

/// The input is no Huffman code: it holds EOS or its padding is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadCode;

/// Appends the decoded octets of `input` to `out`.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), BadCode> {
    let (mut bits, mut held) = (0_u64, 0_usize);
    let mut input = input.iter();
    loop {
        while held <= 32 {
            let Some(byte) = input.next() else { break };
            bits = (bits << 8) | u64::from(*byte);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        let Some((symbol, length)) = match_code(bits, held) else {
            // Fewer bits than any code has left: they must be the first bits of EOS, at most seven of them.
            let ones = (1_u64 << held) - 1;
            return if held < 8 && bits & ones == ones { Ok(()) } else { Err(BadCode) };
        };
        if symbol == EOS {
            return Err(BadCode);
        }
        #[expect(clippy::cast_possible_truncation, reason = "256 was ruled out above")]
        out.push(symbol as u8);
        held -= length;
        bits &= (1 << held) - 1;
    }
}

/// The symbol that the highest of `held` bits spell, and its length.
fn match_code(bits: u64, held: usize) -> Option<(u16, usize)> {
    for length in SHORTEST..=LONGEST.min(held) {
        let code = bits >> (held - length);
        let offset = code.checked_sub(u64::from(TABLE.first[length]))?;
        let count = u64::from(TABLE.start[length + 1] - TABLE.start[length]);
        if offset < count {
            let index = usize::from(TABLE.start[length]) + usize::try_from(offset).ok()?;
            return TABLE.order.get(index).map(|symbol| (*symbol, length));
        }
    }
    None
}

/// Appends the code of `input` to `out`. Our own header blocks do without; tests and tools use it.
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "takes bytes out of a wider accumulator")]
pub(crate) fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in input {
        let length = u32::from(LENGTHS[usize::from(*byte)]);
        bits = (bits << length) | u64::from(TABLE.codes[usize::from(*byte)]);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        let padding = 8 - held;
        out.push(((bits << padding) | ((1 << padding) - 1)) as u8);
    }
}
