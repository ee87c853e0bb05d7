//! A dump with its text and where it is from.
use anyhow::Context;
use wire::dump::ConfigDump;

/// One node's dump.
#[derive(Debug, Clone)]
pub(crate) struct Dump {
    /// As it came.
    pub(crate) text: String,
    pub(crate) parsed: ConfigDump,
    /// The key is there, be it empty.
    pub(crate) has_certificates: bool,
}

impl Dump {
    pub(crate) fn parse(text: Vec<u8>) -> anyhow::Result<Self> {
        const WHAT: &str = "error unmarshalling config dump response from ztunnel";
        let parsed = ConfigDump::parse(&text).context(WHAT)?;
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).context(WHAT)?;
        let has_certificates = keys.get("certificates").is_some_and(|value| !value.is_null());
        Ok(Self { text: String::from_utf8(text).context(WHAT)?, parsed, has_certificates })
    }

    /// The node it is from, if it says so.
    pub(crate) fn node(&self) -> Option<&str> {
        self.parsed.config.get("localNode")?.as_str()
    }

    /// Pod and namespace of the proxy, if it says so.
    pub(crate) fn pod(&self) -> Option<(&str, &str)> {
        let workload = self.parsed.config.get("ztunnelWorkload")?;
        Some((workload.get("name")?.as_str()?, workload.get("namespace")?.as_str()?))
    }

    /// Adds what other nodes know: the mesh is the same everywhere, certificates and pods are each node's own.
    pub(crate) fn merge(&mut self, other: Self) {
        let (ours, theirs) = (&mut self.parsed, other.parsed);
        extend_by(&mut ours.workloads, theirs.workloads, |workload| workload.uid.clone());
        extend_by(&mut ours.services, theirs.services, |service| {
            (service.namespace.clone(), service.hostname.clone())
        });
        extend_by(&mut ours.policies, theirs.policies, |policy| {
            (policy.namespace.clone(), policy.name.clone())
        });
        extend_by(&mut ours.certificates, theirs.certificates, |certificate| certificate.identity.clone());
        ours.workload_state.get_or_insert_default().extend(theirs.workload_state.unwrap_or_default());
        self.has_certificates |= other.has_certificates;
    }
}

/// Adds items whose key is new.
fn extend_by<T, K: Ord>(ours: &mut Vec<T>, theirs: Vec<T>, key: impl Fn(&T) -> K) {
    let known: std::collections::BTreeSet<K> = ours.iter().map(&key).collect();
    ours.extend(theirs.into_iter().filter(|item| !known.contains(&key(item))));
}
