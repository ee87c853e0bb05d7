//! Messages between node agent and node proxy: anything an agent may send, and what it reads back.

use std::collections::HashSet;
use std::fmt::Debug;
use std::fs::File;
use std::os::fd::OwnedFd;

use prost::Message;
use wire::workload::zds;

use crate::input::Input;

#[path = "../../node/src/pods/zds/rules.rs"]
#[allow(dead_code, reason = "what only the socket gives is not fuzzed")]
mod node;

use node::{ProtocolError, Request, Rules};

/// Largest packet of the protocol.
const LARGEST: usize = 1024;

/// The packets of one connection, each with or without a descriptor, and the answer to each.
pub fn packets(data: &[u8]) {
    let mut input = Input(data);
    let mut rules = Rules::default();
    let (mut named, mut synced) = (HashSet::new(), false);
    while !input.0.is_empty() {
        let choice = input.byte();
        let length = input.short().min(LARGEST);
        let bytes = input.take(length);
        again::<zds::WorkloadRequest>(bytes);
        again::<zds::WorkloadResponse>(bytes);
        again::<zds::ZdsHello>(bytes);
        let descriptor = match choice % 3 {
            0 => None,
            1 => Some(File::open("/proc/self/ns/net")),
            _ => Some(File::open("/dev/null")),
        };
        let descriptor = descriptor.map(|file| OwnedFd::from(file.expect("a file")));
        let outcome = match rules.accept(bytes, descriptor) {
            Ok(request) => {
                match &request {
                    Request::Add { uid, .. } | Request::Keep { uid } => {
                        assert!(!uid.is_empty());
                        if !synced {
                            named.insert(uid.clone());
                        }
                    }
                    Request::Delete { uid } => drop(named.remove(uid)),
                    Request::SnapshotSent => assert!(!std::mem::replace(&mut synced, true)),
                }
                assert!(choice % 3 == 0 || matches!(request, Request::Add { .. }) && choice % 3 == 1);
                Ok(())
            }
            Err(broken) => {
                assert!(!matches!(broken, ProtocolError::Received(_)));
                Err(broken.refusal())
            }
        };
        assert_eq!(rules.named(), &named);
        answered(outcome);
    }
    // Whatever a task of the node says of a pod goes the same way.
    answered(Err(String::from_utf8_lossy(data).into_owned()));
}

/// The answer fits a packet, and the agent reads what was said, or its beginning.
fn answered(outcome: Result<(), String>) {
    let said = outcome.clone().err().unwrap_or_default();
    let bytes = node::acknowledgement(outcome);
    assert!(bytes.len() <= LARGEST);
    let read = zds::WorkloadResponse::decode(&*bytes).expect("our own answer");
    let Some(zds::workload_response::Payload::Ack(ack)) = read.payload else { panic!("{read:?}") };
    assert!(said.starts_with(&ack.error) && (said.is_empty() || !ack.error.is_empty()));
}

/// What can be read is the same when it is written and read anew.
fn again<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&*message.encode_to_vec()).as_ref(), Ok(&message));
    }
}
