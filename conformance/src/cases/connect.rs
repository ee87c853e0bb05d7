//! Tunnels that open and carry bytes.

use super::Group;
use super::exchange::{accepted, ask, echo_with, to};
use crate::case::{Case, Failure, Got, deviates};
use crate::destination::pattern;
use crate::http2::frame::{Frame, code, setting};
use crate::http2::peer::{Answer, Manners, PATIENCE};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Tunnels",
    about: "CONNECT requests that open a tunnel, and what it carries.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-CONNECT-01" Must: "A tunnel opens and carries bytes",
    spec: "data-path 4.5, RFC 9113 8.5", sent: "CONNECT with :method and :authority, then DATA", wanted: "200, and the bytes back",
    needs: [Echo], run: |lab| accepted(lab, &to(lab.echo()?)) },
    case! { "HB-CONNECT-02" Must: "The answer has no body of its own",
    spec: "RFC 9110 9.3.6", sent: "CONNECT", wanted: "200 without END_STREAM, content-length and transfer-encoding",
    needs: [Echo], run: bare_answer },
    case! { "HB-CONNECT-03" Contract: "The answer says who serves",
    spec: "data-path 4.7", sent: "CONNECT", wanted: "200 with `baggage`",
    needs: [Echo], run: answer_baggage },
    case! { "HB-CONNECT-04" Must: "Two tunnels of a connection do not mix",
    spec: "RFC 9113 5", sent: "two CONNECTs, different bytes in turn", wanted: "each stream gets its own bytes",
    needs: [Echo], run: two_tunnels },
    case! { "HB-CONNECT-05" Must: "A mebibyte comes back byte for byte",
    spec: "data-path 4.8", sent: "1 MiB of a pattern within the windows", wanted: "the same bytes in order",
    needs: [Echo], run: bulk },
    case! { "HB-CONNECT-06" Must: "Eight mebibytes from the destination arrive whole",
    spec: "data-path 4.8", sent: "an order for 8 MiB and FIN", wanted: "all bytes, then END_STREAM",
    needs: [Destination], run: bulk_down },
    case! { "HB-CONNECT-07" Must: "Frames keep to our maximum",
    spec: "RFC 9113 4.2", sent: "an order for 8 MiB without FIN; our SETTINGS leave 16384", wanted: "no DATA frame above 16384 bytes",
    needs: [Destination], run: frame_size },
    case! { "HB-CONNECT-08" Contract: "CONNECT with END_STREAM opens a tunnel in one direction",
    spec: "data-path 4.7", sent: "CONNECT with END_STREAM", wanted: "200, then the echo's END_STREAM",
    needs: [Echo], run: ended_at_once },
    case! { "HB-CONNECT-09" Contract: "Data sent before the answer arrives",
    spec: "RFC 9113 8.5", sent: "CONNECT and DATA in one write", wanted: "200, and the bytes back",
    needs: [Echo], run: early_data },
    case! { "HB-CONNECT-10" Must: "Server and client both speak first",
    spec: "data-path 4.8", sent: "an order for bytes on one stream, echo on another", wanted: "both get theirs",
    needs: [Destination, Echo], run: both_ways },
    case! { "HB-CONNECT-11" Contract: "The destination sees the client's address",
    spec: "data-path 1.6", sent: "an order to name the peer", wanted: "our own address",
    needs: [Destination], run: source_address },
    case! { "HB-CONNECT-12" Contract: "A large request with many fields opens a tunnel",
    spec: "data-path 4.3", sent: "500 fields, 30 KiB in all", wanted: "200",
    needs: [Echo], run: many_fields },
    case! { "HB-SETTINGS-01" Must: "The target's first frame is SETTINGS",
    spec: "RFC 9113 3.4", sent: "preface and SETTINGS", wanted: "SETTINGS before anything else, and an acknowledgement",
    needs: [], run: first_frame },
    case! { "HB-SETTINGS-02" Contract: "The windows are large enough for a node",
    spec: "data-path 4.3", sent: "preface and SETTINGS", wanted: "stream window 4194304, connection window 16777216, 200 streams",
    needs: [], run: advertised },
    case! { "HB-SETTINGS-03" Contract: "Frames up to a mebibyte and fields up to 64 KiB are announced",
    spec: "data-path 4.3", sent: "preface and SETTINGS", wanted: "MAX_FRAME_SIZE 1048576, MAX_HEADER_LIST_SIZE 65536",
    needs: [], run: advertised_sizes },
    case! { "HB-SETTINGS-04" Must: "SETTINGS are acknowledged in their number",
    spec: "RFC 9113 6.5.3", sent: "20 SETTINGS frames", wanted: "21 acknowledgements with that of the preface",
    needs: [], run: acknowledgements },
];

fn bare_answer(lab: &Lab) -> Got {
    let (mut peer, stream, answer) = ask(lab, &to(lab.echo()?))?;
    if answer != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"x")?;
    let Some(seen) = peer.seen.stream(stream) else { return deviates("no stream") };
    for name in ["content-length", "transfer-encoding"] {
        if seen.field(name).is_some() {
            return deviates(format!("200 with {name}"));
        }
    }
    Ok(peer.seen.state(stream))
}

fn answer_baggage(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let baggage = peer.seen.stream(stream).and_then(|stream| stream.field("baggage"));
    baggage.map_or_else(
        || deviates("200 without baggage"),
        |baggage| Ok(String::from_utf8_lossy(baggage).into_owned()),
    )
}

fn two_tunnels(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    for round in 0..50 {
        peer.echo(one, format!("one {round}").as_bytes())?;
        peer.echo(two, format!("two {round}").as_bytes())?;
    }
    Ok("50 rounds each".to_owned())
}

fn bulk(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let bytes: Vec<u8> = (0..1 << 20).map(pattern).collect();
    peer.echo(stream, &bytes)?;
    Ok("1 MiB, the same".to_owned())
}

const DOWN: usize = 8 << 20;

fn download(lab: &Lab, verb: &str) -> Result<(crate::http2::peer::Peer, u32), Failure> {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("{verb} {DOWN} {}", lab.name()))?;
    peer.receive(stream, DOWN)?;
    Ok((peer, stream))
}

fn bulk_down(lab: &Lab) -> Got {
    let (mut peer, stream) = download(lab, "source")?;
    let ended = peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.ended));
    let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
    // The destination repeats its pattern piece by piece; a piece is a multiple of the pattern's period.
    if let Some(wrong) = data.iter().enumerate().position(|(at, octet)| *octet != pattern(at)) {
        return deviates(format!("byte {wrong} is wrong"));
    }
    if ended && data.len() == DOWN { Ok(peer.seen.state(stream)) } else { deviates(peer.seen.state(stream)) }
}

fn frame_size(lab: &Lab) -> Got {
    let (peer, _) = download(lab, "send")?;
    let largest = peer.seen.largest_data;
    if largest <= 16_384 {
        Ok(format!("at most {largest} bytes"))
    } else {
        deviates(format!("{largest} bytes"))
    }
}

fn ended_at_once(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    peer.send(&Frame::last_headers(stream, super::exchange::block(&to(lab.echo()?))));
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let state = peer.seen.state(stream);
    match peer.seen.stream(stream) {
        Some(seen) if seen.status() == Some(200) && seen.ended => Ok(state),
        _ => deviates(state),
    }
}

fn early_data(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    let block = super::exchange::block(&to(lab.echo()?));
    peer.send_all(&[Frame::headers(stream, block), Frame::data(stream, *b"early")]);
    peer.account(stream, 5);
    peer.receive(stream, 5)?;
    let data = peer.seen.stream(stream).map(|stream| stream.data.clone()).unwrap_or_default();
    if data == b"early" { Ok("200, and the echo".to_owned()) } else { deviates("other bytes came back") }
}

fn both_ways(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let echo = peer.tunnel(lab.echo()?)?;
    let source = lab.order(&mut peer, &format!("send 1000000 {}", lab.name()))?;
    for round in 0..20 {
        peer.echo(echo, format!("round {round}").as_bytes())?;
    }
    peer.receive(source, 1_000_000)?;
    Ok("a megabyte beside 20 rounds".to_owned())
}

fn source_address(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, "peer")?;
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let said = peer.seen.stream(stream).map(|stream| stream.data.clone()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let own = peer.local()?.ip().to_canonical().to_string();
    if said == own { Ok(said) } else { deviates(format!("{said} instead of {own}")) }
}

fn many_fields(lab: &Lab) -> Got {
    let names: Vec<String> = (0..500).map(|number| format!("x-{number}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "0123456789012345")).collect();
    accepted(lab, &echo_with(lab, &more)?)
}

fn first_frame(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let acknowledged = peer.wait(PATIENCE, |seen| seen.settings_acks > 0);
    match peer.seen.first {
        Some(crate::http2::frame::kind::SETTINGS) if acknowledged => {
            Ok("SETTINGS, acknowledgement".to_owned())
        }
        first => deviates(format!("first frame of type {first:?}, acknowledged: {acknowledged}")),
    }
}

fn advertised(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    peer.wait(PATIENCE, |seen| seen.credit > 0);
    let window = peer.seen.setting(setting::INITIAL_WINDOW_SIZE);
    let streams = peer.seen.setting(setting::MAX_CONCURRENT_STREAMS);
    let connection = 65_535 + peer.seen.credit;
    let got = format!("stream window {window:?}, connection window {connection}, {streams:?} streams");
    if window == Some(4_194_304) && connection == 16_777_216 && streams == Some(200) {
        Ok(got)
    } else {
        deviates(got)
    }
}

fn advertised_sizes(lab: &Lab) -> Got {
    let peer = lab.open()?;
    let frame = peer.seen.setting(setting::MAX_FRAME_SIZE);
    let list = peer.seen.setting(setting::MAX_HEADER_LIST_SIZE);
    let got = format!("MAX_FRAME_SIZE {frame:?}, MAX_HEADER_LIST_SIZE {list:?}");
    if frame == Some(1_048_576) && list == Some(65_536) { Ok(got) } else { deviates(got) }
}

fn acknowledgements(lab: &Lab) -> Got {
    let mut peer = lab.open_with(Manners::default())?;
    for _ in 0..20 {
        peer.send(&Frame::settings(&[(setting::HEADER_TABLE_SIZE, 0)]));
    }
    peer.wait(PATIENCE, |seen| seen.settings_acks >= 21);
    peer.must_live()?;
    let got = peer.seen.settings_acks;
    if got == 21 && peer.seen.error().unwrap_or(code::NO_ERROR) == code::NO_ERROR {
        return Ok(format!("{got} acknowledgements"));
    }
    deviates(format!("{got} acknowledgements, {}", peer.seen.condition()))
}
