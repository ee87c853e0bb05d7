//! Pseudo-header fields: which a CONNECT has, and in which order.

use super::Group;
use super::exchange::{block, malformed, to};
use crate::case::{Case, Failure, Got, deviates};
use crate::http2::frame::{Frame, code, setting};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Pseudo-header fields",
    about: "A request that breaks these rules is malformed: a stream error PROTOCOL_ERROR, a connection error of that \
            code, or 400 (RFC 9113 8.1.1).",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-PSEUDO-01" Must: ":scheme on CONNECT",
    spec: "RFC 9113 8.5", sent: "CONNECT with :scheme https", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":scheme", "https"), (":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-02" Must: ":path on CONNECT",
    spec: "RFC 9113 8.5", sent: "CONNECT with :path /", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":authority", lab.echo()?), (":path", "/")]) },
    case! { "HB-PSEUDO-03" Must: ":scheme and :path on CONNECT",
    spec: "RFC 9113 8.5", sent: "CONNECT with both", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":scheme", "https"), (":authority", lab.echo()?), (":path", "/")]) },
    case! { "HB-PSEUDO-04" Must: "A pseudo-header field that does not exist",
    spec: "RFC 9113 8.3", sent: "CONNECT with :colour", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":authority", lab.echo()?), (":colour", "red")]) },
    case! { "HB-PSEUDO-05" Must: "A pseudo-header field of answers",
    spec: "RFC 9113 8.3", sent: "CONNECT with :status 200", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":authority", lab.echo()?), (":status", "200")]) },
    case! { "HB-PSEUDO-06" Must: "A pseudo-header field behind a regular one",
    spec: "RFC 9113 8.3", sent: ":authority after x-first", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), ("x-first", "1"), (":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-07" Must: "No :method",
    spec: "RFC 9113 8.3.1", sent: ":authority alone", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-08" Must: ":method twice",
    spec: "RFC 9113 8.3", sent: ":method CONNECT twice", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "CONNECT"), (":method", "CONNECT"), (":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-09" Must: "A method in lower case is not CONNECT",
    spec: "RFC 9110 9.1, RFC 9113 8.3.1", sent: ":method connect, :authority", wanted: "malformed: :scheme and :path are missing",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", "connect"), (":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-10" Must: "An empty method",
    spec: "RFC 9110 9.1", sent: ":method without a value", wanted: "malformed",
    needs: [Echo], run: |lab| malformed(lab, &[(":method", ""), (":authority", lab.echo()?)]) },
    case! { "HB-PSEUDO-11" Must: "Extended CONNECT where it was not offered",
    spec: "RFC 8441 3", sent: "CONNECT with :protocol, :scheme and :path", wanted: "malformed",
    needs: [Echo], run: extended },
    case! { "HB-PSEUDO-12" Must: "A pseudo-header field in trailers",
    spec: "RFC 9113 8.1", sent: "a tunnel, then trailers with :method", wanted: "the stream ends with PROTOCOL_ERROR",
    needs: [Echo], run: in_trailers },
    case! { "HB-PSEUDO-13" Must: "The order of :method and :authority is free",
    spec: "RFC 9113 8.3", sent: ":authority before :method", wanted: "200, and the echo",
    needs: [Echo], run: |lab| super::exchange::accepted(lab, &[(":authority", lab.echo()?), (":method", "CONNECT")]) },
];

fn extended(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    if peer.seen.setting(setting::ENABLE_CONNECT_PROTOCOL) == Some(1) {
        return Err(Failure::NotRun("the target offers extended CONNECT".to_owned()));
    }
    let stream = peer.request_fields(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", lab.echo()?),
        (":path", "/"),
    ]);
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if answer.malformed() { Ok(state) } else { deviates(state) }
}

fn in_trailers(lab: &Lab) -> Got {
    super::exchange::stream_fatal(
        lab,
        |stream| vec![Frame::last_headers(stream, block(&to("127.0.0.1:1")))],
        &[code::PROTOCOL_ERROR],
    )
}
