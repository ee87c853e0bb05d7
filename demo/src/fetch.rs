//! One HTTP GET, as a person would make it with curl: the name is resolved, the body is bounded, the failure is told.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// Longest time for one request, all phases together.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest body read, in bytes.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Gets `url` (`http://` only).
pub(crate) async fn get(url: &str) -> anyhow::Result<Fetched> {
    tokio::time::timeout(LIMIT, exchange(url)).await.with_context(|| format!("no answer within {LIMIT:?}"))?
}

/// As [`get`], from inside `namespace`; the URL names an address, not a name.
pub(crate) async fn get_in(namespace: &net::NetNamespace, url: &str) -> anyhow::Result<Fetched> {
    let exchange = exchange_over(url, async |host: &str, port| {
        let address: std::net::IpAddr = host.parse().with_context(|| format!("{host} is not an address"))?;
        // A socket belongs to the namespace it was made in, wherever it is used.
        let socket = namespace.run(|| match address {
            std::net::IpAddr::V4(_) => TcpSocket::new_v4(),
            std::net::IpAddr::V6(_) => TcpSocket::new_v6(),
        })??;
        Ok(socket.connect((address, port).into()).await?)
    });
    tokio::time::timeout(LIMIT, exchange).await.with_context(|| format!("no answer within {LIMIT:?}"))?
}

async fn exchange(url: &str) -> anyhow::Result<Fetched> {
    exchange_over(url, async |host: &str, port| Ok(TcpStream::connect((host, port)).await?)).await
}

async fn exchange_over(
    url: &str,
    connect: impl AsyncFnOnce(&str, u16) -> anyhow::Result<TcpStream>,
) -> anyhow::Result<Fetched> {
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        bail!("`{url}`: only http:// URLs are fetched");
    }
    let authority = uri.authority().with_context(|| format!("`{url}` names no host"))?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let socket = connect(host, port).await.with_context(|| format!("connecting to {host}:{port}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.context("HTTP/1.1")?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .context("request")?;
    let exchange = async {
        let response = sender.send_request(request).await.context("waiting for the answer")?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?;
        anyhow::Ok(Fetched { status, body: body.to_bytes().to_vec() })
    };
    let driver = async {
        // The exchange itself reports what goes wrong on the connection.
        let _ = connection.await;
    };
    let (result, ()) = tokio::join!(exchange, driver);
    result
}

/// Can a TCP connection be made to the URL's address and port, from inside `namespace`?
pub(crate) async fn connects_in(namespace: &net::NetNamespace, url: &str) -> anyhow::Result<()> {
    let uri: Uri = url.parse()?;
    let host: std::net::IpAddr = uri.host().context("no host")?.parse()?;
    let socket = namespace.run(TcpSocket::new_v4)??;
    tokio::time::timeout(LIMIT, socket.connect((host, uri.port_u16().unwrap_or(80)).into())).await??;
    Ok(())
}
