//! Reading a query, and the replies that need no knowledge of the mesh.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

const HEADER: usize = 12;
/// What every client can take over UDP.
const PLAIN_UDP_LIMIT: u16 = 512;

/// What a packet is.
pub(super) enum Read {
    /// A query to answer or forward.
    Query(Box<Query>),
    /// Something that gets this reply.
    Refused(Vec<u8>),
    /// Something that gets no reply: a fragment, or a response.
    NotForUs,
}

/// A query.
#[derive(Debug)]
pub(super) struct Query {
    message: Message,
    /// The first question's name in lower case without the final dot.
    name: String,
    owner: Name,
    record_type: RecordType,
    /// It asks one thing of class IN: all that the mesh can answer.
    is_plain: bool,
}

/// Reads a packet. Opcodes other than QUERY get NOTIMP, no question SERVFAIL, what cannot be parsed FORMERR.
pub(super) fn read(packet: &[u8]) -> Read {
    let Some(header) = packet.first_chunk::<HEADER>() else { return Read::NotForUs };
    let (flags, n_questions) = (header[2], u16::from_be_bytes([header[4], header[5]]));
    if flags & 0x80 != 0 {
        return Read::NotForUs;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let refuse = |code| match Message::error_msg(id, op_code, code).to_vec() {
        Ok(reply) => Read::Refused(reply),
        Err(_) => Read::NotForUs,
    };
    if op_code != OpCode::Query {
        tracing::warn!(target: "dns", op_code = u8::from(op_code), "unsupported operation");
        return refuse(ResponseCode::NotImp);
    }
    if n_questions == 0 {
        return refuse(ResponseCode::ServFail);
    }
    let Ok(message) = Message::from_vec(packet) else { return refuse(ResponseCode::FormErr) };
    let Some(question) = message.queries.first() else { return refuse(ResponseCode::ServFail) };
    let owner = question.name().clone();
    let mut name = owner.to_lowercase().to_ascii();
    if name.ends_with('.') {
        name.pop();
    }
    let record_type = question.query_type();
    let is_plain = message.queries.len() == 1 && question.query_class() == DNSClass::IN;
    Read::Query(Box::new(Query { name, owner, record_type, is_plain, message }))
}

/// The code of a response, without the part that EDNS adds.
pub(super) fn response_code(packet: &[u8]) -> u8 {
    packet.get(3).map_or(0, |flags| flags & 0x0f)
}

impl Query {
    /// The name in lower case, without the final dot.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name as it was asked for.
    pub(super) fn owner(&self) -> &Name {
        &self.owner
    }

    /// What is asked for.
    pub(super) fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// Whether the mesh can answer it at all.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// How large a reply the client takes over UDP.
    pub(super) fn udp_limit(&self) -> usize {
        let asked = self.message.edns.as_ref().map_or(PLAIN_UDP_LIMIT, |edns| edns.max_payload());
        usize::from(asked.max(PLAIN_UDP_LIMIT))
    }

    /// A reply without records: EDNS and the flags of the query are echoed.
    pub(super) fn response(&self) -> Message {
        let mut reply = Message::response(self.message.metadata.id, OpCode::Query);
        debug_assert_eq!(reply.metadata.message_type, MessageType::Response);
        reply.metadata.recursion_desired = self.message.metadata.recursion_desired;
        reply.metadata.checking_disabled = self.message.metadata.checking_disabled;
        reply.metadata.recursion_available = true;
        reply.add_queries(self.message.queries.iter().cloned());
        if let Some(asked) = &self.message.edns {
            let mut edns = hickory_proto::op::Edns::new();
            edns.set_max_payload(asked.max_payload().max(PLAIN_UDP_LIMIT));
            edns.set_version(asked.version());
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            reply.set_edns(edns);
        }
        reply
    }

    /// The reply when nobody could be asked.
    pub(super) fn servfail(&self) -> Option<Vec<u8>> {
        let mut reply = self.response();
        reply.metadata.response_code = ResponseCode::ServFail;
        reply.to_vec().ok()
    }
}
