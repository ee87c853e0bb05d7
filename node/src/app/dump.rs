//! Where the dump comes from: a snapshot of the mesh, the certificates and the pods.

use wire::dump;

use crate::admin::{Current, Sources};
use crate::certs::{CertificateManager, CertificateState, ManagedCertificate};
use crate::pods::PodList;
use crate::sync::{LocalSource, MeshHandle};

/// The running parts that a dump asks.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) mesh: MeshHandle,
    pub(super) certificates: CertificateManager,
    /// None in dedicated mode.
    pub(super) pods: Option<PodList>,
    pub(super) local: Option<LocalSource>,
}

impl Sources for Running {
    async fn current(&self) -> Current {
        let mesh = self.mesh.current();
        Current {
            certificates: self.certificates.certificates().iter().map(certificate).collect(),
            workloads: mesh.dump_workloads(),
            services: mesh.dump_services(),
            policies: mesh.dump_policies(),
            staged_services: mesh.dump_staged_services(),
            static_config: self.static_config().await,
            pods: self.pods.as_ref().map(PodList::dump),
        }
    }
}

impl Running {
    /// The local source as it is now; problems leave it empty.
    async fn static_config(&self) -> dump::StaticConfig {
        let text = match &self.local {
            None => return dump::StaticConfig::default(),
            Some(LocalSource::Inline(text)) => text.clone(),
            Some(LocalSource::File(path)) => match tokio::fs::read_to_string(path).await {
                Ok(text) => text,
                Err(error) => {
                    tracing::error!(%error, "cannot read the local source");
                    return dump::StaticConfig::default();
                }
            },
        };
        let parsed: Result<serde_json::Value, _> = serde_saphyr::from_str(&text);
        let parsed = parsed.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot parse the local source");
            serde_json::Value::Null
        });
        let list = |key: &str| parsed.get(key).and_then(|v| v.as_array()).cloned().unwrap_or_default();
        dump::StaticConfig {
            policies: list("policies"),
            services: list("services"),
            workloads: list("workloads"),
        }
    }
}

fn certificate(managed: &ManagedCertificate) -> dump::CertificateState {
    let (state, chain, roots) = match &managed.state {
        CertificateState::Initializing => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        CertificateState::Unavailable(error) => (format!("Unavailable: {error}"), Vec::new(), Vec::new()),
        CertificateState::Available(certificate) => (
            "Available".to_owned(),
            certificate.chain().iter().map(shown).collect(),
            certificate.roots().iter().map(shown).collect(),
        ),
    };
    dump::CertificateState {
        identity: managed.identity.to_string(),
        state,
        cert_chain: chain,
        root_certs: roots,
    }
}

fn shown(certificate: &identity::Certificate) -> dump::Certificate {
    dump::Certificate {
        pem: certificate.pem_base64(),
        serial_number: certificate.serial().to_owned(),
        valid_from: clock_text(certificate.not_before()),
        expiration_time: clock_text(certificate.not_after()),
    }
}

/// RFC 3339 in UTC, whole seconds.
fn clock_text(at: std::time::SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_in_utc() {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_790_000_000_500);
        assert_eq!(clock_text(at), "2026-09-21T14:13:20Z");
    }
}
