//! Connections that were used once and then do nothing: what they cost.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context as _;

use super::LoadArgs;
use crate::payload::request;

/// How many are opened at the same time.
const AT_A_TIME: usize = 16;
const LIMIT: Duration = Duration::from_secs(10);

/// Opens connections up to each step, says so on standard output and waits for a line on standard input.
pub(super) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    let mut out = std::io::stdout();
    for step in &args.steps {
        while held.len() < *step {
            let n = AT_A_TIME.min(step - held.len());
            open(args, n, &mut held).with_context(|| format!("with {} connections open", held.len()))?;
        }
        writeln!(out, "READY {step}")?;
        out.flush()?;
        if lines.next().transpose()?.is_none() {
            break;
        }
    }
    Ok(())
}

fn open(args: &LoadArgs, n: usize, held: &mut Vec<TcpStream>) -> anyhow::Result<()> {
    let ping = request(args.size);
    let mut opened = Vec::with_capacity(n);
    for _ in 0..n {
        let mut stream = TcpStream::connect_timeout(&args.to, LIMIT).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&ping)?;
        opened.push(stream);
    }
    let mut pong = vec![0; ping.len()];
    for stream in &mut opened {
        stream.read_exact(&mut pong).context("waiting for the echo")?;
        anyhow::ensure!(pong == ping, "wrong bytes in the echo");
    }
    held.append(&mut opened);
    Ok(())
}
