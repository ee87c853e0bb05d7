//! TLS 1.3 after its handshake (RFC 8446 sections 4.6, 5 and 6): opens and seals in place, and handles the few
//! messages that still come. Free of sockets and clock.

use rustls::AlertDescription;
use thiserror::Error;

use super::protection::{CONTENT, Direction, HEADER, MAX_PAYLOAD, NoContent, RECORD, kind, record_length};
use crate::core::Role;
use crate::live::codec::Malformed;

/// Records and messages without content for us that may come in a row: empty records, tickets, key updates.
const PATIENCE: u32 = 32;

/// Largest handshake message we would read to its end; a ticket is far smaller.
const MAX_MESSAGE: usize = 64 << 10;

/// Handshake messages.
mod message {
    pub(super) const NEW_SESSION_TICKET: u8 = 4;
    pub(super) const KEY_UPDATE: u8 = 24;
    pub(super) const HEADER: usize = 4;
}

/// Why records of a connection can no longer be opened or sealed.
#[derive(Debug, Clone, Error, PartialEq)]
pub(crate) enum RecordFault {
    /// From rustls' record layer.
    #[error("{0}")]
    Library(rustls::Error),
    /// A record does not decrypt.
    #[error("cannot decrypt peer's message")]
    BadTag,
    /// The peer gave up on the connection.
    #[error("{}", rustls::Error::AlertReceived(*.0))]
    Alert(AlertDescription),
    /// The peer broke a rule.
    #[error("peer misbehaved: {what}")]
    Misbehaved { alert: AlertDescription, what: &'static str },
    /// The library refused to seal, or a sequence number is at its end.
    #[error("failed to encrypt")]
    CannotSeal,
}

impl RecordFault {
    /// What the peer is told.
    fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::BadTag => Some(AlertDescription::BadRecordMac),
            Self::Misbehaved { alert, .. } => Some(*alert),
            Self::Library(_) | Self::Alert(_) | Self::CannotSeal => None,
        }
    }
}

fn misbehaved(alert: AlertDescription, what: &'static str) -> RecordFault {
    RecordFault::Misbehaved { alert, what }
}

fn unexpected(what: &'static str) -> RecordFault {
    misbehaved(AlertDescription::UnexpectedMessage, what)
}

impl From<NoContent> for RecordFault {
    fn from(why: NoContent) -> Self {
        match why {
            NoContent::BadTag => Self::BadTag,
            NoContent::TooLong => misbehaved(AlertDescription::RecordOverflow, "record too long"),
            NoContent::NoType => unexpected("record without a content type"),
            NoContent::Unprotected(kind::CHANGE_CIPHER_SPEC) => {
                unexpected("change_cipher_spec after the handshake")
            }
            NoContent::Unprotected(_) => unexpected("record without protection"),
        }
    }
}

/// What a connection's record layer consists of; enough to go on elsewhere.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) role: Role,
    pub(crate) read: Direction,
    pub(crate) write: Direction,
    /// Received and not yet opened.
    pub(crate) carry: Vec<u8>,
    /// The start of a handshake message.
    pub(crate) message: Vec<u8>,
    /// Records and messages without content since the last content.
    pub(crate) idle: u32,
    /// The peer has asked for a key update of ours.
    pub(crate) owes_update: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    parts: Parts,
    /// Records sealed under one key.
    records_per_key: u64,
}

/// What a record turned out to be.
enum Opened<'w> {
    Content(&'w [u8]),
    Nothing,
    CloseNotify,
}

impl Session {
    /// `records_per_key` is lowered to what the suite allows.
    pub(crate) fn new(parts: Parts, records_per_key: u64) -> Self {
        let most = parts.write.secret().suite().records_per_key();
        Self { parts, records_per_key: records_per_key.clamp(1, most) }
    }

    /// The state of a connection that has just finished its handshake.
    pub(crate) fn after_handshake(
        role: Role,
        read: Direction,
        write: Direction,
        records_per_key: u64,
    ) -> Self {
        let parts =
            Parts { role, read, write, carry: Vec::new(), message: Vec::new(), idle: 0, owes_update: false };
        Self::new(parts, records_per_key)
    }

    /// Goes on from what was exported.
    pub(crate) fn revive(parts: Parts, records_per_key: u64) -> Result<Self, Malformed> {
        if parts.carry.len() >= HEADER + MAX_PAYLOAD {
            return Err(Malformed("octets of a record"));
        }
        if parts.message.len() >= message::HEADER + MAX_MESSAGE || parts.idle > PATIENCE {
            return Err(Malformed("handshake message"));
        }
        if parts.read.secret().suite() != parts.write.secret().suite() {
            return Err(Malformed("cipher suites"));
        }
        Ok(Self::new(parts, records_per_key))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn carry(&self) -> &[u8] {
        &self.parts.carry
    }

    /// Puts bytes that were received during the handshake in front of what comes.
    pub(crate) fn set_carry(&mut self, carry: Vec<u8>) {
        self.parts.carry = carry;
    }

    pub(crate) fn owes_update(&self) -> bool {
        self.parts.owes_update
    }

    /// See [`super::Records::open`].
    pub(crate) fn open<'w>(
        &mut self,
        wire: &'w mut [u8],
        out: &mut Vec<u8>,
        deliver: &mut dyn FnMut(&'w [u8]),
    ) -> Result<bool, RecordFault> {
        let opened = self.open_records(wire, deliver);
        if let Err(fault) = &opened
            && let Some(alert) = fault.alert()
        {
            self.alert(Level::Fatal, alert, out);
        }
        opened
    }

    fn open_records<'w>(
        &mut self,
        wire: &'w mut [u8],
        deliver: &mut dyn FnMut(&'w [u8]),
    ) -> Result<bool, RecordFault> {
        let mut rest = wire;
        while let Some(length) = record_length(rest) {
            if length > HEADER + MAX_PAYLOAD {
                return Err(NoContent::TooLong.into());
            }
            if rest.len() < length {
                break;
            }
            let (record, after) = std::mem::take(&mut rest).split_at_mut(length);
            rest = after;
            match self.open_record(record)? {
                Opened::Content(content) => deliver(content),
                Opened::Nothing => {}
                Opened::CloseNotify => return Ok(true),
            }
        }
        self.parts.carry.clear();
        if rest.is_empty() {
            self.parts.carry = Vec::new();
        } else {
            self.parts.carry.extend_from_slice(rest);
        }
        Ok(false)
    }

    fn open_record<'w>(&mut self, record: &'w mut [u8]) -> Result<Opened<'w>, RecordFault> {
        let (kind, content) = self.parts.read.open(record)?;
        if kind != kind::HANDSHAKE && !self.parts.message.is_empty() {
            return Err(unexpected("record inside a handshake message"));
        }
        match kind {
            kind::APPLICATION if content.is_empty() => {
                self.spend_patience()?;
                Ok(Opened::Nothing)
            }
            kind::APPLICATION => {
                self.parts.idle = 0;
                Ok(Opened::Content(content))
            }
            kind::HANDSHAKE => {
                self.handshake(content)?;
                Ok(Opened::Nothing)
            }
            kind::ALERT => self.received_alert(content),
            _ => Err(unexpected("unknown content type")),
        }
    }

    fn spend_patience(&mut self) -> Result<(), RecordFault> {
        self.parts.idle += 1;
        if self.parts.idle > PATIENCE {
            return Err(unexpected("too many records without content"));
        }
        Ok(())
    }

    fn received_alert<'w>(&mut self, content: &[u8]) -> Result<Opened<'w>, RecordFault> {
        let [_, description] = content else {
            return Err(match content {
                [] => unexpected("empty alert"),
                _ => misbehaved(AlertDescription::DecodeError, "alert of wrong length"),
            });
        };
        match AlertDescription::from(*description) {
            AlertDescription::CloseNotify => Ok(Opened::CloseNotify),
            // A close_notify follows.
            AlertDescription::UserCanceled => {
                self.spend_patience()?;
                Ok(Opened::Nothing)
            }
            other => Err(RecordFault::Alert(other)),
        }
    }

    /// Part of a handshake message, or several of them.
    fn handshake(&mut self, content: &[u8]) -> Result<(), RecordFault> {
        if content.is_empty() {
            return Err(unexpected("empty handshake record"));
        }
        let mut message = std::mem::take(&mut self.parts.message);
        message.extend_from_slice(content);
        let mut rest = message.as_slice();
        while let Some(([kind, l0, l1, l2], body)) = rest.split_first_chunk::<{ message::HEADER }>() {
            let length = usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2);
            self.permit(*kind, length)?;
            let Some((body, after)) = body.split_at_checked(length) else { break };
            self.spend_patience()?;
            if *kind == message::KEY_UPDATE {
                self.key_update(body, after.is_empty())?;
            }
            rest = after;
        }
        if !rest.is_empty() {
            self.spend_patience()?;
            self.parts.message = rest.to_vec();
        }
        Ok(())
    }

    /// Judges a message by its header, before its body is there.
    fn permit(&self, kind: u8, length: usize) -> Result<(), RecordFault> {
        match kind {
            // Sessions are not resumed, so tickets are of no use.
            message::NEW_SESSION_TICKET if self.parts.role == Role::Client && length <= MAX_MESSAGE => Ok(()),
            message::NEW_SESSION_TICKET if self.parts.role == Role::Client => {
                Err(misbehaved(AlertDescription::DecodeError, "ticket too long"))
            }
            message::KEY_UPDATE if length == 1 => Ok(()),
            message::KEY_UPDATE => {
                Err(misbehaved(AlertDescription::DecodeError, "key update of wrong length"))
            }
            _ => Err(unexpected("handshake message after the handshake")),
        }
    }

    fn key_update(&mut self, body: &[u8], ends_record: bool) -> Result<(), RecordFault> {
        let asked = match body {
            [0] => false,
            [1] => true,
            _ => return Err(misbehaved(AlertDescription::IllegalParameter, "unknown kind of key update")),
        };
        if !ends_record {
            return Err(unexpected("key update inside a record"));
        }
        self.parts.read.update().ok_or(RecordFault::CannotSeal)?;
        // However often it asks before we have answered, one answer will do (section 4.6.3).
        self.parts.owes_update |= asked;
        Ok(())
    }

    /// Tells the peer that our next record is under the next key, and goes on with it.
    fn update_key(&mut self, out: &mut Vec<u8>) -> Result<(), RecordFault> {
        const NOT_REQUESTED: [u8; 5] = [message::KEY_UPDATE, 0, 0, 1, 0];
        let write = &mut self.parts.write;
        write.seal_into(&NOT_REQUESTED, kind::HANDSHAKE, out).ok_or(RecordFault::CannotSeal)?;
        write.update().ok_or(RecordFault::CannotSeal)?;
        self.parts.owes_update = false;
        Ok(())
    }

    /// Updates our key where it is due before `records` more are sealed.
    fn prepare(&mut self, records: u64, out: &mut Vec<u8>) -> Result<(), RecordFault> {
        let sealed = self.parts.write.sequence();
        // A batch may be longer than a (tiny) limit: a key that has sealed nothing is good for one batch.
        let spent = sealed > 0 && sealed.saturating_add(records) > self.records_per_key;
        if self.parts.owes_update || spent { self.update_key(out) } else { Ok(()) }
    }

    /// See [`super::Records::seal`].
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordFault> {
        if self.parts.owes_update {
            self.update_key(out)?;
        }
        for content in plain.chunks(CONTENT) {
            self.prepare(1, out)?;
            let sealed = self.parts.write.seal_into(content, kind::APPLICATION, out);
            sealed.ok_or(RecordFault::CannotSeal)?;
        }
        Ok(())
    }

    /// See [`super::Records::seal_slots`].
    pub(crate) fn seal_slots(
        &mut self,
        slots: &mut [u8],
        contents: impl ExactSizeIterator<Item = usize>,
        before: &mut Vec<u8>,
    ) -> Result<usize, RecordFault> {
        self.prepare(u64::try_from(contents.len()).unwrap_or(u64::MAX), before)?;
        let mut end = 0;
        for (slot, content) in slots.chunks_mut(RECORD).zip(contents) {
            let sealed = self.parts.write.seal(slot, content, kind::APPLICATION);
            end += sealed.ok_or(RecordFault::CannotSeal)?;
        }
        Ok(end)
    }

    /// See [`super::Records::close_notify`].
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        self.alert(Level::Warning, AlertDescription::CloseNotify, out);
    }

    fn alert(&mut self, level: Level, description: AlertDescription, out: &mut Vec<u8>) {
        // A connection that cannot seal any more just ends.
        let _ = self.parts.write.seal_into(&[level as u8, description.into()], kind::ALERT, out);
    }
}

#[derive(Clone, Copy)]
enum Level {
    Warning = 1,
    Fatal = 2,
}

#[cfg(test)]
mod tests;
