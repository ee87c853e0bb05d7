//! The demo's network: one namespace for control, each node and each pod, all joined to the demo's own.
//!
//! ```text
//!  member (eth0: its address/32) ── veth ── demo's namespace (forwards) ── veth ── member
//! ```
//! Every member sends everything to one link-local gateway; the demo's namespace has a route to each member.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ipnet::{IpNet, Ipv4Net};
use net::NetNamespace;
use net::links::{LOOPBACK, Links};

use crate::world::{Pod, World};

/// Where every member sends what is not its own.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Name server in the pods' `resolv.conf`. Nobody has this address: queries are captured by the node's DNS proxy.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// One member's place.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) namespace: NetNamespace,
    pub(crate) address: IpAddr,
    /// Files its processes see instead of the machine's: (file, path).
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
}

impl Place {
    /// A path by which other processes of the demo's user open the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_fd().as_raw_fd()))
    }
}

/// All places, in the order of the world's lists.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) control: Place,
    pub(crate) nodes: Vec<Place>,
    pub(crate) pods: Vec<Place>,
}

/// Makes and joins all namespaces. This process already is in a namespace of its own.
pub(crate) fn build(world: &World, folder: &Path) -> anyhow::Result<Network> {
    let own = NetNamespace::current()?;
    let mut hub = Hub { links: Links::open(&own)?, members: 0 };
    hub.links.set_up(LOOPBACK)?;
    hub.links.add_address(LOOPBACK, host(GATEWAY))?;
    forward().context("letting the demo's own network namespace forward")?;

    let control = hub.join(world.control, Vec::new())?;
    let nodes =
        world.nodes.iter().map(|node| hub.join(node.address, Vec::new())).collect::<anyhow::Result<_>>()?;
    let pods = world
        .pods
        .iter()
        .map(|pod| hub.join(pod.address, own_files(pod, world, folder)?))
        .collect::<anyhow::Result<_>>()?;
    Ok(Network { control, nodes, pods })
}

struct Hub {
    links: Links,
    members: usize,
}

impl Hub {
    fn join(&mut self, address: IpAddr, files: Vec<(PathBuf, PathBuf)>) -> anyhow::Result<Place> {
        let IpAddr::V4(ipv4) = address else { bail!("{address}: the demo joins its members over IPv4") };
        let namespace = NetNamespace::create()?;
        self.members += 1;
        let cable = format!("m{}", self.members);
        self.links.add_veth(&cable, "eth0", &namespace)?;
        self.links.set_up(&cable)?;
        self.links.add_route(host(ipv4), &cable, None)?;
        let mut member = Links::open(&namespace)?;
        member.set_up(LOOPBACK)?;
        member.set_up("eth0")?;
        member.add_address("eth0", host(ipv4))?;
        member.add_route(host(GATEWAY), "eth0", None)?;
        member.add_route(IpNet::V4(Ipv4Net::default()), "eth0", Some(GATEWAY.into()))?;
        Ok(Place { namespace, address, files })
    }
}

fn host(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

fn forward() -> anyhow::Result<()> {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    std::fs::write(SETTING, "1")
        .with_context(|| format!("writing {SETTING} (is /proc/sys mounted read-only here?)"))
}

/// A pod's `resolv.conf` and `hosts`.
///
/// A pod that is not captured has neither DNS proxy nor load balancer: its `hosts` name the pods themselves.
fn own_files(pod: &Pod, world: &World, folder: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let resolv = folder.join(format!("{}.resolv", pod.name));
    let domain = "svc.cluster.local";
    let text = format!(
        "nameserver {NAME_SERVER}\nsearch {}.{domain} {domain} cluster.local\noptions ndots:5\n",
        pod.namespace
    );
    std::fs::write(&resolv, text)?;

    let mut text = format!("127.0.0.1 localhost\n{} {}\n", pod.address, pod.name);
    if !pod.captured {
        for other in world.pods.iter().filter(|other| other.name != pod.name) {
            text.push_str(&format!("{} {} {}.{}\n", other.address, other.app, other.app, other.namespace));
        }
    }
    let hosts = folder.join(format!("{}.hosts", pod.name));
    std::fs::write(&hosts, text)?;

    let mut files = Vec::new();
    for (file, shown_as) in [(resolv, "/etc/resolv.conf"), (hosts, "/etc/hosts")] {
        // A symbolic link (systemd's resolv.conf) is followed: the file it names is the one to cover.
        let covered = Path::new(shown_as).canonicalize().with_context(|| {
            format!("this machine has no {shown_as}, so a pod cannot be given one of its own")
        })?;
        files.push((file, covered));
    }
    Ok(files)
}
