//! Flow control, in both directions.

use std::time::Duration;

use super::Group;
use super::exchange::{fatal, stream_fatal};
use crate::case::{Case, Failure, Got, deviates};
use crate::http2::frame::{Frame, code, kind, setting};
use crate::http2::peer::{Manners, PATIENCE, Peer};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Windows",
    about: "The target sends no octet more than our windows allow, and every octet that we send comes back as credit, \
            whatever became of its stream.",
    cases: CASES,
};

/// How long nothing may come where nothing may come.
const QUIET: Duration = Duration::from_millis(300);

const CASES: &[Case] = &[
    case! { "HB-WINDOW-01" Must: "A stream's window is kept, and its updates count exactly",
    spec: "RFC 9113 6.9", sent: "INITIAL_WINDOW_SIZE 1000, an order for 100000 bytes, updates of 500, 1 and 499", wanted: "1000, 500, 1, 499 bytes and no more",
    needs: [Destination], run: stream_window },
    case! { "HB-WINDOW-02" Must: "The connection's window is kept over all streams",
    spec: "RFC 9113 6.9", sent: "orders for 100000 bytes on three streams with large windows", wanted: "65535 bytes in all, then as many as granted",
    needs: [Destination], run: connection_window },
    case! { "HB-WINDOW-03" Must: "A window of zero opens tunnels and holds data",
    spec: "RFC 9113 6.9.2", sent: "INITIAL_WINDOW_SIZE 0, an order for bytes, then an update", wanted: "200, no data, then what was granted",
    needs: [Destination], run: zero_window },
    case! { "HB-WINDOW-04" Must: "A larger INITIAL_WINDOW_SIZE reaches open streams",
    spec: "RFC 9113 6.9.2", sent: "1000, later 3000", wanted: "2000 bytes more",
    needs: [Destination], run: grown_window },
    case! { "HB-WINDOW-05" Must: "A smaller INITIAL_WINDOW_SIZE can make windows negative",
    spec: "RFC 9113 6.9.2", sent: "1000, all used, later 400, then an update of 600, then of 10", wanted: "nothing, nothing, 10 bytes",
    needs: [Destination], run: negative_window },
    case! { "HB-WINDOW-06" Contract: "END_STREAM needs no window",
    spec: "data-path 4.8, RFC 9113 6.9.1", sent: "a window of exactly what the destination sends", wanted: "the bytes and END_STREAM",
    needs: [Destination], run: end_without_window },
    case! { "HB-WINDOW-07" Must: "WINDOW_UPDATE of 0 on a stream",
    spec: "RFC 9113 6.9", sent: "WINDOW_UPDATE 0 on the tunnel", wanted: "PROTOCOL_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::window_update(stream, 0)], &[code::PROTOCOL_ERROR]) },
    case! { "HB-WINDOW-08" Must: "WINDOW_UPDATE of 0 on the connection",
    spec: "RFC 9113 6.9", sent: "WINDOW_UPDATE 0 on stream 0", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::window_update(0, 0)], &[code::PROTOCOL_ERROR]) },
    case! { "HB-WINDOW-09" Must: "A stream's window beyond 2^31-1",
    spec: "RFC 9113 6.9.1", sent: "WINDOW_UPDATE 2^31-1 on the tunnel", wanted: "FLOW_CONTROL_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::window_update(stream, 0x7fff_ffff)], &[code::FLOW_CONTROL_ERROR]) },
    case! { "HB-WINDOW-10" Must: "The connection's window beyond 2^31-1",
    spec: "RFC 9113 6.9.1", sent: "WINDOW_UPDATE 2^31-1 on stream 0", wanted: "FLOW_CONTROL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::window_update(0, 0x7fff_ffff)], &[code::FLOW_CONTROL_ERROR]) },
    case! { "HB-WINDOW-11" Must: "INITIAL_WINDOW_SIZE above 2^31-1",
    spec: "RFC 9113 6.5.2", sent: "INITIAL_WINDOW_SIZE 2^31", wanted: "FLOW_CONTROL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])], &[code::FLOW_CONTROL_ERROR]) },
    case! { "HB-WINDOW-12" Must: "INITIAL_WINDOW_SIZE that lifts an open stream beyond 2^31-1",
    spec: "RFC 9113 6.9.2", sent: "WINDOW_UPDATE 100 on the tunnel, then INITIAL_WINDOW_SIZE 2^31-1", wanted: "FLOW_CONTROL_ERROR",
    needs: [Echo], run: lifted },
    case! { "HB-WINDOW-13" Must: "WINDOW_UPDATE of 3 octets",
    spec: "RFC 9113 6.9", sent: "WINDOW_UPDATE of 3 octets on stream 0", wanted: "FRAME_SIZE_ERROR (PROTOCOL_ERROR is accepted)",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::WINDOW_UPDATE, 0, 0, [0; 3])], &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR]) },
    case! { "HB-WINDOW-14" Must: "Who overruns the target's window is stopped",
    spec: "RFC 9113 6.9.1", sent: "data without regard to windows, to a destination that does not read", wanted: "FLOW_CONTROL_ERROR",
    needs: [Destination], run: overrun },
    case! { "HB-WINDOW-15" Must: "A destination that does not read gets no endless credit",
    spec: "data-path 4.8, RFC 9113 5.2.2", sent: "data within the windows, to a destination that does not read", wanted: "credit ends before 64 MiB",
    needs: [Destination], run: backpressure },
    case! { "HB-WINDOW-16" Must: "A destination that does not read holds up nobody else",
    spec: "RFC 9113 5.2.1", sent: "a full stream, then echoes on the same connection", wanted: "the echoes",
    needs: [Destination, Echo], run: beside_a_full_stream },
    case! { "HB-WINDOW-17" Must: "Aborted streams give the connection's window back",
    spec: "RFC 9113 5.2, 6.9", sent: "streams filled and reset until more than the connection's window went into them", wanted: "another tunnel still carries 1 MiB",
    needs: [Destination, Echo], run: aborted },
    case! { "HB-WINDOW-18" Must: "Data for ended streams gives the connection's window back",
    spec: "RFC 9113 5.1, 6.9", sent: "data right before and behind RST_STREAM, more than the connection's window in all", wanted: "another tunnel still carries 1 MiB, or the connection is ended with STREAM_CLOSED",
    needs: [Echo], run: stale },
    case! { "HB-WINDOW-19" Must: "Padding counts, and comes back",
    spec: "RFC 9113 6.9.1", sent: "padding of more than the stream's window, within the credit", wanted: "the credit goes on",
    needs: [Echo], run: padding },
    case! { "HB-WINDOW-20" Must: "No more credit than was used",
    spec: "RFC 9113 6.9", sent: "2 MiB through the echo", wanted: "updates of the stream sum up to at most 2 MiB",
    needs: [Echo], run: exact_credit },
    case! { "HB-WINDOW-21" Must: "A reader of one octet at a time gets everything",
    spec: "RFC 9113 6.9", sent: "a window of 1, 2000 updates of 1", wanted: "2000 bytes in order",
    needs: [Destination], run: one_by_one },
];

/// A connection whose streams start with `window`, without credit of its own, and an order on it.
fn ordered(lab: &Lab, window: u32, verb: &str, bytes: usize) -> Result<(Peer, u32), Failure> {
    let mut peer = lab.open_with(Manners {
        credit: false,
        settings: vec![(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, window)],
        ..Manners::default()
    })?;
    let stream = lab.order(&mut peer, &format!("{verb} {bytes} {}", lab.name()))?;
    Ok((peer, stream))
}

fn flow(peer: &Peer, stream: u32) -> u64 {
    peer.seen.stream(stream).map_or(0, |stream| stream.flow)
}

/// Exactly `wanted` octets must have come on the stream, and no more in a while.
fn exactly(peer: &mut Peer, stream: u32, wanted: u64) -> Result<(), Failure> {
    peer.wait(PATIENCE, |seen| {
        seen.stream(stream).is_some_and(|stream| stream.flow >= wanted || stream.over())
    });
    peer.linger(QUIET);
    let got = flow(peer, stream);
    if got == wanted {
        Ok(())
    } else {
        deviates(format!("{got} instead of {wanted} bytes: {}", peer.seen.state(stream)))
    }
}

fn stream_window(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 1000, "send", 100_000)?;
    exactly(&mut peer, stream, 1000)?;
    for (by, sum) in [(500, 1500), (1, 1501), (499, 2000)] {
        peer.send(&Frame::window_update(stream, by));
        exactly(&mut peer, stream, sum)?;
    }
    Ok("1000, 500, 1, 499 bytes".to_owned())
}

fn connection_window(lab: &Lab) -> Got {
    let (mut peer, one) = ordered(lab, 1 << 20, "send", 100_000)?;
    let mut streams = vec![one];
    for _ in 0..2 {
        streams.push(lab.order(&mut peer, &format!("send 100000 {}", lab.name()))?);
    }
    for wanted in [65_535, 66_535, 68_535] {
        peer.wait(PATIENCE, |seen| seen.flow >= wanted);
        peer.linger(QUIET);
        if peer.seen.flow != wanted {
            return deviates(format!(
                "{} instead of {wanted} bytes: {}",
                peer.seen.flow,
                peer.seen.condition()
            ));
        }
        peer.send(&Frame::window_update(0, if wanted == 65_535 { 1000 } else { 2000 }));
    }
    Ok("65535 bytes, 1000, 2000".to_owned())
}

fn zero_window(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 0, "send", 100_000)?;
    exactly(&mut peer, stream, 0)?;
    peer.send(&Frame::window_update(stream, 777));
    exactly(&mut peer, stream, 777)?;
    Ok("nothing, then 777 bytes".to_owned())
}

fn grown_window(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 1000, "send", 100_000)?;
    exactly(&mut peer, stream, 1000)?;
    peer.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 3000)]));
    exactly(&mut peer, stream, 3000)?;
    Ok("1000, then 2000 bytes".to_owned())
}

fn negative_window(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 1000, "send", 100_000)?;
    exactly(&mut peer, stream, 1000)?;
    peer.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 400)]));
    exactly(&mut peer, stream, 1000)?;
    peer.send(&Frame::window_update(stream, 600));
    exactly(&mut peer, stream, 1000)?;
    peer.send(&Frame::window_update(stream, 10));
    exactly(&mut peer, stream, 1010)?;
    Ok("nothing until the debt was paid, then 10 bytes".to_owned())
}

fn end_without_window(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 5000, "source", 5000)?;
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let state = peer.seen.state(stream);
    match peer.seen.stream(stream) {
        Some(seen) if seen.ended && seen.flow == 5000 => Ok(state),
        _ => deviates(state),
    }
}

fn lifted(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send_all(&[
        Frame::window_update(stream, 100),
        Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)]),
    ]);
    peer.stream_error(stream, &[code::FLOW_CONTROL_ERROR])
}

/// The most that is sent into a stream that nobody reads.
const ENOUGH: u64 = 64 << 20;

fn overrun(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("hold {}", lab.name()))?;
    let piece = vec![b'o'; 16_384];
    let mut sent = 0;
    while sent < ENOUGH && peer.seen.lives() {
        if peer.seen.stream(stream).is_some_and(|stream| stream.reset.is_some()) {
            break;
        }
        peer.send_all(&[Frame::data(stream, piece.as_slice()), Frame::data(stream, piece.as_slice())]);
        sent += 32_768;
    }
    let got = peer.stream_error(stream, &[code::FLOW_CONTROL_ERROR])?;
    Ok(format!("{got} after {sent} bytes"))
}

/// Sends within the windows until no credit has come for a second; how much went.
fn fill(peer: &mut Peer, stream: u32) -> Result<u64, Failure> {
    let piece = vec![b'f'; 16_384];
    let mut sent = 0;
    while sent < ENOUGH {
        let room = peer.room(stream).min(16_384);
        if room == 0 {
            let had = (peer.seen.credit, peer.seen.stream(stream).map_or(0, |stream| stream.credit));
            let more = peer.wait(Duration::from_secs(1), |seen| {
                (seen.credit, seen.stream(stream).map_or(0, |stream| stream.credit)) != had
            });
            if !more {
                return Ok(sent);
            }
            continue;
        }
        let part = piece.get(..usize::try_from(room).unwrap_or_default()).unwrap_or_default();
        peer.send(&Frame::data(stream, part));
        peer.account(stream, part.len());
        sent += room;
        if !peer.seen.lives() {
            return deviates(format!("ended after {sent} bytes: {}", peer.seen.condition()));
        }
    }
    Ok(sent)
}

fn backpressure(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("hold {}", lab.name()))?;
    let sent = fill(&mut peer, stream)?;
    if sent >= ENOUGH {
        return deviates(format!("{sent} bytes were taken for a destination that reads none"));
    }
    peer.must_live()?;
    Ok(format!("{sent} bytes were taken"))
}

fn beside_a_full_stream(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let echo = peer.tunnel(lab.echo()?)?;
    let stream = lab.order(&mut peer, &format!("hold {}", lab.name()))?;
    let sent = fill(&mut peer, stream)?;
    if peer.room(echo) == 0 {
        return deviates(format!("one stream of {sent} bytes uses up the connection's window"));
    }
    for round in 0..10 {
        peer.echo(echo, format!("round {round}").as_bytes())?;
    }
    Ok(format!("10 echoes beside a stream that is full after {sent} bytes"))
}

/// The connection's window as announced.
fn whole_window(peer: &mut Peer) -> u64 {
    peer.linger(Duration::from_millis(200));
    65_535 + peer.seen.credit
}

fn aborted(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let echo = peer.tunnel(lab.echo()?)?;
    let window = whole_window(&mut peer);
    let (mut wasted, mut streams) = (0, 0);
    while wasted <= window + (4 << 20) && streams < 40 {
        let stream = lab.order(&mut peer, &format!("hold {}", lab.name()))?;
        // What fits at once; the destination reads none of it.
        let room = usize::try_from(peer.room(stream).min(8 << 20)).unwrap_or_default();
        peer.send_data(stream, &vec![b'a'; room])?;
        peer.send(&Frame::reset(stream, code::CANCEL));
        wasted += room as u64;
        streams += 1;
        // Its credit comes back, unless it was given back before.
        peer.wait(Duration::from_secs(2), |seen| 65_535 + seen.credit >= window + wasted);
        if room == 0 {
            return deviates(format!("no credit is left after {wasted} bytes on {streams} aborted streams"));
        }
    }
    peer.echo(echo, &vec![b'e'; 1 << 20])?;
    Ok(format!("1 MiB after {wasted} bytes on {streams} aborted streams"))
}

fn stale(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let echo = peer.tunnel(lab.echo()?)?;
    let window = whole_window(&mut peer);
    let mut wasted = 0;
    let data = vec![b'z'; 16_384];
    while wasted <= window + (1 << 20) {
        let stream = peer.tunnel(lab.echo()?)?;
        peer.send(&Frame::reset(stream, code::CANCEL));
        for _ in 0..16 {
            let credit = peer.seen.credit;
            if peer.room(echo) < 16_384 && !peer.wait(PATIENCE, |seen| seen.credit != credit) {
                return deviates(format!(
                    "no credit is left after {wasted} bytes: {}",
                    peer.seen.condition()
                ));
            }
            peer.send(&Frame::data(stream, data.as_slice()));
            peer.account(stream, data.len());
            wasted += data.len() as u64;
        }
        match (peer.seen.error(), &peer.seen.end) {
            (Some(code::STREAM_CLOSED | code::ENHANCE_YOUR_CALM), _) => return Ok(peer.seen.condition()),
            (None, None) => {}
            _ => return deviates(peer.seen.condition()),
        }
    }
    peer.echo(echo, &vec![b'e'; 1 << 20])?;
    Ok(format!("1 MiB after {wasted} bytes for reset streams"))
}

fn padding(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let frame = Frame::padded_data(stream, b"p", 255);
    let size = frame.payload.len();
    let initial = u64::from(peer.seen.setting(setting::INITIAL_WINDOW_SIZE).unwrap_or(65_535));
    let (mut sent, mut count) = (0, 0);
    while sent < initial + (1 << 20) && count < 200_000 {
        if peer.room(stream) < size as u64
            && !peer.wait(PATIENCE, |seen| {
                let credit = seen.stream(stream).map_or(0, |stream| stream.credit);
                initial + credit >= sent + size as u64 || !seen.lives()
            })
        {
            return deviates(format!("no credit after {sent} octets: {}", peer.seen.state(stream)));
        }
        let batch = 32.min(peer.room(stream) / size as u64).max(1);
        for _ in 0..batch {
            peer.send(&frame);
            peer.account(stream, size);
            sent += size as u64;
            count += 1;
        }
        if !peer.seen.lives() {
            return deviates(peer.seen.condition());
        }
    }
    peer.receive(stream, count)?;
    Ok(format!("{sent} octets in {count} frames"))
}

fn exact_credit(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    let initial = 65_535 + {
        peer.linger(Duration::from_millis(200));
        peer.seen.credit
    };
    peer.echo(stream, &vec![b'c'; 2 << 20])?;
    peer.linger(QUIET);
    let of_stream = peer.seen.stream(stream).map_or(0, |stream| stream.credit);
    let of_connection = 65_535 + peer.seen.credit - initial;
    let got = format!("{of_stream} on the stream, {of_connection} on the connection");
    if of_stream <= 2 << 20 && of_connection <= 2 << 20 { Ok(got) } else { deviates(got) }
}

fn one_by_one(lab: &Lab) -> Got {
    let (mut peer, stream) = ordered(lab, 1, "send", 100_000)?;
    for round in 1..=2000_u64 {
        if !peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.flow >= round)) {
            return deviates(format!("stopped after {}", peer.seen.state(stream)));
        }
        peer.send(&Frame::window_update(stream, 1));
    }
    let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
    let right = data.iter().enumerate().all(|(at, octet)| *octet == crate::destination::pattern(at));
    if right { Ok("2000 bytes in order".to_owned()) } else { deviates("bytes are wrong") }
}
