//! The connections that a namespace's kernel tracks, and those that its sockets have.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
    /// Who answers: whom it was opened to, or whom somebody has translated that to.
    pub answering: Option<SocketAddr>,
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

/// Both ends, ours first, of the namespace's own TCP sockets that may still say something.
pub fn connected(namespace: &NetNamespace) -> Result<Vec<(SocketAddr, SocketAddr)>, NetlinkError> {
    let read = |table: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
    let text = namespace.run(|| {
        let mut text = read("tcp")?;
        match read("tcp6") {
            Ok(more) => text.push_str(&more),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(text)
    })??;
    Ok(text.lines().filter_map(ends).collect())
}

/// A line of the kernel's table: a number, our end, the other end, the state in hexadecimal.
fn ends(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    const TIME_WAIT: u8 = 6;
    const CLOSED: u8 = 7;
    let mut words = line.split_whitespace().skip(1);
    let ends = (end(words.next()?)?, end(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    (ends.1.port() != 0 && ![TIME_WAIT, CLOSED].contains(&state)).then_some(ends)
}

/// `0100007F:1F90`: an address in words as the machine has them, and a port.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?).into())
}

fn of(attributes: &[ConntrackAttribute]) -> Option<Tracked> {
    let (mut ends, mut answers, mut mark, mut open) = (None, None, 0, false);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => ends = Some(tcp_ends(tuple)?),
            ConntrackAttribute::CtaTupleReply(tuple) => answers = tcp_ends(tuple),
            ConntrackAttribute::CtaMark(value) => mark = *value,
            ConntrackAttribute::CtaProtoInfo(infos) => open = infos.iter().any(is_open),
            _ => {}
        }
    }
    let (source, destination) = ends?;
    let answering = answers.map(|(answering, _)| answering);
    Some(Tracked { source, destination, answering, mark, open })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners and what is over are left out.
    #[test]
    fn the_kernels_table_is_read() {
        let local = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let mapped = format!("{}{}", "0".repeat(16), local([0, 0, 0xff, 0xff]));
        let (here, there) = (local([10, 0, 0, 1]), local([10, 0, 0, 2]));
        let text = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
             0: {here}:1F90 00000000:0000 0A 00000000:00000000\n\
             1: {here}:1F90 {there}:0050 01 00000000:00000000\n\
             2: {here}:1F91 {there}:0050 06 00000000:00000000\n\
             3: {mapped}{here}:1F92 {mapped}{there}:0050 08 00000000:00000000\n"
        );
        let expected: Vec<(SocketAddr, SocketAddr)> = ["10.0.0.1:8080", "10.0.0.1:8082"]
            .map(|here| (here.parse().unwrap(), "10.0.0.2:80".parse().unwrap()))
            .into();
        assert_eq!(text.lines().filter_map(ends).collect::<Vec<_>>(), expected);
    }
}
