//! What is found or made inside a pod's network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use net::socket::{ListenError, Transparent, UdpOptions, bind_udp, listen};
use net::{NamespaceError, NamespaceId, NetNamespace};

use super::proxy::Listeners;
use crate::config::{DnsAddress, Loopback, ResolverSettings};
use crate::dns;
use crate::settings::Settings;

/// The port of every resolver.
const DNS_PORT: u16 = 53;

/// Why a pod cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{0}")]
    Namespace(#[from] NamespaceError),
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("a traffic thread cannot take the listeners: {0}")]
    Register(std::io::Error),
    #[error("the traffic threads have ended")]
    NoThread,
}

impl StartError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Namespace(error) => error.code(),
            Self::Listen(error) => error.code(),
            Self::Register(_) => "zds-register-failed",
            Self::NoThread => "zds-no-thread",
        }
    }
}

/// The sockets of one pod.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// One set for each traffic thread.
    pub(crate) listeners: Vec<Listeners>,
    pub(crate) dns: Option<dns::Sockets>,
}

/// Makes the sockets of a pod in its namespace.
pub(crate) fn sockets(
    netns: Option<&NetNamespace>,
    settings: &Settings,
    n_threads: usize,
) -> Result<Sockets, StartError> {
    inside(netns, || {
        let one = || if settings.proxy { pod_listeners(settings) } else { Ok(Listeners::default()) };
        let listeners = per_thread(settings, n_threads, one)?;
        let dns = settings.dns.map(|address| dns_sockets(address, settings)).transpose()?;
        Ok(Sockets { listeners, dns })
    })?
}

/// Makes the proxy's own HBONE listeners, where the proxy is.
pub(crate) fn own_sockets(settings: &Settings, n_threads: usize) -> Result<Sockets, StartError> {
    let options = settings.listen(Transparent::Never);
    let one = || {
        let inbound = Some(listen(settings.inbound, &options)?);
        Ok(Listeners { inbound, ..Listeners::default() })
    };
    Ok(Sockets { listeners: per_thread(settings, n_threads, one)?, dns: None })
}

/// Without shared ports only one thread can listen.
fn per_thread(
    settings: &Settings,
    n_threads: usize,
    one: impl Fn() -> Result<Listeners, ListenError>,
) -> Result<Vec<Listeners>, ListenError> {
    let n_listening = if settings.reuse_port { n_threads } else { 1 };
    (0..n_threads).map(|n| if n < n_listening { one() } else { Ok(Listeners::default()) }).collect()
}

fn inside<T>(netns: Option<&NetNamespace>, visit: impl FnOnce() -> T) -> Result<T, NamespaceError> {
    match netns {
        Some(netns) => netns.run(visit),
        None => Ok(visit()),
    }
}

fn pod_listeners(settings: &Settings) -> Result<Listeners, ListenError> {
    let options = settings.listen(settings.transparent);
    Ok(Listeners {
        inbound: Some(listen(settings.inbound, &options)?),
        plaintext: Some(listen(settings.inbound_plaintext, &options)?),
        outbound: Some(listen(settings.outbound, &options)?),
    })
}

fn dns_sockets(address: DnsAddress, settings: &Settings) -> Result<dns::Sockets, ListenError> {
    let addresses: Vec<SocketAddr> = match address {
        DnsAddress::Socket(address) => vec![address],
        DnsAddress::Localhost(loopback) => {
            let ipv6 = loopback.ipv6 && net::limits::ipv6_on_loopback();
            Loopback { ipv6, ..loopback }.addresses().collect()
        }
    };
    let datagram = UdpOptions { mark: settings.mark, reuse_port: settings.reuse_port };
    let stream = settings.listen(Transparent::Never);
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for address in addresses {
        udp.push(bind_udp(address, &datagram)?);
        tcp.push(listen(address, &stream)?.socket);
    }
    Ok(dns::Sockets { udp, tcp })
}

/// An unconnected socket of the pod towards `resolver`.
pub(crate) fn udp_towards(
    netns: Option<&NetNamespace>,
    settings: &Settings,
    resolver: SocketAddr,
) -> std::io::Result<std::net::UdpSocket> {
    let any = match resolver {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let options = UdpOptions { mark: settings.mark, reuse_port: false };
    let bound = inside(netns, || bind_udp(SocketAddr::new(any, 0), &options));
    bound.map_err(std::io::Error::other)?.map_err(|error| error.source)
}

/// The resolvers that a process in this namespace is configured with, if there is one to be seen;
/// else the proxy's own.
pub(crate) fn resolvers(id: Option<NamespaceId>, own: &ResolverSettings) -> Vec<SocketAddr> {
    let theirs = id
        .and_then(|id| of_a_process(Path::new("/proc"), id))
        .filter(|theirs| !theirs.name_servers.is_empty());
    let settings = theirs.as_ref().unwrap_or(own);
    settings.name_servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect()
}

fn of_a_process(proc: &Path, id: NamespaceId) -> Option<ResolverSettings> {
    let processes = std::fs::read_dir(proc).ok()?.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    for process in processes {
        let Ok(namespace) = std::fs::metadata(process.path().join("ns/net")) else { continue };
        if (namespace.dev(), namespace.ino()) != (id.device, id.inode) {
            continue;
        }
        // Of a process that has its own idea of the file system, its own file.
        if let Ok(text) = std::fs::read_to_string(process.path().join("root/etc/resolv.conf")) {
            return Some(ResolverSettings::parse(&text));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_a_namespace_are_those_of_a_process_in_it() {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let settings = ResolverSettings::parse(&text);
        let wanted: Vec<_> = settings.name_servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
        let own = NetNamespace::current().unwrap().id();
        let fallback = ResolverSettings::parse("nameserver 192.0.2.1\n");
        if !wanted.is_empty() {
            assert_eq!(resolvers(Some(own), &fallback), wanted);
        }
        let nobodys = NamespaceId { device: 0, inode: 0 };
        assert_eq!(resolvers(Some(nobodys), &fallback), ["192.0.2.1:53".parse().unwrap()]);
    }
}
