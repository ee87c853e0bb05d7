//! Addresses of workloads that discovery knows by hostname only (data-path 2.8): asked of the
//! proxy's own resolvers, in the proxy's own namespace.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use state::Resolved;

use crate::settings::Settings;

/// Answers kept, for as long as they say.
const CACHE: u64 = 4096;

/// A thread's resolver, made when it is first needed.
pub(crate) struct Hostnames {
    settings: Arc<Settings>,
    resolver: OnceCell<Option<TokioResolver>>,
}

impl std::fmt::Debug for Hostnames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hostnames").finish_non_exhaustive()
    }
}

impl Hostnames {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, resolver: OnceCell::new() }
    }

    /// The addresses of a hostname.
    pub(crate) async fn resolve(&self, hostname: &str) -> Resolved {
        let Some(resolver) = self.resolver.get_or_init(|| self.build()) else {
            return Resolved::Failed;
        };
        match resolver.lookup_ip(hostname).await {
            Ok(found) => Resolved::Addresses(found.iter().map(|ip: IpAddr| ip.to_canonical()).collect()),
            Err(error) => {
                tracing::warn!(target: "ztunnel::proxy::outbound", hostname, %error, "dns lookup failed");
                Resolved::Failed
            }
        }
    }

    fn build(&self) -> Option<TokioResolver> {
        let settings = &self.settings.resolver;
        let servers = settings.name_servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip));
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        options.ndots = usize::try_from(settings.n_dots).unwrap_or(1);
        options.timeout = Duration::from_secs(settings.timeout_seconds.into());
        options.attempts = usize::try_from(settings.n_attempts).unwrap_or(2);
        options.cache_size = CACHE;
        options.ip_strategy =
            if self.settings.ipv6 { LookupIpStrategy::Ipv4AndIpv6 } else { LookupIpStrategy::Ipv4Only };
        match builder.build() {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::error!(target: "ztunnel::proxy::outbound", %error, "no resolver for hostnames");
                None
            }
        }
    }
}
