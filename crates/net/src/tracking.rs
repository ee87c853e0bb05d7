//! The connections that a namespace's kernel tracks.
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use crate::NetNamespace;
use crate::netlink::{Connection, NetlinkError};

/// `TCP_CONNTRACK_TIME_WAIT`: from here on nobody says anything any more.
const OVER: u8 = 7;

/// One tracked TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// Who opened it.
    pub source: SocketAddr,
    /// Whom it was opened to, before any redirection.
    pub destination: SocketAddr,
    /// The connection's mark.
    pub mark: u32,
    /// Something may still be said on it.
    pub open: bool,
}

/// The TCP connections that the namespace tracks, of both families.
pub fn tracked(namespace: &NetNamespace) -> Result<Vec<Tracked>, NetlinkError> {
    let mut connection = Connection::open(namespace, netlink_sys::protocols::NETLINK_NETFILTER)?;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let question = NetfilterMessage::new(header, ConntrackMessage::Get(vec![]));
    let answers = connection.list::<NetfilterMessage>("list the tracked connections", question)?;
    let connections = answers.iter().filter_map(|answer| match &answer.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => of(attributes),
        _ => None,
    });
    Ok(connections.collect())
}

fn of(attributes: &[ConntrackAttribute]) -> Option<Tracked> {
    let (mut ends, mut mark, mut open) = (None, 0, false);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => ends = Some(tcp_ends(tuple)?),
            ConntrackAttribute::CtaMark(value) => mark = *value,
            ConntrackAttribute::CtaProtoInfo(infos) => open = infos.iter().any(is_open),
            _ => {}
        }
    }
    let (source, destination) = ends?;
    Some(Tracked { source, destination, mark, open })
}

fn is_open(info: &ProtoInfo) -> bool {
    let ProtoInfo::TCP(attributes) = info else { return false };
    attributes.iter().any(|attribute| matches!(attribute, ProtoInfoTCP::State(state) if *state < OVER))
}

fn tcp_ends(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination, mut ports) = (None::<IpAddr>, None::<IpAddr>, (None, None));
    let mut tcp = false;
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => tcp = *protocol == Protocol::Tcp,
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ends = ((source?, ports.0?).into(), (destination?, ports.1?).into());
    tcp.then_some(ends)
}
