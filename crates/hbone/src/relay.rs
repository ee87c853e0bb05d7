//! Joins a tunnel and an application's socket until both directions have ended.
//!
//! Towards the application there is no hop: the driver writes its socket as it decrypts, and only what the socket
//! does not take comes here. From the application, its bytes are read straight into DATA frames and sealed: small
//! reads wait for the end of the tick and leave together, large ones leave at once.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::core::frame;
use crate::core::{Capacity, DATA_PAYLOAD, StreamFault};
use crate::record;
use crate::scratch::{Batch, SLOT, SLOTS, Scratch};
use crate::socket::Socket;
use crate::stream::Break;
use crate::{ConnectionEnd, ErrorCode, Tunnel, TunnelError};

/// Reads up to this size wait for the end of the tick.
const SMALL: usize = 4096;

/// Where a DATA frame lies in its slot, and where its payload does.
const FRAME: usize = record::HEADER;
const PAYLOAD: usize = FRAME + frame::HEADER;

/// Reads in a row before the other tasks of the thread get a turn.
const TURNS: usize = 4;

/// DATA frames that a read may fill at least, unless little is expected: a message of 64 KiB leaves in one piece, and not its last octets alone.
const FIRST: u16 = 5;

/// And at most.
const MOST: u16 = 16;

const _: () = assert!(SLOTS == 16, "as many as there are slots");

/// Bytes moved by one relay, exact at any moment and readable from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    to_peer: AtomicU64,
    to_app: AtomicU64,
}

impl Counters {
    /// Bytes read from the application and handed to the tunnel.
    pub fn to_peer(&self) -> u64 {
        self.to_peer.load(Ordering::Relaxed)
    }

    /// Bytes received from the tunnel and written to the application.
    pub fn to_app(&self) -> u64 {
        self.to_app.load(Ordering::Relaxed)
    }

    pub(crate) fn add_to_app(&self, octets: usize) {
        add(&self.to_app, octets);
    }
}

/// Only one thread writes a counter, so nothing is locked.
fn add(counter: &AtomicU64, octets: usize) {
    let octets = u64::try_from(octets).unwrap_or(u64::MAX);
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(octets), Ordering::Relaxed);
}

/// How long what an application said before it cut its connection may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides said they were done, and everything was delivered.
    Clean,
    /// Something was cut; what was transferred may be incomplete. The other side has been told by a reset.
    Broken(TunnelError),
    /// The tunnel goes on in another engine. The application's socket, to be relayed there with the tunnel of the same
    /// [`Tunnel::id`]; nothing was lost on either side.
    Moved(std::net::TcpStream),
}

/// Moves bytes both ways until both directions have ended, half-closing each side when the other ends.
///
/// An abort stays an abort: a reset from the application becomes RST_STREAM, a reset or loss of the tunnel
/// becomes a TCP reset. The socket's options are the caller's, `TCP_NODELAY` among them. Dropping the future cuts both:
/// the tunnel with CANCEL, the application's socket with a reset.
pub fn relay(tunnel: Tunnel, app: TcpStream, counters: &Arc<Counters>) -> Relay {
    let app = Rc::new(Socket::of_application(app));
    tunnel.cell.attach(app.clone(), counters.clone());
    let early = tunnel.cell.take_early();
    counters.to_peer.fetch_add(early, Ordering::Relaxed);
    // It may have ended its direction before: ahead of the answer, or before the tunnel was moved here.
    let app_ended = !tunnel.cell.is_broken() && tunnel.link.state.borrow().core.sent_all(tunnel.cell.id);
    Relay {
        tunnel,
        app,
        counters: counters.clone(),
        slots: FIRST,
        app_ended,
        refused: None,
        cut: None,
        fin_sent: false,
        over: false,
    }
}

/// See [`relay`]. All that an idle tunnel's owner has to keep.
pub struct Relay {
    tunnel: Tunnel,
    app: Rc<Socket>,
    counters: Arc<Counters>,
    /// DATA frames to fill with the next read: one after a small read, and more while reads fill them.
    slots: u16,
    /// The application has ended its direction, and the peer knows.
    app_ended: bool,
    /// The application takes nothing any more. What it said before is still read, as long as that does not take too long:
    /// a server that refuses an upload answers, closes, and its reset is met first where it is written to.
    refused: Option<Box<Refused>>,
    /// While its socket is not read, for this or for want of room: tells when it is cut.
    cut: Option<Pin<Box<dyn Future<Output = io::Error>>>>,
    /// The peer has ended its direction, and the application knows.
    fin_sent: bool,
    /// It has ended by itself.
    over: bool,
}

struct Refused {
    error: io::Error,
    /// When what it said has had its time.
    late: Pin<Box<Sleep>>,
}

/// What came of one attempt to read from the application.
enum Pumped {
    /// There may be more.
    More,
    /// Nothing now; somebody will wake us.
    Wait,
    Eof,
    Failed(io::Error),
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("tunnel", &self.tunnel).field("app", &self.app).finish_non_exhaustive()
    }
}

impl Future for Relay {
    type Output = RelayEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let end = ready!(self.poll_end(cx));
        self.over = true;
        Poll::Ready(end)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.over {
            self.app.reset_on_close();
        }
    }
}

impl Relay {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let relay = self;
        relay.tunnel.cell.wait_reader(cx);
        if let Some(Break::Connection(ConnectionEnd::Moved)) = relay.tunnel.broken() {
            return Poll::Ready(relay.moved());
        }
        if relay.refused.is_none()
            && let Poll::Ready(Err(error)) = relay.poll_deliver(cx)
        {
            if relay.app_ended {
                return Poll::Ready(relay.app_write_failed(&error));
            }
            let unwanted = relay.tunnel.cell.discard();
            relay.tunnel.consumed(unwanted);
            let late = Box::pin(tokio::time::sleep(LAST_WORDS));
            relay.refused = Some(Box::new(Refused { error, late }));
        }
        if relay.fin_sent && relay.app_ended && relay.has_sent() {
            return Poll::Ready(RelayEnd::Clean);
        }
        if let Some(why) = relay.tunnel.broken() {
            return match relay.refused.take() {
                Some(refused) => Poll::Ready(relay.app_write_failed(&refused.error)),
                None => relay.poll_broken(why),
            };
        }
        if !relay.app_ended {
            let ended = ready!(relay.poll_pump(cx));
            // Then it was cut, whatever its end looks like.
            if let Some(refused) = relay.refused.take() {
                return Poll::Ready(relay.app_write_failed(&refused.error));
            }
            match ended {
                Ok(()) => {
                    relay.tunnel.finish();
                    relay.app_ended = true;
                }
                Err(error) => {
                    relay.tunnel.reset(ErrorCode::CONNECT_ERROR);
                    return Poll::Ready(RelayEnd::Broken(TunnelError::AppRead(
                        error.to_string(),
                        error.kind(),
                    )));
                }
            }
        }
        if relay.fin_sent {
            return if relay.has_sent() { Poll::Ready(RelayEnd::Clean) } else { Poll::Pending };
        }
        let error = ready!(relay.poll_cut(cx));
        Poll::Ready(relay.app_write_failed(&error))
    }

    /// Towards the application: what its socket did not take from the driver, then FIN.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let taken = self.tunnel.cell.offer()?;
            self.tunnel.consumed(taken);
            if self.tunnel.cell.is_empty() {
                break;
            }
            ready!(self.app.poll_writable(cx))?;
        }
        if self.tunnel.cell.has_ended() && !self.fin_sent {
            // Where the application has ended too, closing the socket says so, if that comes now.
            if !self.app_ended || !self.has_sent() {
                self.app.shutdown_write();
            }
            self.fin_sent = true;
        }
        Poll::Ready(Ok(()))
    }

    /// What the application said is with the peer's socket: a peer that cuts the connection before has not got it.
    fn has_sent(&self) -> bool {
        self.tunnel.link.state.borrow_mut().has_sent(self.tunnel.cell.id)
    }

    /// From the application until its end.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(refused) = &mut self.refused
            && refused.late.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        for _ in 0..TURNS {
            ready!(self.app.poll_readable(cx))?;
            match self.pump(cx) {
                Pumped::More => {}
                // That it was cut is known already.
                Pumped::Wait if self.refused.is_some() => return Poll::Pending,
                Pumped::Wait => return self.poll_cut(cx).map(Err),
                Pumped::Eof => return Poll::Ready(Ok(())),
                Pumped::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Pumped::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the application has cut its connection, where no read would find that out.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let app = &self.app;
        let cut = self.cut.get_or_insert_with(|| {
            let app = app.clone();
            Box::pin(async move { app.cut().await })
        });
        cut.as_mut().poll(cx)
    }

    fn pump(&mut self, cx: &mut Context<'_>) -> Pumped {
        let Tunnel { link, cell } = &self.tunnel;
        let mut state = link.state.borrow_mut();
        if state.is_blocked() {
            state.wait(cx);
            return Pumped::Wait;
        }
        let room = match state.core.capacity(cell.id) {
            Capacity::Octets(room) if room > 0 => room,
            _ => {
                cell.wait_writer(cx);
                // END_STREAM needs no window (RFC 9113 section 6.9.1).
                return match self.app.peek() {
                    Ok(0) => Pumped::Eof,
                    Ok(_) => Pumped::Wait,
                    Err(error) => Pumped::Failed(error),
                };
            }
        };
        Scratch::lend(|scratch| {
            // Where little is expected nothing is prepared for much, and an answer that is held may share its record.
            let mut batch = None;
            if self.slots > 1 && !state.is_held() {
                batch = state.batch.take().or_else(Batch::begin);
                link.put_by(&mut state, &mut batch, &mut scratch.sealed);
            }
            let slots = batch.as_ref().map_or(SLOTS, Batch::free_slots).min(usize::from(self.slots));
            let wanted = room.min(slots * DATA_PAYLOAD);
            let space = match &mut batch {
                Some(batch) => batch.space(),
                None => scratch.slots.octets(slots * SLOT),
            };
            let outcome = read_into_slots(&self.app, space, wanted);
            let read = match outcome {
                Ok(read) if read > 0 => read,
                outcome => {
                    state.keep(batch);
                    return outcome.map_or_else(Pumped::Failed, |_| Pumped::Eof);
                }
            };
            add(&self.counters.to_peer, read);
            if read <= SMALL {
                let head = state.core.data(cell.id, read, false);
                let out = state.core.output();
                out.extend_from_slice(&head);
                out.extend_from_slice(space.get(PAYLOAD..PAYLOAD + read).unwrap_or_default());
                state.keep(batch);
                state.kick();
            } else {
                for (slot, payload) in space.chunks_mut(SLOT).zip(payload_lengths(read)) {
                    let head = state.core.data(cell.id, payload, false);
                    if let Some(space) = slot.get_mut(FRAME..PAYLOAD) {
                        space.copy_from_slice(&head);
                    }
                }
                let frames = payload_lengths(read).map(|payload| frame::HEADER + payload);
                match batch {
                    Some(batch) => link.send_batch(&mut state, batch, frames, &mut scratch.sealed),
                    None => {
                        let made = scratch.slots.octets(slots * SLOT);
                        link.send_slots(&mut state, made, frames, &mut scratch.sealed)
                    }
                }
            }
            self.slots = if read <= SMALL {
                1
            } else if read < wanted {
                u16::try_from(read.div_ceil(DATA_PAYLOAD)).unwrap_or(MOST).max(FIRST)
            } else {
                (self.slots * 2).clamp(FIRST, MOST)
            };
            Pumped::More
        })
    }

    /// The tunnel goes on elsewhere, and so does the application's socket.
    fn moved(&self) -> RelayEnd {
        match self.app.duplicate() {
            Ok(app) => RelayEnd::Moved(app),
            Err(error) => {
                self.app.reset_on_close();
                RelayEnd::Broken(TunnelError::AppRead(error.to_string(), error.kind()))
            }
        }
    }

    /// The tunnel is gone: the application gets a reset, unless it had everything.
    fn poll_broken(&mut self, why: Break) -> Poll<RelayEnd> {
        if self.tunnel.cell.has_ended() && !self.fin_sent {
            // Everything has arrived, but the application has not taken all of it yet.
            return Poll::Pending;
        }
        let unwanted = matches!(why, Break::Stream(StreamFault::Reset(ErrorCode::NO_ERROR)));
        if unwanted && self.fin_sent {
            return Poll::Ready(RelayEnd::Clean);
        }
        self.app.reset_on_close();
        self.tunnel.cell.detach();
        Poll::Ready(RelayEnd::Broken(why.into()))
    }

    /// The application no longer takes anything. If it had ended its direction it has just closed, and the peer is
    /// told that nothing more is wanted; otherwise it was reset.
    fn app_write_failed(&mut self, error: &io::Error) -> RelayEnd {
        if !self.app_ended {
            self.tunnel.reset(ErrorCode::CONNECT_ERROR);
        }
        RelayEnd::Broken(TunnelError::AppWrite(error.to_string(), error.kind()))
    }
}

/// Reads up to `wanted` octets into the payloads of consecutive slots, leaving room for what surrounds them.
fn read_into_slots(app: &Socket, slots: &mut [u8], wanted: usize) -> io::Result<usize> {
    if wanted <= DATA_PAYLOAD {
        return app.read(slots.get_mut(PAYLOAD..PAYLOAD + wanted).unwrap_or_default());
    }
    let mut payloads: [IoSliceMut<'_>; SLOTS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut used = 0;
    for ((slot, length), payload) in slots.chunks_mut(SLOT).zip(payload_lengths(wanted)).zip(&mut payloads) {
        *payload = IoSliceMut::new(slot.get_mut(PAYLOAD..PAYLOAD + length).unwrap_or_default());
        used += 1;
    }
    app.read_vectored(payloads.get_mut(..used).unwrap_or_default())
}

/// Full payloads, and the rest.
fn payload_lengths(total: usize) -> impl ExactSizeIterator<Item = usize> {
    (0..total.div_ceil(DATA_PAYLOAD)).map(move |i| (total - i * DATA_PAYLOAD).min(DATA_PAYLOAD))
}
