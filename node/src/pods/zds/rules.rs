//! The messages of the node agent, the rules that they follow and the answers to them, apart from any socket.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use net::NetNamespace;
use net::seqpacket::ReceiveError;
use prost::Message as _;
use state::Pod;
use wire::workload::zds;

/// Longest message of the protocol.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// A message of the agent that keeps the rules.
#[derive(Debug)]
pub(crate) enum Request {
    /// This pod is in the mesh; here is its network namespace.
    Add { uid: String, pod: Pod, netns: NetNamespace },
    /// This pod is in the mesh still, its namespace is not known yet.
    Keep { uid: String },
    /// This pod left the mesh.
    Delete { uid: String },
    /// All pods of this node have been named.
    SnapshotSent,
}

/// A message broke the rules of the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the message cannot be decoded: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("the message has no payload")]
    MissingPayload,
    #[error("the message names no pod")]
    MissingUid,
    #[error("pod {uid} was added without workload info")]
    MissingWorkloadInfo { uid: String },
    #[error("pod {uid} was added without a network namespace")]
    MissingNamespace { uid: String },
    #[error("pod {uid} was added with a bad network namespace: {source}")]
    BadNamespace { uid: String, source: net::NamespaceError },
    #[error("a descriptor came with a message that takes none")]
    UnexpectedDescriptor,
    #[error("pod {uid} was to be kept after the snapshot")]
    KeepAfterSnapshot { uid: String },
    #[error("the snapshot ended twice")]
    SecondSnapshot,
    #[error("{0}")]
    Received(ReceiveError),
}

impl ProtocolError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Undecodable(_) | Self::MissingPayload => "zds-undecodable",
            Self::MissingUid => "zds-missing-uid",
            Self::MissingWorkloadInfo { .. } => "zds-missing-workload-info",
            Self::MissingNamespace { .. } => "zds-missing-namespace",
            Self::BadNamespace { .. } => "zds-bad-namespace",
            Self::UnexpectedDescriptor => "zds-unexpected-descriptor",
            Self::KeepAfterSnapshot { .. } => "zds-keep-after-snapshot",
            Self::SecondSnapshot => "zds-second-snapshot",
            Self::Received(_) => "zds-broken-packet",
        }
    }

    /// The text of the refusal, in the two forms that the contract knows.
    pub(crate) fn refusal(&self) -> String {
        match self {
            Self::MissingWorkloadInfo { .. }
            | Self::KeepAfterSnapshot { .. }
            | Self::SecondSnapshot
            | Self::MissingUid => {
                format!("failure to process message : {self} ({})", self.code())
            }
            _ => format!("failure to read message : {self} ({})", self.code()),
        }
    }
}

/// The answer to a message, as a packet.
pub(crate) fn acknowledgement(outcome: Result<(), String>) -> Vec<u8> {
    let mut error = outcome.err().unwrap_or_default();
    // An answer is one packet as well.
    let longest = (0..=MAX_MESSAGE - 64).rev().find(|at| error.is_char_boundary(*at));
    error.truncate(longest.unwrap_or_default());
    let ack = zds::workload_response::Payload::Ack(zds::Ack { error });
    zds::WorkloadResponse { payload: Some(ack) }.encode_to_vec()
}

/// The order that messages of one connection must keep.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    synced: bool,
    named: HashSet<String>,
}

impl Rules {
    /// Takes one packet and the descriptor that came with it.
    pub(crate) fn accept(
        &mut self,
        bytes: &[u8],
        descriptor: Option<OwnedFd>,
    ) -> Result<Request, ProtocolError> {
        use zds::workload_request::Payload;

        let request = zds::WorkloadRequest::decode(bytes)?;
        let payload = request.payload.ok_or(ProtocolError::MissingPayload)?;
        if descriptor.is_some() && !matches!(payload, Payload::Add(_)) {
            return Err(ProtocolError::UnexpectedDescriptor);
        }
        Ok(match payload {
            Payload::Add(add) => {
                let request = self::add(add, descriptor)?;
                if let (false, Request::Add { uid, .. }) = (self.synced, &request) {
                    self.named.insert(uid.clone());
                }
                request
            }
            Payload::Keep(zds::KeepWorkload { uid }) => {
                let uid = present(uid)?;
                if self.synced {
                    return Err(ProtocolError::KeepAfterSnapshot { uid });
                }
                self.named.insert(uid.clone());
                Request::Keep { uid }
            }
            Payload::Del(zds::DelWorkload { uid }) => {
                let uid = present(uid)?;
                self.named.remove(&uid);
                Request::Delete { uid }
            }
            Payload::SnapshotSent(_) => {
                if std::mem::replace(&mut self.synced, true) {
                    return Err(ProtocolError::SecondSnapshot);
                }
                Request::SnapshotSent
            }
        })
    }

    /// The pods named before the snapshot ended.
    pub(crate) fn named(&self) -> &HashSet<String> {
        &self.named
    }
}

fn add(add: zds::AddWorkload, descriptor: Option<OwnedFd>) -> Result<Request, ProtocolError> {
    let uid = present(add.uid)?;
    let Some(info) = add.workload_info else {
        return Err(ProtocolError::MissingWorkloadInfo { uid });
    };
    let Some(descriptor) = descriptor else {
        return Err(ProtocolError::MissingNamespace { uid });
    };
    let netns = match NetNamespace::from_fd(descriptor) {
        Ok(netns) => netns,
        Err(source) => return Err(ProtocolError::BadNamespace { uid, source }),
    };
    let pod = Pod {
        namespace: info.namespace.into(),
        name: info.name.into(),
        service_account: info.service_account.into(),
    };
    Ok(Request::Add { uid, pod, netns })
}

fn present(uid: String) -> Result<String, ProtocolError> {
    if uid.is_empty() { Err(ProtocolError::MissingUid) } else { Ok(uid) }
}
