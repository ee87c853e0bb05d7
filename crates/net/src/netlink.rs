//! Requests to the kernel over netlink, and their answers. Synchronous: the kernel answers within the call.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

use crate::{NamespaceError, NetNamespace};

/// Receive buffer of a transaction, far above what a few hundred acknowledgements take.
const ACKNOWLEDGEMENTS: u32 = 1 << 20;
/// How often a list is asked for that changes while it is told.
const ATTEMPTS: usize = 8;

/// The kernel refused a request, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// Refused.
    #[error("cannot {operation}: {source}")]
    Refused {
        /// What was asked.
        operation: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// An answer that cannot be read.
    #[error("netlink answer: {0}")]
    Answer(String),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no such link.
    #[error("there is no link named {0}")]
    NoSuchLink(String),
}

impl NetlinkError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "netlink-refused",
            Self::Socket(_) => "netlink-socket",
            Self::Answer(_) => "netlink-answer",
            Self::Namespace(error) => error.code(),
            Self::NoSuchLink(_) => "netlink-no-such-link",
        }
    }

    /// The kernel's error number, if it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Was what was asked for changed by somebody else meanwhile, again and again?
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::Interrupted)
    }
}

/// A list, as far as it could be read.
#[derive(Debug)]
pub(crate) struct Dump<M> {
    /// What could be read.
    pub(crate) read: Vec<M>,
    /// How many could not.
    pub(crate) unread: usize,
    /// There are more than were asked for. The connection cannot list anything after this.
    pub(crate) cut: bool,
}

impl<M> Dump<M> {
    /// All there is, or an error.
    pub(crate) fn whole(self, operation: &str) -> Result<Vec<M>, NetlinkError> {
        if self.cut {
            return Err(NetlinkError::Answer(format!("{operation}: there are too many")));
        }
        if self.unread > 0 {
            return Err(NetlinkError::Answer(format!("{operation}: {} of them cannot be read", self.unread)));
        }
        Ok(self.read)
    }
}

/// How a list ended.
#[derive(Debug)]
enum End<M> {
    Told(Dump<M>),
    /// It changed while it was told: something may be missing.
    Changed,
}

/// A netlink socket of one namespace.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// Opens a socket in `namespace`.
    pub(crate) fn open(namespace: &NetNamespace, protocol: isize) -> Result<Self, NetlinkError> {
        namespace.run(|| {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        })?
    }

    /// Asks for a change and waits for the kernel's yes.
    pub(crate) fn change<M>(&mut self, operation: &str, message: M, flags: u16) -> Result<(), NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers::<M>(operation, sequence, usize::MAX).map(|_| ())
    }

    /// Asks for a list, all of which must be read.
    pub(crate) fn list<M>(&mut self, operation: &str, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone,
    {
        self.dump(operation, message, usize::MAX)?.whole(operation)
    }

    /// Asks for a list of at most so many. One that changes while it is told is asked for again.
    pub(crate) fn dump<M>(
        &mut self,
        operation: &str,
        message: M,
        most: usize,
    ) -> Result<Dump<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone,
    {
        for _ in 0..ATTEMPTS {
            let sequence = self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let End::Told(dump) = self.answers(operation, sequence, most)? {
                return Ok(dump);
            }
        }
        let source = io::ErrorKind::Interrupted.into();
        Err(NetlinkError::Refused { operation: operation.to_owned(), source })
    }

    /// Has the kernel obey what lists are asked by; one that does not know how is fine.
    pub(crate) fn be_strict(&mut self, strict: bool) {
        let _ = self.socket.set_netlink_get_strict_chk(strict);
    }

    /// Asks for several changes that the kernel makes together or not at all (nf_tables). Each comes with its flags
    /// and the name of what it does.
    pub(crate) fn transaction<M>(
        &mut self,
        begin: M,
        changes: Vec<(String, M, u16)>,
        end: M,
    ) -> Result<(), NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        let mut packet = Vec::new();
        let begin = self.push(&mut packet, begin, NLM_F_REQUEST);
        let mut waiting = BTreeMap::from([(begin, "start a transaction".to_owned())]);
        for (name, change, flags) in changes {
            waiting.insert(self.push(&mut packet, change, NLM_F_REQUEST | NLM_F_ACK | flags), name);
        }
        self.push(&mut packet, end, NLM_F_REQUEST);
        // All acknowledgements are queued before the send returns.
        self.socket.set_rx_buf_sz(ACKNOWLEDGEMENTS)?;
        self.socket.send(&packet, 0)?;
        // The beginning is answered only if the whole is refused.
        while waiting.len() > 1 {
            for message in self.receive::<M>()? {
                let message = message.map_err(|unread| unread.error("apply a transaction"))?;
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                let operation = waiting.remove(&message.header.sequence_number).unwrap_or_default();
                if answer.code.is_some() {
                    return Err(NetlinkError::Refused { operation, source: answer.to_io() });
                }
            }
        }
        Ok(())
    }

    fn send<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Result<u32, NetlinkError> {
        let mut packet = Vec::new();
        let sequence = self.push(&mut packet, message, flags);
        self.socket.send(&packet, 0)?;
        Ok(sequence)
    }

    fn push<M: NetlinkSerializable>(&mut self, packet: &mut Vec<u8>, message: M, flags: u16) -> u32 {
        self.sequence += 1;
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        packet.extend_from_slice(&bytes);
        self.sequence
    }

    /// Collects what belongs to `sequence` until its acknowledgement, or the end of its list.
    fn answers<M>(&mut self, operation: &str, sequence: u32, most: usize) -> Result<End<M>, NetlinkError>
    where
        M: NetlinkDeserializable + Debug,
    {
        let mut answers = Answers::new(operation, sequence, most);
        loop {
            if let Some(end) = answers.add(self.receive()?)? {
                return Ok(end);
            }
        }
    }

    /// The messages of one packet.
    fn receive<M>(&mut self) -> Result<Vec<Received<M>>, NetlinkError>
    where
        M: NetlinkDeserializable + Debug,
    {
        let (packet, _) = self.socket.recv_from_full()?;
        Ok(messages(&packet))
    }
}

type Received<M> = Result<NetlinkMessage<M>, Unread>;

/// A message that cannot be read.
#[derive(Debug)]
struct Unread {
    sequence: u32,
    kind: u16,
    flags: u16,
    why: String,
}

impl Unread {
    /// Is it about the question, and not an answer?
    fn is_control(&self) -> bool {
        /// `NLMSG_MIN_TYPE`.
        const FIRST: u16 = 16;
        self.kind < FIRST
    }

    fn error(self, operation: &str) -> NetlinkError {
        NetlinkError::Answer(format!("{operation}: {}", self.why))
    }
}

fn messages<M: NetlinkDeserializable + Debug>(packet: &[u8]) -> Vec<Received<M>> {
    let mut rest = packet;
    let mut messages = Vec::new();
    while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
        let (length, sequence) = (buffer.length() as usize, buffer.sequence_number());
        let (kind, flags) = (buffer.message_type(), buffer.flags());
        let message = NetlinkMessage::<M>::deserialize(rest);
        messages.push(message.map_err(|error| Unread { sequence, kind, flags, why: error.to_string() }));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// What has come of a list.
struct Answers<'a, M> {
    operation: &'a str,
    sequence: u32,
    most: usize,
    changed: bool,
    dump: Dump<M>,
}

impl<'a, M> Answers<'a, M> {
    fn new(operation: &'a str, sequence: u32, most: usize) -> Self {
        let dump = Dump { read: Vec::new(), unread: 0, cut: false };
        Self { operation, sequence, most, changed: false, dump }
    }

    /// What came next; tells when that was the end.
    fn add(&mut self, messages: Vec<Received<M>>) -> Result<Option<End<M>>, NetlinkError> {
        for message in messages {
            let message = match message {
                Ok(message) if message.header.sequence_number == self.sequence => message,
                Err(unread) if unread.sequence == self.sequence => {
                    if unread.is_control() {
                        return Err(unread.error(self.operation));
                    }
                    self.changed |= unread.flags & NLM_F_DUMP_INTR != 0;
                    self.dump.unread += 1;
                    continue;
                }
                _ => continue,
            };
            self.changed |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => self.dump.read.push(inner),
                NetlinkPayload::Done(end) => return self.end(end.code).map(Some),
                NetlinkPayload::Error(answer) if answer.code.is_none() => return self.end(0).map(Some),
                NetlinkPayload::Error(answer) => return Err(self.refused(answer.to_io())),
                _ => {}
            }
        }
        self.dump.cut = self.dump.read.len() + self.dump.unread > self.most;
        Ok(self.dump.cut.then(|| End::Told(self.take())))
    }

    /// A list that broke off says why at its end.
    fn end(&mut self, code: i32) -> Result<End<M>, NetlinkError> {
        match code {
            0 if self.changed => Ok(End::Changed),
            0 => Ok(End::Told(self.take())),
            code => Err(self.refused(io::Error::from_raw_os_error(code.saturating_abs()))),
        }
    }

    fn take(&mut self) -> Dump<M> {
        let empty = Dump { read: Vec::new(), unread: 0, cut: false };
        std::mem::replace(&mut self.dump, empty)
    }

    fn refused(&self, source: io::Error) -> NetlinkError {
        NetlinkError::Refused { operation: self.operation.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
