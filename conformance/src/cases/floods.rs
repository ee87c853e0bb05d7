//! Peers that cost more than they give. The target may stop them; nobody else may notice.

use std::net::TcpStream;
use std::time::Duration;

use super::Group;
use super::exchange::{block, echo_with, to};
use crate::case::{Case, Got, deviates};
use crate::http2::frame::{Frame, code, kind, setting};
use crate::http2::hpack::{Form, literal};
use crate::http2::peer::{Answer, Manners, PATIENCE, Peer};
use crate::lab::Lab;
use crate::tls::Offer;

pub(super) const GROUP: Group = Group {
    name: "Floods",
    about: "An innocent tunnel on another connection echoes during and after each flood. What becomes of the flooding \
            connection is the target's choice, except where the contract wants small floods borne.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-FLOOD-01" Contract: "5000 PINGs are borne",
    spec: "data-path 4.3", sent: "5000 PINGs beside a tunnel of the same connection", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| borne(lab, |_| vec![Frame::ping([5; 8]); 5000]) },
    case! { "HB-FLOOD-02" Contract: "3000 SETTINGS are borne",
    spec: "data-path 4.3", sent: "3000 SETTINGS beside a tunnel of the same connection", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| borne(lab, |_| vec![Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 7)]); 3000]) },
    case! { "HB-FLOOD-03" Contract: "3000 empty DATA are borne",
    spec: "data-path 4.3", sent: "3000 DATA without bytes on a tunnel", wanted: "the tunnel goes on",
    needs: [Echo], run: |lab| borne(lab, |stream| vec![Frame::data(stream, []); 3000]) },
    case! { "HB-FLOOD-04" Must: "PINGs without end",
    spec: "RFC 9113 10.5", sent: "200000 PINGs", wanted: "the innocent lives",
    needs: [Echo], run: |lab| flood(lab, 200_000, |_, _| vec![Frame::ping([4; 8])]) },
    case! { "HB-FLOOD-05" Must: "PINGs whose answers nobody reads",
    spec: "RFC 9113 10.5", sent: "up to 500000 PINGs without reading", wanted: "the innocent lives",
    needs: [Echo], run: unread },
    case! { "HB-FLOOD-06" Must: "SETTINGS without end",
    spec: "RFC 9113 10.5", sent: "50000 SETTINGS that change the window to and fro", wanted: "the innocent lives",
    needs: [Echo], run: |lab| flood(lab, 25_000, |_, _| vec![Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]), Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 60_000)])]) },
    case! { "HB-FLOOD-07" Must: "Empty DATA without end",
    spec: "RFC 9113 10.5", sent: "200000 DATA without bytes", wanted: "the innocent lives",
    needs: [Echo], run: |lab| flood(lab, 200_000, |stream, _| vec![Frame::data(stream, [])]) },
    case! { "HB-FLOOD-08" Must: "Padding alone without end",
    spec: "RFC 9113 10.5", sent: "DATA with padding and no bytes, as the windows allow", wanted: "the innocent lives",
    needs: [Echo], run: padding_alone },
    case! { "HB-FLOOD-09" Must: "A header block without end",
    spec: "RFC 9113 10.5", sent: "up to 64 MiB of CONTINUATION", wanted: "the flood is refused, the innocent lives",
    needs: [Echo], run: endless_block },
    case! { "HB-FLOOD-10" Must: "Empty CONTINUATION without end",
    spec: "RFC 9113 10.5", sent: "100000 CONTINUATION without bytes", wanted: "the flood is refused, the innocent lives",
    needs: [Echo], run: empty_continuations },
    case! { "HB-FLOOD-11" Must: "Streams opened and reset at once",
    spec: "RFC 9113 10.5", sent: "10000 CONNECTs, each with RST_STREAM", wanted: "the innocent lives",
    needs: [Echo], run: rapid_reset },
    case! { "HB-FLOOD-12" Must: "Streams whose errors the target has to find",
    spec: "RFC 9113 10.5", sent: "5000 CONNECTs, each with WINDOW_UPDATE 0", wanted: "the innocent lives",
    needs: [Echo], run: made_to_reset },
    case! { "HB-FLOOD-13" Must: "PRIORITY and unknown frames without end",
    spec: "RFC 9113 10.5", sent: "100000 of each", wanted: "the innocent lives",
    needs: [Echo], run: |lab| flood(lab, 100_000, |stream, _| vec![Frame::priority(stream), Frame::new(0xbb, 0, 0, [0; 4])]) },
    case! { "HB-FLOOD-14" Must: "WINDOW_UPDATEs of 1 without end",
    spec: "RFC 9113 10.5", sent: "200000 WINDOW_UPDATEs of 1", wanted: "the innocent lives",
    needs: [Echo], run: |lab| flood(lab, 100_000, |stream, _| vec![Frame::window_update(stream, 1), Frame::window_update(0, 1)]) },
    case! { "HB-FLOOD-15" Must: "A small block that decodes to a large list",
    spec: "RFC 7541 7, RFC 9113 10.5.1", sent: "one entry of 4 KiB, referred to 12000 times", wanted: "the request is refused, the innocent lives",
    needs: [Echo], run: bomb },
    case! { "HB-FLOOD-16" Must: "Connections that begin and say nothing",
    spec: "data-path W16", sent: "100 TCP connections, half of them with half a ClientHello", wanted: "the innocent lives, a new tunnel opens",
    needs: [Echo], run: silent_connections },
    case! { "HB-FLOOD-17" Must: "TLS without a preface",
    spec: "data-path W16", sent: "30 TLS handshakes and then nothing", wanted: "the innocent lives, a new tunnel opens",
    needs: [Echo], run: silent_handshakes },
    case! { "HB-FLOOD-18" Must: "Data that comes octet by octet",
    spec: "RFC 9113 10.5", sent: "50000 DATA of one octet, as the windows allow", wanted: "all bytes back or an end, the innocent lives",
    needs: [Echo], run: octets },
    case! { "HB-FLOOD-19" Must: "Refused tunnels without end",
    spec: "RFC 9113 10.5", sent: "2000 CONNECTs without a port", wanted: "the innocent lives",
    needs: [Echo], run: refusals },
    case! { "HB-FLOOD-20" Must: "Nothing was lost by all of this",
    spec: "RFC 9113 10.5", sent: "20 new connections with a tunnel each", wanted: "every echo",
    needs: [Echo], run: all_well },
];

/// The flood and the tunnel share a connection, and the tunnel must not suffer.
fn borne(lab: &Lab, frames: fn(u32) -> Vec<Frame>) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send_all(&frames(stream));
    peer.echo(stream, b"still here")?;
    peer.must_live()?;
    Ok("the tunnel goes on".to_owned())
}

/// Sends `rounds` times what `frames` gives, beside an innocent.
fn flood(lab: &Lab, rounds: u32, frames: fn(u32, u32) -> Vec<Frame>) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let mut bytes = Vec::new();
    for round in 0..rounds {
        frames(stream, round).iter().for_each(|frame| frame.encode_to(&mut bytes));
        if bytes.len() > 128 << 10 {
            peer.send_bytes(&bytes);
            bytes.clear();
            innocent.lives()?;
            if !peer.seen.lives() {
                break;
            }
        }
    }
    peer.send_bytes(&bytes);
    finish(lab, &mut innocent, &peer)
}

/// The innocent still lives and a newcomer is served.
fn finish(lab: &Lab, innocent: &mut crate::lab::Innocent, peer: &Peer) -> Got {
    innocent.lives()?;
    lab.innocent()?;
    Ok(format!("the innocent lives; the flood's {}", peer.seen.condition()))
}

fn unread(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    peer.manners().read = false;
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        Frame::ping([6; 8]).encode_to(&mut bytes);
    }
    for _ in 0..100 {
        // Ends when the target takes no more: our own writes then make no progress.
        peer.send_bytes(&bytes);
        innocent.lives()?;
        if !peer.seen.lives() {
            break;
        }
    }
    finish(lab, &mut innocent, &peer)
}

fn padding_alone(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let frame = Frame::padded_data(stream, b"", 255);
    for round in 0..20_000 {
        if peer.room(stream) < 256 {
            peer.linger(Duration::from_millis(20));
        }
        if peer.room(stream) >= 256 {
            peer.send(&frame);
            peer.account(stream, 256);
        }
        if round % 1000 == 0 {
            innocent.lives()?;
        }
        if !peer.seen.lives() {
            break;
        }
    }
    finish(lab, &mut innocent, &peer)
}

/// Sends CONTINUATIONs until the target has had enough; it must.
fn continuations(lab: &Lab, payload: &[u8], count: usize) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    peer.send(&Frame::new(kind::HEADERS, 0, stream, block(&echo_with(lab, &[])?)));
    let mut bytes = Vec::new();
    let mut sent = 0;
    for _ in 0..count {
        Frame::new(kind::CONTINUATION, 0, stream, payload).encode_to(&mut bytes);
        if bytes.len() > 128 << 10 {
            peer.send_bytes(&bytes);
            sent += bytes.len();
            bytes.clear();
            innocent.lives()?;
            if !peer.seen.lives() {
                break;
            }
        }
    }
    peer.send_bytes(&bytes);
    peer.wait(PATIENCE, |seen| {
        seen.error().is_some() || seen.stream(stream).is_some_and(|stream| stream.over())
    });
    if peer.seen.lives() && !peer.seen.stream(stream).is_some_and(|stream| stream.over()) {
        return deviates(format!("{sent} bytes of header block were taken"));
    }
    finish(lab, &mut innocent, &peer)
}

fn endless_block(lab: &Lab) -> Got {
    let mut payload = Vec::new();
    while payload.len() < 16_000 {
        literal(&mut payload, Form::Plain, false, b"x-more", &[b'm'; 100]);
    }
    continuations(lab, &payload, 4096)
}

fn empty_continuations(lab: &Lab) -> Got {
    continuations(lab, &[], 100_000)
}

fn rapid_reset(lab: &Lab) -> Got {
    reset_each(lab, 10_000, |stream| Frame::reset(stream, code::CANCEL))
}

fn made_to_reset(lab: &Lab) -> Got {
    reset_each(lab, 5_000, |stream| Frame::window_update(stream, 0))
}

fn reset_each(lab: &Lab, count: usize, end: fn(u32) -> Frame) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let request = block(&to(lab.echo()?));
    for round in 0..count {
        let stream = peer.next_stream();
        peer.send_all(&[Frame::headers(stream, request.clone()), end(stream)]);
        if round % 500 == 0 {
            innocent.lives()?;
        }
        if !peer.seen.lives() {
            break;
        }
    }
    finish(lab, &mut innocent, &peer)
}

fn bomb(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    let mut request = block(&echo_with(lab, &[])?);
    literal(&mut request, Form::Indexed, false, b"x-bomb", &[b'b'; 4000]);
    // The latest entry has index 62.
    request.extend([0xbe; 12_000]);
    let stream = peer.next_stream();
    peer.send(&Frame::headers(stream, request));
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if matches!(answer, Answer::Status(200) | Answer::Silence) {
        return deviates(state);
    }
    if peer.seen.lives() {
        peer.echo(tunnel, b"still here")?;
    }
    finish(lab, &mut innocent, &peer)?;
    Ok(state)
}

fn silent_connections(lab: &Lab) -> Got {
    use std::io::Write as _;
    let mut innocent = lab.innocent()?;
    let mut open: Vec<TcpStream> = Vec::new();
    for round in 0..100 {
        let mut socket = lab.tcp()?;
        if round % 2 == 0 {
            socket.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])?;
        }
        open.push(socket);
    }
    innocent.lives()?;
    lab.innocent()?;
    Ok(format!("the innocent lives, a newcomer is served beside {} connections", open.len()))
}

fn silent_handshakes(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut open = Vec::new();
    for _ in 0..30 {
        open.push(lab.offer(&Offer::of(lab.identity.as_ref()), Manners::default())?);
    }
    innocent.lives()?;
    lab.innocent()?;
    Ok(format!("the innocent lives, a newcomer is served beside {} connections", open.len()))
}

fn octets(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    for _ in 0..100 {
        let mut bytes = Vec::new();
        for _ in 0..500 {
            Frame::data(stream, *b"o").encode_to(&mut bytes);
        }
        while peer.room(stream) < 500 && peer.seen.lives() {
            let had = peer.seen.frames;
            if !peer.wait(PATIENCE, |seen| seen.frames != had) {
                return deviates(format!("no credit: {}", peer.seen.state(stream)));
            }
        }
        peer.send_bytes(&bytes);
        peer.account(stream, 500);
        innocent.lives()?;
    }
    if peer.seen.lives() {
        peer.receive(stream, 50_000)?;
    }
    finish(lab, &mut innocent, &peer)
}

fn refusals(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    let mut peer = lab.open()?;
    let request = block(&to("no-port"));
    for round in 0..2000 {
        let stream = peer.next_stream();
        peer.send(&Frame::last_headers(stream, request.clone()));
        if round % 200 == 0 {
            innocent.lives()?;
        }
        if !peer.seen.lives() {
            break;
        }
    }
    finish(lab, &mut innocent, &peer)
}

fn all_well(lab: &Lab) -> Got {
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(lab.innocent()?);
    }
    for innocent in &mut all {
        innocent.lives()?;
    }
    Ok("20 connections, 20 echoes".to_owned())
}
