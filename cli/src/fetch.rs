//! Asking an admin server, over TCP or a Unix socket.
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::tasks::TaskGroup;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Largest answer read: a dump of a very large mesh is a few hundred MB.
const MAX_BYTES: usize = 4 << 30;

/// Where an admin server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// Path of a socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An admin server did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot connect to {endpoint}: {source}")]
    Connect { endpoint: Endpoint, source: std::io::Error },
    #[error("unexpected status code: {}", .0.as_u16())]
    Status(StatusCode),
    #[error("no proper answer from {endpoint}: {reason}")]
    Http { endpoint: Endpoint, reason: String },
    #[error("no answer from {endpoint} within {} s", limit.as_secs())]
    Timeout { endpoint: Endpoint, limit: Duration },
}

/// One request; the body of an answer with status 200.
pub(crate) async fn fetch(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    limit: Duration,
) -> Result<Vec<u8>, FetchError> {
    let asked = async {
        let connect = |source| FetchError::Connect { endpoint: endpoint.clone(), source };
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(connect)?;
                ask(endpoint, stream, method, path).await
            }
            Endpoint::Unix(path_of_socket) => {
                let stream = UnixStream::connect(path_of_socket).await.map_err(connect)?;
                ask(endpoint, stream, method, path).await
            }
        }
    };
    let timeout = |_| FetchError::Timeout { endpoint: endpoint.clone(), limit };
    tokio::time::timeout(limit, asked).await.map_err(timeout)?
}

async fn ask<S>(endpoint: &Endpoint, stream: S, method: Method, path: &str) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = |reason: String| FetchError::Http { endpoint: endpoint.clone(), reason };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| http(error.to_string()))?;
    let tasks = TaskGroup::new("fetch");
    tasks.spawn("connection", async {
        // The request itself tells what went wrong.
        let _ = connection.await;
    });
    let request = Request::builder().method(method).uri(path).header(http::header::HOST, "localhost");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| http(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| http(error.to_string()))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    Ok(body.map_err(|error| http(error.to_string()))?.to_bytes().into())
}
