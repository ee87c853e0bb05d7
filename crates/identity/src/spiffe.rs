//! SPIFFE names of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// The name of a set of roots: identities of different trust domains are never equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// The text names no trust domain: it is empty or holds a slash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid trust domain: {text:?}")]
pub struct InvalidTrustDomain {
    /// What was to be read.
    pub text: String,
}

impl InvalidTrustDomain {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        "identity-invalid-trust-domain"
    }
}

impl TrustDomain {
    /// Reads a trust domain; any text without a slash, except the empty one.
    pub fn new(text: &str) -> Result<Self, InvalidTrustDomain> {
        if text.is_empty() || text.contains('/') {
            return Err(InvalidTrustDomain { text: text.to_owned() });
        }
        Ok(Self(Arc::from(text)))
    }

    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidTrustDomain;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The identity of a workload. Cheap to clone.
#[derive(Clone)]
pub struct SpiffeId(Arc<Parts>);

/// The whole text once, and where its parts are.
struct Parts {
    text: Box<str>,
    trust_domain: TrustDomain,
    namespace_at: (usize, usize),
    account_at: usize,
}

/// The text is not the identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid spiffe identity: {text}")]
pub struct InvalidSpiffeId {
    /// What was to be read.
    pub text: String,
}

impl InvalidSpiffeId {
    /// Stable code of this failure.
    pub fn code(&self) -> &'static str {
        "identity-invalid-spiffe-id"
    }
}

impl SpiffeId {
    /// Puts an identity together; refused when a part holds a slash or the trust domain is empty.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidSpiffeId> {
        let text = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}");
        text.parse()
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        let (start, end) = self.0.namespace_at;
        &self.0.text[start..end]
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.0.text[self.0.account_at..]
    }

    /// The whole name, `spiffe://…`.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The name without `spiffe://`, as policies write principals.
    pub fn without_scheme(&self) -> &str {
        &self.0.text[SCHEME.len()..]
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    /// Exactly five parts; an empty namespace or account is a name too, an empty trust domain is not.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpiffeId { text: text.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let trust_domain = TrustDomain::new(domain).map_err(|_| invalid())?;
        let namespace_start = SCHEME.len() + domain.len() + "/ns/".len();
        Ok(Self(Arc::new(Parts {
            trust_domain,
            namespace_at: (namespace_start, namespace_start + namespace.len()),
            account_at: text.len() - account.len(),
            text: text.into(),
        })))
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // CO-11.3: parsing table.
    #[test]
    fn names_are_five_parts_and_nothing_else() {
        for (text, domain, namespace, account) in [
            ("spiffe://cluster.local/ns/shop/sa/cart", "cluster.local", "shop", "cart"),
            ("spiffe://td/ns/ns.with.dots/sa/sa.with.dots", "td", "ns.with.dots", "sa.with.dots"),
            ("spiffe://td/ns//sa/", "td", "", ""),
            ("spiffe://td/ns/ns/sa/sa", "td", "ns", "sa"),
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(
                (id.trust_domain().as_str(), id.namespace(), id.service_account()),
                (domain, namespace, account)
            );
            assert_eq!(id.to_string(), text);
            assert_eq!(format!("spiffe://{}", id.without_scheme()), text);
        }
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/xx/a/sa/b",
            "spiffe://td/ns/a/xx/b",
            "SPIFFE://td/ns/a/sa/b",
            "td/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            " spiffe://td/ns/a/sa/b",
            "spiffe://cluster.local/workload/client",
        ] {
            let error = text.parse::<SpiffeId>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid spiffe identity: {text}"));
        }
        assert!(SpiffeId::new("td", "a/sa/b", "c").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in ".{0,60}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
            }
        }

        #[test]
        fn putting_together_and_taking_apart_agree(td in "[a-z.]{1,9}", ns in "[a-zé.]{0,9}", sa in "[a-z.é]{0,9}") {
            let id = SpiffeId::new(&td, &ns, &sa).unwrap();
            prop_assert_eq!((id.trust_domain().as_str(), id.namespace(), id.service_account()),
                (td.as_str(), ns.as_str(), sa.as_str()));
        }
    }
}
