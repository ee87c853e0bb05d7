//! The node's own resolver, as `/etc/resolv.conf` describes it; shown in the dump.
use std::net::IpAddr;

use serde_json::{Value, json};

/// What `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolverSettings {
    pub(crate) name_servers: Vec<IpAddr>,
    pub(crate) domain: Option<String>,
    pub(crate) search: Vec<String>,
    pub(crate) n_dots: u32,
    pub(crate) timeout_seconds: u32,
    pub(crate) n_attempts: u32,
    pub(crate) edns0: bool,
}

impl ResolverSettings {
    /// Reads the text of a `resolv.conf`; lines it does not know are passed over, as resolvers do.
    pub(crate) fn parse(text: &str) -> Self {
        let mut settings = Self {
            name_servers: Vec::new(),
            domain: None,
            search: Vec::new(),
            n_dots: 1,
            timeout_seconds: 5,
            n_attempts: 2,
            edns0: false,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.name_servers.extend(words.next().and_then(address)),
                Some("domain") => settings.domain = words.next().map(str::to_owned),
                Some("search") => settings.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| settings.option(option)),
                _ => {}
            }
        }
        settings
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse()) {
            ("ndots", Ok(n)) => self.n_dots = n,
            ("timeout", Ok(n)) => self.timeout_seconds = n,
            ("attempts", Ok(n)) => self.n_attempts = n,
            ("edns0", _) => self.edns0 = true,
            _ => {}
        }
    }

    /// `dnsResolverCfg` of the dump.
    pub(super) fn config_json(&self) -> Value {
        let connection =
            |protocol: &str| json!({"port": 53, "protocol": {"type": protocol}, "bind_addr": null});
        let servers: Vec<Value> = self
            .name_servers
            .iter()
            .map(|ip| {
                let connections = [connection("udp"), connection("tcp")];
                json!({"ip": ip, "trust_negative_responses": true, "connections": connections})
            })
            .collect();
        json!({"domain": self.domain, "search": self.search, "name_servers": servers})
    }

    /// `dnsResolverOpts` of the dump: what the file says, and how our forwarding behaves in the same terms.
    pub(super) fn options_json(&self) -> Value {
        json!({
            "ndots": self.n_dots, "timeout": self.timeout_seconds, "attempts": self.n_attempts, "edns0": self.edns0,
            "ip_strategy": "Ipv4AndIpv6", "cache_size": 4096, "use_hosts_file": "Auto",
            "positive_min_ttl": null, "negative_min_ttl": null, "positive_max_ttl": null, "negative_max_ttl": null,
            "num_concurrent_reqs": 2, "max_active_requests": 32, "preserve_intermediates": true,
            "try_tcp_on_error": false, "server_ordering_strategy": "QueryStatistics", "recursion_desired": true,
            "avoid_local_udp_ports": [], "os_port_selection": false, "case_randomization": false,
            "trust_anchor": null, "allow_answers": [], "deny_answers": [], "edns_payload_len": 1232,
        })
    }
}

/// An address, with or without a scope (`fe80::1%eth0`).
fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}
