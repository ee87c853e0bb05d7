//! Namespaces joined by routed cables: every one is a hop from every other, through a hub that forwards.
//!
//! No bridge and no shared subnet, so any addresses can meet: each namespace gets its own as single addresses, and a
//! default route to the hub. For machines in miniature (the demo, tests).
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::links::{LOOPBACK, Links};
use crate::{NetNamespace, NetlinkError};

/// The link of every joined namespace.
pub const LINK: &str = "eth0";

/// The hub's address on every cable, as its neighbours see it.
const HUB_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const HUB_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A hub and its cables.
#[derive(Debug)]
pub struct Star {
    hub: NetNamespace,
    cables: u32,
}

/// A star could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StarError {
    /// The kernel's setting cannot be written.
    #[error("cannot write {setting}: {source}")]
    Setting {
        /// Path of the setting.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A link, address or route was refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl StarError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "netns-cannot-set-up",
            Self::Netlink(error) => error.code(),
        }
    }
}

impl Star {
    /// Makes `hub` forward packets.
    pub fn new(hub: NetNamespace) -> Result<Self, StarError> {
        Links::open(&hub)?.set_up(LOOPBACK)?;
        let forward =
            |setting| std::fs::write(setting, "1\n").map_err(|source| StarError::Setting { setting, source });
        hub.run(|| {
            forward("/proc/sys/net/ipv4/ip_forward")?;
            // Absent where the kernel has no IPv6.
            match forward("/proc/sys/net/ipv6/conf/all/forwarding") {
                Err(StarError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
        .map_err(NetlinkError::from)??;
        Ok(Self { hub, cables: 0 })
    }

    /// The namespace in the middle.
    pub fn hub(&self) -> &NetNamespace {
        &self.hub
    }

    /// Joins a namespace: its loopback comes up, it gets `addresses` and a way to everybody.
    pub fn join(&mut self, namespace: &NetNamespace, addresses: &[IpAddr]) -> Result<(), StarError> {
        self.cables += 1;
        let cable = format!("cable{}", self.cables);
        let mut hub = Links::open(&self.hub)?;
        let mut links = Links::open(namespace)?;
        hub.add_veth(&cable, LINK, namespace)?;
        links.set_up(LOOPBACK)?;
        links.set_up(LINK)?;
        hub.set_up(&cable)?;
        for address in addresses {
            links.add_address(LINK, single(*address))?;
            hub.add_route(single(*address), &cable, None)?;
        }
        if addresses.iter().any(IpAddr::is_ipv4) {
            hub.add_address(&cable, single(HUB_V4.into()))?;
            links.add_route(single(HUB_V4.into()), LINK, None)?;
            links.add_route(everything(Ipv4Addr::UNSPECIFIED.into()), LINK, Some(HUB_V4.into()))?;
        }
        if addresses.iter().any(IpAddr::is_ipv6) {
            hub.add_address(&cable, single(HUB_V6.into()))?;
            links.add_route(single(HUB_V6.into()), LINK, None)?;
            links.add_route(everything(Ipv6Addr::UNSPECIFIED.into()), LINK, Some(HUB_V6.into()))?;
        }
        Ok(())
    }
}

fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn everything(unspecified: IpAddr) -> IpNet {
    IpNet::new_assert(unspecified, 0)
}
