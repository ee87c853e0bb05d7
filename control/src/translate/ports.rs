//! Ports of services, and which port of a workload stands behind each (control-plane 3.6, 3.7.1).

use std::collections::BTreeMap;

use wire::workload::{AppProtocol, Port, PortList};

use crate::sources::objects::{EntryPort, IntOrString, Pod, ServicePort};

/// The ports a service declares.
#[derive(Debug, Clone, Copy)]
pub(super) enum ServicePorts<'a> {
    Service(&'a [ServicePort]),
    Entry(&'a [EntryPort]),
}

impl ServicePorts<'_> {
    /// As the service's own record lists them.
    pub(super) fn of_service(self) -> Vec<Port> {
        match self {
            Self::Service(ports) => ports
                .iter()
                .map(|port| Port {
                    service_port: number(port.port),
                    // A name is resolved by each workload: 0 says so.
                    target_port: match &port.target_port {
                        Some(IntOrString::String(_)) => 0,
                        Some(IntOrString::Int(target)) => number(*target),
                        None => number(port.port),
                    },
                    app_protocol: service_protocol(port).into(),
                })
                .collect(),
            Self::Entry(ports) => ports
                .iter()
                .map(|port| Port {
                    service_port: number(port.number),
                    target_port: number(entry_target(port)),
                    app_protocol: protocol(&port.protocol.to_ascii_lowercase(), port.number).into(),
                })
                .collect(),
        }
    }

    /// As a pod listed for the service serves them. A named port the pod has not is left out.
    pub(super) fn of_pod(self, pod: &Pod) -> PortList {
        self.resolve(|name| container_port(pod, name), |port| container_port(pod, &port.name), |_| None)
    }

    /// As an endpoint with a port map serves them.
    pub(super) fn of_endpoint(self, ports: &BTreeMap<String, i64>) -> PortList {
        let mapped = |name: &str| ports.get(name).copied();
        self.resolve(mapped, |port| mapped(&port.name), |port| mapped(&port.name))
    }

    fn resolve(
        self,
        named_target: impl Fn(&str) -> Option<i64>,
        entry_override: impl Fn(&EntryPort) -> Option<i64>,
        number_override: impl Fn(&ServicePort) -> Option<i64>,
    ) -> PortList {
        let pair = |service: i64, target: i64| Port {
            service_port: number(service),
            target_port: number(target),
            app_protocol: AppProtocol::Unknown.into(),
        };
        let ports = match self {
            Self::Service(ports) => ports
                .iter()
                .filter_map(|port| {
                    let target = match &port.target_port {
                        Some(IntOrString::String(name)) => named_target(name)?,
                        Some(IntOrString::Int(target)) => number_override(port).unwrap_or(*target),
                        None => number_override(port).unwrap_or(port.port),
                    };
                    Some(pair(port.port, target))
                })
                .collect(),
            Self::Entry(ports) => ports
                .iter()
                .map(|port| pair(port.number, entry_override(port).unwrap_or_else(|| entry_target(port))))
                .collect(),
        };
        PortList { ports }
    }
}

fn entry_target(port: &EntryPort) -> i64 {
    if port.target_port == 0 { port.number } else { port.target_port }
}

/// A TCP port of this name, in containers first, then in native sidecars.
fn container_port(pod: &Pod, name: &str) -> Option<i64> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .find(|port| !name.is_empty() && port.name == name && matches!(port.protocol.as_str(), "" | "TCP"))
        .map(|port| port.container_port)
}

/// The loader admits 1 to 65535 only.
pub(super) fn number(port: i64) -> u32 {
    u32::try_from(port).unwrap_or(0)
}

fn service_protocol(port: &ServicePort) -> AppProtocol {
    if port.protocol == "UDP" {
        return AppProtocol::Unknown;
    }
    match port.app_protocol.as_str() {
        "kubernetes.io/h2c" => AppProtocol::Http2,
        "kubernetes.io/ws" => AppProtocol::Http11,
        "kubernetes.io/wss" => AppProtocol::Tls,
        "" => named_protocol(&port.name, port.port),
        other => named_protocol(other, port.port),
    }
}

/// The protocol a port's name announces by what stands before its first dash.
fn named_protocol(name: &str, port: i64) -> AppProtocol {
    const GRPC_WEB: &str = "grpc-web";
    let name = name.to_ascii_lowercase();
    if name.starts_with(GRPC_WEB) {
        return AppProtocol::Unknown;
    }
    protocol(name.split('-').next().unwrap_or(""), port)
}

/// The protocol of a lower-case name, or that the number is known for.
fn protocol(name: &str, port: i64) -> AppProtocol {
    match name {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "tls" | "https" => AppProtocol::Tls,
        // Known names without a value of their own.
        "udp" | "mongo" | "redis" | "mysql" | "http_proxy" | "grpc-web" => AppProtocol::Unknown,
        _ if matches!(port, 25 | 53 | 3306 | 27017) => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // CP-3.7.1
    #[test]
    fn a_service_announces_by_prefix_and_an_entry_by_the_whole_word() {
        let of_name = |name: &str| named_protocol(name, 1);
        assert_eq!(of_name("HTTP-web"), AppProtocol::Http11);
        assert_eq!(of_name("grpc-web-x"), AppProtocol::Unknown);
        assert_eq!(of_name("httpx"), AppProtocol::Unknown);
        let of_entry = |protocol: &str, number| {
            let port = EntryPort { name: "p".into(), number, protocol: protocol.into(), target_port: 0 };
            ServicePorts::Entry(&[port]).of_service().remove(0).app_protocol
        };
        assert_eq!(of_entry("HTTP2", 80), i32::from(AppProtocol::Http2));
        assert_eq!(of_entry("HTTP-web", 80), i32::from(AppProtocol::Unknown));
        assert_eq!(of_entry("GRPC-Web", 3306), i32::from(AppProtocol::Unknown));
        assert_eq!(of_entry("", 3306), i32::from(AppProtocol::Tcp));
    }
}
