//! Which kinds are read, and which were probably meant.

use super::Kind;

/// A kind that is read.
struct Known {
    group: &'static str,
    name: &'static str,
    kind: Kind,
    /// Best first.
    versions: &'static [&'static str],
}

const fn known(
    group: &'static str,
    name: &'static str,
    kind: Kind,
    versions: &'static [&'static str],
) -> Known {
    Known { group, name, kind, versions }
}

const CORE: &str = "";
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

const KNOWN: &[Known] = &[
    known(CORE, "Namespace", Kind::Namespace, &["v1"]),
    known(CORE, "Node", Kind::Node, &["v1"]),
    known(CORE, "Pod", Kind::Pod, &["v1"]),
    known(CORE, "ServiceAccount", Kind::ServiceAccount, &["v1"]),
    known(CORE, "Service", Kind::Service, &["v1"]),
    known(CORE, "Endpoints", Kind::Endpoints, &["v1"]),
    known(CORE, "ConfigMap", Kind::ConfigMap, &["v1"]),
    known("discovery.k8s.io", "EndpointSlice", Kind::EndpointSlice, &["v1", "v1beta1"]),
    known(NETWORKING, "ServiceEntry", Kind::ServiceEntry, &["v1", "v1beta1", "v1alpha3"]),
    known(NETWORKING, "WorkloadEntry", Kind::WorkloadEntry, &["v1", "v1beta1", "v1alpha3"]),
    known(SECURITY, "AuthorizationPolicy", Kind::AuthorizationPolicy, &["v1", "v1beta1"]),
    known(SECURITY, "PeerAuthentication", Kind::PeerAuthentication, &["v1", "v1beta1"]),
    known(GATEWAY, "Gateway", Kind::Gateway, &["v1", "v1beta1"]),
    known(GATEWAY, "GatewayClass", Kind::GatewayClass, &["v1", "v1beta1"]),
];

/// What `apiVersion` and `kind` stand for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Kind(Kind),
    /// It means nothing here.
    Ignored,
    /// A kind that is read, in a version that is not.
    Version,
    /// No kind at all, and so close to one that is read that this one must be meant.
    Misspelt {
        nearest: String,
    },
}

pub(super) fn resolve(api_version: &str, kind: &str) -> Resolved {
    let (group, version) = api_version.split_once('/').unwrap_or((CORE, api_version));
    match KNOWN.iter().find(|known| (known.group, known.name) == (group, kind)) {
        Some(known) if known.versions.contains(&version) => Resolved::Kind(known.kind),
        Some(_) => Resolved::Version,
        None => match KNOWN.iter().find(|known| known.is_meant_by(group, kind)) {
            Some(known) => Resolved::Misspelt { nearest: known.to_string() },
            None => Resolved::Ignored,
        },
    }
}

impl Known {
    fn is_meant_by(&self, group: &str, kind: &str) -> bool {
        if (group, kind) == (NETWORKING, "Gateway") {
            // Istio's own kind of this name: real, and of no meaning here.
            return false;
        }
        let is_group_of_ours = KNOWN.iter().any(|known| known.group == group);
        if self.group == group {
            is_slip(self.name, kind)
        } else {
            // The right kind in the wrong group, or in one that nearly is the right one.
            self.name == kind && (is_group_of_ours || is_slip(self.group, group))
        }
    }
}

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.versions.first().copied().unwrap_or_default();
        match self.group {
            CORE => write!(f, "{version} {}", self.name),
            group => write!(f, "{group}/{version} {}", self.name),
        }
    }
}

/// Whether `given` is `meant` but for case and a slip or two; in short words only one.
fn is_slip(meant: &str, given: &str) -> bool {
    let allowed = if meant.len() < 8 { 1 } else { 2 };
    meant.len().abs_diff(given.len()) <= allowed
        && distance(&meant.to_ascii_lowercase(), &given.to_ascii_lowercase()) <= allowed
}

/// Letters to insert, delete or replace to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = replaced.min(*cell + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(api_version: &str, kind: &str) -> Option<String> {
        match resolve(api_version, kind) {
            Resolved::Misspelt { nearest } => Some(nearest),
            _ => None,
        }
    }

    #[test]
    fn slips_are_told_from_kinds_that_exist() {
        let policy = Some("security.istio.io/v1 AuthorizationPolicy".to_owned());
        assert_eq!(nearest("security.istio.io/v1", "AuthorisationPolicy"), policy);
        assert_eq!(nearest("security.istio.io/v1", "authorizationpolicy"), policy);
        assert_eq!(nearest("security.istio.io/v1beta1", "AuthorizationPolicys"), policy);
        assert_eq!(nearest("security.istio.i/v1", "AuthorizationPolicy"), policy);
        assert_eq!(nearest("v1", "AuthorizationPolicy"), policy);
        assert_eq!(nearest("networking.istio.io/v1", "AuthorizationPolicy"), policy);
        assert_eq!(nearest("v1", "Servce").as_deref(), Some("v1 Service"));
        for (api_version, kinds) in [
            (
                "v1",
                "Secret Event PersistentVolume PodTemplate LimitRange ReplicationController ResourceQuota",
            ),
            ("networking.istio.io/v1", "Gateway VirtualService DestinationRule Sidecar WorkloadGroup"),
            ("security.istio.io/v1", "RequestAuthentication"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute GRPCRoute TCPRoute ReferenceGrant"),
            ("serving.knative.dev/v1", "Service"),
            ("networking.k8s.io/v1", "Ingress NetworkPolicy"),
            ("apps/v1", "Deployment"),
            ("batch/v1", "Job"),
            ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"),
        ] {
            for kind in kinds.split(' ') {
                assert_eq!(resolve(api_version, kind), Resolved::Ignored, "{api_version} {kind}");
            }
        }
        assert_eq!(resolve("security.istio.io/v9", "AuthorizationPolicy"), Resolved::Version);
    }

    #[test]
    fn distances_are_counted() {
        for (a, b, n) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(distance(a, b), n, "{a} {b}");
        }
    }
}
