//! The end of one direction, and of both.

use super::Group;
use super::exchange::block;
use crate::case::{Case, Failure, Got, deviates};
use crate::destination::Ending;
use crate::http2::frame::Frame;
use crate::http2::peer::{PATIENCE, Peer};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Half-close",
    about: "END_STREAM is FIN and FIN is END_STREAM; the other direction goes on (RFC 9113 8.5).",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-HALF-01" Must: "Our end reaches the destination, which still answers",
    spec: "data-path 4.8, RFC 9113 8.5", sent: "100000 bytes, an empty DATA with END_STREAM, to a sink", wanted: "its answer with the count, then END_STREAM",
    needs: [Destination], run: |lab| sink(lab, false) },
    case! { "HB-HALF-02" Must: "END_STREAM on DATA with bytes",
    spec: "RFC 9113 6.1", sent: "END_STREAM on the last bytes", wanted: "the count with the last bytes, then END_STREAM",
    needs: [Destination], run: |lab| sink(lab, true) },
    case! { "HB-HALF-03" Must: "The destination's end reaches us, and we still send",
    spec: "data-path 4.8, RFC 9113 8.5", sent: "after the destination's FIN 100000 bytes, then END_STREAM", wanted: "END_STREAM first; the destination counts all bytes and reads FIN",
    needs: [Destination], run: after_their_end },
    case! { "HB-HALF-04" Must: "The echo's tail comes before its end",
    spec: "data-path 4.8", sent: "1 MiB and END_STREAM in one go", wanted: "1 MiB back, then END_STREAM, no RST_STREAM with an error",
    needs: [Echo], run: tail },
    case! { "HB-HALF-05" Contract: "Trailers with END_STREAM end our direction",
    spec: "data-path 4.3", sent: "bytes, then trailers with END_STREAM, to a sink", wanted: "the sink's answer",
    needs: [Destination], run: trailers },
    case! { "HB-HALF-06" Must: "Both ends at once",
    spec: "RFC 9113 8.5", sent: "END_STREAM while the destination's FIN is on its way", wanted: "the stream ends without an error",
    needs: [Destination], run: both_at_once },
    case! { "HB-HALF-07" Must: "An end without any byte",
    spec: "data-path 4.8", sent: "END_STREAM right after the answer", wanted: "END_STREAM of the echo",
    needs: [Echo], run: empty },
    case! { "HB-HALF-08" Must: "The end of one tunnel is not that of another",
    spec: "RFC 9113 5.1", sent: "END_STREAM on one of two tunnels", wanted: "the other goes on",
    needs: [Echo], run: other_goes_on },
];

fn wait_over(peer: &mut Peer, stream: u32) -> Result<String, Failure> {
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let state = peer.seen.state(stream);
    if peer.seen.stream(stream).is_some_and(|stream| stream.ended) { Ok(state) } else { deviates(state) }
}

fn said(peer: &Peer, stream: u32) -> String {
    let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
    String::from_utf8_lossy(data).into_owned()
}

fn sink(lab: &Lab, on_bytes: bool) -> Got {
    let mut peer = lab.open()?;
    let name = lab.name();
    let stream = lab.order(&mut peer, &format!("sink {name}"))?;
    peer.send_data(stream, &vec![b's'; 99_000])?;
    if on_bytes {
        peer.send(&Frame::last_data(stream, [b's'; 1000]));
        peer.account(stream, 1000);
    } else {
        peer.send_data(stream, &[b's'; 1000])?;
        peer.send(&Frame::last_data(stream, []));
    }
    let state = wait_over(&mut peer, stream)?;
    let said = said(&peer, stream);
    let end = lab.report(&name)?.end;
    if said == "100000 bytes" && end == Ending::Fin {
        return Ok(format!("{said:?}, {state}"));
    }
    deviates(format!("{said:?}, {state}, the destination read {end:?}"))
}

fn after_their_end(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let name = lab.name();
    let stream = lab.order(&mut peer, &format!("source 0 {name}"))?;
    let state = wait_over(&mut peer, stream)?;
    peer.send_data(stream, &vec![b's'; 100_000])?;
    peer.send(&Frame::last_data(stream, []));
    let report = lab.report(&name)?;
    if report.bytes == 100_000 && report.end == Ending::Fin && peer.seen.lives() {
        return Ok(format!("{state}; the destination read 100000 bytes and FIN"));
    }
    deviates(format!("{state}; the destination read {} bytes and {:?}", report.bytes, report.end))
}

fn tail(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send_data(stream, &vec![b't'; 1 << 20])?;
    peer.send(&Frame::last_data(stream, []));
    peer.receive(stream, 1 << 20)?;
    wait_over(&mut peer, stream)
}

fn trailers(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("sink {}", lab.name()))?;
    peer.send_data(stream, &[b's'; 500])?;
    peer.send(&Frame::last_headers(stream, block(&[("x-trailer", "1")])));
    let state = wait_over(&mut peer, stream)?;
    let said = said(&peer, stream);
    if said == "500 bytes" {
        Ok(format!("{said:?}, {state}"))
    } else {
        deviates(format!("{said:?}, {state}"))
    }
}

fn both_at_once(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("source 0 {}", lab.name()))?;
    peer.send(&Frame::last_data(stream, []));
    let state = wait_over(&mut peer, stream)?;
    peer.must_live()?;
    match peer.seen.stream(stream).and_then(|stream| stream.reset) {
        None | Some(0) => Ok(state),
        Some(_) => deviates(state),
    }
}

fn empty(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send(&Frame::last_data(stream, []));
    wait_over(&mut peer, stream)
}

fn other_goes_on(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    peer.send(&Frame::last_data(one, []));
    let state = wait_over(&mut peer, one)?;
    peer.echo(two, b"still here")?;
    Ok(format!("one: {state}; two goes on"))
}
