//! What a client is told when no tunnel opens.

use std::time::Duration;

use super::Group;
use super::exchange::{block, refused, status, to};
use crate::case::{Case, Got, Need, deviates};
use crate::http2::frame::{Frame, code};
use crate::http2::peer::{Answer, PATIENCE};
use crate::lab::Lab;
use crate::tls::Offer;

pub(super) const GROUP: Group = Group {
    name: "Refusals",
    about: "A tunnel is open only after 200. Everything else is a refusal, and Istio's clients tell them apart by status.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-STATUS-01" Must: "A destination that refuses is no tunnel",
    spec: "RFC 9110 9.3.6", sent: "CONNECT to --refusing", wanted: "refused",
    needs: [Refusing], run: |lab| refused(lab, &to(lab.authority(Need::Refusing)?)) },
    case! { "HB-STATUS-02" Contract: "A destination that refuses is 503",
    spec: "data-path 4.7", sent: "CONNECT to --refusing", wanted: "503 and the end of the stream",
    needs: [Refusing], run: |lab| status(lab, &to(lab.authority(Need::Refusing)?), 503) },
    case! { "HB-STATUS-03" Contract: "Policy that denies the destination is 401",
    spec: "data-path 4.7, 7", sent: "CONNECT to --forbidden", wanted: "401 and the end of the stream",
    needs: [Forbidden], run: |lab| status(lab, &to(lab.authority(Need::Forbidden)?), 401) },
    case! { "HB-STATUS-04" Contract: "Policy that denies the identity is 401",
    spec: "data-path 4.7, 7", sent: "CONNECT to --echo as --denied", wanted: "401",
    needs: [Echo, Denied], run: denied },
    case! { "HB-STATUS-05" Contract: "A destination that keeps silent is 503 in ten seconds",
    spec: "data-path 5.1, 11.1", sent: "CONNECT to --silent", wanted: "503 within 15 s",
    needs: [Silent], run: silent },
    case! { "HB-STATUS-06" Contract: "GET is a bad request",
    spec: "data-path 4.7", sent: "GET with :scheme and :path", wanted: "400",
    needs: [Echo], run: |lab| method(lab, "GET") },
    case! { "HB-STATUS-07" Contract: "POST is a bad request",
    spec: "data-path 4.7", sent: "POST with :scheme and :path", wanted: "400",
    needs: [Echo], run: |lab| method(lab, "POST") },
    case! { "HB-STATUS-08" Contract: "OPTIONS is a bad request",
    spec: "data-path 4.7", sent: "OPTIONS with :scheme and :path", wanted: "400",
    needs: [Echo], run: |lab| method(lab, "OPTIONS") },
    case! { "HB-STATUS-09" Contract: "A method of one's own is a bad request",
    spec: "data-path 4.7", sent: "BREW with :scheme and :path", wanted: "400",
    needs: [Echo], run: |lab| method(lab, "BREW") },
    case! { "HB-STATUS-10" Must: "Other methods open no tunnel",
    spec: "RFC 9110 9.3.6", sent: "GET with the echo's authority, then DATA", wanted: "the bytes do not come back",
    needs: [Echo], run: get_is_no_tunnel },
    case! { "HB-STATUS-11" Must: "A refusal leaves other tunnels alone",
    spec: "RFC 9113 5.4.2", sent: "100 refused CONNECTs beside a tunnel", wanted: "the tunnel goes on",
    needs: [Echo, Refusing], run: beside_refusals },
    case! { "HB-STATUS-12" Must: "Data for a refused stream does no harm",
    spec: "RFC 9113 5.1", sent: "DATA after the refusal, beside a tunnel", wanted: "the tunnel goes on",
    needs: [Echo, Refusing], run: data_after_refusal },
    case! { "HB-STATUS-13" Contract: "A refused stream is closed in both directions",
    spec: "data-path 4.7", sent: "CONNECT to --refusing, our side open", wanted: "END_STREAM, then RST_STREAM NO_ERROR",
    needs: [Refusing], run: closed_refusal },
    case! { "HB-STATUS-14" Must: "No bytes of the destination before the answer",
    spec: "RFC 9113 8.5", sent: "an order for bytes together with CONNECT", wanted: "HEADERS before DATA",
    needs: [Destination], run: answer_first },
];

fn method(lab: &Lab, method: &str) -> Got {
    status(
        lab,
        &[(":method", method), (":scheme", "https"), (":authority", lab.echo()?), (":path", "/")],
        400,
    )
}

fn denied(lab: &Lab) -> Got {
    let mut peer = lab.offer(&Offer::of(lab.denied.as_ref()), crate::http2::peer::Manners::default())?;
    peer.greet();
    let stream = peer.connect(lab.echo()?);
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if answer == Answer::Status(401) { Ok(state) } else { deviates(state) }
}

fn silent(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.connect(lab.authority(Need::Silent)?);
    let answer = peer.answer_within(stream, Duration::from_secs(15));
    let state = peer.seen.state(stream);
    if answer == Answer::Status(503) { Ok(state) } else { deviates(state) }
}

fn get_is_no_tunnel(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.request_fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", lab.echo()?),
        (":path", "/"),
    ]);
    peer.send(&Frame::data(stream, *b"through the tunnel?"));
    peer.wait(Duration::from_secs(2), |seen| seen.stream(stream).is_some_and(|stream| stream.over()));
    let state = peer.seen.state(stream);
    let data = peer.seen.stream(stream).map(|stream| stream.data.as_slice()).unwrap_or_default();
    if data.windows(7).any(|window| window == b"through") { deviates(state) } else { Ok(state) }
}

fn beside_refusals(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    for round in 0..100 {
        let stream = peer.connect(lab.authority(Need::Refusing)?);
        if !peer.answer(stream).refused() {
            return deviates(format!("refusal {round}: {}", peer.seen.state(stream)));
        }
    }
    peer.echo(tunnel, b"still here")?;
    Ok("100 refusals, the tunnel goes on".to_owned())
}

fn data_after_refusal(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let tunnel = peer.tunnel(lab.echo()?)?;
    let stream = peer.connect(lab.authority(Need::Refusing)?);
    if !peer.answer(stream).refused() {
        return deviates(peer.seen.state(stream));
    }
    for _ in 0..10 {
        peer.send(&Frame::data(stream, [0; 1000]));
        peer.account(stream, 1000);
    }
    peer.echo(tunnel, b"still here")?;
    Ok(peer.seen.state(stream))
}

fn closed_refusal(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.connect(lab.authority(Need::Refusing)?);
    peer.wait(PATIENCE, |seen| seen.stream(stream).is_some_and(|stream| stream.reset.is_some()));
    let state = peer.seen.state(stream);
    match peer.seen.stream(stream) {
        Some(seen) if seen.ended && seen.reset == Some(code::NO_ERROR) => Ok(state),
        _ => deviates(state),
    }
}

fn answer_first(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let stream = peer.next_stream();
    let order = format!("{} send 1000 {}\n", crate::destination::ORDER, lab.name());
    let fields = block(&to(lab.authority(Need::Destination)?));
    peer.send_all(&[Frame::headers(stream, fields), Frame::data(stream, order.as_bytes())]);
    peer.account(stream, order.len());
    peer.receive(stream, 1000)?;
    let state = peer.seen.state(stream);
    if peer.seen.stream(stream).is_some_and(|stream| stream.early) { deviates(state) } else { Ok(state) }
}
