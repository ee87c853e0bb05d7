//! Header blocks and what they say.

use std::borrow::Cow;

use hbone::bare::{Bare, Event, field_list, header_blocks};

use crate::baggage::Baggage;
use crate::input::{Input, now};
use crate::text;

/// Blocks on one decoder; then what one of them says, encoded anew, must decode to the same.
pub fn blocks(data: &[u8]) {
    let mut input = Input(data);
    let limit = [64, 1000, 16 << 10][usize::from(input.byte() % 3)];
    let mut parts = Vec::new();
    while !input.0.is_empty() {
        let length = usize::from(input.byte());
        parts.push(input.take(length));
    }
    let [decoded, requests, answers, trailers] = header_blocks(parts.iter().copied(), limit);
    assert!(decoded <= parts.len() && requests + answers + trailers <= decoded);

    for part in parts {
        let Some(fields) = field_list(part, limit) else { continue };
        let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(size <= limit, "a list of {size} octets passed a limit of {limit}");
        let plain: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        assert_eq!(field_list(&plain, limit), Some(fields));
    }
}

/// A field as literals without Huffman code and without a place in the table.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => out.push(length),
            _ => {
                out.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    out.push((rest & 127) as u8 | 128);
                    rest >>= 7;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text);
    }
    out
}

/// A CONNECT with any authority and any value of the headers that are read.
pub fn request(data: &[u8]) {
    let mut input = Input(data);
    let length = usize::from(input.byte());
    let authority = input.take(length);
    let value = input.0;

    let fields: [(&[u8], &[u8]); 3] =
        [(b":method", b"CONNECT"), (b":authority", authority), (b"baggage", value)];
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [&length[1..], &[1, 4, 0, 0, 0, 1]].concat();
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &head[..], &block].concat();
    let mut server = Bare::server(hbone::Settings::default(), now());
    server.receive(now(), &bytes, |_, event| match event {
        Event::Request(1, Some(text)) => {
            assert_eq!(text.as_bytes(), authority);
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        }
        Event::Window(0) => {}
        // No HEADERS frame of this server's peer is that large.
        Event::Ended(_) => assert!(block.len() > 16 << 10),
        other => panic!("{other:?}"),
    });

    let baggage = Baggage::parse(value.split(|byte| *byte == b'\n'));
    let all = [&baggage.cluster, &baggage.namespace, &baggage.workload, &baggage.region, &baggage.zone];
    assert!(all.iter().all(|text| text.len() <= 253 && !text.contains([',', '='])), "{baggage:?}");
    let text: Cow<'_, str> = String::from_utf8_lossy(value);
    if let Some(host) = text::forwarded_host(&text) {
        assert!(!host.is_empty() && host.is_ascii() && !host.contains(';'), "{host:?}");
    }
    if let Some(trace) = text::trace_id(&text) {
        let said = u128::from_str_radix(&text[3..35], 16);
        assert_eq!(said, Ok(trace));
    }
    if let Ok(parsed) = String::from_utf8_lossy(authority).parse::<state::Authority>() {
        let again = parsed.to_string().parse();
        assert_eq!(again.as_ref(), Ok(&parsed));
    }
}
