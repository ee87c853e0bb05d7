//! Requests to the kernel over netlink, and their answers. Synchronous: the kernel answers within the call.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

use crate::{NamespaceError, NetNamespace};

/// Receive buffer of a transaction, far above what a few hundred acknowledgements take.
const ACKNOWLEDGEMENTS: u32 = 1 << 20;

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
        self.answers::<M>(operation, sequence).map(|_| ())
    }

    /// Asks for a list.
    pub(crate) fn list<M>(&mut self, operation: &str, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.answers(operation, sequence)
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
            for message in self.receive::<M>("apply a transaction")? {
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
    fn answers<M>(&mut self, operation: &str, sequence: u32) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkDeserializable + Debug,
    {
        let mut found = Vec::new();
        loop {
            for message in self.receive::<M>(operation)? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(answer) if answer.code.is_none() => return Ok(found),
                    NetlinkPayload::Error(answer) => {
                        let source = answer.to_io();
                        return Err(NetlinkError::Refused { operation: operation.to_owned(), source });
                    }
                    _ => {}
                }
            }
        }
    }

    /// The messages of one packet.
    fn receive<M>(&mut self, operation: &str) -> Result<Vec<NetlinkMessage<M>>, NetlinkError>
    where
        M: NetlinkDeserializable + Debug,
    {
        let (packet, _) = self.socket.recv_from_full()?;
        let mut rest = packet.as_slice();
        let mut messages = Vec::new();
        while let Ok(length) = NetlinkBuffer::new_checked(rest).map(|buffer| buffer.length() as usize) {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|error| NetlinkError::Answer(format!("{operation}: {error}")))?;
            messages.push(message);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}
