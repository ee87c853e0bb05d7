//! Goodbyes.

use std::time::Duration;

use super::Group;
use super::exchange::fatal;
use crate::case::{Case, Got, deviates};
use crate::http2::frame::{Frame, code, code_name, kind};
use crate::http2::peer::PATIENCE;
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "GOAWAY",
    about: "A goodbye ends no tunnel; what a target says when it ends a connection must be true.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-GOAWAY-01" Must: "Tunnels go on behind our GOAWAY",
    spec: "data-path 4.3, RFC 9113 6.8", sent: "GOAWAY NO_ERROR, then bytes on two tunnels", wanted: "both echo",
    needs: [Echo], run: |lab| goes_on(lab, code::NO_ERROR, b"") },
    case! { "HB-GOAWAY-02" Contract: "An error code in our GOAWAY changes nothing",
    spec: "data-path 4.3", sent: "GOAWAY ENHANCE_YOUR_CALM with debug data", wanted: "both tunnels echo",
    needs: [Echo], run: |lab| goes_on(lab, code::ENHANCE_YOUR_CALM, b"too many of something") },
    case! { "HB-GOAWAY-03" Contract: "A code that nobody knows changes nothing",
    spec: "data-path 4.3, RFC 9113 7", sent: "GOAWAY 0xfeedbeef", wanted: "both tunnels echo",
    needs: [Echo], run: |lab| goes_on(lab, 0xfeed_beef, b"") },
    case! { "HB-GOAWAY-04" Contract: "Behind our GOAWAY the connection ends with its last tunnel",
    spec: "data-path 4.3", sent: "GOAWAY NO_ERROR, then the end of the tunnel", wanted: "the connection ends within 5 s",
    needs: [Echo], run: ends_with_the_last },
    case! { "HB-GOAWAY-05" Must: "GOAWAY on a stream",
    spec: "RFC 9113 6.8", sent: "GOAWAY on stream 1", wanted: "PROTOCOL_ERROR",
    needs: [], run: |lab| fatal(lab, &[Frame::new(kind::GOAWAY, 0, 1, [0; 8])], &[code::PROTOCOL_ERROR]) },
    case! { "HB-GOAWAY-06" Must: "The target's GOAWAY names a stream that we opened",
    spec: "RFC 9113 6.8", sent: "three tunnels, then DATA on stream 0", wanted: "GOAWAY with last stream 5, or no GOAWAY at all",
    needs: [Echo], run: last_stream },
    case! { "HB-GOAWAY-07" Must: "After an error nothing more is served",
    spec: "RFC 9113 5.4.1", sent: "an error, then a CONNECT", wanted: "no answer, and the end of the connection",
    needs: [Echo], run: nothing_more },
    case! { "HB-GOAWAY-08" Must: "Two GOAWAYs",
    spec: "RFC 9113 6.8", sent: "GOAWAY with the last number a server has, then with 0", wanted: "the tunnels go on",
    needs: [Echo], run: two_goodbyes },
];

fn goes_on(lab: &Lab, code: u32, debug: &[u8]) -> Got {
    let mut peer = lab.open()?;
    let (one, two) = (peer.tunnel(lab.echo()?)?, peer.tunnel(lab.echo()?)?);
    peer.send(&Frame::goaway(0, code, debug));
    for round in 0..5 {
        peer.echo(one, format!("one {round}").as_bytes())?;
        peer.echo(two, format!("two {round}").as_bytes())?;
        peer.linger(Duration::from_millis(50));
    }
    Ok("both tunnels go on".to_owned())
}

fn ends_with_the_last(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send(&Frame::goaway(0, code::NO_ERROR, b""));
    peer.echo(stream, b"still here")?;
    peer.send(&Frame::last_data(stream, []));
    peer.wait(PATIENCE, |_| false);
    let condition = peer.seen.condition();
    if peer.seen.end.is_some() { Ok(condition) } else { deviates(condition) }
}

fn last_stream(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let mut last = 0;
    for _ in 0..3 {
        last = peer.tunnel(lab.echo()?)?;
    }
    peer.send(&Frame::data(0, *b"x"));
    peer.connection_error(&[code::PROTOCOL_ERROR])?;
    let condition = peer.seen.condition();
    match peer.seen.goaways.iter().find(|(_, code)| *code != code::NO_ERROR) {
        Some((named, _)) if *named != last => deviates(condition),
        _ => Ok(condition),
    }
}

fn nothing_more(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    peer.send(&Frame::data(0, *b"x"));
    let stream = peer.connect(lab.echo()?);
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.status() == Some(200)));
    let state = peer.seen.state(stream);
    let served = peer.seen.stream(stream).is_some_and(|stream| stream.status() == Some(200));
    if !served && peer.seen.end.is_some() { Ok(state) } else { deviates(state) }
}

fn two_goodbyes(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.tunnel(lab.echo()?)?;
    peer.send_all(&[Frame::goaway(0x7fff_fffe, code::NO_ERROR, b""), Frame::goaway(0, code::NO_ERROR, b"")]);
    peer.echo(stream, b"still here")?;
    Ok(format!("the tunnel goes on after {} twice", code_name(code::NO_ERROR)))
}
