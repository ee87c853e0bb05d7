//! Options as they end up on sockets. What needs capabilities is in `tests/sockets.rs`.
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;

use super::*;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A-PO-12
#[tokio::test]
async fn accepted_and_dialled_sockets_have_keepalive_and_user_timeout() {
    let keepalive = Keepalive { time: Duration::from_secs(33), interval: Duration::from_secs(7), retries: 4 };
    assert_eq!(keepalive.user_timeout(), Duration::from_secs(33 + 4 * 7));
    for user_timeout in [false, true] {
        let options = ListenOptions { keepalive: Some(keepalive), user_timeout, ..ListenOptions::default() };
        let listener = listen(local(0), &options).unwrap().into_tokio().unwrap();
        let options = DialOptions { keepalive: Some(keepalive), user_timeout, ..DialOptions::default() };
        let target = listener.local_addr().unwrap();
        let (dialed, accepted) = tokio::join!(dial(target, None, &options), listener.accept());
        for stream in [dialed.unwrap().stream, accepted.unwrap().0] {
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.time);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            let timeout = socket.tcp_user_timeout().unwrap().filter(|timeout| !timeout.is_zero());
            assert_eq!(timeout, user_timeout.then(|| keepalive.user_timeout()));
        }
    }
}

#[tokio::test]
async fn keepalive_can_be_left_out_and_defaults_are_the_references() {
    let defaults = Keepalive::default();
    let seconds = (defaults.time.as_secs(), defaults.interval.as_secs(), defaults.retries);
    assert_eq!(seconds, (180, 180, 9));
    let options = ListenOptions { keepalive: None, ..ListenOptions::default() };
    let listener = listen(local(0), &options).unwrap();
    assert!(!SockRef::from(&listener.socket).keepalive().unwrap());
}

#[tokio::test]
async fn ports_are_shared_only_when_asked() {
    let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let first = listen(local(0), &shared).unwrap();
    let address = first.socket.local_addr().unwrap();
    listen(address, &shared).unwrap();
    let alone = listen(address, &ListenOptions::default()).unwrap_err();
    assert_eq!(alone.code(), "socket-address-in-use");
    assert!(alone.to_string().contains(&address.to_string()), "{alone}");

    let udp = UdpOptions { reuse_port: true, mark: None };
    let first = bind_udp(local(0), &udp).unwrap();
    let address = first.local_addr().unwrap();
    bind_udp(address, &udp).unwrap();
    assert_eq!(bind_udp(address, &UdpOptions::default()).unwrap_err().code(), "socket-address-in-use");
}

#[tokio::test]
async fn the_ipv6_wildcard_takes_ipv4_and_addresses_come_out_as_ipv4() {
    let wildcard: SocketAddr = "[::]:0".parse().unwrap();
    let listener = listen(wildcard, &ListenOptions::default()).unwrap().into_tokio().unwrap();
    let target = local(listener.local_addr().unwrap().port());
    let options = DialOptions::default();
    let (dialed, accepted) = tokio::join!(dial(target, None, &options), listener.accept());
    let (dialed, (accepted, peer)) = (dialed.unwrap(), accepted.unwrap());
    assert!(peer.is_ipv6());
    assert_eq!(canonical(peer), dialed.stream.local_addr().unwrap());
    assert_eq!(original_destination(&accepted).unwrap().address, target);
}

#[tokio::test]
async fn a_refused_connection_is_an_error() {
    let listener = listen(local(0), &ListenOptions::default()).unwrap();
    let target = listener.socket.local_addr().unwrap();
    drop(listener);
    let error = dial(target, None, &DialOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_connection_on_the_same_machine_is_there_at_once() {
    use futures::FutureExt as _;
    let listener = listen(local(0), &ListenOptions::default()).unwrap();
    let target = listener.socket.local_addr().unwrap();
    let options = DialOptions::default();
    let dialed = dial(target, None, &options).now_or_never().expect("without the event loop").unwrap();
    assert_eq!(dialed.stream.peer_addr().unwrap(), target);
    // It is registered like any other.
    let (accepted, _) = listener.socket.accept().unwrap();
    drop(accepted);
    dialed.stream.readable().await.unwrap();
    drop(listener);
    let refused = dial(target, None, &options).now_or_never().expect("without the event loop");
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn open_files_can_be_raised() {
    let now = crate::limits::raise_open_files().unwrap();
    assert_eq!(crate::limits::raise_open_files().unwrap(), now);
}
