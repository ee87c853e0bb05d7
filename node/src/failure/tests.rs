use std::time::Duration;

use hbone::{ConnectionEnd, ErrorCode};

use super::*;

fn refused() -> io::Error {
    io::Error::from_raw_os_error(111)
}

/// The text of the standard library's own time limit, as the log knows it.
fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed")
}

fn pod() -> Pod {
    Pod { namespace: "ns".into(), name: "n".into(), service_account: "sa".into() }
}

type Row = (ConnectionError, Fault, Told, Flag, &'static str, &'static str);

fn early() -> Vec<Row> {
    use ConnectionError as E;
    use Fault::{Destination, Source, Us};
    use Told::{Cut, Status};
    let addr: std::net::SocketAddr = "10.0.0.1:80".parse().unwrap();
    let mismatch = InboundRefusal::IpMismatch {
        connection: "10.0.0.1".parse().unwrap(),
        requested: "10.0.0.2".parse().unwrap(),
    };
    let authority = "x".parse::<state::Authority>().unwrap_err();
    vec![
        (
            E::UnknownLocalWorkload(pod()),
            Us,
            Status(503),
            Flag::Connect,
            "source-unknown-local-workload",
            "failed to fetch information about local workload: sa.ns (n)",
        ),
        (
            E::Unroutable(RouteRefusal::NoHealthyUpstream(addr)),
            Destination,
            Cut,
            Flag::Connect,
            "route-no-healthy-upstream",
            "no healthy upstream: 10.0.0.1:80",
        ),
        (
            E::Unroutable(RouteRefusal::SelfCall),
            Source,
            Cut,
            Flag::Connect,
            "route-self-call",
            "attempted recursive call to ourselves",
        ),
        (
            E::OtherNetwork(addr),
            Us,
            Cut,
            Flag::Connect,
            "route-other-network-unsupported",
            "unsupported feature: the route to 10.0.0.1:80 leads through another network's gateway",
        ),
        (
            E::Accept(AcceptError::Timeout(Duration::from_secs(10))),
            Source,
            Cut,
            Flag::Connect,
            "tls-handshake-timeout",
            "tls handshake error: not finished within 10s",
        ),
        (
            E::Method("GET".into()),
            Source,
            Status(400),
            Flag::Connect,
            "inbound-not-connect",
            "expected method CONNECT, got GET",
        ),
        (
            E::Authority(authority),
            Source,
            Status(400),
            Flag::Connect,
            "inbound-invalid-authority",
            "no valid authority pseudo header: x",
        ),
        (
            E::NotAdmitted(mismatch),
            Source,
            Status(400),
            Flag::Connect,
            "inbound-ip-mismatch",
            "ip mismatch: 10.0.0.1 != 10.0.0.2",
        ),
        (
            E::NotAdmitted(InboundRefusal::SelfCall),
            Source,
            Status(503),
            Flag::Connect,
            "inbound-self-call",
            "attempted recursive call to ourselves",
        ),
    ]
}

fn counted() -> Vec<Row> {
    use ConnectionError as E;
    use Fault::{Destination, Peer, Source, Us};
    use Told::{Cut, Status};
    let denial = Denial::Explicit { policy: "ns/p".into() };
    let vanished = || TunnelError::ConnectionEnded(ConnectionEnd::Vanished);
    vec![
        (
            E::ProxyHeader(IdentityTooLong { length: 65_530 }),
            Source,
            Status(503),
            Flag::Connect,
            "inbound-proxy-identity-too-long",
            "the peer's identity has 65530 octets, too many for a PROXY protocol header",
        ),
        (
            E::NoCertificate(CertificateError::Forgotten),
            Us,
            Cut,
            Flag::IdentityError,
            "identity-forgotten",
            "identity error: the identity is no longer needed",
        ),
        (
            E::Denied(denial),
            Source,
            Status(401),
            Flag::Deny,
            "policy-explicit-deny",
            "connection closed due to policy rejection: explicitly denied by: ns/p",
        ),
        (
            E::Denied(Denial::NoAllowMatch),
            Source,
            Status(401),
            Flag::Deny,
            "policy-no-allow-match",
            "connection closed due to policy rejection: allow policies exist, but none allowed",
        ),
        (
            E::PolicyChanged,
            Source,
            Cut,
            Flag::Deny,
            "policy-changed",
            "connection closed due to policy change",
        ),
        (E::Drained, Us, Cut, Flag::None, "connection-drained", "connection closed due to connection drain"),
        (
            E::Dial(refused()),
            Peer,
            Cut,
            Flag::Connect,
            "dial-failed",
            "io error: Connection refused (os error 111)",
        ),
        (E::Dial(late()), Peer, Cut, Flag::Connect, "dial-timeout", "io error: deadline has elapsed"),
        (
            E::HboneDialTimeout(late()),
            Peer,
            Cut,
            Flag::NetworkPolicy,
            "hbone-dial-timeout",
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has \
             elapsed",
        ),
        (
            E::Connect(ConnectError::Io(refused())),
            Peer,
            Cut,
            Flag::TlsFailure,
            "tls-peer-closed",
            "io error: Connection refused (os error 111)",
        ),
        (
            E::Connect(ConnectError::Http2(ConnectionEnd::Vanished)),
            Peer,
            Cut,
            Flag::H2HandshakeFailure,
            "hbone-http2-handshake",
            "http2 handshake failed: peer closed connection without sending TLS close_notify",
        ),
        (
            E::Open(OpenError::Status(503)),
            Peer,
            Cut,
            Flag::Connect,
            "hbone-connect-status",
            "http status: 503 Service Unavailable",
        ),
        (
            E::Open(OpenError::Reset(ErrorCode::REFUSED_STREAM)),
            Peer,
            Cut,
            Flag::H2HandshakeFailure,
            "hbone-stream-refused",
            "h2 failed: stream error received: REFUSED_STREAM",
        ),
        (E::PoolDraining, Us, Cut, Flag::Connect, "hbone-pool-draining", "pool draining"),
        (
            E::Shared(Rc::new(E::HboneDialTimeout(late()))),
            Peer,
            Cut,
            Flag::NetworkPolicy,
            "hbone-dial-timeout",
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has \
             elapsed",
        ),
        (
            E::Application(refused()),
            Destination,
            Status(503),
            Flag::Connect,
            "app-unreachable",
            "connection failed: Connection refused (os error 111)",
        ),
        (
            E::Application(late()),
            Destination,
            Status(503),
            Flag::Connect,
            "app-timeout",
            "connection failed: deadline has elapsed",
        ),
        (
            E::Sending(vanished().into()),
            Peer,
            Cut,
            Flag::Connect,
            "hbone-peer-vanished",
            "send: io error: peer closed connection without sending TLS close_notify",
        ),
        (
            E::Receiving(Broken::Socket(refused())),
            Peer,
            Cut,
            Flag::Connect,
            "relay-connection-failed",
            "receive: io error: Connection refused (os error 111)",
        ),
    ]
}

#[test]
fn every_failure_has_its_answers() {
    for (error, fault, told, flag, code, text) in early().into_iter().chain(counted()) {
        assert_eq!(error.to_string(), text);
        assert_eq!((error.fault(), error.told(), error.flag()), (fault, told, flag), "{text}");
        assert_eq!(error.code(), code, "{text}");
    }
}
