//! What may stand in `:authority`, and what it leads to.

use std::net::IpAddr;

use super::Group;
use super::exchange::{accepted, malformed, refused, status, to};
use crate::case::{Case, Failure, Got, Need};
use crate::lab::Lab;

pub(super) const GROUP: Group = Group {
    name: "Authorities",
    about: "Where a tunnel leads is said by `:authority` alone: an address and a port, or a host name and a port.",
    cases: CASES,
};

const CASES: &[Case] = &[
    case! { "HB-AUTH-01" Must: "IPv6 in brackets",
    spec: "data-path 4.5, RFC 3986 3.2.2", sent: ":authority [address]:port", wanted: "200, and the echo",
    needs: [V6], run: |lab| accepted(lab, &to(lab.authority(Need::V6)?)) },
    case! { "HB-AUTH-02" Contract: "The name of a service",
    spec: "data-path 5.3", sent: ":authority name:port", wanted: "200, and the echo",
    needs: [Hostname], run: |lab| accepted(lab, &to(lab.authority(Need::Hostname)?)) },
    case! { "HB-AUTH-03" Must: "No :authority",
    spec: "RFC 9113 8.5", sent: "CONNECT with :method alone", wanted: "refused",
    needs: [], run: |lab| refused(lab, &[(":method", "CONNECT")]) },
    case! { "HB-AUTH-04" Contract: "No :authority is a bad request",
    spec: "data-path 4.7", sent: "CONNECT with :method alone", wanted: "400",
    needs: [], run: |lab| status(lab, &[(":method", "CONNECT")], 400) },
    case! { "HB-AUTH-05" Must: "A host field is no authority",
    spec: "RFC 9113 8.5", sent: "CONNECT with host instead of :authority", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &[(":method", "CONNECT"), ("host", lab.echo()?)]) },
    case! { "HB-AUTH-06" Must: ":authority twice",
    spec: "RFC 9113 8.3", sent: "the same :authority twice", wanted: "malformed: PROTOCOL_ERROR or 400",
    needs: [Echo], run: |lab| {
        let echo = lab.echo()?;
        malformed(lab, &[(":method", "CONNECT"), (":authority", echo), (":authority", echo)])
    } },
    case! { "HB-AUTH-07" Must: "An empty :authority",
    spec: "RFC 9113 8.5", sent: ":authority without a value", wanted: "refused",
    needs: [], run: |lab| refused(lab, &to("")) },
    case! { "HB-AUTH-08" Must: "An address without port",
    spec: "RFC 9113 8.5", sent: ":authority of the echo without its port", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&host(lab)?)) },
    case! { "HB-AUTH-09" Must: "A port that is no number",
    spec: "RFC 3986 3.2.3", sent: "port http", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("{}:http", host(lab)?))) },
    case! { "HB-AUTH-10" Must: "A port above 65535",
    spec: "RFC 9293 3.1", sent: "port 65536", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("{}:65536", host(lab)?))) },
    case! { "HB-AUTH-11" Must: "Port 0",
    spec: "RFC 6335 6", sent: "port 0", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("{}:0", host(lab)?))) },
    case! { "HB-AUTH-12" Must: "An empty port",
    spec: "RFC 9110 9.3.6", sent: "address and a colon", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("{}:", host(lab)?))) },
    case! { "HB-AUTH-13" Must: "User information",
    spec: "RFC 9113 8.3.1", sent: "user@ before the authority", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("user@{}", lab.echo()?))) },
    case! { "HB-AUTH-14" Must: "A path behind the authority",
    spec: "RFC 9113 8.5", sent: "authority and /path", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("{}/path", lab.echo()?))) },
    case! { "HB-AUTH-15" Must: "A URL instead of an authority",
    spec: "RFC 9113 8.5", sent: "http:// before the authority", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&format!("http://{}", lab.echo()?))) },
    case! { "HB-AUTH-16" Must: "A space within",
    spec: "RFC 3986 3.2", sent: "a space before the port", wanted: "refused",
    needs: [Echo], run: |lab| refused(lab, &to(&lab.echo()?.replace(':', " :"))) },
    case! { "HB-AUTH-17" Must: "IPv6 without brackets",
    spec: "RFC 3986 3.2.2", sent: ":authority fd00::1:80", wanted: "refused",
    needs: [], run: |lab| refused(lab, &to("fd00::1:80")) },
    case! { "HB-AUTH-18" Must: "Brackets around nonsense",
    spec: "RFC 3986 3.2.2", sent: ":authority [zz]:80", wanted: "refused",
    needs: [], run: |lab| refused(lab, &to("[zz]:80")) },
    case! { "HB-AUTH-19" Must: "Octets that are no text",
    spec: "RFC 3986 2", sent: "octets ff fe as a host", wanted: "refused",
    needs: [], run: not_text },
    case! { "HB-AUTH-20" Must: "A name of 8 KiB",
    spec: "RFC 1035 2.3.4", sent: "a host of 8192 letters", wanted: "refused",
    needs: [], run: |lab| refused(lab, &to(&format!("{}:80", "a".repeat(8192)))) },
    case! { "HB-AUTH-21" Contract: "A name that nobody knows",
    spec: "data-path 4.7", sent: "no-such-service.culvert-conformance.svc.cluster.local:80", wanted: "503",
    needs: [], run: |lab| status(lab, &to("no-such-service.culvert-conformance.svc.cluster.local:80"), 503) },
    case! { "HB-AUTH-22" Contract: "A service by its short name",
    spec: "data-path 4.7", sent: "the first label of --hostname", wanted: "503",
    needs: [Hostname], run: short_name },
    case! { "HB-AUTH-23" Contract: "An address of somebody else",
    spec: "data-path 5.2", sent: "the --foreign authority", wanted: "400",
    needs: [Foreign], run: |lab| status(lab, &to(lab.authority(Need::Foreign)?), 400) },
    case! { "HB-AUTH-24" Contract: "Loopback is not the workload's address",
    spec: "data-path 4.7", sent: "127.0.0.1 with the echo's port", wanted: "400",
    needs: [Echo, Foreign], run: |lab| status(lab, &to(&format!("127.0.0.1:{}", port(lab)?)), 400) },
    case! { "HB-AUTH-25" Contract: "The wildcard is not the workload's address",
    spec: "data-path 4.7", sent: "0.0.0.0 with the echo's port", wanted: "400",
    needs: [Echo, Foreign], run: |lab| status(lab, &to(&format!("0.0.0.0:{}", port(lab)?)), 400) },
    case! { "HB-AUTH-26" Contract: "IPv4 dressed as IPv6",
    spec: "data-path 4.7", sent: "[::ffff:address]:port of the echo", wanted: "400",
    needs: [Echo, Foreign], run: |lab| status(lab, &to(&format!("[::ffff:{}]:{}", host(lab)?, port(lab)?)), 400) },
    case! { "HB-AUTH-27" Contract: "No HBONE in HBONE",
    spec: "data-path 1.7", sent: "the target's own address and port 15008", wanted: "503",
    needs: [Foreign], run: |lab| own_port(lab, 15008) },
    case! { "HB-AUTH-28" Contract: "No way into the outbound capture",
    spec: "data-path 1.7", sent: "the target's own address and port 15001", wanted: "503",
    needs: [Foreign], run: |lab| own_port(lab, 15001) },
    case! { "HB-AUTH-29" Contract: "No way into the plaintext capture",
    spec: "data-path 1.7", sent: "the target's own address and port 15006", wanted: "503",
    needs: [Foreign], run: |lab| own_port(lab, 15006) },
];

/// The echo's host, as it stands in the authority.
fn host(lab: &Lab) -> Result<String, Failure> {
    let echo = lab.echo()?;
    Ok(echo.rsplit_once(':').map_or(echo, |(host, _)| host).to_owned())
}

fn port(lab: &Lab) -> Result<String, Failure> {
    let echo = lab.echo()?;
    Ok(echo.rsplit_once(':').map_or("80", |(_, port)| port).to_owned())
}

fn own_port(lab: &Lab, port: u16) -> Got {
    let authority = match lab.target.ip() {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    status(lab, &to(&authority), 503)
}

fn short_name(lab: &Lab) -> Got {
    let name = lab.authority(Need::Hostname)?;
    let (host, port) = name.rsplit_once(':').unwrap_or((name, "80"));
    let first = host.split('.').next().unwrap_or(host);
    status(lab, &to(&format!("{first}:{port}")), 503)
}

fn not_text(lab: &Lab) -> Got {
    let mut peer = lab.open()?;
    let fields: [(&[u8], &[u8]); 2] = [(b":method", b"CONNECT"), (b":authority", b"\xff\xfe:80")];
    let stream = peer.request(crate::http2::hpack::block(fields));
    let answer = peer.answer(stream);
    let state = peer.seen.state(stream);
    if answer.refused() { Ok(state) } else { crate::case::deviates(state) }
}
