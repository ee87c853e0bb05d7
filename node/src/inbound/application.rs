//! Step 5: where the application is reached, and what it is told before the first byte (data-path 5.4, 5.5).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use identity::SpiffeId;
use state::{Admission, Application};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::proxy_header::{self, IdentityTooLong};
use crate::failure::{Broken, ConnectionError};
use crate::settings::DIAL_LIMIT;

/// The client's end of an HBONE connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    pub(super) address: SocketAddr,
    pub(super) identity: Option<&'a SpiffeId>,
    /// The application may be spoken to from the client's address.
    pub(super) transparent: bool,
}

/// How an application is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// What is dialled.
    pub(super) target: SocketAddr,
    /// From where; none: as the kernel chooses.
    pub(super) source: Option<IpAddr>,
    /// Comes before the client's bytes; empty for most.
    header: Vec<u8>,
}

impl Way {
    /// The way to an application for this client; `on_loopback`: that of application tunnels.
    pub(super) fn to(
        admission: &Admission,
        client: Client<'_>,
        on_loopback: bool,
    ) -> Result<Self, IdentityTooLong> {
        let Client { address, identity, transparent } = client;
        let target = admission.target;
        let from_client = transparent.then_some(address.ip());
        let Application::Proxy { destination } = admission.application else {
            return Ok(Self { target, source: from_client, header: Vec::new() });
        };
        let header = proxy_header::encode(address, destination, identity.map(SpiffeId::as_str))?;
        if !on_loopback {
            return Ok(Self { target, source: from_client, header });
        }
        let loopback = if target.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        Ok(Self { target: SocketAddr::new(loopback, target.port()), source: Some(loopback), header })
    }

    /// Tells the application what precedes the client's bytes. It fits into an empty send buffer but for the longest
    /// of identities. Cut meanwhile, by dropping this, the application reads a reset.
    pub(super) async fn introduce(&self, application: TcpStream) -> Result<TcpStream, ConnectionError> {
        if self.header.is_empty() {
            return Ok(application);
        }
        let mut told = Uninformed(Some(application));
        told.hear(&self.header).await.map_err(|error| ConnectionError::Sending(Broken::Socket(error)))
    }
}

/// An application that has not read its header yet: dropped, its socket is reset.
struct Uninformed(Option<TcpStream>);

impl Uninformed {
    async fn hear(&mut self, header: &[u8]) -> io::Result<TcpStream> {
        if let Some(application) = &mut self.0 {
            tokio::time::timeout(DIAL_LIMIT, application.write_all(header)).await??;
        }
        self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Uninformed {
    fn drop(&mut self) {
        if let Some(application) = &self.0 {
            // It fails where the socket is closed already.
            let _ = net::socket::rst_on_close(application);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(target: &str, application: Application, transparent: bool, on_loopback: bool) -> Way {
        let admission = Admission { target: target.parse().unwrap(), application, service: None };
        let client = Client { address: "10.1.0.1:40000".parse().unwrap(), identity: None, transparent };
        Way::to(&admission, client, on_loopback).unwrap()
    }

    // Data-path 1.6 and 5.5: target, source and header of each kind.
    #[test]
    fn an_application_is_reached_as_its_tunnel_says() {
        let proxy = Application::Proxy { destination: "10.96.0.5:80".parse().unwrap() };
        let client = Some("10.1.0.1");
        for (target, application, transparent, on_loopback, to, from) in [
            ("10.1.0.2:8080", Application::Plain, true, true, "10.1.0.2:8080", client),
            ("10.1.0.2:8080", Application::Plain, false, true, "10.1.0.2:8080", None),
            ("10.1.0.2:15088", proxy, true, true, "127.0.0.1:15088", Some("127.0.0.1")),
            ("10.1.0.2:15088", proxy, false, true, "127.0.0.1:15088", Some("127.0.0.1")),
            ("[fd00::2]:15088", proxy, true, true, "[::1]:15088", Some("::1")),
            ("10.1.0.2:15088", proxy, true, false, "10.1.0.2:15088", client),
            ("10.1.0.2:15088", proxy, false, false, "10.1.0.2:15088", None),
        ] {
            let way = way(target, application, transparent, on_loopback);
            assert_eq!(way.target.to_string(), to, "{target} {application:?}");
            assert_eq!(way.source.map(|ip| ip.to_string()).as_deref(), from, "{target} {application:?}");
            let header = if application == Application::Plain { 0 } else { 28 };
            assert_eq!(way.header.len(), header, "{target} {application:?}");
        }
    }

    // Data-path 5.1 step 13: an application that is gone already is a failure of the connection.
    #[tokio::test]
    async fn an_application_that_went_away_cannot_be_introduced_to() {
        let proxy = Application::Proxy { destination: "10.96.0.5:80".parse().unwrap() };
        let way = way("10.1.0.2:15088", proxy, true, true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        net::socket::rst_on_close(&far).unwrap();
        drop(far);
        near.readable().await.unwrap();
        let error = way.introduce(near).await.unwrap_err();
        assert_eq!(error.code(), "relay-connection-failed");
        assert_eq!(error.told(), crate::failure::Told::Cut);
    }
    // Data-path 5.1 step 13: what a policy or a drain cuts must not look complete.
    #[tokio::test]
    async fn an_application_whose_introduction_is_cut_reads_a_reset() {
        let proxy = Application::Proxy { destination: "10.96.0.5:80".parse().unwrap() };
        let way = way("10.1.0.2:15088", proxy, true, true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        // It reads nothing, and no more fits.
        near.writable().await.unwrap();
        while near.try_write(&[0; 1 << 16]).is_ok() {}
        let mut introduction = Box::pin(way.introduce(near));
        assert!(futures::poll!(&mut introduction).is_pending());
        drop(introduction);
        let mut read = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut far, &mut read).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
    }
}
