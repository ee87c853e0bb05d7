//! Fields that HBONE knows, fields that HTTP/2 forbids, and lists that are too large.

use super::Group;
use super::exchange::{Fields, accepted, block, echo_with, malformed};
use crate::case::{Case, Got, deviates};
use crate::http2::frame::{Frame, code, flag, kind, setting};
use crate::http2::peer::Answer;
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Fields",
    about: "What stands beside the pseudo-header fields. Fields that HBONE gives a meaning never refuse a tunnel, \
            whatever they hold; fields that HTTP/2 forbids make the request malformed.",
    cases: CASES,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const CASES: &[Case] = &[
    case! { "HB-HEADER-01" Must: "The fields of an HBONE request",
    spec: "data-path 4.5", sent: "baggage, forwarded and traceparent", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("baggage", "k8s.namespace.name=ns,k8s.pod.name=p,service.name=s,service.version=v1"),
        ("forwarded", "for=\"10.0.0.9:4711\";host=reviews.default.svc.cluster.local"), ("traceparent", TRACE)]) },
    case! { "HB-HEADER-02" Must: "Baggage on several lines",
    spec: "data-path 4.6, W3C Baggage 3.1", sent: "three baggage fields", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("baggage", "k8s.namespace.name=a"), ("baggage", "service.name=b"), ("baggage", "service.name=c")]) },
    case! { "HB-HEADER-03" Contract: "Baggage that is no baggage",
    spec: "data-path 4.6", sent: "empty members, no key, no value, quotes, 4 KiB of commas", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("baggage", ""), ("baggage", ",,=,=a,b=,\"\\\",x=y=z;p=q"), ("baggage", &",".repeat(4096))]) },
    case! { "HB-HEADER-04" Contract: "Baggage that is no text",
    spec: "data-path 4.6", sent: "octets above 127", wanted: "200, and the echo",
    needs: [Echo], run: |lab| opaque(lab, b"baggage", b"service.name=\xff\xfe\x80") },
    case! { "HB-HEADER-05" Contract: "Forwarded that is nonsense",
    spec: "data-path 4.6", sent: "unbalanced quotes, no equals sign, empty host", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("forwarded", "for=\"[::1;host=;;=\"\";host=\"")]) },
    case! { "HB-HEADER-06" Contract: "Forwarded that is no text",
    spec: "data-path 4.6", sent: "octets above 127", wanted: "200, and the echo",
    needs: [Echo], run: |lab| opaque(lab, b"forwarded", b"host=\xe4\xf6") },
    case! { "HB-HEADER-07" Contract: "A traceparent of the right length without its dashes",
    spec: "data-path W35", sent: "00- and 52 zeros", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("traceparent", &format!("00-{}", "0".repeat(52)))]) },
    case! { "HB-HEADER-08" Contract: "A traceparent that is nonsense",
    spec: "data-path 4.6", sent: "empty, 55 dashes, no hexadecimal, 1 KiB", wanted: "200, and the echo, each time",
    needs: [Echo], run: traceparents },
    case! { "HB-HEADER-09" Must: "Fields that nobody knows",
    spec: "RFC 9110 5.1", sent: "x-anything and an empty value", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("x-anything", "1"), ("x-nothing", "")]) },
    case! { "HB-HEADER-10" Must: "te: trailers is allowed",
    spec: "RFC 9113 8.2.2", sent: "te: trailers", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("te", "trailers")]) },
    case! { "HB-HEADER-11" Must: "te with anything else",
    spec: "RFC 9113 8.2.2", sent: "te: gzip", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("te", "gzip")]) },
    case! { "HB-HEADER-12" Must: "connection",
    spec: "RFC 9113 8.2.2", sent: "connection: close", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("connection", "close")]) },
    case! { "HB-HEADER-13" Must: "transfer-encoding",
    spec: "RFC 9113 8.2.2", sent: "transfer-encoding: chunked", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("transfer-encoding", "chunked")]) },
    case! { "HB-HEADER-14" Must: "keep-alive",
    spec: "RFC 9113 8.2.2", sent: "keep-alive: 5", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("keep-alive", "5")]) },
    case! { "HB-HEADER-15" Must: "proxy-connection",
    spec: "RFC 9113 8.2.2", sent: "proxy-connection: keep-alive", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("proxy-connection", "keep-alive")]) },
    case! { "HB-HEADER-16" Must: "upgrade",
    spec: "RFC 9113 8.2.2", sent: "upgrade: websocket", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("upgrade", "websocket")]) },
    case! { "HB-HEADER-17" Must: "A name in upper case",
    spec: "RFC 9113 8.2.1", sent: "X-Upper: 1", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("X-Upper", "1")]) },
    case! { "HB-HEADER-18" Must: "A name with a space",
    spec: "RFC 9113 8.2.1", sent: "x upper: 1", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("x upper", "1")]) },
    case! { "HB-HEADER-19" Must: "An empty name",
    spec: "RFC 9113 8.2.1, RFC 9110 5.1", sent: "a field without a name", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("", "1")]) },
    case! { "HB-HEADER-20" Must: "CR and LF in a value",
    spec: "RFC 9113 8.2.1", sent: "a value with CR LF and another field", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("x-split", "a\r\nx-smuggled: 1")]) },
    case! { "HB-HEADER-21" Must: "LF alone in a value",
    spec: "RFC 9113 8.2.1", sent: "a value with LF", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("x-split", "a\nb")]) },
    case! { "HB-HEADER-22" Must: "NUL in a value",
    spec: "RFC 9113 8.2.1", sent: "a value with NUL", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("x-nul", "a\0b")]) },
    case! { "HB-HEADER-23" Must: "A colon within a name",
    spec: "RFC 9113 8.2.1", sent: "x:y: 1", wanted: "malformed",
    needs: [Echo], run: |lab| without(lab, &[("x:y", "1")]) },
    case! { "HB-HEADER-24" Must: "A list above the announced limit harms nobody else",
    spec: "RFC 9113 10.5.1", sent: "fields of 100 KiB on one stream, echo on another connection", wanted: "refused or served; the other lives",
    needs: [Echo], run: oversized_elsewhere },
    case! { "HB-HEADER-25" Contract: "A list above 64 KiB is refused by its status",
    spec: "data-path 4.3", sent: "fields of 100 KiB", wanted: "431, and the connection lives",
    needs: [Echo], run: oversized },
    case! { "HB-HEADER-26" Contract: "A list a little below 64 KiB is fine",
    spec: "data-path 4.3", sent: "one field of 60 KiB over several frames", wanted: "200, and the echo",
    needs: [Echo], run: |lab| fragments(lab, &[("x-large", &"a".repeat(60_000))], 16_384) },
    case! { "HB-HEADER-27" Must: "A block in fragments of a few bytes",
    spec: "RFC 9113 6.10", sent: "HEADERS and CONTINUATION frames of 4 bytes", wanted: "200, and the echo",
    needs: [Echo], run: |lab| fragments(lab, &[], 4) },
    case! { "HB-HEADER-28" Must: "An empty CONTINUATION ends the block",
    spec: "RFC 9113 6.10", sent: "HEADERS without END_HEADERS, then CONTINUATION with it and no bytes", wanted: "200, and the echo",
    needs: [Echo], run: empty_continuation },
    case! { "HB-HEADER-29" Contract: "content-length on CONNECT is checked",
    spec: "data-path 4.3", sent: "content-length 1, then 5 bytes", wanted: "RST_STREAM PROTOCOL_ERROR",
    needs: [Echo], run: content_length },
    case! { "HB-HEADER-30" Contract: "x-forwarded-network does not refuse",
    spec: "data-path 5.6", sent: "x-forwarded-network: elsewhere", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with(lab, &[("x-forwarded-network", "elsewhere"), ("baggage", "service.name=a\"b")]) },
    case! { "HB-HEADER-31" Must: "Trailers of a tunnel do not harm the connection",
    spec: "RFC 9113 8.5", sent: "a tunnel, trailers on another tunnel", wanted: "the first goes on",
    needs: [Echo], run: trailers_elsewhere },
];

fn with(lab: &Lab, more: Fields<'_>) -> Got {
    accepted(lab, &echo_with(lab, more)?)
}

fn without(lab: &Lab, more: Fields<'_>) -> Got {
    malformed(lab, &echo_with(lab, more)?)
}

fn opaque(lab: &Lab, name: &[u8], value: &[u8]) -> Got {
    let mut peer = lab.open()?;
    let fields: [(&[u8], &[u8]); 3] =
        [(b":method", b"CONNECT"), (b":authority", lab.echo()?.as_bytes()), (name, value)];
    let stream = peer.request(crate::http2::hpack::block(fields));
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

fn traceparents(lab: &Lab) -> Got {
    let long = "0".repeat(1024);
    let dashes = "-".repeat(55);
    let letters = TRACE.replace('0', "z");
    for value in ["", &dashes, &letters, &long] {
        with(lab, &[("traceparent", value)])?;
    }
    Ok("200 four times".to_owned())
}

/// CONNECT to the echo whose block is cut into pieces.
fn fragments(lab: &Lab, more: Fields<'_>, size: usize) -> Got {
    let mut peer = lab.open()?;
    let whole = block(&echo_with(lab, more)?);
    let stream = peer.next_stream();
    let mut frames: Vec<Frame> =
        whole.chunks(size).map(|piece| Frame::new(kind::CONTINUATION, 0, stream, piece)).collect();
    if let Some(first) = frames.first_mut() {
        first.kind = kind::HEADERS;
    }
    if let Some(last) = frames.last_mut() {
        last.flags |= flag::END_HEADERS;
    }
    peer.send_all(&frames);
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok(format!("200 after {} frames, and the echo", frames.len()))
}

fn empty_continuation(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    peer.send_all(&[
        Frame::new(kind::HEADERS, 0, stream, block(&echo_with(lab, &[])?)),
        Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, []),
    ]);
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

/// A request of about 100 KiB in frames of 16 KiB.
fn large_request(lab: &Lab, stream: u32) -> Result<Vec<Frame>, crate::case::Failure> {
    let value = "a".repeat(10_000);
    let more: Vec<(&str, &str)> = (0..10).map(|_| ("x-large", value.as_str())).collect();
    let whole = block(&echo_with(lab, &more)?);
    let mut frames: Vec<Frame> =
        whole.chunks(16_384).map(|piece| Frame::new(kind::CONTINUATION, 0, stream, piece)).collect();
    if let Some(first) = frames.first_mut() {
        first.kind = kind::HEADERS;
    }
    if let Some(last) = frames.last_mut() {
        last.flags |= flag::END_HEADERS;
    }
    Ok(frames)
}

fn oversized_elsewhere(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let limit = peer.seen.setting(setting::MAX_HEADER_LIST_SIZE);
    let stream = peer.next_stream();
    peer.send_all(&large_request(lab, stream)?);
    let answer = peer.answer(stream);
    innocent.lives()?;
    let state = peer.seen.state(stream);
    if answer == Answer::Silence { deviates(state) } else { Ok(format!("{state} (announced {limit:?})")) }
}

fn oversized(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    let stream = peer.next_stream();
    peer.send_all(&large_request(lab, stream)?);
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if answer != Answer::Status(431) {
        return deviates(state);
    }
    peer.echo(tunnel, b"still here")?;
    Ok(state)
}

fn content_length(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.request_fields(&echo_with(lab, &[("content-length", "1")])?);
    if peer.answer(stream) == Answer::Status(200) {
        peer.send(&Frame::data(stream, *b"five!"));
    }
    peer.stream_error(stream, &[code::PROTOCOL_ERROR])
}

fn trailers_elsewhere(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    let other = peer.tunnel(lab.echo()?)?;
    peer.send(&Frame::last_headers(other, block(&[("x-trailer", "1")])));
    peer.wait(crate::http2::peer::PATIENCE, |seen| seen.stream(other).is_some_and(|stream| stream.over()));
    peer.echo(tunnel, b"still here")?;
    // A second request of the same connection finds the field table in order.
    peer.tunnel(lab.echo()?)?;
    Ok(format!("the other: {}", peer.seen.state(other)))
}
