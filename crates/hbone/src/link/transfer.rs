//! A connection leaves its engine, and one arrives.

use std::collections::{HashMap, VecDeque};
use std::net;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

use super::{Link, State, Unsent, now};
use crate::core::fields::{AnswerHead, RequestHead};
use crate::core::{Core, Role, StreamFault};
use crate::live::codec::{Malformed, Portable, Reader, Writer, portable};
use crate::live::{ExportError, ImportError, LiveTunnel, MAGIC, VERSION};
use crate::record::{Records, Session};
use crate::socket::Socket;
use crate::stream::StreamCell;
use crate::{ConnectionEnd, Settings, driver};

/// Octets nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox(pub(crate) Vec<u8>);

impl Portable for Inbox {
    fn put(&self, to: &mut Writer) {
        to.octets(&self.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(from.octets()?.to_vec()))
    }
}

/// What a stream's owner had not seen or taken.
#[derive(Debug)]
pub(crate) struct StreamPart {
    pub(crate) id: u32,
    /// Server: the request that waits for its answer.
    pub(crate) request: Option<RequestHead>,
    /// Client: an answer nobody has taken.
    pub(crate) answer: Option<AnswerHead>,
    /// Client: nobody has seen the answer.
    pub(crate) asked: bool,
    /// Client: octets sent ahead of the answer that no relay has counted.
    pub(crate) early: u64,
    pub(crate) inbox: Inbox,
    pub(crate) ended: bool,
    pub(crate) broken: Option<StreamFault>,
}

portable!(struct StreamPart { id, request, answer, asked, early, inbox, ended, broken });

/// A stream that wants its owner.
pub(crate) struct Owned {
    pub(crate) cell: Rc<StreamCell>,
    /// Client: nobody has seen the answer.
    pub(crate) asked: bool,
}

impl Link {
    /// Takes the connection out of this engine. From here on nothing is sent or received here, and every stream ends
    /// with [`ConnectionEnd::Moved`].
    pub(crate) fn export(&self) -> Result<(LiveTunnel, net::TcpStream), ExportError> {
        let mut state = self.state.borrow_mut();
        if let Some(end) = state.ended.as_ref().or(state.mute.as_ref()) {
            return Err(ExportError::Ended(end.clone()));
        }
        let Records::Own(session) = &state.records else { return Err(ExportError::ForeignRecords) };
        let tcp = self.with_socket(Socket::duplicate).map_err(ExportError::Io)?;
        let mut to = Writer::new(now());
        to.raw(MAGIC);
        VERSION.put(&mut to);
        session.parts().put(&mut to);
        let chain: Vec<Inbox> = self.chain.iter().map(|der| Inbox(der.to_vec())).collect();
        chain.put(&mut to);
        state.core.put(&mut to);
        state.put_back();
        to.octets(state.sealed.get(state.sent..).unwrap_or_default());
        (state.idle_since, state.idle_limit).put(&mut to);
        self.count(&mut state);
        state.move_streams().put(&mut to);
        // The keys are gone from here: whatever still runs cannot use a nonce again.
        state.records = Records::Moved;
        state.lose_now(ConnectionEnd::Moved);
        Ok((LiveTunnel { bytes: to.into_bytes() }, tcp))
    }

    /// Goes on with a connection of another engine; with it come the streams of its owners, in order.
    pub(crate) fn import(
        live: LiveTunnel,
        tcp: TcpStream,
        role: Role,
        settings: &Settings,
    ) -> Result<(Rc<Self>, Vec<Owned>), ImportError> {
        let LiveTunnel { bytes } = live;
        let body = bytes.strip_prefix(MAGIC).ok_or(ImportError::Version)?;
        let mut from = Reader::new(body, now(), settings);
        if u16::take(&mut from) != Ok(VERSION) {
            return Err(ImportError::Version);
        }
        let parts = Arrived::take(&mut from).map_err(|Malformed(what)| ImportError::Malformed { what })?;
        if parts.core.role() != role {
            return Err(ImportError::Role);
        }
        let socket = Socket::new(tcp);
        let mut streams = HashMap::new();
        let mut arrivals = VecDeque::new();
        let mut owned = Vec::new();
        for part in parts.streams {
            let (broken, asked, waits) = (part.broken.is_some(), part.asked, part.request.is_some());
            let cell = StreamCell::revive(part);
            if !broken {
                streams.insert(cell.id, cell.clone());
            }
            if waits {
                arrivals.push_back(cell);
            } else {
                owned.push(Owned { cell, asked });
            }
        }
        let Arrived { mut core, records, sealed, .. } = parts;
        let mut unsent = Unsent::of_waiting(sealed.len());
        streams.keys().filter(|stream| core.sent_all(**stream)).for_each(|stream| unsent.add(*stream));
        unsent.note_offered(0, core.output().is_empty());
        unsent.take_sent(sealed.len()).for_each(drop);
        let state = State { streams, arrivals, sealed, unsent, ..State::new(core, records) };
        let state = State { idle_since: parts.idle.0, idle_limit: parts.idle.1, ..state };
        let link = Self::with_state(socket, state, parts.chain, settings).map_err(ImportError::Io)?;
        driver::start(link.clone());
        Ok((link, owned))
    }
}

/// A value that was read.
struct Arrived {
    records: Records,
    chain: Arc<[CertificateDer<'static>]>,
    core: Core,
    sealed: Vec<u8>,
    idle: (Option<Instant>, Option<std::time::Duration>),
    streams: Vec<StreamPart>,
}

impl Arrived {
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let session = Session::revive(Portable::take(from)?, from.settings.records_per_key)?;
        let chain: Vec<Inbox> = Portable::take(from)?;
        let core = Core::take(from)?;
        if session.parts().role != core.role() {
            return Err(Malformed("role"));
        }
        let arrived = Self {
            records: Records::Own(Box::new(session)),
            chain: chain.into_iter().map(|Inbox(der)| CertificateDer::from(der)).collect(),
            core,
            sealed: from.octets()?.to_vec(),
            idle: Portable::take(from)?,
            streams: Portable::take(from)?,
        };
        let ids = arrived.streams.iter().map(|part| part.id);
        if !ids.is_sorted_by(|before, after| before < after) {
            return Err(Malformed("order of streams"));
        }
        if !from.is_empty() {
            return Err(Malformed("octets behind the end"));
        }
        Ok(arrived)
    }
}

impl State {
    /// What the socket was not offered waits like what it did not take.
    fn put_back(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.sealed.extend_from_slice(batch.records());
        }
    }

    /// Takes what the streams' owners have not taken; to them the streams are broken by the move.
    fn move_streams(&mut self) -> Vec<StreamPart> {
        self.arrivals.clear();
        let leaving = std::mem::take(&mut self.leaving).into_iter().filter_map(|cell| cell.upgrade());
        let mut parts: Vec<StreamPart> =
            self.streams.drain().map(|(_, cell)| cell).chain(leaving).map(|cell| cell.move_away()).collect();
        parts.sort_by_key(|part| part.id);
        parts
    }
}
