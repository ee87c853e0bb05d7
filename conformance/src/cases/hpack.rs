//! Header compression: every form of a field, and blocks that are none.

use super::Group;
use super::exchange::{fatal, to};
use crate::case::{Case, Got, deviates};
use crate::http2::frame::{Frame, code};
use crate::http2::hpack::{Form, literal, put_integer};
use crate::http2::peer::Answer;
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Header compression",
    about: "A block that cannot be decoded is a connection error COMPRESSION_ERROR (RFC 9113 4.3); PROTOCOL_ERROR, \
            which Istio's node proxy sends, is accepted as well.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-HPACK-01" Must: "Literals that are not indexed",
    spec: "RFC 7541 6.2.2", sent: "CONNECT in plain literals", wanted: "200", needs: [Echo], run: |lab| literals(lab, Form::Plain, false) },
    case! { "HB-HPACK-02" Must: "Literals that are never indexed",
    spec: "RFC 7541 6.2.3", sent: "CONNECT in never-indexed literals", wanted: "200", needs: [Echo], run: |lab| literals(lab, Form::Never, false) },
    case! { "HB-HPACK-03" Must: "Huffman code",
    spec: "RFC 7541 5.2", sent: "CONNECT with coded names and values", wanted: "200", needs: [Echo], run: |lab| literals(lab, Form::Plain, true) },
    case! { "HB-HPACK-04" Must: "Names of the static table",
    spec: "RFC 7541 6.2.1", sent: ":method and :authority by index", wanted: "200", needs: [Echo], run: static_names },
    case! { "HB-HPACK-05" Must: "The dynamic table holds over requests",
    spec: "RFC 7541 2.3.2", sent: "an indexed CONNECT, then two octets that refer to it, 50 times", wanted: "200 each time", needs: [Echo], run: dynamic_table },
    case! { "HB-HPACK-06" Must: "Entries are evicted in order",
    spec: "RFC 7541 4.4", sent: "CONNECT indexed, 4 KiB of other entries, then its index", wanted: "COMPRESSION_ERROR: it is gone", needs: [Echo], run: evicted },
    case! { "HB-HPACK-07" Must: "The table is emptied and grows again",
    spec: "RFC 7541 6.3", sent: "size updates to 0 and 4096 at the start of a block", wanted: "200", needs: [Echo], run: resized },
    case! { "HB-HPACK-08" Must: "An index beyond both tables",
    spec: "RFC 7541 2.3.3", sent: "index 200", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0xff, 0x49]) },
    case! { "HB-HPACK-09" Must: "Index 0",
    spec: "RFC 7541 6.1", sent: "index 0", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x80]) },
    case! { "HB-HPACK-10" Must: "A table above the limit",
    spec: "RFC 7541 6.3", sent: "a size update to 1 MiB", wanted: "COMPRESSION_ERROR", needs: [], run: too_large_a_table },
    case! { "HB-HPACK-11" Must: "A size update behind a field",
    spec: "RFC 7541 4.2", sent: "index 2, then a size update", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x82, 0x20]) },
    case! { "HB-HPACK-12" Must: "A string that ends with the block",
    spec: "RFC 7541 5.2", sent: "a literal of 10 bytes with 3 of them", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x00, 10, b'a', b'b', b'c']) },
    case! { "HB-HPACK-13" Must: "An integer without end",
    spec: "RFC 7541 5.1", sent: "twelve octets of continuation", wanted: "COMPRESSION_ERROR",
    needs: [], run: |lab| broken(lab, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) },
    case! { "HB-HPACK-14" Must: "A string longer than memory",
    spec: "RFC 7541 5.1", sent: "a literal of 2^31 bytes", wanted: "COMPRESSION_ERROR, or refused",
    needs: [], run: |lab| broken(lab, &[0x00, 0x7f, 0x81, 0xff, 0xff, 0xff, 0x07, b'a']) },
    case! { "HB-HPACK-15" Must: "EOS within Huffman code",
    spec: "RFC 7541 5.2", sent: "30 bits of ones and more", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'a']) },
    case! { "HB-HPACK-16" Must: "Padding of zeros in Huffman code",
    spec: "RFC 7541 5.2", sent: "`a` with three zero bits", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x00, 0x81, 0x18, 0x01, b'a']) },
    case! { "HB-HPACK-17" Must: "Padding longer than seven bits",
    spec: "RFC 7541 5.2", sent: "`a` and eleven ones", wanted: "COMPRESSION_ERROR", needs: [], run: |lab| broken(lab, &[0x00, 0x82, 0x1f, 0xff, 0x01, b'a']) },
];

fn literals(lab: &Lab, form: Form, coded: bool) -> Got {
    let mut out = Vec::new();
    for (name, value) in to(lab.echo()?) {
        literal(&mut out, form, coded, name.as_bytes(), value.as_bytes());
    }
    opens(lab, vec![out])
}

/// `:method: CONNECT` and `:authority` entered into the table, names by index.
fn indexed(authority: &str) -> Vec<u8> {
    let mut out = vec![0x42, 7];
    out.extend(b"CONNECT");
    out.push(0x41);
    put_integer(&mut out, 0, 7, authority.len());
    out.extend(authority.as_bytes());
    out
}

/// Each block opens a tunnel on the same connection.
fn opens(lab: &Lab, blocks: Vec<Vec<u8>>) -> Got {
    let mut peer = lab.open()?;
    let count = blocks.len();
    for block in blocks {
        let stream = peer.request(block);
        if peer.answer(stream) != Answer::Status(200) {
            return deviates(peer.seen.state(stream));
        }
        peer.send(&Frame::last_data(stream, []));
    }
    Ok(format!("200 to {count}"))
}

fn static_names(lab: &Lab) -> Got {
    opens(lab, vec![indexed(lab.echo()?)])
}

fn dynamic_table(lab: &Lab) -> Got {
    let mut blocks = vec![indexed(lab.echo()?)];
    // The latest entry has index 62.
    blocks.resize(51, vec![0xbf, 0xbe]);
    opens(lab, blocks)
}

fn evicted(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let mut block = indexed(lab.echo()?);
    for number in 0..50 {
        literal(&mut block, Form::Indexed, false, format!("x-{number}").as_bytes(), &[b'a'; 100]);
    }
    let first = peer.request(block);
    if peer.answer(first) != Answer::Status(200) {
        return deviates(peer.seen.state(first));
    }
    // 52 entries were made: CONNECT would have index 61 + 52.
    let mut block = Vec::new();
    put_integer(&mut block, 0x80, 7, 61 + 52);
    put_integer(&mut block, 0x80, 7, 61 + 51);
    peer.request(block);
    peer.connection_error(&[code::COMPRESSION_ERROR, code::PROTOCOL_ERROR])
}

fn resized(lab: &Lab) -> Got {
    let authority = lab.echo()?;
    let mut again = vec![0x20, 0x3f, 0xe1, 0x1f];
    again.extend(indexed(authority));
    opens(lab, vec![indexed(authority), again, vec![0xbf, 0xbe]])
}

fn too_large_a_table(lab: &Lab) -> Got {
    let mut block = Vec::new();
    put_integer(&mut block, 0x20, 5, 1 << 20);
    broken(lab, &block)
}

fn broken(lab: &Lab, block: &[u8]) -> Got {
    fatal(lab, &[Frame::headers(1, block)], &[code::COMPRESSION_ERROR, code::PROTOCOL_ERROR])
}
