//! TLS records: rustls' while the handshake runs and for TLS 1.2, our own in place for TLS 1.3 after it.
//!
//! The switch happens between two records: the handshake is fed one record at a time, so rustls has never seen a
//! record under the application's keys, and whatever it had to send (Finished, tickets) has been sent and counted.

mod capture;
mod library;
mod portable;
mod protection;
mod schedule;
mod session;

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

pub(crate) use library::Library;
pub(crate) use protection::{HEADER, RECORD, record_length};
pub(crate) use session::{RecordFault, Session};

#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::protection::Direction;
    pub(crate) use super::schedule::{Secret, Suite};
    pub(crate) use super::session::{Parts, Session};
}

/// The records of one connection that is up.
#[derive(Debug)]
pub(crate) enum Records {
    /// TLS 1.2, or a suite we do not know.
    Library(Box<Library>),
    /// TLS 1.3.
    Own(Box<Session>),
    /// The connection lives elsewhere: nothing is opened or sealed here.
    Moved,
}

/// A handshake that is complete.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) records: Records,
    /// The certificates of the peer, leaf first.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

impl Records {
    /// Received bytes that could not be opened yet; they go in front of what is received next.
    pub(crate) fn carry(&self) -> &[u8] {
        match self {
            Self::Library(tls) => &tls.carry,
            Self::Own(session) => session.carry(),
            Self::Moved => &[],
        }
    }

    /// Opens the whole records at the front of `wire`, which begins with what was carried, and passes their content
    /// on in order: as it lies in `wire` where the records are ours, in `plain` otherwise. What TLS itself has to say
    /// (an alert, say) is appended to `out`, also when the result is an error. What cannot be opened yet is carried.
    /// `true` if the peer has sent close_notify.
    pub(crate) fn open<'w>(
        &mut self,
        wire: &'w mut [u8],
        plain: &'w mut Vec<u8>,
        out: &mut Vec<u8>,
        deliver: &mut dyn FnMut(&'w [u8]),
    ) -> Result<bool, RecordFault> {
        match self {
            Self::Library(tls) => {
                plain.clear();
                let opened = tls.open(wire, plain, out).map_err(RecordFault::Library);
                deliver(plain);
                opened
            }
            Self::Own(session) => session.open(wire, out, deliver),
            Self::Moved => Ok(false),
        }
    }

    /// There is something to be sealed though nobody wrote: the peer waits for our key update.
    pub(crate) fn owes(&self) -> bool {
        matches!(self, Self::Own(session) if session.owes_update())
    }

    /// Seals `plain` into records of full size and appends them to `out`.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordFault> {
        match self {
            Self::Library(_) if plain.is_empty() => Ok(()),
            Self::Library(tls) => tls.seal(plain, out).map_err(RecordFault::Library),
            Self::Own(session) => session.seal(plain, out),
            Self::Moved => Err(RecordFault::CannotSeal),
        }
    }

    /// Seals the contents of consecutive slots of [`RECORD`] octets, each with [`HEADER`] octets of room before
    /// its content and room for the record's end behind; all but the last are full. What has to be sent before them is appended to
    /// `before`; returns how many octets of `slots` are to be sent after it.
    pub(crate) fn seal_slots(
        &mut self,
        slots: &mut [u8],
        contents: impl ExactSizeIterator<Item = usize>,
        before: &mut Vec<u8>,
    ) -> Result<usize, RecordFault> {
        match self {
            Self::Library(tls) => {
                for (slot, content) in slots.chunks(RECORD).zip(contents) {
                    let content = slot.get(HEADER..HEADER + content).unwrap_or_default();
                    tls.seal(content, before).map_err(RecordFault::Library)?;
                }
                Ok(0)
            }
            Self::Own(session) => session.seal_slots(slots, contents, before),
            Self::Moved => Err(RecordFault::CannotSeal),
        }
    }

    /// Appends a close_notify to `out`.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Library(tls) => tls.close_notify(out),
            Self::Own(session) => session.close_notify(out),
            Self::Moved => {}
        }
    }
}
