//! The border: wire messages become values, or are refused one by one with the reason.
//!
//! Stricter than the reference where that loses protection: a range, port or string match of a policy that makes no
//! sense refuses the policy instead of vanishing from it, and a refused policy that has no earlier good version is
//! quarantined ([`policy::Policy::quarantined`]).

mod authorization;
mod service;
mod workload;

use std::net::IpAddr;
use std::sync::Arc;

use identity::InvalidSpiffeId;
use ipnet::IpNet;
use policy::Policy;
use prost::Message;
use wire::security::Authorization;
use wire::workload::{Address, address};

use crate::address::{GatewayAddress, GatewayDestination, InvalidServiceKey, NetworkAddress, ServiceKey};
use crate::apply::{Delta, Rejected, ResourceType, Update};
use crate::service::Service;
use crate::workload::{PortMap, Workload};

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// The response names it, and no more.
    #[error("XDS payload without resource")]
    NoPayload,
    /// It is not the message it should be.
    #[error("decode: {0}")]
    Undecodable(String),
    /// Neither workload nor service.
    #[error("unknown address type")]
    UnknownAddressType,
    /// An IP address is neither 4 nor 16 bytes long.
    #[error("failed to parse address, had {0} bytes")]
    AddressLength(usize),
    /// A waypoint or gateway is nowhere.
    #[error("nonempty gateway address is missing address")]
    NoGatewayDestination,
    /// A service is not named `<namespace>/<hostname>`.
    #[error(transparent)]
    ServiceKey(#[from] InvalidServiceKey),
    /// The tunnel of sidecars.
    #[error("unknown enum: unsupported tunnel protocol: legacy istio mtls")]
    LegacyMtls,
    /// A routing preference says nothing.
    #[error("unknown enum: invalid target")]
    UnspecifiedScope,
    /// An enumeration has no such number.
    #[error("decode error: {0}")]
    UnknownEnum(String),
    /// A prefix is too long for its address.
    #[error("invalid cidr: {0}")]
    Cidr(String),
    /// A port has more than 16 bits.
    #[error("port out of range: {0}")]
    Port(u32),
    /// Trust domain, namespace and service account make no identity.
    #[error(transparent)]
    Identity(#[from] InvalidSpiffeId),
    /// A string match of a policy does not say how to match.
    #[error("string match without a kind")]
    StringMatch,
}

impl RejectReason {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoPayload => "resource-no-payload",
            Self::Undecodable(_) => "resource-undecodable",
            Self::UnknownAddressType => "resource-unknown-address-type",
            Self::AddressLength(_) => "resource-address-length",
            Self::NoGatewayDestination => "resource-no-gateway-destination",
            Self::ServiceKey(_) => "resource-service-key",
            Self::LegacyMtls => "resource-legacy-mtls",
            Self::UnspecifiedScope => "resource-unspecified-scope",
            Self::UnknownEnum(_) => "resource-unknown-enum",
            Self::Cidr(_) => "resource-cidr",
            Self::Port(_) => "resource-port",
            Self::Identity(_) => "resource-identity",
            Self::StringMatch => "resource-string-match",
        }
    }
}

impl TryFrom<wire::workload::Workload> for Workload {
    type Error = RejectReason;

    fn try_from(from: wire::workload::Workload) -> Result<Self, RejectReason> {
        workload::workload(from)
    }
}

impl TryFrom<wire::workload::Service> for Service {
    type Error = RejectReason;

    fn try_from(from: wire::workload::Service) -> Result<Self, RejectReason> {
        service::service(from)
    }
}

/// Reads the policy of this resource name.
pub fn policy(name: &str, from: Authorization) -> Result<Policy, RejectReason> {
    authorization::policy(name, from)
}

pub(crate) fn decode<'a>(
    kind: ResourceType,
    resources: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    removed: Vec<String>,
) -> Delta {
    let mut delta = Delta { kind, updates: Vec::new(), removed, rejected: Vec::new() };
    // The NACK lists what makes no sense before what cannot be decoded.
    let mut undecodable = Vec::new();
    for (name, payload) in resources {
        let payload = payload.ok_or(RejectReason::NoPayload);
        let reason = match kind {
            ResourceType::Address => match payload.and_then(message::<Address>) {
                Ok(address) => match update(address) {
                    Ok(update) => {
                        delta.updates.push(update);
                        continue;
                    }
                    Err(reason) => reason,
                },
                Err(reason) => {
                    undecodable.push(Rejected { name: name.to_owned(), reason });
                    continue;
                }
            },
            ResourceType::Authorization => match payload.and_then(message::<Authorization>) {
                Ok(message) => {
                    let quarantine = authorization::quarantine(name, &message);
                    match policy(name, message) {
                        Ok(policy) => {
                            delta.updates.push(Update::Policy(Arc::new(policy)));
                            continue;
                        }
                        Err(reason) => {
                            delta
                                .updates
                                .extend(quarantine.map(|policy| Update::Quarantine(Arc::new(policy))));
                            reason
                        }
                    }
                }
                Err(reason) => {
                    delta.updates.push(Update::Quarantine(Arc::new(authorization::unreadable(name))));
                    undecodable.push(Rejected { name: name.to_owned(), reason });
                    continue;
                }
            },
        };
        delta.rejected.push(Rejected { name: name.to_owned(), reason });
    }
    delta.rejected.append(&mut undecodable);
    delta
}

fn message<M: Message + Default>(payload: &[u8]) -> Result<M, RejectReason> {
    M::decode(payload).map_err(|error| RejectReason::Undecodable(error.to_string()))
}

fn update(address: Address) -> Result<Update, RejectReason> {
    match address.r#type {
        Some(address::Type::Workload(workload)) => Ok(Update::Workload(Arc::new(workload.try_into()?))),
        Some(address::Type::Service(service)) => Ok(Update::Service(Arc::new(service.try_into()?))),
        None => Err(RejectReason::UnknownAddressType),
    }
}

/// 4 or 16 bytes.
fn ip(bytes: &[u8]) -> Result<IpAddr, RejectReason> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(v6.into())
    } else {
        Err(RejectReason::AddressLength(bytes.len()))
    }
}

fn cidr(bytes: &[u8], length: u32) -> Result<IpNet, RejectReason> {
    let too_long = |error: &dyn ToString| RejectReason::Cidr(error.to_string());
    let length = u8::try_from(length).map_err(|error| too_long(&error))?;
    IpNet::new(ip(bytes)?, length).map_err(|error| too_long(&error))
}

fn port(number: u32) -> Result<u16, RejectReason> {
    u16::try_from(number).map_err(|_| RejectReason::Port(number))
}

fn ports(ports: &[wire::workload::Port]) -> Result<PortMap, RejectReason> {
    ports.iter().map(|p| Ok((port(p.service_port)?, port(p.target_port)?))).collect()
}

fn gateway(from: wire::workload::GatewayAddress) -> Result<GatewayAddress, RejectReason> {
    use wire::workload::gateway_address::Destination;
    let destination = match from.destination {
        None => return Err(RejectReason::NoGatewayDestination),
        Some(Destination::Hostname(name)) => {
            GatewayDestination::Hostname(ServiceKey::new(&name.namespace, &name.hostname))
        }
        Some(Destination::Address(address)) => GatewayDestination::Address(NetworkAddress {
            ip: ip(&address.address)?,
            network: address.network.into(),
        }),
    };
    Ok(GatewayAddress { destination, hbone_mtls_port: port(from.hbone_mtls_port)? })
}

/// The enumeration value of a number, or a refusal.
fn number<E: TryFrom<i32>>(number: i32) -> Result<E, RejectReason>
where
    E::Error: ToString,
{
    E::try_from(number).map_err(|error| RejectReason::UnknownEnum(error.to_string()))
}

/// `text`, or what it means when empty.
fn or_default(text: String, default: &str) -> Arc<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

#[cfg(test)]
mod tests;
