//! The evaluation of policies, in the contract's order: dry-run DENY, DENY, dry-run ALLOW, ALLOW.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::explain::{self, Explanation, Note};
use crate::rules::{Action, Attribute, Clause, Match, Policy, Rule, StringMatch};
use crate::{Connection, rules::ServiceAccountMatch};

/// Judges a connection by the policies of its workload. Their order does not matter.
pub fn evaluate(policies: &[Arc<Policy>], connection: &Connection) -> Decision {
    let mut ordered: Vec<&Arc<Policy>> = policies.iter().collect();
    ordered.sort_by(|a, b| a.key.cmp(&b.key));
    let mut considered = Vec::with_capacity(ordered.len());
    let mut consider = |policy: &Arc<Policy>| {
        let outcome = outcome(policy, connection);
        considered.push(Considered { policy: policy.clone(), outcome });
        matches!(outcome, Outcome::Matched { .. })
    };
    let of = |action, dry_run| ordered.iter().filter(move |p| p.action == action && p.dry_run == dry_run);

    for policy in of(Action::Deny, true) {
        consider(policy);
    }
    for policy in of(Action::Deny, false) {
        if consider(policy) {
            let verdict = Verdict::Denied(Denial::Explicit { policy: policy.label() });
            return Decision { verdict, considered };
        }
    }
    for policy in of(Action::Allow, true) {
        consider(policy);
    }
    let mut enforced = 0;
    for policy in of(Action::Allow, false) {
        enforced += 1;
        if consider(policy) {
            let verdict = Verdict::Allowed(Allowance::Explicit { policy: policy.label() });
            return Decision { verdict, considered };
        }
    }
    let verdict = match enforced {
        0 => Verdict::Allowed(Allowance::NoAllowPolicies),
        _ => Verdict::Denied(Denial::NoAllowMatch),
    };
    Decision { verdict, considered }
}

/// A verdict and what led to it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The policies that were looked at, in this order; after the deciding one none is.
    pub considered: Vec<Considered>,
}

impl Decision {
    /// Whether the connection may be.
    pub fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed(_))
    }

    /// Why it may not be.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Verdict::Denied(denial) => Some(denial),
            Verdict::Allowed(_) => None,
        }
    }

    /// What the evaluation log says, in order.
    pub fn notes(&self) -> Vec<Note> {
        explain::notes(self)
    }

    /// The whole evidence. `connection` is the one that was judged.
    pub fn explain(&self, connection: &Connection) -> Explanation {
        explain::explain(self, connection)
    }
}

/// Whether the connection may be, and by which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed(Allowance),
    /// It may not.
    Denied(Denial),
}

/// Why a connection is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// An ALLOW policy matched.
    Explicit {
        /// Its label, `<namespace>/<name>`.
        policy: Arc<str>,
    },
    /// Nothing denied it, and no ALLOW policy is enforced.
    NoAllowPolicies,
}

/// Why a connection is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A DENY policy matched.
    #[error("explicitly denied by: {policy}")]
    Explicit {
        /// Its label, `<namespace>/<name>`.
        policy: Arc<str>,
    },
    /// ALLOW policies are enforced and none matched.
    #[error("allow policies exist, but none allowed")]
    NoAllowMatch,
    /// The workload whose policies apply is not known.
    #[error("workload not found")]
    UnknownWorkload,
}

impl Denial {
    /// Stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Explicit { .. } => "policy-explicit-deny",
            Self::NoAllowMatch => "policy-no-allow-match",
            Self::UnknownWorkload => "policy-unknown-workload",
        }
    }
}

/// A policy that was looked at.
#[derive(Clone, Debug)]
pub struct Considered {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Whether it matched.
    pub outcome: Outcome,
}

/// Whether a policy matched. Which clause and match did, or what failed, [`Decision::explain`] finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This rule, the first of them, matched.
    Matched {
        /// Its index.
        rule: usize,
    },
    /// No rule matched.
    Missed,
}

fn outcome(policy: &Policy, connection: &Connection) -> Outcome {
    match policy.rules.iter().position(|rule| rule_matches(rule, connection)) {
        Some(rule) => Outcome::Matched { rule },
        None => Outcome::Missed,
    }
}

fn rule_matches(rule: &Rule, connection: &Connection) -> bool {
    rule.clauses.iter().all(|clause| clause_matches(clause, connection))
}

fn clause_matches(clause: &Clause, connection: &Connection) -> bool {
    clause.matches.is_empty() || clause.matches.iter().any(|m| failing(m, connection).is_none())
}

/// Why a match does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It has no condition.
    NoCondition,
    /// This one failed.
    Attribute(Attribute),
}

/// The first condition of a match that fails, in the order of the schema.
pub(crate) fn failing(m: &Match, connection: &Connection) -> Option<Failing> {
    use Attribute as A;
    let identity = connection.source_identity.as_ref();
    let namespace = identity.map_or("", |id| id.namespace());
    let text = |wanted: &StringMatch| wanted.matches(namespace);
    let principal = |wanted: &StringMatch| identity.is_some_and(|id| wanted.matches(id.without_scheme()));
    let account = |wanted: &ServiceAccountMatch| {
        identity.is_some_and(|id| {
            id.namespace() == &*wanted.namespace && id.service_account() == &*wanted.service_account
        })
    };
    let source = |net: &IpNet| net.contains(&connection.source_ip);
    let destination_ip: IpAddr = connection.destination.ip();
    let destination = |net: &IpNet| net.contains(&destination_ip);
    let port = |port: &u16| *port == connection.destination.port();

    let mut conditions = 0usize;
    let mut check = |any: bool, positive: usize, none: bool, negative: usize, names: (A, A)| {
        conditions += positive + negative;
        if positive > 0 && !any {
            Some(Failing::Attribute(names.0))
        } else if negative > 0 && !none {
            Some(Failing::Attribute(names.1))
        } else {
            None
        }
    };
    macro_rules! pair {
        ($positive:ident, $negative:ident, $test:expr, $names:expr) => {
            check(
                m.$positive.iter().any($test),
                m.$positive.len(),
                !m.$negative.iter().any($test),
                m.$negative.len(),
                $names,
            )
        };
    }
    let failed = pair!(namespaces, not_namespaces, text, (A::Namespaces, A::NotNamespaces))
        .or_else(|| pair!(principals, not_principals, principal, (A::Principals, A::NotPrincipals)))
        .or_else(|| pair!(source_ips, not_source_ips, source, (A::SourceIps, A::NotSourceIps)))
        .or_else(|| {
            pair!(
                destination_ips,
                not_destination_ips,
                destination,
                (A::DestinationIps, A::NotDestinationIps)
            )
        })
        .or_else(|| {
            let names = (A::DestinationPorts, A::NotDestinationPorts);
            pair!(destination_ports, not_destination_ports, port, names)
        })
        .or_else(|| {
            let names = (A::ServiceAccounts, A::NotServiceAccounts);
            pair!(service_accounts, not_service_accounts, account, names)
        });
    match (failed, conditions) {
        (None, 0) => Some(Failing::NoCondition),
        (failed, _) => failed,
    }
}

#[cfg(test)]
mod tests;
