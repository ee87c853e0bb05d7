//! Streams: their numbers, how many, and their ends.

use std::time::Duration;

use super::Group;
use super::exchange::{block, to};
use crate::case::{Case, Failure, Got, deviates};
use crate::http2::frame::{Frame, code, kind, setting};
use crate::http2::peer::{Answer, Peer};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Streams",
    about: "Their numbers, their number, and what comes after their end.",
    cases: CASES,
};

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];

const CASES: &[Case] = &[
    case! { "HB-STREAM-01" Contract: "More than a hundred tunnels at a time",
    spec: "data-path 4.3", sent: "150 CONNECTs, then an echo on each", wanted: "150 tunnels",
    needs: [Echo], run: |lab| many(lab, 150) },
    case! { "HB-STREAM-02" Must: "As many tunnels as were announced",
    spec: "RFC 9113 5.1.2", sent: "CONNECTs up to MAX_CONCURRENT_STREAMS (at most 250)", wanted: "all open",
    needs: [Echo], run: announced },
    case! { "HB-STREAM-03" Must: "One tunnel more than announced",
    spec: "RFC 9113 5.1.2", sent: "one CONNECT above MAX_CONCURRENT_STREAMS", wanted: "REFUSED_STREAM or PROTOCOL_ERROR on it, the others go on",
    needs: [Echo], run: one_too_many },
    case! { "HB-STREAM-04" Must: "An ended tunnel makes room for the next",
    spec: "RFC 9113 5.1.2", sent: "as many as announced, one ends, another CONNECT", wanted: "200",
    needs: [Echo], run: room_again },
    case! { "HB-STREAM-05" Must: "Five hundred tunnels one after the other",
    spec: "RFC 9113 5.1.1", sent: "CONNECT, echo, end, 500 times on a connection", wanted: "every echo",
    needs: [Echo], run: one_after_the_other },
    case! { "HB-STREAM-06" Must: "An even number from a client",
    spec: "RFC 9113 5.1.1", sent: "CONNECT on stream 2", wanted: "PROTOCOL_ERROR",
    needs: [Echo], run: |lab| numbers(lab, &[2]) },
    case! { "HB-STREAM-07" Must: "A number lower than one that was used",
    spec: "RFC 9113 5.1.1", sent: "CONNECT on stream 5, then on 3", wanted: "PROTOCOL_ERROR (STREAM_CLOSED is accepted)",
    needs: [Echo], run: |lab| numbers(lab, &[5, 3]) },
    case! { "HB-STREAM-08" Must: "Numbers may be skipped",
    spec: "RFC 9113 5.1.1", sent: "CONNECT on stream 1001", wanted: "200",
    needs: [Echo], run: skipped },
    case! { "HB-STREAM-09" Must: "DATA on a stream that was never opened",
    spec: "RFC 9113 5.1", sent: "DATA on stream 9", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| super::exchange::fatal(lab, &[Frame::data(9, *b"x")], PROTOCOL) },
    case! { "HB-STREAM-10" Must: "WINDOW_UPDATE on a stream that was never opened",
    spec: "RFC 9113 5.1", sent: "WINDOW_UPDATE on stream 9", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| super::exchange::fatal(lab, &[Frame::window_update(9, 1)], PROTOCOL) },
    case! { "HB-STREAM-11" Must: "RST_STREAM on a stream that was never opened",
    spec: "RFC 9113 5.1, 6.4", sent: "RST_STREAM on stream 9", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| super::exchange::fatal(lab, &[Frame::reset(9, code::CANCEL)], PROTOCOL) },
    case! { "HB-STREAM-12" Must: "WINDOW_UPDATE and PRIORITY for a stream that is over",
    spec: "RFC 9113 5.1", sent: "both after both ends", wanted: "ignored: the connection goes on",
    needs: [Echo], run: after_the_end },
    case! { "HB-STREAM-13" Must: "The last number there is",
    spec: "RFC 9113 5.1.1", sent: "CONNECT on stream 2^31-1", wanted: "200, and the echo",
    needs: [Echo], run: last_number },
    case! { "HB-STREAM-14" Must: "A number that was used and has ended",
    spec: "RFC 9113 5.1.1", sent: "a second CONNECT on stream 1 after its end", wanted: "STREAM_CLOSED or PROTOCOL_ERROR",
    needs: [Echo], run: used_again },
];

fn many(lab: &Lab, count: usize) -> Got {
    let (mut peer, streams) = open(lab, count)?;
    for (number, stream) in streams.iter().enumerate() {
        peer.echo(*stream, format!("stream {number}").as_bytes())?;
    }
    Ok(format!("{count} tunnels, {count} echoes"))
}

/// That many tunnels on one connection, asked for at once.
fn open(lab: &Lab, count: usize) -> Result<(Peer, Vec<u32>), Failure> {
    let mut peer = lab.open()?;
    let authority = lab.echo()?.to_owned();
    let streams: Vec<u32> = (0..count).map(|_| peer.connect(&authority)).collect();
    for (number, stream) in streams.iter().enumerate() {
        if peer.answer(*stream) != Answer::Status(200) {
            return deviates(format!("tunnel {number} of {count}: {}", peer.seen.state(*stream)));
        }
    }
    Ok((peer, streams))
}

/// What the target announces, if it is a number that can be reached.
fn limit(lab: &Lab) -> Result<usize, Failure> {
    let peer = lab.open()?;
    match peer.seen.setting(setting::MAX_CONCURRENT_STREAMS) {
        Some(limit) if limit <= 250 => Ok(usize::try_from(limit).unwrap_or_default()),
        Some(limit) => Err(Failure::NotRun(format!("the target announces {limit} streams"))),
        None => Err(Failure::NotRun("the target announces no limit of streams".to_owned())),
    }
}

fn announced(lab: &Lab) -> Got {
    let limit = limit(lab)?;
    many(lab, limit)
}

fn one_too_many(lab: &Lab) -> Got {
    let limit = limit(lab)?;
    let (mut peer, streams) = open(lab, limit)?;
    let stream = peer.connect(lab.echo()?);
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if !matches!(answer, Answer::Reset(code::REFUSED_STREAM | code::PROTOCOL_ERROR)) {
        return deviates(format!("stream {} of {limit}: {state}", limit + 1));
    }
    for stream in [streams.first(), streams.last()].into_iter().flatten() {
        peer.echo(*stream, b"still here")?;
    }
    Ok(state)
}

fn room_again(lab: &Lab) -> Got {
    let limit = limit(lab)?;
    let (mut peer, streams) = open(lab, limit)?;
    for stream in streams.iter().take(3) {
        peer.send(&Frame::last_data(*stream, []));
        peer.wait(Duration::from_secs(3), |seen| seen.stream(*stream).is_some_and(|stream| stream.over()));
        peer.tunnel(lab.echo()?)?;
    }
    Ok(format!("three more beside {}", limit.saturating_sub(3)))
}

fn one_after_the_other(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    for round in 0..500 {
        let stream = peer.tunnel(lab.echo()?)?;
        peer.echo(stream, format!("round {round}").as_bytes())?;
        peer.send(&Frame::last_data(stream, []));
    }
    Ok("500 echoes".to_owned())
}

fn numbers(lab: &Lab, numbers: &[u32]) -> Got {
    let mut peer = lab.open()?;
    let block = block(&to(lab.echo()?));
    for number in numbers {
        peer.send(&Frame::headers(*number, block.clone()));
    }
    peer.connection_error(&[code::PROTOCOL_ERROR, code::STREAM_CLOSED])
}

fn on_stream(lab: &Lab, stream: u32) -> Got {
    let mut peer = lab.open()?;
    peer.send(&Frame::headers(stream, block(&to(lab.echo()?))));
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok("200, and the echo".to_owned())
}

fn skipped(lab: &Lab) -> Got {
    on_stream(lab, 1001)
}

fn last_number(lab: &Lab) -> Got {
    on_stream(lab, 0x7fff_ffff)
}

/// A tunnel that both sides have ended.
fn ended(lab: &Lab) -> Result<(Peer, u32), Failure> {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send(&Frame::last_data(stream, *b"bye"));
    peer.wait(Duration::from_secs(5), |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    if peer.seen.stream(stream).is_some_and(|stream| stream.over()) {
        return Ok((peer, stream));
    }
    deviates(format!("the stream did not end: {}", peer.seen.state(stream)))
}

fn after_the_end(lab: &Lab) -> Got {
    let (mut peer, stream) = ended(lab)?;
    peer.send_all(&[
        Frame::window_update(stream, 100),
        Frame::priority(stream),
        Frame::new(kind::PRIORITY, 0, stream, [0, 0, 0, 9, 1]),
    ]);
    peer.must_live()?;
    peer.tunnel(lab.echo()?)?;
    Ok("the connection goes on".to_owned())
}

fn used_again(lab: &Lab) -> Got {
    let (mut peer, stream) = ended(lab)?;
    peer.send(&Frame::headers(stream, block(&to(lab.echo()?))));
    peer.stream_error(stream, &[code::STREAM_CLOSED, code::PROTOCOL_ERROR])
}
