//! Before anything is measured: 16 MiB there and back through a system, every byte compared.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use super::Outcome;
use crate::payload::{Checker, Sender, body};

const N_BLOCKS: u64 = 256;
const LIMIT: Duration = Duration::from_secs(20);

/// Sends from a second thread, so that neither direction waits for the other.
pub(super) fn run(to: SocketAddr) -> anyhow::Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).context("connecting")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut sending = stream.try_clone()?;
    let sender = std::thread::spawn(move || -> std::io::Result<u64> {
        let mut sender = Sender::new(body());
        sending.write_all(b"E")?;
        let mut sent = 1;
        while sent < N_BLOCKS * 65_536 {
            sent += u64::try_from(sender.write(&mut sending, 4)?.written).unwrap_or_default();
        }
        sender.finish();
        loop {
            let progress = sender.write(&mut sending, 4)?;
            sent += u64::try_from(progress.written).unwrap_or_default();
            if progress.complete {
                break;
            }
        }
        sending.shutdown(Shutdown::Write)?;
        Ok(sent)
    });
    let mut checker = Checker::strict(body());
    let mut first = [0];
    stream.read_exact(&mut first).context("waiting for the first byte")?;
    anyhow::ensure!(first == *b"E", "the first byte is wrong");
    let mut received = 1_u64;
    let mut buffer = vec![0; 64 * 1024];
    // The server closes when it reads the end, and may not wait for its own echo: read until all has come.
    while !checker.complete {
        let n = stream.read(&mut buffer).context("reading the echo")?;
        anyhow::ensure!(n > 0, "the stream ended after {received} bytes");
        anyhow::ensure!(checker.take(buffer.get(..n).unwrap_or_default()), "wrong bytes after {received}");
        received += u64::try_from(n).unwrap_or_default();
    }
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    anyhow::ensure!(sent == received, "{sent} bytes were sent, {received} came back");
    Ok(Outcome { amount: received, amount_in_all: received, ..Outcome::default() })
}
