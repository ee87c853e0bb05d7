//! The baseline: CONNECT tunnels as one writes them over the `h2` crate, tokio's multi-threaded runtime and
//! tokio-rustls. No policy, no log, no metrics. It shows what the own engine is worth, and is no part of the product.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates::NAME;
use crate::peers::N_THREADS;

const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 64 * 1024;
const READ: usize = 64 * 1024;
/// Tunnels that connections are spread over.
const N_TUNNELS: usize = 2;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Near,
    Far,
}

/// Arguments of one end.
#[derive(Debug, Clone, Args)]
pub(crate) struct TunnelArgs {
    role: Role,
    listen: SocketAddr,
    to: SocketAddr,
    root: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

/// Runs one end until killed.
pub(crate) fn run(args: &TunnelArgs) -> anyhow::Result<()> {
    runtime::limits::raise_descriptor_limit()?;
    crate::sockets::widen_port_range();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(N_THREADS).enable_all().build()?;
    runtime.block_on(async {
        match args.role {
            Role::Near => near(args).await,
            Role::Far => far(args).await,
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "the baseline has no life cycle: it is killed")]
fn go(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    // A connection that breaks is counted by the load tool; here is why.
    drop(tokio::spawn(async {
        if let Err(error) = task.await {
            crate::say(&format!("{error:#}"));
        }
    }));
}

fn files(
    args: &TunnelArgs,
) -> anyhow::Result<(RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = |file: &Path| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?)
    };
    let mut roots = RootCertStore::empty();
    for root in chain(&args.root)? {
        roots.add(root)?;
    }
    Ok((roots, chain(&args.chain)?, PrivateKeyDer::from_pem_file(&args.key)?))
}

/// TLS 1.3 with AES-256-GCM only, as everyone here.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    Arc::new(provider)
}

async fn near(args: &TunnelArgs) -> anyhow::Result<()> {
    let (roots, chain, key) = files(args)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut tunnels = Vec::new();
    for _ in 0..N_TUNNELS {
        let socket = connect(args.to).await?;
        socket.set_nodelay(true)?;
        let stream = connector.connect(ServerName::try_from(NAME)?, socket).await?;
        let (tunnel, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .handshake::<_, Bytes>(stream)
            .await?;
        go(async move { Ok(driver.await?) });
        tunnels.push(tunnel);
    }
    let next = AtomicUsize::new(0);
    let listener = listen(args.listen).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let place = next.fetch_add(1, Ordering::Relaxed) % N_TUNNELS;
        let tunnel = tunnels.get(place).cloned().context("a tunnel")?;
        go(async move {
            let mut tunnel = tunnel.ready().await?;
            let request = Request::builder().method(Method::CONNECT).uri("server:7000").body(())?;
            let (response, send) = tunnel.send_request(request, false)?;
            let response = response.await?;
            anyhow::ensure!(response.status() == StatusCode::OK, "refused");
            relay(socket, send, response.into_body()).await
        });
    }
}

/// 1,000 connections come at once: with a short backlog the kernel answers by cookies and resets some.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, 16_384)?;
    Ok(listener)
}

/// The far end may still be starting.
async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    for _ in 0..100 {
        if let Ok(socket) = TcpStream::connect(to).await {
            return Ok(socket);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    TcpStream::connect(to).await.context("the far end does not listen")
}

async fn far(args: &TunnelArgs) -> anyhow::Result<()> {
    let (roots, chain, key) = files(args)?;
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listen(args.listen).await?;
    let to = args.to;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        go(async move {
            let stream = acceptor.accept(socket).await?;
            let mut tunnel = h2::server::Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME)
                .max_concurrent_streams(100_000)
                .max_pending_accept_reset_streams(100_000)
                .max_local_error_reset_streams(None)
                .handshake::<_, Bytes>(stream)
                .await?;
            while let Some(request) = tunnel.accept().await {
                let (request, mut respond) = request?;
                go(async move {
                    let socket = TcpStream::connect(to).await?;
                    socket.set_nodelay(true)?;
                    let send = respond.send_response(Response::new(()), false)?;
                    relay(socket, send, request.into_body()).await
                });
            }
            Ok(())
        });
    }
}

async fn relay(socket: TcpStream, send: SendStream<Bytes>, receive: RecvStream) -> anyhow::Result<()> {
    let (from, to) = socket.into_split();
    tokio::try_join!(into_tunnel(from, send), out_of_tunnel(receive, to))?;
    Ok(())
}

async fn into_tunnel(mut from: OwnedReadHalf, mut send: SendStream<Bytes>) -> anyhow::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        // Window is asked for only when there is something to send: idle streams must not hold it.
        from.readable().await?;
        buffer.reserve(READ);
        if from.read_buf(&mut buffer).await? == 0 {
            send.send_data(Bytes::new(), true)?;
            return Ok(());
        }
        let mut data = buffer.split().freeze();
        while !data.is_empty() {
            send.reserve_capacity(data.len());
            let capacity = std::future::poll_fn(|context| send.poll_capacity(context))
                .await
                .context("the stream has ended")??;
            send.send_data(data.split_to(capacity.min(data.len())), false)?;
        }
    }
}

async fn out_of_tunnel(mut receive: RecvStream, mut to: OwnedWriteHalf) -> anyhow::Result<()> {
    while let Some(data) = receive.data().await {
        let data = data?;
        to.write_all(&data).await?;
        receive.flow_control().release_capacity(data.len())?;
    }
    to.shutdown().await?;
    Ok(())
}
