//! `GatewayAddress`, written by hand for the order of its bytes.
//!
//! The reference writes members of a `oneof` after the plain fields of a message; the generator here sorts by field
//! number. Readers do not care, but a resource's version is the hash of its bytes, and two implementations only agree
//! on versions if they agree on bytes. This is the one message of the mesh where the orders differ.

use bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::workload::{NamespacedHostname, NetworkAddress};

/// Where a waypoint or gateway is, and on which port it takes HBONE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    pub destination: Option<gateway_address::Destination>,
    pub hbone_mtls_port: u32,
}

pub mod gateway_address {
    /// How the gateway is named.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
    pub enum Destination {
        #[prost(message, tag = "1")]
        Hostname(super::NamespacedHostname),
        #[prost(message, tag = "2")]
        Address(super::NetworkAddress),
    }
}

use gateway_address::Destination;

const PORT: u32 = 3;

impl Message for GatewayAddress {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if self.hbone_mtls_port != 0 {
            encoding::uint32::encode(PORT, &self.hbone_mtls_port, buffer);
        }
        if let Some(destination) = &self.destination {
            destination.encode(buffer);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 | 2 => Destination::merge(&mut self.destination, tag, wire_type, buffer, context),
            PORT => encoding::uint32::merge(wire_type, &mut self.hbone_mtls_port, buffer, context),
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let port = if self.hbone_mtls_port == 0 {
            0
        } else {
            encoding::uint32::encoded_len(PORT, &self.hbone_mtls_port)
        };
        port + self.destination.as_ref().map_or(0, Destination::encoded_len)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_before_the_destination() {
        let address = NetworkAddress { address: vec![10, 96, 49, 1], ..Default::default() };
        let gateway =
            GatewayAddress { destination: Some(Destination::Address(address)), hbone_mtls_port: 15008 };
        let bytes = gateway.encode_to_vec();
        assert_eq!(bytes, [24, 160, 117, 18, 6, 18, 4, 10, 96, 49, 1]);
        assert_eq!(gateway.encoded_len(), bytes.len());
        assert_eq!(GatewayAddress::decode(bytes.as_slice()), Ok(gateway.clone()));
        // The other order reads the same, and unknown fields are skipped.
        let other = [18, 6, 18, 4, 10, 96, 49, 1, 24, 160, 117, 32, 1];
        assert_eq!(GatewayAddress::decode(other.as_slice()), Ok(gateway));
    }
}
