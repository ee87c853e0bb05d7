//! PROXY protocol headers: what the node writes, a foreign reader must read as it was meant.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::v2::{Addresses, Command, Header, IPv4, IPv6, Protocol, Version};

use crate::input::Input;

#[path = "../../node/src/inbound/proxy_header.rs"]
mod node;

/// Type of the TLV with the peer's name.
const IDENTITY: u8 = 0xd0;

/// Two ends and a name, the header of them, and bytes of a client behind it.
pub fn header(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let (source, destination) = (end(&mut input, choice & 1 != 0), end(&mut input, choice & 2 != 0));
    // Long names are rare in inputs: a short one repeated.
    let times = if choice & 4 != 0 { input.short() } else { 1 };
    let length = usize::from(input.byte());
    let name = String::from_utf8_lossy(input.take(length));
    let name = name.repeat(times.min(70_000 / name.len().max(1) + 1));
    let behind = input.0;
    let known = (!name.is_empty()).then_some(name.as_str());

    let addresses = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            IPv4::new(*source.ip(), *destination.ip(), source.port(), destination.port()).into()
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            IPv6::new(*source.ip(), *destination.ip(), source.port(), destination.port()).into()
        }
        _ => Addresses::Unspecified,
    };
    let tlv = if name.is_empty() { 0 } else { 3 + name.len() };
    let Ok(encoded) = node::encode(source, destination, known) else {
        assert!(addresses.len() + tlv > usize::from(u16::MAX), "{} octets do fit", name.len());
        return;
    };
    assert_eq!(encoded.len(), 16 + addresses.len() + tlv);
    let sent = [&encoded[..], behind].concat();
    let read = Header::try_from(&sent[..]).expect("a header");
    assert_eq!((read.version, read.command, read.protocol), (Version::Two, Command::Proxy, Protocol::Stream));
    assert_eq!(read.addresses, addresses);
    assert_eq!(read.as_bytes(), encoded, "the client's bytes begin elsewhere");
    // This reader takes all of a header without addresses for unknown addresses.
    let tlvs = if read.addresses.is_empty() { read.address_bytes().into() } else { read.tlvs() };
    let tlvs: Vec<_> = tlvs.map(|tlv| tlv.expect("a TLV")).collect();
    let told: Vec<_> = tlvs.iter().map(|tlv| (tlv.kind, &*tlv.value)).collect();
    let wanted: Vec<_> = known.iter().map(|name| (IDENTITY, name.as_bytes())).collect();
    assert_eq!(told, wanted);
}

fn end(input: &mut Input<'_>, is_ipv6: bool) -> SocketAddr {
    let port = input.short() as u16;
    let mut octets = [0; 16];
    let given = input.take(if is_ipv6 { 16 } else { 4 });
    octets[..given.len()].copy_from_slice(given);
    if is_ipv6 {
        (Ipv6Addr::from(octets), port).into()
    } else {
        (Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), port).into()
    }
}
