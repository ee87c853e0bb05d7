//! What DNS names stand for in the mesh.
//!
//! A queried name has aliases (Kubernetes' short forms, search domains stripped), each alias has itself and its
//! wildcards as candidates; the first candidate with a usable service wins.

use std::net::IpAddr;
use std::sync::Arc;

use crate::mesh::{Mesh, best_of};
use crate::route::dice::Dice;
use crate::service::Service;

/// Who asks, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct NameView<'a> {
    /// Namespace of the client.
    pub namespace: &'a str,
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// Search domains; none: those of Kubernetes for the namespace.
    pub search: Option<&'a [String]>,
    /// Namespace that wins where nothing better decides.
    pub preferred_namespace: Option<&'a str>,
}

/// A name that stands for a service.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundName {
    /// The service.
    pub service: Arc<Service>,
    /// The name that owns the addresses, if it is not the queried one: a CNAME leads there.
    pub canonical: Option<String>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

impl Family {
    fn has(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::Ipv4)
    }
}

impl Mesh {
    /// The service that `name` stands for: in lower case, without the final dot.
    pub fn find_name(&self, name: &str, view: &NameView<'_>) -> Option<FoundName> {
        for alias in aliases(name, view) {
            if let Some(service) = self.named(&alias.name, view) {
                return Some(FoundName { service: service.clone(), canonical: alias.stripped });
            }
            let mut rest = alias.name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(service) = self.named(&format!("*.{parent}"), view) {
                    return Some(FoundName { service: service.clone(), canonical: None });
                }
                rest = parent;
            }
        }
        None
    }

    /// The addresses of a service for a client on `network`, in an order drawn from `seed`.
    pub fn addresses_of(&self, service: &Service, network: &str, family: Family, seed: u64) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = if service.vips.is_empty() {
            let counting = self.endpoints(&service.key).iter().filter(|e| e.is_usable_by(service));
            counting.filter_map(|e| e.workload.addresses.iter().find(|ip| family.has(ip)).copied()).collect()
        } else {
            let here = service.vips.iter().filter(|vip| &*vip.network == network);
            here.map(|vip| vip.ip).filter(|ip| family.has(ip)).collect()
        };
        addresses.retain(|ip| service.allows_family(*ip));
        let mut dice = Dice::new(seed);
        for last in (1..addresses.len()).rev() {
            let drawn = dice.below(last as u64 + 1);
            addresses.swap(last, usize::try_from(drawn).unwrap_or(last));
        }
        addresses
    }

    /// The usable service of exactly this hostname.
    fn named(&self, hostname: &str, view: &NameView<'_>) -> Option<&Arc<Service>> {
        let usable = |service: &Service| {
            !service.vips.is_empty()
                || strip_domain(&service.key.hostname, view.cluster_domain)
                    .is_some_and(|name| name.ends_with(".svc"))
        };
        let services = self.by_hostname.get(hostname)?;
        best_of(services, Some(view.namespace), view.preferred_namespace, usable)
    }
}

/// Another form of the queried name.
#[derive(Debug, PartialEq, Eq)]
struct Alias {
    name: String,
    /// The queried name without a search domain, if it comes from there.
    stripped: Option<String>,
}

fn aliases(name: &str, view: &NameView<'_>) -> Vec<Alias> {
    let mut all: Vec<Alias> = Vec::with_capacity(8);
    let mut add = |name: String, stripped: Option<&str>| {
        if !all.iter().any(|alias| alias.name == name) {
            all.push(Alias { name, stripped: stripped.map(str::to_owned) });
        }
    };
    add(name.to_owned(), None);
    for expansion in expansions(name, view) {
        add(expansion, None);
    }
    let kubernetes = || {
        let domain = view.cluster_domain;
        vec![format!("{}.svc.{domain}", view.namespace), format!("svc.{domain}"), domain.to_owned()]
    };
    for domain in view.search.map_or_else(kubernetes, <[String]>::to_vec) {
        let Some(stripped) = strip_domain(name, &domain) else { continue };
        add(stripped.to_owned(), Some(stripped));
        for expansion in expansions(stripped, view) {
            add(expansion, Some(stripped));
        }
    }
    all
}

/// What Kubernetes lets people leave out.
fn expansions(name: &str, view: &NameView<'_>) -> Vec<String> {
    let (namespace, domain) = (view.namespace, view.cluster_domain);
    match (name.split('.').count(), name.ends_with(".svc")) {
        (1, _) => vec![format!("{name}.{namespace}.svc.{domain}")],
        (2, _) => vec![format!("{name}.svc.{domain}"), format!("{name}.{namespace}.svc.{domain}")],
        (3, true) => vec![format!("{name}.{domain}"), format!("{name}.svc.{domain}")],
        (3, false) => vec![format!("{name}.svc.{domain}")],
        (4, true) => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

/// `name` without `domain` at its end, by whole labels; none if it does not end so or is nothing else.
fn strip_domain<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let domain = domain.trim_end_matches('.');
    name.strip_suffix(domain)?.strip_suffix('.').filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests;
