//! What can be wrong with a configuration. The texts are a contract (control-and-operations 5.1).
use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("invalid env var {name}={value} ({reason})")]
    InvalidVariable { name: String, value: String, reason: String },
    #[error("error parsing proxy config: failed parsing mesh config file {path}: {reason}")]
    MeshFile { path: String, reason: String },
    #[error("error parsing proxy config: failed parsing proxy config env: {reason}")]
    ProxyConfig { reason: String },
    #[error("error parsing proxy config: ztunnel run without any servers enabled")]
    NoServers,
    #[error("error parsing proxy config: DNS proxy does not currently support on-demand mode")]
    OnDemandWithDns,
    #[error("invalid uri: {reason}")]
    InvalidUri { name: &'static str, reason: String },
    #[error("invalid configuration: failed to parse DNS_PROXY_ADDR: {value} ({reason})")]
    DnsProxyAddress { value: String, reason: String },
    #[error("invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set")]
    TwoLocalSources,
    #[error("invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set")]
    NoWorkloadInfo,
    #[error("failed to parse header key: {name}")]
    HeaderKey { name: String },
    #[error("failed to parse header value: {value}")]
    HeaderValue { value: String },
    #[error("ca_address must be set to use CA")]
    NoCa,
    #[error("FAKE_CA=true is not supported: run `culvert control` for a certificate authority of your own")]
    FakeCa,
}

impl ConfigError {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InvalidVariable { .. } => "config-invalid-env",
            Self::MeshFile { .. } => "config-malformed-mesh-file",
            Self::ProxyConfig { .. } => "config-malformed-proxy-config",
            Self::NoServers => "config-no-servers",
            Self::OnDemandWithDns => "config-on-demand-with-dns",
            Self::InvalidUri { .. } => "config-invalid-uri",
            Self::DnsProxyAddress { .. } => "config-invalid-dns-address",
            Self::TwoLocalSources => "config-two-local-sources",
            Self::NoWorkloadInfo => "config-no-workload-info",
            Self::HeaderKey { .. } | Self::HeaderValue { .. } => "config-invalid-header",
            Self::NoCa => "config-no-ca",
            Self::FakeCa => "config-fake-ca",
        }
    }
}

/// All mistakes of a configuration, in the order found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    /// One `Error: …` line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, error)| {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "Error: {error}")
        })
    }
}

impl std::error::Error for ConfigErrors {}
