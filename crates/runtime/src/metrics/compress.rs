//! Response compression: which one the client prefers, and doing it.
use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, header};

/// Smaller bodies are not worth it.
pub(super) const MIN_BYTES: usize = 32;

/// Known encodings, the most liked first when the client likes several the same.
const PREFERENCE: [Encoding; 4] = [Encoding::Zstd, Encoding::Brotli, Encoding::Gzip, Encoding::Deflate];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Brotli,
    Gzip,
    Deflate,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    pub(super) fn compress(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Zstd => {
                ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
            }
            Self::Brotli => {
                let mut out = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 4, 22);
                written(encoder.write_all(bytes));
                drop(encoder);
                out
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                written(encoder.write_all(bytes));
                encoder.finish().unwrap_or_default()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                written(encoder.write_all(bytes));
                encoder.finish().unwrap_or_default()
            }
        }
    }
}

fn written(result: std::io::Result<()>) {
    debug_assert!(result.is_ok(), "writing to memory cannot fail");
}

/// The encoding with the highest weight; `*` stands for those not named; weight 0 forbids.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Encoding> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let items: Vec<(String, u16)> = values.flat_map(|value| value.split(',')).filter_map(weighted).collect();
    let weight = |encoding: Encoding| {
        let of = |name: &str| items.iter().find(|(item, _)| item == name).map(|(_, weight)| *weight);
        of(encoding.name()).or_else(|| of("*")).unwrap_or(0)
    };
    let best = PREFERENCE.into_iter().map(weight).max().filter(|weight| *weight > 0)?;
    PREFERENCE.into_iter().find(|encoding| weight(*encoding) == best)
}

/// Name and weight in thousandths.
fn weighted(item: &str) -> Option<(String, u16)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let weight = match parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="))) {
        None => 1000,
        Some(text) => thousandths(text)?,
    };
    Some((name, weight))
}

/// `0.25` → 250; nothing for what is no weight (RFC 9110 12.4.2).
fn thousandths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > 3 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{rest:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}
