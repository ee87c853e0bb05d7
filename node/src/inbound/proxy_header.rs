//! The header of the PROXY protocol, version 2, as a sender over TCP writes it (data-path 5.5): who speaks, to what
//! address, and by what verified name. After sections 2.2 and 2.2.7 of the protocol's published specification.

use std::net::SocketAddr;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY: on behalf of somebody else.
const PROXY: u8 = 0x21;
/// Address families, each with the transport STREAM.
const UNSPECIFIED: u8 = 0x01;
const INET: u8 = 0x11;
const INET6: u8 = 0x21;
/// Type of the TLV that holds the peer's SPIFFE name; from the range that the specification leaves to applications.
const IDENTITY: u8 = 0xd0;

/// The length of a header is told in two octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's identity has {length} octets, too many for a PROXY protocol header")]
pub(crate) struct IdentityTooLong {
    pub(crate) length: usize,
}

/// The header for bytes from `source` that were sent to `destination`. Addresses of two families cannot stand in one
/// header: they are left out as unspecified.
pub(crate) fn encode(
    source: SocketAddr,
    destination: SocketAddr,
    identity: Option<&str>,
) -> Result<Vec<u8>, IdentityTooLong> {
    let (family, addresses) = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            (INET, [source.ip().octets(), destination.ip().octets()].concat())
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            (INET6, [source.ip().octets(), destination.ip().octets()].concat())
        }
        _ => (UNSPECIFIED, Vec::new()),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let ports = if addresses.is_empty() { Vec::new() } else { ports };
    let identity = identity.unwrap_or_default().as_bytes();
    let too_long = |_| IdentityTooLong { length: identity.len() };
    let name_length = u16::try_from(identity.len()).map_err(too_long)?.to_be_bytes();
    let tlv =
        if identity.is_empty() { Vec::new() } else { [&[IDENTITY][..], &name_length, identity].concat() };
    let length = u16::try_from(addresses.len() + ports.len() + tlv.len()).map_err(too_long)?.to_be_bytes();
    Ok([&SIGNATURE[..], &[PROXY, family], &length, &addresses, &ports, &tlv].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "spiffe://cluster.local/ns/ns/sa/client";

    fn header(source: &str, destination: &str, identity: Option<&str>) -> Vec<u8> {
        encode(source.parse().unwrap(), destination.parse().unwrap(), identity).unwrap()
    }

    // Data-path 5.5, octet by octet.
    #[test]
    fn both_ends_and_the_identity_are_told() {
        let v4 = header("10.1.0.1:40000", "10.96.0.5:80", Some(PEER));
        let wanted = [
            &[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a][..],
            &[0x21, 0x11, 0, 12 + 3 + 38],
            &[10, 1, 0, 1, 10, 96, 0, 5, 0x9c, 0x40, 0, 80],
            &[0xd0, 0, 38],
            PEER.as_bytes(),
        ];
        assert_eq!(v4, wanted.concat());

        let v6 = header("[fd00::1]:1", "[fd00::5]:65535", Some(PEER));
        let wanted = [
            b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
            &[0x21, 0x21, 0, 36 + 3 + 38],
            &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 1, 0xff, 0xff],
            &[0xd0, 0, 38],
            PEER.as_bytes(),
        ];
        assert_eq!(v6, wanted.concat());
    }

    // Data-path 5.5: families that differ are told as unspecified; no identity, no TLV.
    #[test]
    fn what_cannot_be_told_is_left_out() {
        let bare = b"\r\n\r\n\0\r\nQUIT\n\x21\x01\0\0";
        for (source, destination) in [("10.1.0.1:40000", "[fd00::5]:80"), ("[fd00::1]:40000", "10.96.0.5:80")]
        {
            assert_eq!(header(source, destination, None), bare);
            let named = [&bare[..14], &[0, 4, 0xd0, 0, 1, b'x']].concat();
            assert_eq!(header(source, destination, Some("x")), named);
        }
        let plain = header("10.1.0.1:40000", "10.96.0.5:80", None);
        assert_eq!(plain[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(plain.len(), 28);
    }

    #[test]
    fn an_identity_that_does_not_fit_is_refused() {
        let [v4, v6] = [["10.1.0.1:1", "10.1.0.2:2"], ["[fd00::1]:1", "[fd00::2]:2"]]
            .map(|ends| ends.map(|end| end.parse::<SocketAddr>().unwrap()));
        for ([source, destination], longest) in [(v4, 65_535 - 12 - 3), (v6, 65_535 - 36 - 3)] {
            let longest = "x".repeat(longest);
            let header = encode(source, destination, Some(&longest)).unwrap();
            assert_eq!((header[14], header[15], header.len()), (0xff, 0xff, 16 + 65_535));
            for more in [1, 100] {
                let longer = longest.clone() + &"x".repeat(more);
                let refused = Err(IdentityTooLong { length: longer.len() });
                assert_eq!(encode(source, destination, Some(&longer)), refused);
            }
        }
    }
}
