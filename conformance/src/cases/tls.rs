//! The handshake: versions, suites, groups, ALPN, records.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

use super::Group;
use crate::case::{Case, Failure, Got, deviates};
use crate::hello::{Hello, Reaction, exchange, group, later_record, record, suite};
use crate::http2::peer::{Answer, Manners, PATIENCE, Peer};
use crate::http2::seen::End;
use crate::lab::Lab;
use crate::tls::Offer;

pub(super) const GROUP: Group = Group {
    name: "TLS",
    about: "Handshakes by hand-made ClientHellos, and whole ones by a TLS library. Which versions, suites and groups an \
            HBONE listener must offer is contract; that it answers wrong hellos by an alert or by closing is TLS.",
    cases: CASES,
};

const PROTOCOL_VERSION: u8 = 70;
const HANDSHAKE_FAILURE: u8 = 40;

const CASES: &[Case] = &[
    case! { "HB-TLS-01" Must: "TLS 1.3 with h2",
    spec: "data-path 4.1, RFC 8446, RFC 9113 3.2", sent: "an ordinary handshake", wanted: "TLS 1.3, ALPN h2 or none, SETTINGS",
    needs: [], run: ordinary },
    case! { "HB-TLS-02" Contract: "ALPN h2 is chosen",
    spec: "data-path 4.1", sent: "ALPN http/1.1 and h2", wanted: "h2",
    needs: [], run: alpn_chosen },
    case! { "HB-TLS-03" Contract: "No ALPN is accepted",
    spec: "data-path 4.1", sent: "a handshake without ALPN, CONNECT", wanted: "200, and the echo",
    needs: [Echo], run: |lab| whole(lab, |offer| offer.alpn.clear()) },
    case! { "HB-TLS-04" Contract: "ALPN without h2 is refused",
    spec: "data-path 4.1, RFC 7301 3.2", sent: "ALPN http/1.1 alone", wanted: "alert no_application_protocol",
    needs: [], run: other_protocol },
    case! { "HB-TLS-05" Contract: "TLS 1.2 is refused",
    spec: "data-path 4.1", sent: "a hello without supported_versions", wanted: "alert protocol_version",
    needs: [], run: |lab| hello(lab, &old(0x0303), |got| alert(got, PROTOCOL_VERSION)) },
    case! { "HB-TLS-06" Must: "TLS 1.1 is refused",
    spec: "RFC 8996 5", sent: "a hello of version 3.2", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &old(0x0302), Reaction::refusal) },
    case! { "HB-TLS-07" Must: "TLS 1.0 is refused",
    spec: "RFC 8996 4", sent: "a hello of version 3.1", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &old(0x0301), Reaction::refusal) },
    case! { "HB-TLS-08" Must: "SSL 3 is refused",
    spec: "RFC 7568 3", sent: "a hello of version 3.0", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &old(0x0300), Reaction::refusal) },
    case! { "HB-TLS-09" Must: "Unknown versions beside 1.3 are passed over",
    spec: "RFC 8446 4.2.1, RFC 8701", sent: "supported_versions 0x7a7a, 0x0305, 0x0304", wanted: "ServerHello of 1.3",
    needs: [], run: |lab| hello(lab, &Hello { versions: vec![0x7a7a, 0x0305, 0x0304], ..Hello::default() }, is_hello) },
    case! { "HB-TLS-10" Must: "Only unknown versions",
    spec: "RFC 8446 4.2.1", sent: "supported_versions 0x0305", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &Hello { versions: vec![0x0305], ..Hello::default() }, Reaction::refusal) },
    case! { "HB-TLS-11" Contract: "TLS_AES_256_GCM_SHA384 alone",
    spec: "data-path 4.1", sent: "a handshake with this suite", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_suite(lab, cipher_suite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_256_GCM_SHA384) },
    case! { "HB-TLS-12" Must: "TLS_AES_128_GCM_SHA256 alone",
    spec: "data-path 4.1, RFC 8446 9.1", sent: "a handshake with this suite", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_suite(lab, cipher_suite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256) },
    case! { "HB-TLS-13" Contract: "ChaCha20 alone is refused",
    spec: "data-path 4.1", sent: "TLS_CHACHA20_POLY1305_SHA256 alone", wanted: "alert handshake_failure",
    needs: [], run: |lab| hello(lab, &Hello { suites: vec![suite::CHACHA], ..Hello::default() }, |got| alert(got, HANDSHAKE_FAILURE)) },
    case! { "HB-TLS-14" Contract: "The client's order of suites decides",
    spec: "data-path 4.1", sent: "AES-128 before AES-256", wanted: "AES-128",
    needs: [], run: |lab| chosen(lab, &[suite::AES_128, suite::AES_256], suite::AES_128) },
    case! { "HB-TLS-15" Contract: "The client's order decides the other way round, too",
    spec: "data-path 4.1", sent: "ChaCha20, AES-256, AES-128", wanted: "AES-256",
    needs: [], run: |lab| chosen(lab, &[suite::CHACHA, suite::AES_256, suite::AES_128], suite::AES_256) },
    case! { "HB-TLS-16" Must: "Only suites of TLS 1.2 in a hello of 1.3",
    spec: "RFC 8446 4.1.1", sent: "ECDHE-ECDSA-AES128 and RSA-CBC", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &Hello { suites: vec![suite::ECDHE_12, suite::RSA_CBC], ..Hello::default() }, Reaction::refusal) },
    case! { "HB-TLS-17" Contract: "X25519",
    spec: "data-path 4.1", sent: "a handshake with this group", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_group(lab, kx_group::X25519, NamedGroup::X25519) },
    case! { "HB-TLS-18" Must: "P-256",
    spec: "data-path 4.1, RFC 8446 9.1", sent: "a handshake with this group", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_group(lab, kx_group::SECP256R1, NamedGroup::secp256r1) },
    case! { "HB-TLS-19" Contract: "P-384",
    spec: "data-path 4.1", sent: "a handshake with this group", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_group(lab, kx_group::SECP384R1, NamedGroup::secp384r1) },
    case! { "HB-TLS-20" Contract: "X25519MLKEM768",
    spec: "data-path 4.1", sent: "a handshake with this group", wanted: "200, and the echo",
    needs: [Echo], run: |lab| with_group(lab, kx_group::X25519MLKEM768, NamedGroup::X25519MLKEM768) },
    case! { "HB-TLS-21" Contract: "P-521, X448 and ffdhe2048 alone are refused",
    spec: "data-path 4.1", sent: "each alone", wanted: "alert handshake_failure",
    needs: [], run: foreign_groups },
    case! { "HB-TLS-22" Must: "No key share asks for a retry",
    spec: "RFC 8446 4.1.1", sent: "an empty key_share, group X25519", wanted: "HelloRetryRequest for X25519",
    needs: [], run: |lab| hello(lab, &Hello { shares: Vec::new(), ..Hello::default() }, |got| *got == Reaction::Retry { group: group::X25519 }) },
    case! { "HB-TLS-23" Must: "A share of a group that is not offered",
    spec: "RFC 8446 4.2.8", sent: "a share of P-521, groups P-521 and P-256", wanted: "HelloRetryRequest for P-256, an alert or the end",
    needs: [], run: share_of_another },
    case! { "HB-TLS-24" Must: "A share that is no point",
    spec: "RFC 8446 4.2.8.2, RFC 7748 6.1", sent: "an X25519 share of zeros", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &Hello { shares: vec![(group::X25519, vec![0; 32])], ..Hello::default() }, Reaction::refusal) },
    case! { "HB-TLS-25" Must: "A share of the wrong length",
    spec: "RFC 8446 4.2.8.2", sent: "an X25519 share of 31 octets", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &Hello { shares: vec![(group::X25519, vec![9; 31])], ..Hello::default() }, Reaction::refusal) },
    case! { "HB-TLS-26" Must: "Compression",
    spec: "RFC 8446 4.1.2", sent: "compression methods 1 and 0", wanted: "an alert or the end",
    needs: [], run: |lab| hello(lab, &Hello { compression: vec![1, 0], ..Hello::default() }, Reaction::refusal) },
    case! { "HB-TLS-27" Must: "A ClientHello in records of one octet",
    spec: "RFC 8446 5.1", sent: "the hello, octet by octet, each in a record", wanted: "ServerHello",
    needs: [], run: octets },
    case! { "HB-TLS-28" Must: "A ClientHello in two TCP segments",
    spec: "RFC 8446 5.1", sent: "the record in two writes", wanted: "ServerHello",
    needs: [], run: two_writes },
    case! { "HB-TLS-29" Must: "A record that is too long",
    spec: "RFC 8446 5.1", sent: "a handshake record of 20000 octets", wanted: "an alert or the end",
    needs: [], run: |lab| raw(lab, &[&record(22, &vec![1; 20_000])]) },
    case! { "HB-TLS-30" Must: "Application data before the handshake",
    spec: "RFC 8446 5.1", sent: "an application data record", wanted: "an alert or the end",
    needs: [], run: |lab| raw(lab, &[&record(23, b"hello")]) },
    case! { "HB-TLS-31" Must: "HTTP without TLS",
    spec: "data-path 4.2", sent: "GET / HTTP/1.1", wanted: "an alert or the end",
    needs: [], run: |lab| raw(lab, &[b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"]) },
    case! { "HB-TLS-32" Must: "HTTP/2 without TLS",
    spec: "data-path 4.2", sent: "the preface in clear text", wanted: "an alert or the end",
    needs: [], run: |lab| raw(lab, &[crate::http2::frame::PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]]) },
    case! { "HB-TLS-33" Must: "A handshake message whose lengths lie",
    spec: "RFC 8446 6.2", sent: "a hello whose extensions are longer than it", wanted: "an alert or the end",
    needs: [], run: lying_lengths },
    case! { "HB-TLS-34" Must: "An unknown record type",
    spec: "RFC 8446 5.1", sent: "a record of type 99", wanted: "an alert or the end",
    needs: [], run: |lab| raw(lab, &[&record(99, b"hello")]) },
    case! { "HB-TLS-35" Contract: "A server name is of no importance",
    spec: "data-path 4.1", sent: "a handshake with SNI no.such.name.example", wanted: "200, and the echo",
    needs: [Echo], run: |lab| whole(lab, |offer| offer.name = Some("no.such.name.example")) },
    case! { "HB-TLS-36" Must: "Keys change in the middle of a tunnel",
    spec: "RFC 8446 4.6.3", sent: "KeyUpdate with a request, data before and behind it", wanted: "the tunnel goes on, keys of both directions new",
    needs: [Echo], run: key_update },
    case! { "HB-TLS-37" Must: "Keys change a hundred times",
    spec: "RFC 8446 4.6.3", sent: "100 KeyUpdates with data between them", wanted: "the tunnel goes on",
    needs: [Echo], run: key_updates },
    case! { "HB-TLS-38" Must: "close_notify is answered by an end",
    spec: "RFC 8446 6.1", sent: "close_notify on a connection without tunnels", wanted: "the connection ends",
    needs: [], run: close_notify },
    case! { "HB-TLS-39" Must: "A record whose tag is wrong",
    spec: "RFC 8446 5.2", sent: "a tunnel, then a record of random octets", wanted: "bad_record_mac or the end",
    needs: [Echo], run: wrong_tag },
    case! { "HB-TLS-40" Must: "Renegotiation",
    spec: "RFC 8446 4.1.2", sent: "a ClientHello within the connection", wanted: "unexpected_message or the end",
    needs: [Echo], run: hello_again },
];

fn old(version: u16) -> Hello {
    Hello { version, versions: Vec::new(), suites: vec![suite::ECDHE_12, suite::RSA_CBC], ..Hello::default() }
}

fn alert(got: &Reaction, wanted: u8) -> bool {
    *got == Reaction::Alert(wanted)
}

fn is_hello(got: &Reaction) -> bool {
    matches!(got, Reaction::ServerHello { .. })
}

fn hello(lab: &Lab, hello: &Hello, right: impl FnOnce(&Reaction) -> bool) -> Got {
    judge(&exchange(lab, &[&hello.record()])?, right)
}

fn raw(lab: &Lab, pieces: &[&[u8]]) -> Got {
    judge(&exchange(lab, pieces)?, Reaction::refusal)
}

fn judge(got: &Reaction, right: impl FnOnce(&Reaction) -> bool) -> Got {
    if right(got) { Ok(got.to_string()) } else { deviates(got.to_string()) }
}

fn chosen(lab: &Lab, suites: &[u16], wanted: u16) -> Got {
    let offered = Hello { suites: suites.to_vec(), ..Hello::default() };
    hello(lab, &offered, |got| matches!(got, Reaction::ServerHello { suite, .. } if *suite == wanted))
}

fn foreign_groups(lab: &Lab) -> Got {
    let mut words = Vec::new();
    for (group, length) in [(group::P521, 133), (group::X448, 56), (group::FFDHE2048, 256)] {
        let mut share = vec![4; length];
        share.fill(5);
        if let Some(first) = share.first_mut() {
            *first = 4;
        }
        let offered = Hello { groups: vec![group], shares: vec![(group, share)], ..Hello::default() };
        words.push(hello(lab, &offered, |got| alert(got, HANDSHAKE_FAILURE))?);
    }
    Ok(words.join(", "))
}

fn share_of_another(lab: &Lab) -> Got {
    let mut share = vec![5; 133];
    if let Some(first) = share.first_mut() {
        *first = 4;
    }
    let offered = Hello {
        groups: vec![group::P521, group::P256],
        shares: vec![(group::P521, share)],
        ..Hello::default()
    };
    hello(lab, &offered, |got| got.refusal() || *got == Reaction::Retry { group: group::P256 })
}

fn octets(lab: &Lab) -> Got {
    let records: Vec<u8> =
        Hello::default().message().iter().flat_map(|octet| record(22, &[*octet])).collect();
    judge(&exchange(lab, &[&records])?, is_hello)
}

fn two_writes(lab: &Lab) -> Got {
    let whole = Hello::default().record();
    let (first, second) = whole.split_at(100);
    judge(&exchange(lab, &[first, second])?, is_hello)
}

fn lying_lengths(lab: &Lab) -> Got {
    let mut message = Hello::default().message();
    // legacy_version, random and session id precede the list of suites.
    if let Some(high) = message.get_mut(4 + 2 + 32 + 33) {
        *high = 0x7f;
    }
    raw(lab, &[&record(22, &message)])
}

/// A whole handshake with something changed, then a tunnel.
fn tunnel(lab: &Lab, change: impl FnOnce(&mut Offer)) -> Result<(Peer, u32), Failure> {
    let mut offer = Offer::of(lab.identity.as_ref());
    change(&mut offer);
    let mut peer = lab.offer(&offer, Manners::default())?;
    peer.greet();
    let stream = peer.connect(lab.echo()?);
    if peer.answer(stream) != Answer::Status(200) {
        return deviates(peer.seen.state(stream));
    }
    peer.echo(stream, b"hello")?;
    Ok((peer, stream))
}

fn whole(lab: &Lab, change: impl FnOnce(&mut Offer)) -> Got {
    tunnel(lab, change).map(|_| "200, and the echo".to_owned())
}

fn with_suite(lab: &Lab, suite: SupportedCipherSuite, wanted: CipherSuite) -> Got {
    let (mut peer, _) = tunnel(lab, |offer| offer.suites = vec![suite])?;
    let got = peer.tls().negotiated_cipher_suite().map(|suite| suite.suite());
    if got == Some(wanted) { Ok(format!("{wanted:?}")) } else { deviates(format!("{got:?}")) }
}

fn with_group(lab: &Lab, group: &'static dyn rustls::crypto::SupportedKxGroup, wanted: NamedGroup) -> Got {
    let (mut peer, _) = tunnel(lab, |offer| offer.groups = vec![group])?;
    let got = peer.tls().negotiated_key_exchange_group().map(|group| group.name());
    if got == Some(wanted) { Ok(format!("{wanted:?}")) } else { deviates(format!("{got:?}")) }
}

fn ordinary(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let version = peer.tls().protocol_version();
    let alpn = peer.tls().alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let got = format!("{version:?}, ALPN {alpn:?}");
    let right =
        version == Some(rustls::ProtocolVersion::TLSv1_3) && alpn.as_deref().is_none_or(|name| name == "h2");
    if right { Ok(got) } else { deviates(got) }
}

fn alpn_chosen(lab: &Lab) -> Got {
    let mut offer = Offer::of(lab.identity.as_ref());
    offer.alpn = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut peer = lab.offer(&offer, Manners::default())?;
    match peer.tls().alpn_protocol() {
        Some(b"h2") => Ok("h2".to_owned()),
        other => deviates(format!("{:?}, {}", other.map(String::from_utf8_lossy), "not h2")),
    }
}

fn other_protocol(lab: &Lab) -> Got {
    let mut offer = Offer::of(lab.identity.as_ref());
    offer.alpn = vec![b"http/1.1".to_vec()];
    let mut peer = lab.offer(&offer, Manners::default())?;
    peer.wait(PATIENCE, |_| false);
    let condition = peer.seen.condition();
    match &peer.seen.end {
        Some(End::Alert(name)) if name == "no_application_protocol" => Ok(condition),
        _ => deviates(condition),
    }
}

fn update(peer: &mut Peer) -> Result<(), Failure> {
    match peer.tls().refresh_traffic_keys() {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::NotRun(format!("this TLS library cannot: {error}"))),
    }
}

fn key_update(lab: &Lab) -> Got {
    let (mut peer, stream) = tunnel(lab, |_| {})?;
    peer.echo(stream, b"before")?;
    update(&mut peer)?;
    peer.echo(stream, &vec![b'k'; 100_000])?;
    peer.must_live()?;
    Ok("the tunnel goes on".to_owned())
}

fn key_updates(lab: &Lab) -> Got {
    let (mut peer, stream) = tunnel(lab, |_| {})?;
    for round in 0..100 {
        update(&mut peer)?;
        peer.echo(stream, format!("round {round}").as_bytes())?;
    }
    Ok("100 rounds".to_owned())
}

fn close_notify(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    peer.must_live()?;
    peer.close_notify();
    peer.wait(PATIENCE, |_| false);
    let condition = peer.seen.condition();
    if peer.seen.end.is_some() { Ok(condition) } else { deviates(condition) }
}

/// Sends a record as it is, past the TLS library, within a tunnel.
fn foreign_record(lab: &Lab, bytes: &[u8], alerts: &[&str]) -> Got {
    let (mut peer, _) = tunnel(lab, |_| {})?;
    peer.send_raw(bytes);
    peer.wait(Duration::from_secs(5), |_| false);
    let condition = peer.seen.condition();
    match &peer.seen.end {
        None => deviates(condition),
        Some(End::Alert(name)) if !alerts.contains(&name.as_str()) => deviates(condition),
        Some(_) => Ok(condition),
    }
}

fn wrong_tag(lab: &Lab) -> Got {
    foreign_record(lab, &later_record(23, &[0x77; 64]), &["bad_record_mac", "decrypt_error"])
}

fn hello_again(lab: &Lab) -> Got {
    foreign_record(
        lab,
        &later_record(22, &Hello::default().message()),
        &["unexpected_message", "bad_record_mac", "decode_error"],
    )
}
