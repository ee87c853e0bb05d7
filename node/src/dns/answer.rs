//! Answers from the mesh.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use state::{Family, Mesh, NameView, Workload};

use super::Settings;
use super::query::Query;

/// Time to live of all answers, in seconds: how long a change of the mesh may stay unseen.
const TTL: u32 = 30;

/// What the mesh says.
pub(super) enum Outcome {
    /// The name is the mesh's.
    Answered { message: Message, n_endpoints: usize },
    /// It is somebody else's.
    NotOurs,
}

/// Looks the name up as the client sees the mesh.
pub(super) fn answer(
    mesh: &Mesh,
    client: &Workload,
    query: &Query,
    settings: &Settings,
    seed: u64,
) -> Outcome {
    let family = match query.record_type() {
        RecordType::A => Family::Ipv4,
        RecordType::AAAA => Family::Ipv6,
        _ => return Outcome::NotOurs,
    };
    let view = NameView {
        namespace: &client.namespace,
        cluster_domain: &settings.cluster_domain,
        search: settings.search.as_deref(),
        preferred_namespace: settings.preferred_namespace.as_deref(),
    };
    let found = if query.is_plain() { mesh.find_name(query.name(), &view) } else { None };
    let Some(found) = found else { return Outcome::NotOurs };
    let addresses = match family {
        Family::Ipv6 if !settings.ipv6 => Vec::new(),
        _ => mesh.addresses_of(&found.service, &client.network, family, seed),
    };
    let mut message = query.response();
    message.metadata.authoritative = true;
    let n_endpoints = addresses.len();
    if n_endpoints > 0 {
        let canonical = found.canonical.and_then(|name| Name::from_ascii(format!("{name}.")).ok());
        let owner = canonical.as_ref().unwrap_or_else(|| query.owner());
        if let Some(target) = canonical.clone() {
            message.add_answer(Record::from_rdata(query.owner().clone(), TTL, RData::CNAME(CNAME(target))));
        }
        message.add_answers(addresses.into_iter().map(|ip| {
            let data = match ip {
                IpAddr::V4(ip) => RData::A(A(ip)),
                IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
            };
            Record::from_rdata(owner.clone(), TTL, data)
        }));
    }
    Outcome::Answered { message, n_endpoints }
}

/// The bytes of a reply, with as many records as fit and the truncation flag if not all do.
pub(super) fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(bytes) = fits(&message) {
        return Some(bytes);
    }
    message.metadata.truncation = true;
    let all = std::mem::take(&mut message.answers);
    // The size grows with the records: search for the last number that fits.
    let (mut fitting, mut too_many) = (0, all.len());
    while too_many - fitting > 1 {
        let middle = fitting + (too_many - fitting) / 2;
        message.answers = all.get(..middle)?.to_vec();
        if fits(&message).is_some() {
            fitting = middle;
        } else {
            too_many = middle;
        }
    }
    message.answers = all.get(..fitting)?.to_vec();
    message.to_vec().ok()
}
