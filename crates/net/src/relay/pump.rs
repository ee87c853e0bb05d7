//! One direction of a relay: bytes from one socket to another, until the first has ended.
//!
//! Small reads are copied through the thread's buffer: one `read`, one `write`. Once reads keep being large, the bytes
//! stay in the kernel: they are spliced into a pipe and from there into the other socket, which costs no copy. A pipe
//! belongs to a direction only while it is used so.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// One read takes at most this much: what a 256 KiB socket buffer holds.
const SCRATCH: usize = 256 * 1024;

/// A read of this size is a large one.
const LARGE: usize = 64 * 1024;

/// Large reads in a row that make a direction splice.
const STEADY: u32 = 4;

/// What a pipe is asked to hold. Where the system grants less, it holds what pipes hold by default.
const PIPE: usize = 1024 * 1024;

/// Octets a direction may move before the other tasks of the thread get a turn.
const TURN: usize = 1024 * 1024;

/// Empty pipes a thread keeps for its next bulk transfer.
const KEPT: usize = 4;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// How bytes may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Always through a buffer.
    Copy,
    /// Through a buffer, or by a pipe within the kernel while reads are large.
    Adaptive,
}

/// Which side failed.
pub(super) enum End {
    Reader(io::Error),
    Writer(io::Error),
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_setpipe_size(&write, PIPE).unwrap_or(64 * 1024);
        Ok(Self { read, write, size })
    }

    /// One that the thread has, or a new one.
    fn take() -> io::Result<Self> {
        PIPES.with_borrow_mut(Vec::pop).map_or_else(Self::new, Ok)
    }

    /// Gives an empty pipe back.
    fn keep(self) {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.len() < KEPT {
                pipes.push(self);
            }
        });
    }
}

/// Moves bytes until the reader has ended, then ends the writer, unless the reader's end was no end in order: who writes
/// to it may have met its reset and said so, and then it reads as an end.
pub(super) async fn pump(
    reader: &mut ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    reader_is_cut: &AtomicBool,
    count: &AtomicU64,
    way: Way,
) -> Result<(), End> {
    let (mut large, mut turn) = (0, Turn::default());
    loop {
        match step(reader, &writer, count).await? {
            Step::Forwarded(length) => {
                large = if length >= LARGE { large + 1 } else { 0 };
                turn.took(length).await;
            }
            Step::Rest { length, rest } => {
                large = if rest.len() >= LARGE { large + 1 } else { large };
                writer.write_all(&rest).await.map_err(End::Writer)?;
                turn.took(length).await;
            }
            Step::Finished => break,
        }
        if large >= STEADY && way == Way::Adaptive {
            large = 0;
            // Without a pipe there is still the buffer.
            let Ok(pipe) = Pipe::take() else { continue };
            let ended = through(&pipe, reader.as_ref(), writer.as_ref(), count, &mut turn).await?;
            pipe.keep();
            if ended {
                break;
            }
        }
    }
    if reader_is_cut.load(Ordering::Relaxed) {
        return Ok(());
    }
    match writer.shutdown().await {
        // The far side has ended in both directions already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other.map_err(End::Writer),
    }
}

/// What a direction has moved since the other tasks of its thread had their turn: two fast sockets would never let go
/// of it.
#[derive(Default)]
struct Turn(usize);

impl Turn {
    async fn took(&mut self, octets: usize) {
        self.0 += octets;
        if self.0 >= TURN {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

enum Step {
    /// So much was read, and has been written.
    Forwarded(usize),
    /// So much was read; the writer is full, and this is still to be written.
    Rest { length: usize, rest: Vec<u8> },
    /// The reader has ended.
    Finished,
}

/// One read and the write that follows from it, without a pause between them: the scratch buffer is never held across
/// one.
async fn step(reader: &mut ReadHalf<'_>, writer: &WriteHalf<'_>, count: &AtomicU64) -> Result<Step, End> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer)).map_err(End::Reader)?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(Step::Finished));
            }
            add(count, bytes.len());
            let written = match writer.try_write(bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(End::Writer(error))),
            };
            let rest = bytes.get(written..).unwrap_or_default();
            let (length, rest) = (bytes.len(), rest.to_vec());
            let step = if rest.is_empty() { Step::Forwarded(length) } else { Step::Rest { length, rest } };
            Poll::Ready(Ok(step))
        })
    })
    .await
}

/// Splices until reads become small, or until the reader has ended: then `true`. The pipe is empty before and after,
/// unless it fails.
async fn through(
    pipe: &Pipe,
    reader: &TcpStream,
    writer: &TcpStream,
    count: &AtomicU64,
    turn: &mut Turn,
) -> Result<bool, End> {
    loop {
        let moved = poll_fn(|context| {
            loop {
                ready!(reader.poll_read_ready(context)).map_err(End::Reader)?;
                // The pipe is empty: what would block is the socket.
                let taken = reader.try_io(Interest::READABLE, || fill(reader, pipe));
                match taken {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other.map_err(End::Reader)),
                }
            }
        })
        .await?;
        if moved == 0 {
            return Ok(true);
        }
        add(count, moved);
        let mut rest = moved;
        poll_fn(|context| {
            while rest > 0 {
                match writer.try_io(Interest::WRITABLE, || drain(pipe, rest, writer)) {
                    Ok(written) => rest -= written.min(rest),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(writer.poll_write_ready(context)).map_err(End::Writer)?;
                    }
                    Err(error) => return Poll::Ready(Err(End::Writer(error))),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        if moved < LARGE / 4 {
            return Ok(false);
        }
        turn.took(moved).await;
    }
}

fn fill(reader: &TcpStream, pipe: &Pipe) -> io::Result<usize> {
    retried(|| splice(reader, None, &pipe.write, None, pipe.size, FLAGS))
}

fn drain(pipe: &Pipe, length: usize, writer: &TcpStream) -> io::Result<usize> {
    retried(|| splice(&pipe.read, None, writer, None, length, FLAGS))
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

fn retried(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Only one task writes a count, so nothing is locked.
fn add(count: &AtomicU64, octets: usize) {
    count.store(count.load(Ordering::Relaxed) + octets as u64, Ordering::Relaxed);
}

/// Most that one direction moves at a time.
#[cfg(test)]
pub(super) const fn most_at_a_time() -> u64 {
    (TURN + PIPE) as u64
}

/// Pipes that wait for their next use on this thread.
#[cfg(test)]
pub(super) fn kept_pipes() -> usize {
    PIPES.with_borrow(Vec::len)
}
