//! Whether the other end has what was sent: a reset takes along what lies in the send queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// How often it is looked, at first and at the least.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Octets of a TCP socket that the other end has not acknowledged.
fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int, and `octets` is one that outlives the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(octets).unwrap_or(0))
}

/// Resolves when the other end has all that was sent, or is gone. Nothing tells of that, so it is looked for, now and then:
/// for connections that are about to be reset.
pub async fn delivered(socket: &TcpStream) {
    let (mut pause, longest) = LOOKS;
    // A connection that has ended has no peer, and will not send what is left.
    while socket.peer_addr().is_ok() && unacknowledged(socket).is_ok_and(|octets| octets > 0) {
        let gone = socket.ready(Interest::ERROR);
        if tokio::time::timeout(pause, gone).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::socket::rst_on_close;

    async fn full() -> (TcpStream, TcpStream, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut near, far) = (near.unwrap(), far.unwrap().0);
        assert_eq!(unacknowledged(&near).unwrap(), 0);
        let mut sent = 0;
        while let Ok(written) =
            tokio::time::timeout(Duration::from_millis(50), near.write(&[7; 1 << 16])).await
        {
            sent += written.unwrap();
        }
        assert!(unacknowledged(&near).unwrap() > 0);
        (near, far, sent)
    }

    #[tokio::test]
    async fn it_is_delivered_when_the_other_end_has_all_of_it() {
        let (near, mut far, sent) = full().await;
        let early = tokio::time::timeout(Duration::from_millis(20), delivered(&near)).await;
        assert!(early.is_err(), "nobody has read");
        let mut all = vec![0; sent];
        tokio::join!(delivered(&near), async { far.read_exact(&mut all).await.unwrap() });
        assert_eq!(unacknowledged(&near).unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_is_waited_for_that_cannot_come() {
        let (near, far, _) = full().await;
        rst_on_close(&far).unwrap();
        let (reset, gone) = (async { drop(far) }, delivered(&near));
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(gone, reset) }).await.unwrap();
        // Also when somebody has seen the error before.
        let _ = near.take_error();
        tokio::time::timeout(Duration::from_secs(10), delivered(&near)).await.unwrap();
    }
}
