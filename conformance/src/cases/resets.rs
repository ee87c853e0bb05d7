//! Resets: a stream's, a connection's, the destination's.

use super::Group;
use super::exchange::{fatal, stream_fatal};
use crate::case::{Case, Got, deviates};
use crate::destination::Ending;
use crate::http2::frame::{Frame, code, kind};
use crate::http2::peer::{PATIENCE, Peer};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Resets",
    about: "RST_STREAM with an error is TCP RST and TCP RST is RST_STREAM (RFC 9113 8.5): whoever reads FIN has read \
            everything.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-RESET-01" Must: "CANCEL ends the destination's connection",
    spec: "data-path 4.8", sent: "RST_STREAM CANCEL", wanted: "the destination reads FIN or RST",
    needs: [Destination], run: |lab| reset(lab, code::CANCEL, &[Ending::Fin, Ending::Reset]) },
    case! { "HB-RESET-02" Must: "INTERNAL_ERROR resets the destination's connection",
    spec: "RFC 9113 8.5", sent: "RST_STREAM INTERNAL_ERROR", wanted: "the destination reads RST",
    needs: [Destination], run: |lab| reset(lab, code::INTERNAL_ERROR, &[Ending::Reset]) },
    case! { "HB-RESET-03" Must: "CONNECT_ERROR resets the destination's connection",
    spec: "RFC 9113 8.5", sent: "RST_STREAM CONNECT_ERROR", wanted: "the destination reads RST",
    needs: [Destination], run: |lab| reset(lab, code::CONNECT_ERROR, &[Ending::Reset]) },
    case! { "HB-RESET-04" Must: "The destination's reset is no end of stream",
    spec: "RFC 9113 8.5", sent: "an order to reset", wanted: "RST_STREAM with an error, no END_STREAM",
    needs: [Destination], run: destination_resets },
    case! { "HB-RESET-05" Contract: "The destination's reset is CONNECT_ERROR",
    spec: "RFC 9113 8.5", sent: "an order to reset", wanted: "RST_STREAM CONNECT_ERROR",
    needs: [Destination], run: destination_resets_with_code },
    case! { "HB-RESET-06" Must: "A reset connection resets the destination's",
    spec: "RFC 9113 8.5", sent: "TCP RST in the middle of a tunnel", wanted: "the destination reads RST",
    needs: [Destination], run: |lab| cut(lab, Cut::Reset, &[Ending::Reset]) },
    case! { "HB-RESET-07" Must: "A connection that ends without END_STREAM resets the destination's",
    spec: "RFC 9113 8.5, RFC 8446 6.1", sent: "TCP FIN without close_notify in the middle of a tunnel", wanted: "the destination reads RST",
    needs: [Destination], run: |lab| cut(lab, Cut::Fin, &[Ending::Reset]) },
    case! { "HB-RESET-08" Must: "close_notify without END_STREAM ends the destination's connection",
    spec: "RFC 9113 8.5", sent: "close_notify in the middle of a tunnel", wanted: "the destination reads RST",
    needs: [Destination], run: |lab| cut(lab, Cut::CloseNotify, &[Ending::Reset]) },
    case! { "HB-RESET-09" Must: "A reset of one tunnel is not that of another",
    spec: "RFC 9113 5.4.2", sent: "RST_STREAM on one of two tunnels", wanted: "the other goes on",
    needs: [Echo], run: other_goes_on },
    case! { "HB-RESET-10" Must: "A reset before the answer",
    spec: "RFC 9113 5.1", sent: "CONNECT and RST_STREAM in one write, beside a tunnel", wanted: "the tunnel goes on",
    needs: [Echo], run: before_the_answer },
    case! { "HB-RESET-11" Must: "RST_STREAM twice",
    spec: "RFC 9113 5.1", sent: "RST_STREAM twice, then WINDOW_UPDATE", wanted: "the connection goes on",
    needs: [Echo], run: twice },
    case! { "HB-RESET-12" Must: "RST_STREAM on stream 0",
    spec: "RFC 9113 6.4", sent: "RST_STREAM on stream 0", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::reset(0, code::CANCEL)], &[code::PROTOCOL_ERROR]) },
    case! { "HB-RESET-13" Must: "RST_STREAM of 3 octets",
    spec: "RFC 9113 6.4", sent: "RST_STREAM of 3 octets on the tunnel", wanted: "FRAME_SIZE_ERROR",
    needs: [Echo], run: |lab| stream_fatal(lab, |stream| vec![Frame::new(kind::RST_STREAM, 0, stream, [0; 3])], &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR]) },
    case! { "HB-RESET-14" Must: "An error code that nobody knows",
    spec: "RFC 9113 7", sent: "RST_STREAM 0xfeedbeef", wanted: "the destination's connection ends, ours goes on",
    needs: [Destination, Echo], run: |lab| reset(lab, 0xfeed_beef, &[Ending::Fin, Ending::Reset]) },
    case! { "HB-RESET-15" Must: "A destination that has gone ends the tunnel in both directions",
    spec: "RFC 9113 8.5, data-path 4.8", sent: "more data after the destination's reset", wanted: "the stream is reset, the connection lives",
    needs: [Destination], run: data_after_reset },
];

/// Opens an echo that remembers, says something through it.
fn remembered(lab: &Lab, peer: &mut Peer) -> Result<(u32, String), crate::case::Failure> {
    let name = lab.name();
    let stream = lab.order(peer, &format!("echo {name}"))?;
    peer.echo(stream, b"something")?;
    Ok((stream, name))
}

fn judge(lab: &Lab, name: &str, wanted: &[Ending]) -> Got {
    let end = lab.report(name)?.end;
    let got = format!(
        "the destination read {}",
        match end {
            Ending::Open => "nothing",
            Ending::Fin => "FIN",
            Ending::Reset => "RST",
        }
    );
    if wanted.contains(&end) { Ok(got) } else { deviates(got) }
}

fn reset(lab: &Lab, code: u32, wanted: &[Ending]) -> Got {
    let mut peer = lab.open()?;
    let (stream, name) = remembered(lab, &mut peer)?;
    peer.send(&Frame::reset(stream, code));
    let got = judge(lab, &name, wanted)?;
    peer.must_live()?;
    Ok(got)
}

fn destination_resets(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("reset {}", lab.name()))?;
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let state = peer.seen.state(stream);
    match peer.seen.stream(stream) {
        Some(seen) if !seen.ended && seen.reset.is_some_and(|code| code != code::NO_ERROR) => {
            peer.must_live()?;
            Ok(state)
        }
        _ => deviates(state),
    }
}

fn destination_resets_with_code(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("reset {}", lab.name()))?;
    peer.stream_error(stream, &[code::CONNECT_ERROR])
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Reset,
    Fin,
    CloseNotify,
}

fn cut(lab: &Lab, how: Cut, wanted: &[Ending]) -> Got {
    let mut peer = lab.open()?;
    let (_, name) = remembered(lab, &mut peer)?;
    match how {
        Cut::Reset => {
            peer.abort();
            return judge(lab, &name, wanted);
        }
        Cut::Fin => peer.fin(),
        Cut::CloseNotify => {
            peer.close_notify();
            peer.fin();
        }
    }
    judge(lab, &name, wanted)
}

fn other_goes_on(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    peer.send(&Frame::reset(one, code::CANCEL));
    peer.echo(two, b"still here")?;
    Ok("the other goes on".to_owned())
}

fn before_the_answer(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    let block = super::exchange::block(&super::exchange::to(lab.echo()?));
    for _ in 0..5 {
        let stream = peer.next_stream();
        peer.send_all(&[Frame::headers(stream, block.clone()), Frame::reset(stream, code::CANCEL)]);
    }
    peer.echo(tunnel, b"still here")?;
    Ok("the tunnel goes on".to_owned())
}

fn twice(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    peer.send_all(&[
        Frame::reset(one, code::CANCEL),
        Frame::reset(one, code::CANCEL),
        Frame::window_update(one, 10),
    ]);
    peer.echo(two, b"still here")?;
    Ok("the connection goes on".to_owned())
}

fn data_after_reset(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = lab.order(&mut peer, &format!("reset {}", lab.name()))?;
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    peer.send(&Frame::data(stream, *b"too late"));
    peer.account(stream, 8);
    let reset = peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.reset.is_some()));
    let state = peer.seen.state(stream);
    peer.must_live()?;
    if reset { Ok(state) } else { deviates(state) }
}
