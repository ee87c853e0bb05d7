//! The evidence of a decision as data: for logs, for the CLI and for machines. Off the connect path.

use std::sync::Arc;

use crate::Connection;
use crate::evaluate::{Allowance, Considered, Decision, Denial, Failing, Outcome, Verdict, failing};
use crate::rules::{Action, Attribute, Match, Policy};

/// A decision with all of its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Each policy that was considered.
    pub policies: Vec<PolicyExplanation>,
}

/// What one policy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyExplanation {
    /// Its label, `<namespace>/<name>`.
    pub policy: Arc<str>,
    /// Its action.
    pub action: Action,
    /// Whether it is only logged.
    pub dry_run: bool,
    /// Where it matched or failed.
    pub finding: Finding,
}

/// Where a policy matched or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// This rule matched.
    Matched {
        /// Index of the rule.
        rule: usize,
        /// For each of its clauses the index of the match that held; none where a clause has no matches.
        matches: Vec<Option<usize>>,
    },
    /// It has no rules, so it never matches.
    NoRules,
    /// All rules failed, each for these reasons.
    Missed(Vec<Miss>),
}

/// A match that did not hold, and so failed its clause and rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Index of the rule.
    pub rule: usize,
    /// Index of the first failing clause in it.
    pub clause: usize,
    /// Index of the match in it.
    pub matched: usize,
    /// The first condition that failed; none if the match has no condition at all.
    pub condition: Option<FailedCondition>,
}

/// A condition and what it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCondition {
    /// Which one.
    pub attribute: Attribute,
    /// The values it lists.
    pub wanted: Vec<String>,
    /// What the connection has; none if it has no identity.
    pub got: Option<String>,
}

/// A line of the evaluation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A dry-run DENY matched.
    DryRunDenyMatch(Arc<str>),
    /// A DENY matched.
    DenyMatch(Arc<str>),
    /// A dry-run ALLOW matched.
    DryRunAllowMatch(Arc<str>),
    /// Dry-run ALLOW policies exist, none matched, and none is enforced.
    DryRunNoAllowMatch,
    /// No ALLOW policy is enforced.
    NoAllowPolicies,
    /// An ALLOW matched.
    AllowMatch(Arc<str>),
    /// ALLOW policies are enforced and none matched.
    NoAllowMatch,
}

impl Note {
    /// The log message.
    pub fn message(&self) -> &'static str {
        match self {
            Self::DryRunDenyMatch(_) => "dry-run: deny policy match",
            Self::DenyMatch(_) => "deny policy match",
            Self::DryRunAllowMatch(_) => "dry-run: allow policy match",
            Self::DryRunNoAllowMatch => "dry-run: no allow policies match",
            Self::NoAllowPolicies => "no allow policies, allow",
            Self::AllowMatch(_) => "allow policy match",
            Self::NoAllowMatch => "no allow policies matched",
        }
    }

    /// The log field `policy`.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::DryRunDenyMatch(key)
            | Self::DenyMatch(key)
            | Self::DryRunAllowMatch(key)
            | Self::AllowMatch(key) => Some(key),
            Self::DryRunNoAllowMatch | Self::NoAllowPolicies | Self::NoAllowMatch => None,
        }
    }
}

pub(crate) fn notes(decision: &Decision) -> Vec<Note> {
    let matched = |c: &&Considered| matches!(c.outcome, Outcome::Matched { .. });
    let dry_run =
        |action| decision.considered.iter().filter(move |c| c.policy.dry_run && c.policy.action == action);
    let mut notes: Vec<Note> =
        dry_run(Action::Deny).filter(matched).map(|c| Note::DryRunDenyMatch(c.policy.label())).collect();
    if let Verdict::Denied(Denial::Explicit { policy }) = &decision.verdict {
        notes.push(Note::DenyMatch(policy.clone()));
        return notes;
    }
    notes.extend(dry_run(Action::Allow).filter(matched).map(|c| Note::DryRunAllowMatch(c.policy.label())));
    let dry_run_missed =
        dry_run(Action::Allow).next().is_some() && dry_run(Action::Allow).all(|c| !matched(&c));
    match &decision.verdict {
        Verdict::Allowed(Allowance::NoAllowPolicies) => {
            notes.extend(dry_run_missed.then_some(Note::DryRunNoAllowMatch));
            notes.push(Note::NoAllowPolicies);
        }
        Verdict::Allowed(Allowance::Explicit { policy }) => notes.push(Note::AllowMatch(policy.clone())),
        Verdict::Denied(_) => notes.push(Note::NoAllowMatch),
    }
    notes
}

pub(crate) fn explain(decision: &Decision, connection: &Connection) -> Explanation {
    let policies = decision.considered.iter().map(|considered| PolicyExplanation {
        policy: considered.policy.label(),
        action: considered.policy.action,
        dry_run: considered.policy.dry_run,
        finding: find(&considered.policy, considered.outcome, connection),
    });
    Explanation { verdict: decision.verdict.clone(), policies: policies.collect() }
}

fn find(policy: &Policy, outcome: Outcome, connection: &Connection) -> Finding {
    if let Outcome::Matched { rule: index } = outcome {
        let clauses = policy.rules.get(index).map_or(&[][..], |rule| &rule.clauses);
        let held = |m: &Match| failing(m, connection).is_none();
        let matches = clauses.iter().map(|clause| clause.matches.iter().position(held)).collect();
        return Finding::Matched { rule: index, matches };
    }
    if policy.rules.is_empty() {
        return Finding::NoRules;
    }
    let mut misses = Vec::new();
    for (rule_index, rule) in policy.rules.iter().enumerate() {
        let failed = rule.clauses.iter().enumerate().find_map(|(clause_index, clause)| {
            let misses: Option<Vec<Miss>> = clause
                .matches
                .iter()
                .enumerate()
                .map(|(match_index, m)| {
                    let condition = match failing(m, connection)? {
                        Failing::NoCondition => None,
                        Failing::Attribute(attribute) => Some(FailedCondition {
                            attribute,
                            wanted: wanted(m, attribute),
                            got: got(connection, attribute),
                        }),
                    };
                    Some(Miss { rule: rule_index, clause: clause_index, matched: match_index, condition })
                })
                .collect();
            misses.filter(|misses| !misses.is_empty())
        });
        misses.extend(failed.into_iter().flatten());
    }
    Finding::Missed(misses)
}

fn wanted(m: &Match, attribute: Attribute) -> Vec<String> {
    fn texts<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    match attribute {
        Attribute::Namespaces => texts(&m.namespaces),
        Attribute::NotNamespaces => texts(&m.not_namespaces),
        Attribute::Principals => texts(&m.principals),
        Attribute::NotPrincipals => texts(&m.not_principals),
        Attribute::ServiceAccounts => texts(&m.service_accounts),
        Attribute::NotServiceAccounts => texts(&m.not_service_accounts),
        Attribute::SourceIps => texts(&m.source_ips),
        Attribute::NotSourceIps => texts(&m.not_source_ips),
        Attribute::DestinationIps => texts(&m.destination_ips),
        Attribute::NotDestinationIps => texts(&m.not_destination_ips),
        Attribute::DestinationPorts => texts(&m.destination_ports),
        Attribute::NotDestinationPorts => texts(&m.not_destination_ports),
    }
}

fn got(connection: &Connection, attribute: Attribute) -> Option<String> {
    let identity = connection.source_identity.as_ref();
    match attribute {
        Attribute::Namespaces | Attribute::NotNamespaces => identity.map(|id| id.namespace().to_owned()),
        Attribute::Principals | Attribute::NotPrincipals => identity.map(|id| id.without_scheme().to_owned()),
        Attribute::ServiceAccounts | Attribute::NotServiceAccounts => {
            identity.map(|id| format!("{}/{}", id.namespace(), id.service_account()))
        }
        Attribute::SourceIps | Attribute::NotSourceIps => Some(connection.source_ip.to_string()),
        Attribute::DestinationIps | Attribute::NotDestinationIps => {
            Some(connection.destination.ip().to_string())
        }
        Attribute::DestinationPorts | Attribute::NotDestinationPorts => {
            Some(connection.destination.port().to_string())
        }
    }
}
