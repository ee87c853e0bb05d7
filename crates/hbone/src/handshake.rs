//! TLS until both sides are done, within a time limit (W16).

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::Settings;
use crate::record::{Library, RECORD, Secured, record_length};
use crate::scratch::Scratch;
use crate::socket::Socket;

/// What a peer may send before its handshake is complete.
const LIMIT: usize = 128 << 10;

/// What is read at a time.
const CHUNK: usize = 8192;

/// How long a peer that was told an alert may take to close.
const LINGER: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) enum HandshakeError {
    Tls(rustls::Error),
    Io(io::Error),
    Timeout(Duration),
}

/// Runs the handshake. What was received behind it waits in the records' carry.
pub(crate) async fn handshake(
    socket: &Socket,
    tls: Library,
    settings: &Settings,
) -> Result<Secured, HandshakeError> {
    let limit = settings.handshake_timeout;
    match tokio::time::timeout(limit, run(socket, tls, settings.records_per_key)).await {
        Err(_) => Err(HandshakeError::Timeout(limit)),
        Ok(Ok(secured)) => Ok(secured),
        Ok(Err(error)) => {
            if matches!(error, HandshakeError::Tls(_)) {
                linger(socket).await;
            }
            Err(error)
        }
    }
}

async fn run(socket: &Socket, mut tls: Library, records_per_key: u64) -> Result<Secured, HandshakeError> {
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
    // Received, and not yet shown to rustls.
    let mut waiting = Vec::new();
    loop {
        let closed = tls.open(&mut wire, &mut plain, &mut out);
        write_all(socket, &out).await.map_err(HandshakeError::Io)?;
        out.clear();
        if closed.map_err(HandshakeError::Tls)? {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if !tls.is_handshaking() {
            return tls.secured(waiting, records_per_key).map_err(HandshakeError::Tls);
        }
        wire.clone_from(&tls.carry);
        if wire.len() > LIMIT {
            return Err(HandshakeError::Tls(rustls::Error::General("handshake too large".into())));
        }
        while !next_record(&mut waiting, &mut wire) {
            if read_more(socket, &mut waiting).await.map_err(HandshakeError::Io)? == 0 {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
                return Err(HandshakeError::Io(error));
            }
        }
    }
}

/// Moves one record from the front of `waiting` to the end of `wire`, or everything where that is no record: rustls
/// knows what to say to it. `false` if more has to be received first.
fn next_record(waiting: &mut Vec<u8>, wire: &mut Vec<u8>) -> bool {
    let Some(first) = waiting.first() else { return false };
    let length = match record_length(waiting) {
        _ if !(20..=23).contains(first) => waiting.len(),
        None => return false,
        // Longer than any version allows.
        Some(length) if length > RECORD + 2048 => waiting.len(),
        Some(length) if waiting.len() < length => return false,
        Some(length) => length,
    };
    wire.extend(waiting.drain(..length));
    true
}

/// An alert is lost if the kernel answers unread bytes with a reset: read until the peer closes, within limits.
async fn linger(socket: &Socket) {
    socket.shutdown_write();
    let mut chunk = vec![0; CHUNK];
    let drain = async {
        for _ in 0..16 {
            if !matches!(read(socket, &mut chunk).await, Ok(n) if n > 0) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Through the thread's buffer: who waits for a peer has none of its own.
async fn read_more(socket: &Socket, to: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        poll_fn(|cx| socket.poll_readable(cx)).await?;
        let read = Scratch::lend(|scratch| {
            let chunk = scratch.wire.split(0).1.get_mut(..CHUNK).unwrap_or_default();
            let n = socket.read(chunk)?;
            to.extend_from_slice(chunk.get(..n).unwrap_or_default());
            Ok(n)
        });
        match read {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
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
