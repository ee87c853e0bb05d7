//! Policies as values: parsed once at the border, never holding an address or port that makes no sense.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

/// An authorization policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Resource name, `<namespace>/<name>`: what workloads refer to.
    pub key: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// What a match does.
    pub action: Action,
    /// Evaluated and logged, but never enforced.
    pub dry_run: bool,
    /// Any rule may match; no rules never match.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// `<namespace>/<name>`, as logs and refusals name it: the key, but for a source that names its resources
    /// otherwise.
    pub fn label(&self) -> Arc<str> {
        match self.key.split_once('/') {
            Some((namespace, name)) if namespace == &*self.namespace && name == &*self.name => {
                self.key.clone()
            }
            _ => format!("{}/{}", self.namespace, self.name).into(),
        }
    }

    /// The stand-in for a policy that cannot be understood and has no earlier good version: a DENY denies all
    /// that it applies to, an ALLOW allows nothing. Protection is never lost silently.
    pub fn quarantined(key: Arc<str>, scope: Scope, action: Action) -> Self {
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        let rules = match action {
            Action::Allow => Vec::new(),
            Action::Deny => vec![Rule { clauses: Vec::new() }],
        };
        Self { namespace: namespace.into(), name: name.into(), key, scope, action, dry_run: false, rules }
    }
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every workload.
    Global,
    /// The workloads of the policy's namespace.
    Namespace,
    /// The workloads that name the policy.
    WorkloadSelector,
}

/// What a policy does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allow; where one such policy is enforced, what none allows is denied.
    Allow,
    /// Deny.
    Deny,
}

/// All clauses must match; no clauses match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The clauses.
    pub clauses: Vec<Clause>,
}

/// Any match may match; no matches match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// The matches.
    pub matches: Vec<Match>,
}

/// Conditions on attributes: for each, any value of the positive list (if there is one) and none of the
/// negative list. A match without any condition never matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespace of the peer's identity, `""` without one.
    pub namespaces: Vec<StringMatch>,
    /// Its exclusions.
    pub not_namespaces: Vec<StringMatch>,
    /// The peer's identity without `spiffe://`; never matches without one.
    pub principals: Vec<StringMatch>,
    /// Its exclusions.
    pub not_principals: Vec<StringMatch>,
    /// Namespace and service account of the peer's identity.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// Its exclusions.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// The peer's address.
    pub source_ips: Vec<IpNet>,
    /// Its exclusions.
    pub not_source_ips: Vec<IpNet>,
    /// The application's address.
    pub destination_ips: Vec<IpNet>,
    /// Its exclusions.
    pub not_destination_ips: Vec<IpNet>,
    /// The application's port.
    pub destination_ports: Vec<u16>,
    /// Its exclusions.
    pub not_destination_ports: Vec<u16>,
}

/// A test of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Is not empty.
    Presence,
}

impl StringMatch {
    /// Whether `text` passes.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == &**wanted,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Suffix(wanted) => text.ends_with(&**wanted),
            Self::Presence => !text.is_empty(),
        }
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(wanted) => f.write_str(wanted),
            Self::Prefix(wanted) => write!(f, "{wanted}*"),
            Self::Suffix(wanted) => write!(f, "*{wanted}"),
            Self::Presence => f.write_str("*"),
        }
    }
}

/// A namespace and a service account in it; the trust domain does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// A condition of a [`Match`], by the name it has in dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// `namespaces`
    Namespaces,
    /// `notNamespaces`
    NotNamespaces,
    /// `principals`
    Principals,
    /// `notPrincipals`
    NotPrincipals,
    /// `serviceAccounts`
    ServiceAccounts,
    /// `notServiceAccounts`
    NotServiceAccounts,
    /// `sourceIps`
    SourceIps,
    /// `notSourceIps`
    NotSourceIps,
    /// `destinationIps`
    DestinationIps,
    /// `notDestinationIps`
    NotDestinationIps,
    /// `destinationPorts`
    DestinationPorts,
    /// `notDestinationPorts`
    NotDestinationPorts,
}

impl Attribute {
    /// Its key in a dumped match.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::NotNamespaces => "notNamespaces",
            Self::Principals => "principals",
            Self::NotPrincipals => "notPrincipals",
            Self::ServiceAccounts => "serviceAccounts",
            Self::NotServiceAccounts => "notServiceAccounts",
            Self::SourceIps => "sourceIps",
            Self::NotSourceIps => "notSourceIps",
            Self::DestinationIps => "destinationIps",
            Self::NotDestinationIps => "notDestinationIps",
            Self::DestinationPorts => "destinationPorts",
            Self::NotDestinationPorts => "notDestinationPorts",
        }
    }
}
