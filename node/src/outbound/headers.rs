//! The CONNECT request of the outbound path (data-path 4.5).

use std::fmt::Write as _;
use std::net::SocketAddr;

use hbone::ConnectRequest;
use state::{Authority, Route, Workload};

use crate::baggage;

/// The request: names and order of headers are a contract.
pub(super) fn connect(
    authority: &Authority,
    source: &Workload,
    route: &Route,
    client: SocketAddr,
) -> ConnectRequest {
    let host = route.service.as_ref().map(|service| &*service.key.hostname);
    let headers = vec![
        ("baggage".to_owned(), baggage::of(source)),
        ("forwarded".to_owned(), forwarded(client, host)),
        ("traceparent".to_owned(), traceparent(rand::random(), rand::random())),
    ];
    ConnectRequest { authority: authority.to_string(), headers }
}

fn forwarded(client: SocketAddr, host: Option<&str>) -> String {
    let mut header = format!("for=\"{client}\"");
    if let Some(host) = host.filter(|host| host.bytes().all(|byte| byte.is_ascii_graphic())) {
        let _ = write!(header, ";host={host}");
    }
    header
}

/// Not sampled; an id of zeros would be invalid.
fn traceparent(trace: u128, span: u64) -> String {
    format!("00-{:032x}-{:016x}-00", trace.max(1), span.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A-OUT-22
    #[test]
    fn forwarded_names_the_client_and_the_service() {
        let v4 = "127.0.0.1:80".parse().unwrap();
        assert_eq!(forwarded(v4, None), "for=\"127.0.0.1:80\"");
        assert_eq!(forwarded("[::1]:80".parse().unwrap(), None), "for=\"[::1]:80\"");
        assert_eq!(forwarded(v4, Some("example.com")), "for=\"127.0.0.1:80\";host=example.com");
        assert_eq!(forwarded(v4, Some("a\r\nb")), "for=\"127.0.0.1:80\"");
    }

    #[test]
    fn traceparent_has_its_form() {
        assert_eq!(traceparent(0xab, 0), "00-000000000000000000000000000000ab-0000000000000001-00");
    }
}
