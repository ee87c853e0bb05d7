//! Frames: which are ignored, which are answered, which end a connection.

use super::Group;
use super::exchange::{block, echo_with, fatal, harmless, stream_fatal, to};
use crate::case::{Case, Got, deviates};
use crate::http2::frame::{Frame, PREFACE, code, flag, kind, setting};
use crate::http2::peer::{Answer, Manners, PATIENCE};
use crate::lab::Lab;
use crate::tls::Offer;

pub(super) const GROUP: Group = Group {
    name: "Frames",
    about: "What HTTP/2 wants ignored is ignored, what it wants answered is answered. Where it wants the connection \
            ended, a GOAWAY with the code named or the end of the connection is accepted; for wrong lengths \
            PROTOCOL_ERROR is accepted beside FRAME_SIZE_ERROR, since Istio's node proxy sends it.",
    cases: CASES,
};

const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR];
const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const CLOSED: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];

const CASES: &[Case] = &[
    case! { "HB-FRAME-01" Must: "Unknown frame types are ignored",
    spec: "RFC 9113 4.1, 5.5", sent: "types 0x0a, 0x16, 0xee on stream 0 and the tunnel", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| harmless(lab, unknown_types) },
    case! { "HB-FRAME-02" Must: "Unknown settings are ignored",
    spec: "RFC 9113 6.5.2", sent: "settings 0x0f and 0xfeed", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| harmless(lab, |_| vec![Frame::settings(&[(0x0f, 1), (0xfeed, u32::MAX)])]) },
    case! { "HB-FRAME-03" Must: "Undefined flags are ignored",
    spec: "RFC 9113 4.1", sent: "PING with flags 0xfe, WINDOW_UPDATE with 0xff", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| harmless(lab, |stream| vec![Frame::new(kind::PING, 0xfe, 0, [7; 8]), Frame::new(kind::WINDOW_UPDATE, 0xff, stream, [0, 0, 0, 1])]) },
    case! { "HB-FRAME-04" Must: "The reserved bit is ignored",
    spec: "RFC 9113 4.1", sent: "PING and WINDOW_UPDATE with the bit set", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| harmless(lab, |stream| vec![Frame::new(kind::PING, 0, 1 << 31, [7; 8]), Frame::window_update(stream | 1 << 31, 1)]) },
    case! { "HB-FRAME-05" Must: "PRIORITY is ignored wherever it stands",
    spec: "RFC 9113 5.3.2, 6.3", sent: "PRIORITY for the tunnel and for streams not yet opened", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| harmless(lab, |stream| vec![Frame::priority(stream), Frame::priority(stream + 2), Frame::priority(stream + 100)]) },
    case! { "HB-FRAME-06" Must: "HEADERS with priority and padding",
    spec: "RFC 9113 6.2", sent: "CONNECT with both flags", wanted: "200, and the echo",
    needs: [Echo], run: dressed_headers },
    case! { "HB-FRAME-07" Must: "Padding of DATA is taken off",
    spec: "RFC 9113 6.1", sent: "DATA with 0, 1 and 255 octets of padding", wanted: "the bytes without padding",
    needs: [Echo], run: padded_data },
    case! { "HB-FRAME-08" Must: "PING is answered with its payload",
    spec: "RFC 9113 6.7", sent: "PING", wanted: "PING with ACK and the same payload",
    needs: [], run: ping },
    case! { "HB-FRAME-09" Must: "An answer to a PING that nobody sent is ignored",
    spec: "RFC 9113 6.7", sent: "PING with ACK", wanted: "the tunnel goes on, no answer",
    needs: [Echo], run: |lab| harmless(lab, |_| vec![Frame::new(kind::PING, flag::ACK, 0, [9; 8])]) },
    case! { "HB-FRAME-10" Must: "DATA of one octet, two streams in turn",
    spec: "RFC 9113 5", sent: "1000 octets each, alternating", wanted: "each stream its own octets in order",
    needs: [Echo], run: interleaved },
    case! { "HB-FRAME-11" Must: "The largest frame that is announced",
    spec: "RFC 9113 4.2", sent: "DATA of MAX_FRAME_SIZE octets", wanted: "the bytes back",
    needs: [Echo], run: largest_frame },
    case! { "HB-FRAME-12" Must: "A frame above the announced maximum",
    spec: "RFC 9113 4.2", sent: "DATA of MAX_FRAME_SIZE and one octets", wanted: "FRAME_SIZE_ERROR",
    needs: [Echo], run: oversized_frame },
    case! { "HB-FRAME-13" Must: "Frames of many kinds in one TLS record, and one frame over many",
    spec: "RFC 9113 3.4, 4.1", sent: "a CONNECT octet by octet, each in a record", wanted: "200, and the echo",
    needs: [Echo], run: trickled },
    case! { "HB-FRAME-20" Must: "Padding as long as the payload",
    spec: "RFC 9113 6.1", sent: "DATA whose padding fills it all and more", wanted: "PROTOCOL_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::new(kind::DATA, flag::PADDED, stream, [9, 0, 0])], PROTOCOL) },
    case! { "HB-FRAME-21" Must: "PING of 7 octets",
    spec: "RFC 9113 6.7", sent: "PING of 7 octets", wanted: "FRAME_SIZE_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::PING, 0, 0, [0; 7])], SIZE) },
    case! { "HB-FRAME-22" Must: "PING on a stream",
    spec: "RFC 9113 6.7", sent: "PING on stream 1", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::PING, 0, 1, [0; 8])], PROTOCOL) },
    case! { "HB-FRAME-23" Must: "SETTINGS of 5 octets",
    spec: "RFC 9113 6.5", sent: "SETTINGS of 5 octets", wanted: "FRAME_SIZE_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::SETTINGS, 0, 0, [0; 5])], SIZE) },
    case! { "HB-FRAME-24" Must: "SETTINGS on a stream",
    spec: "RFC 9113 6.5", sent: "SETTINGS on stream 1", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::SETTINGS, 0, 1, [])], PROTOCOL) },
    case! { "HB-FRAME-25" Must: "An acknowledgement with a payload",
    spec: "RFC 9113 6.5", sent: "SETTINGS with ACK and 6 octets", wanted: "FRAME_SIZE_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::SETTINGS, flag::ACK, 0, [0; 6])], SIZE) },
    case! { "HB-FRAME-26" Must: "ENABLE_PUSH that is no boolean",
    spec: "RFC 9113 6.5.2", sent: "ENABLE_PUSH 7", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::settings(&[(setting::ENABLE_PUSH, 7)])], PROTOCOL) },
    case! { "HB-FRAME-27" Must: "MAX_FRAME_SIZE below 16384",
    spec: "RFC 9113 6.5.2", sent: "MAX_FRAME_SIZE 16383", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::settings(&[(setting::MAX_FRAME_SIZE, 16_383)])], PROTOCOL) },
    case! { "HB-FRAME-28" Must: "MAX_FRAME_SIZE above 2^24-1",
    spec: "RFC 9113 6.5.2", sent: "MAX_FRAME_SIZE 2^24", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])], PROTOCOL) },
    case! { "HB-FRAME-29" Must: "DATA on stream 0",
    spec: "RFC 9113 6.1", sent: "DATA on stream 0", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::data(0, *b"x")], PROTOCOL) },
    case! { "HB-FRAME-30" Must: "HEADERS on stream 0",
    spec: "RFC 9113 6.2", sent: "CONNECT on stream 0", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::headers(0, block(&to("127.0.0.1:1")))], PROTOCOL) },
    case! { "HB-FRAME-31" Must: "PRIORITY on stream 0",
    spec: "RFC 9113 6.3", sent: "PRIORITY on stream 0", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::priority(0)], PROTOCOL) },
    case! { "HB-FRAME-32" Must: "PRIORITY of 4 octets",
    spec: "RFC 9113 6.3", sent: "PRIORITY of 4 octets on the tunnel", wanted: "FRAME_SIZE_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::new(kind::PRIORITY, 0, stream, [0; 4])], SIZE) },
    case! { "HB-FRAME-33" Must: "CONTINUATION without HEADERS",
    spec: "RFC 9113 6.10", sent: "CONTINUATION on stream 1", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, block(&to("127.0.0.1:1")))], PROTOCOL) },
    case! { "HB-FRAME-34" Must: "Another frame within a header block",
    spec: "RFC 9113 6.10", sent: "HEADERS without END_HEADERS, then PING", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::HEADERS, 0, 1, block(&to("127.0.0.1:1"))), Frame::ping([0; 8])], PROTOCOL) },
    case! { "HB-FRAME-35" Must: "CONTINUATION of another stream",
    spec: "RFC 9113 6.10", sent: "HEADERS on 1, CONTINUATION on 3", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::HEADERS, 0, 1, block(&to("127.0.0.1:1"))), Frame::new(kind::CONTINUATION, flag::END_HEADERS, 3, [])], PROTOCOL) },
    case! { "HB-FRAME-36" Must: "PUSH_PROMISE from a client",
    spec: "RFC 9113 8.4", sent: "PUSH_PROMISE on the tunnel", wanted: "PROTOCOL_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, stream, [0, 0, 0, 2])], PROTOCOL) },
    case! { "HB-FRAME-37" Must: "A wrong preface",
    spec: "RFC 9113 3.4", sent: "a preface with one letter changed", wanted: "the connection ends",
    needs: [], run: |lab| no_http2(lab, b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0") },
    case! { "HB-FRAME-38" Must: "HTTP/1.1 within TLS",
    spec: "RFC 9113 3.4, data-path 4.7", sent: "CONNECT in HTTP/1.1", wanted: "no tunnel, the connection ends",
    needs: [Echo], run: |lab| no_http2(lab, format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", lab.echo()?).as_bytes()) },
    case! { "HB-FRAME-39" Must: "A first frame that is not SETTINGS",
    spec: "RFC 9113 3.4", sent: "preface and PING", wanted: "PROTOCOL_ERROR",
    needs: [], run: no_settings },
    case! { "HB-FRAME-40" Must: "Random octets behind the preface",
    spec: "RFC 9113 5.4.1", sent: "4 KiB without sense", wanted: "the connection ends",
    needs: [], run: noise },
    case! { "HB-FRAME-41" Must: "A second header block without END_STREAM on a tunnel",
    spec: "RFC 9113 8.1, 8.5", sent: "HEADERS without END_STREAM on the tunnel", wanted: "the stream ends with PROTOCOL_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::headers(stream, block(&[("x-late", "1")]))], PROTOCOL) },
    case! { "HB-FRAME-42" Must: "DATA behind END_STREAM",
    spec: "RFC 9113 5.1", sent: "DATA with END_STREAM, then DATA", wanted: "STREAM_CLOSED (PROTOCOL_ERROR is accepted)",
    needs: [Echo], run: data_after_end },
    case! { "HB-FRAME-43" Must: "GOAWAY of 7 octets",
    spec: "RFC 9113 6.8", sent: "GOAWAY of 7 octets", wanted: "FRAME_SIZE_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::GOAWAY, 0, 0, [0; 7])], SIZE) },
    case! { "HB-FRAME-44" Must: "An empty HEADERS frame for no fields",
    spec: "RFC 9113 8.3.1", sent: "HEADERS of 0 octets", wanted: "malformed",
    needs: [], run: empty_headers },
];

fn unknown_types(stream: u32) -> Vec<Frame> {
    [0x0a, 0x16, 0xee]
        .into_iter()
        .flat_map(|kind| [Frame::new(kind, 0xff, 0, [1; 20]), Frame::new(kind, 0xff, stream, [1; 20])])
        .collect()
}

fn dressed_headers(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    let mut payload = vec![50, 0x80, 0, 0, 0, 200];
    payload.extend(block(&echo_with(lab, &[])?));
    payload.resize(payload.len() + 50, 0);
    let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
    peer.send(&Frame::new(kind::HEADERS, flags, stream, payload));
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

fn padded_data(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    for (piece, padding) in [(&b"one"[..], 0), (b"two", 1), (b"", 7), (b"three", 255)] {
        let frame = Frame::padded_data(stream, piece, padding);
        peer.account(stream, frame.payload.len());
        peer.send(&frame);
    }
    peer.receive(stream, 11)?;
    let data = peer.seen.stream(stream).map(|stream| stream.data.clone()).unwrap_or_default();
    if data == b"onetwothree" {
        Ok("onetwothree".to_owned())
    } else {
        deviates(String::from_utf8_lossy(&data))
    }
}

fn ping(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let payload = *b"culvert?";
    peer.send(&Frame::ping(payload));
    peer.wait(PATIENCE, |seen| !seen.pongs.is_empty());
    match peer.seen.pongs.as_slice() {
        [pong] if pong == &payload => Ok("the payload".to_owned()),
        pongs => deviates(format!("{} answers, {}", pongs.len(), peer.seen.condition())),
    }
}

fn interleaved(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    let mut frames = Vec::new();
    for round in 0..1000_u16 {
        let [_, low] = round.to_be_bytes();
        frames.push(Frame::data(one, [low]));
        frames.push(Frame::data(two, [!low]));
    }
    peer.send_all(&frames);
    peer.account(one, 1000);
    peer.account(two, 1000);
    peer.receive(one, 1000)?;
    peer.receive(two, 1000)?;
    let in_order = |stream: u32, expected: fn(u8) -> u8| {
        let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
        data.iter().zip(0..1000_u16).all(|(got, round)| *got == expected(round.to_be_bytes()[1]))
    };
    if in_order(one, |low| low) && in_order(two, |low| !low) {
        Ok("1000 octets each, in order".to_owned())
    } else {
        deviates("octets are mixed up")
    }
}

fn largest_frame(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    // The announcement of the connection's window may still be on its way.
    peer.linger(std::time::Duration::from_millis(200));
    let size = peer.seen.setting(setting::MAX_FRAME_SIZE).unwrap_or(16_384);
    let size = usize::try_from(peer.room(stream).min(u64::from(size))).unwrap_or_default();
    peer.send(&Frame::data(stream, vec![b'f'; size]));
    peer.account(stream, size);
    peer.receive(stream, size)?;
    Ok(format!("{size} octets"))
}

fn oversized_frame(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let size = peer.seen.setting(setting::MAX_FRAME_SIZE).unwrap_or(16_384);
    let size = usize::try_from(size).unwrap_or(16_384) + 1;
    peer.send(&Frame::data(stream, vec![b'f'; size]));
    peer.stream_error(stream, SIZE)
}

fn trickled(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    for octet in Frame::headers(stream, block(&echo_with(lab, &[])?)).encode() {
        peer.send_bytes(&[octet]);
    }
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

/// Sends what is no HTTP/2 right after TLS.
fn no_http2(lab: &Lab, bytes: &[u8]) -> Got {
    let mut peer = lab.offer(&Offer::of(lab.identity.as_ref()), Manners::default())?;
    peer.send_bytes(bytes);
    peer.wait(PATIENCE, |seen| seen.error().is_some());
    let condition = peer.seen.condition();
    if peer.seen.lives() { deviates(condition) } else { Ok(condition) }
}

fn no_settings(lab: &Lab) -> Got {
    let mut peer = lab.offer(&Offer::of(lab.identity.as_ref()), Manners::default())?;
    let mut bytes = PREFACE.to_vec();
    Frame::ping([1; 8]).encode_to(&mut bytes);
    peer.send_bytes(&bytes);
    peer.connection_error(PROTOCOL)
}

fn noise(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let mut state = 0x2545_f491_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    })
    .take(4096)
    .collect();
    peer.send_bytes(&noise);
    peer.fin();
    peer.wait(PATIENCE, |seen| seen.error().is_some());
    let condition = peer.seen.condition();
    if peer.seen.lives() { deviates(condition) } else { Ok(condition) }
}

fn data_after_end(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    // The echo keeps its side open until it has seen our end, so the stream is half-closed for a moment only.
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send_all(&[Frame::last_data(stream, *b"x"), Frame::data(stream, *b"y")]);
    peer.stream_error(stream, CLOSED)
}

fn empty_headers(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.request(Vec::new());
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if answer.malformed() { Ok(state) } else { deviates(state) }
}
