//! Accepting and serving.
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answer, HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_FIELDS, MAX_HEAD_BYTES};
use crate::clock;
use crate::drain::Drain;
use crate::tasks::TaskGroup;
use crate::throttle::Throttle;

/// A request as it arrives.
pub type Request = http::Request<Incoming>;

/// Where a request came from over TCP: in the extensions of each [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send,
{
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send {
        self(request)
    }
}

/// A server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind {component} to {address}: {source}")]
pub struct BindError {
    /// Which server.
    pub component: &'static str,
    /// Address or path.
    pub address: String,
    /// Why.
    pub source: io::Error,
}

impl BindError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        "listen-bind-failed"
    }
}

/// A server that listens already and serves when told.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    component: &'static str,
    address: String,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "dropping it removes the file")] SocketFile),
}

/// A socket's file, removed with its listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Server {
    /// Listens on a TCP address (port 0: any).
    pub async fn bind_tcp(address: SocketAddr, component: &'static str) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.map_err(|source| BindError { component, address: address.to_string(), source })?;
        let address = listener.local_addr().unwrap_or(address).to_string();
        Ok(Self::established(Listener::Tcp(listener), component, address))
    }

    /// Listens on a Unix socket that only this user may use; a file left by a dead process is replaced.
    pub fn bind_unix(path: &Path, component: &'static str) -> Result<Self, BindError> {
        let address = path.display().to_string();
        match bind_socket_file(path) {
            Ok(listener) => {
                let listener = Listener::Unix(listener, SocketFile(path.to_owned()));
                Ok(Self::established(listener, component, address))
            }
            Err(source) => Err(BindError { component, address, source }),
        }
    }

    fn established(listener: Listener, component: &'static str, address: String) -> Self {
        tracing::info!(target: "ztunnel::hyper_util", address = %address, component, "listener established");
        Self { listener, component, address }
    }

    /// Where it listens: `ip:port` or a path.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The TCP port, 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().map_or(0, |address| address.port()),
            Listener::Unix(..) => 0,
        }
    }

    /// Serves until draining begins; requests in flight finish as tasks of `tasks`, holding guards of `drain`.
    pub async fn serve(self, handler: impl Handler, tasks: TaskGroup, drain: Drain) {
        let handler = Arc::new(handler);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut draining = pin!(drain.draining());
        let mut failures = Throttle::new(Duration::from_secs(10));
        loop {
            let slot = tokio::select! {
                biased;
                () = &mut draining => break,
                slot = Arc::clone(&slots).acquire_owned() => slot.ok(),
            };
            // Cancel safe: accept loses nothing when dropped.
            let accepted = tokio::select! {
                biased;
                () = &mut draining => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(Stream::Tcp(stream)) => {
                    let _ = stream.set_nodelay(true);
                    let peer = stream.peer_addr().ok().map(Peer);
                    tasks.spawn(
                        "http connection",
                        serve(stream, peer, Arc::clone(&handler), drain.clone(), slot),
                    );
                }
                Ok(Stream::Unix(stream)) => {
                    tasks.spawn(
                        "http connection",
                        serve(stream, None, Arc::clone(&handler), drain.clone(), slot),
                    );
                }
                Err(error) => {
                    if let Some(unreported) = failures.report(clock::monotonic()) {
                        let component = self.component;
                        tracing::warn!(target: "ztunnel::hyper_util", component, %error, unreported, "failed to accept");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        tracing::info!(target: "ztunnel::hyper_util", address = %self.address, component = self.component, "listener drained");
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn serve<S>(
    stream: S,
    peer: Option<Peer>,
    handler: Arc<impl Handler>,
    drain: Drain,
    _slot: Option<OwnedSemaphorePermit>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _guard = drain.guard();
    let service = service_fn(move |mut request: Request| {
        let handler = Arc::clone(&handler);
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_FIELDS)
        .half_close(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = drain.cut() => return,
            () = drain.draining(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(target: "ztunnel::hyper_util", %error, "connection ended with an error");
                }
                return;
            }
        }
    }
}

fn bind_socket_file(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        listener => listener?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn is_dead(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests;
