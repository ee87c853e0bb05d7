//! Who may speak to whom.

use super::Group;
use crate::case::{Case, Failure, Got, deviates};
use crate::http2::peer::{Answer, Manners};
use crate::http2::seen::End;
use crate::identity::Identity;
use crate::lab::Lab;
use crate::tls::Offer;

pub(super) const GROUP: Group = Group {
    name: "Identities",
    about: "A client without a certificate that the target trusts gets no tunnel. Refusals are TLS alerts; which one is \
            contract.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-ID-01" Must: "Our identity opens a tunnel",
    spec: "data-path 4.2", sent: "the handshake as --identity, CONNECT", wanted: "200, and the echo",
    needs: [Echo], run: |lab| lab.innocent().map(|_| "200, and the echo".to_owned()) },
    case! { "HB-ID-02" Must: "No certificate, no tunnel",
    spec: "data-path 4.1, RFC 8446 4.4.2.4", sent: "the handshake without a certificate, CONNECT", wanted: "the connection ends without an answer",
    needs: [Echo], run: |lab| refused(lab, None, None) },
    case! { "HB-ID-03" Contract: "No certificate is certificate_required",
    spec: "data-path 4.2", sent: "the same", wanted: "alert certificate_required",
    needs: [Echo], run: |lab| refused(lab, None, Some("certificate_required")) },
    case! { "HB-ID-04" Must: "A self-signed certificate with our name",
    spec: "data-path 4.2", sent: "a certificate made on the spot that claims our SPIFFE id", wanted: "the connection ends without an answer",
    needs: [Echo], run: |lab| refused(lab, Some(&lab.untrusted), None) },
    case! { "HB-ID-05" Contract: "A self-signed certificate is unknown_ca",
    spec: "data-path 4.2", sent: "the same", wanted: "alert unknown_ca",
    needs: [Echo], run: |lab| refused(lab, Some(&lab.untrusted), Some("unknown_ca")) },
    case! { "HB-ID-06" Must: "Another trust domain",
    spec: "data-path 4.2", sent: "--wrong-domain", wanted: "the connection ends without an answer",
    needs: [Echo, WrongDomain], run: |lab| refused(lab, lab.wrong_domain.as_ref(), None) },
    case! { "HB-ID-07" Contract: "Another trust domain is certificate_unknown",
    spec: "data-path 4.2", sent: "--wrong-domain", wanted: "alert certificate_unknown",
    needs: [Echo, WrongDomain], run: |lab| refused(lab, lab.wrong_domain.as_ref(), Some("certificate_unknown")) },
    case! { "HB-ID-08" Must: "An expired certificate",
    spec: "data-path 4.2, RFC 5280 6.1.3", sent: "--expired", wanted: "the connection ends without an answer",
    needs: [Echo, Expired], run: |lab| refused(lab, lab.expired.as_ref(), None) },
    case! { "HB-ID-09" Contract: "An expired certificate is certificate_expired",
    spec: "data-path 4.2", sent: "--expired", wanted: "alert certificate_expired",
    needs: [Echo, Expired], run: |lab| refused(lab, lab.expired.as_ref(), Some("certificate_expired")) },
    case! { "HB-ID-10" Must: "A certificate without a SPIFFE id",
    spec: "data-path 4.2", sent: "--no-spiffe", wanted: "the connection ends without an answer",
    needs: [Echo, NoSpiffe], run: |lab| refused(lab, lab.no_spiffe.as_ref(), None) },
    case! { "HB-ID-11" Contract: "A certificate without a SPIFFE id is certificate_unknown",
    spec: "data-path 4.2", sent: "--no-spiffe", wanted: "alert certificate_unknown",
    needs: [Echo, NoSpiffe], run: |lab| refused(lab, lab.no_spiffe.as_ref(), Some("certificate_unknown")) },
    case! { "HB-ID-12" Must: "The target's certificate chains to the roots given",
    spec: "data-path 4.2", sent: "the handshake, verified against --ca", wanted: "it verifies",
    needs: [Ca], run: verified },
    case! { "HB-ID-13" Must: "The target is who it should be",
    spec: "data-path 4.2", sent: "the handshake, verified against --server-id", wanted: "the certificate names it",
    needs: [ServerId], run: verified },
    case! { "HB-ID-14" Must: "A refused identity leaves others alone",
    spec: "data-path 4.2", sent: "20 handshakes that are refused, beside a tunnel", wanted: "the tunnel goes on",
    needs: [Echo], run: beside_refusals },
    case! { "HB-ID-15" Must: "A refused identity gets no application data",
    spec: "data-path 4.2", sent: "a self-signed certificate, CONNECT in the same flight", wanted: "no frame from the target behind its refusal",
    needs: [Echo], run: no_frames },
];

/// Offers an identity and asks for a tunnel in the same flight.
fn offer(lab: &Lab, identity: Option<&Identity>) -> Result<(crate::http2::peer::Peer, u32, Answer), Failure> {
    let mut peer = lab.offer(&Offer::of(identity), Manners::default())?;
    peer.greet();
    let stream = peer.connect(lab.echo()?);
    let answer = peer.answer(stream);
    Ok((peer, stream, answer))
}

fn refused(lab: &Lab, identity: Option<&Identity>, alert: Option<&str>) -> Got {
    let (peer, stream, answer) = offer(lab, identity)?;
    let state = peer.seen.state(stream);
    let ended = peer.seen.end.is_some() && !matches!(answer, Answer::Status(200..=299));
    let as_wanted = match (alert, &peer.seen.end) {
        (None, _) => true,
        (Some(wanted), Some(End::Alert(got))) => wanted == got,
        _ => false,
    };
    if ended && as_wanted { Ok(state) } else { deviates(state) }
}

fn verified(lab: &Lab) -> Got {
    lab.open().map(|_| "it does".to_owned())
}

fn beside_refusals(lab: &Lab) -> Got {
    let mut innocent = lab.innocent()?;
    for _ in 0..10 {
        refused(lab, None, None)?;
        refused(lab, Some(&lab.untrusted), None)?;
    }
    innocent.lives()?;
    lab.innocent()?;
    Ok("the tunnel goes on, a newcomer is served".to_owned())
}

fn no_frames(lab: &Lab) -> Got {
    let (peer, stream, _) = offer(lab, Some(&lab.untrusted))?;
    let state = peer.seen.state(stream);
    if peer.seen.streams.is_empty() && peer.seen.end.is_some() { Ok(state) } else { deviates(state) }
}
