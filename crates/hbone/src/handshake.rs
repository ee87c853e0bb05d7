//! TLS until both sides are done, within a time limit (W16).

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::record::Records;
use crate::socket::Socket;

/// What a peer may send before its handshake is complete.
const LIMIT: usize = 128 << 10;

/// How long a peer that was told an alert may take to close.
const LINGER: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) enum HandshakeError {
    Tls(rustls::Error),
    Io(io::Error),
    Timeout(Duration),
}

/// Runs the handshake; returns content that arrived right behind it.
pub(crate) async fn handshake(
    socket: &Socket,
    records: &mut Records,
    limit: Duration,
) -> Result<Vec<u8>, HandshakeError> {
    match tokio::time::timeout(limit, run(socket, records)).await {
        Err(_) => Err(HandshakeError::Timeout(limit)),
        Ok(Ok(plain)) => Ok(plain),
        Ok(Err(error)) => {
            if matches!(error, HandshakeError::Tls(_)) {
                linger(socket).await;
            }
            Err(error)
        }
    }
}

async fn run(socket: &Socket, records: &mut Records) -> Result<Vec<u8>, HandshakeError> {
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut chunk = vec![0; 8192];
    loop {
        let closed = records.open(&mut wire, &mut plain, &mut out);
        write_all(socket, &out).await.map_err(HandshakeError::Io)?;
        out.clear();
        if closed.map_err(HandshakeError::Tls)? {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if !records.is_handshaking() {
            return Ok(plain);
        }
        wire.clone_from(&records.carry);
        if wire.len() > LIMIT {
            return Err(HandshakeError::Tls(rustls::Error::General("handshake too large".into())));
        }
        match read(socket, &mut chunk).await.map_err(HandshakeError::Io)? {
            0 => {
                return Err(HandshakeError::Io(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "tls handshake eof",
                )));
            }
            n => wire.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
}

/// An alert is lost if the kernel answers unread bytes with a reset: read until the peer closes, within limits.
async fn linger(socket: &Socket) {
    socket.shutdown_write();
    let mut chunk = vec![0; 8192];
    let drain = async {
        for _ in 0..16 {
            if !matches!(read(socket, &mut chunk).await, Ok(n) if n > 0) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

async fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        poll_fn(|cx| socket.poll_readable(cx)).await?;
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        poll_fn(|cx| socket.poll_writable(cx)).await?;
        let written = socket.write(bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
