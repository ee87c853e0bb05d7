//! Policies from the wire.

use ipnet::IpNet;
use policy::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccountMatch, StringMatch};
use wire::security as pb;

use super::{RejectReason, cidr, number, port};

pub(super) fn policy(name: &str, from: pb::Authorization) -> Result<Policy, RejectReason> {
    let rules = from.rules.into_iter().map(|rule| {
        let clauses = rule.clauses.into_iter().map(|clause| {
            let matches = clause.matches.into_iter().map(one_match).collect::<Result<_, _>>()?;
            Ok(Clause { matches })
        });
        Ok(Rule { clauses: clauses.collect::<Result<_, RejectReason>>()? })
    });
    Ok(Policy {
        key: name.into(),
        scope: scope(from.scope)?,
        action: action(from.action)?,
        dry_run: from.dry_run,
        rules: rules.collect::<Result<_, RejectReason>>()?,
        namespace: from.namespace.into(),
        name: from.name.into(),
    })
}

/// The stand-in for a policy that was refused; none if it would not have been enforced. A scope nobody knows is
/// taken to be that of the workloads that name it, an action nobody knows denies.
pub(super) fn quarantine(name: &str, from: &pb::Authorization) -> Option<Policy> {
    let scope = scope(from.scope).unwrap_or(Scope::WorkloadSelector);
    let action = action(from.action).unwrap_or(Action::Deny);
    (!from.dry_run).then(|| Policy::quarantined(name.into(), scope, action))
}

/// The stand-in for a policy of which only the name could be read.
pub(super) fn unreadable(name: &str) -> Policy {
    Policy::quarantined(name.into(), Scope::WorkloadSelector, Action::Deny)
}

fn scope(value: i32) -> Result<Scope, RejectReason> {
    Ok(match number(value)? {
        pb::Scope::Global => Scope::Global,
        pb::Scope::Namespace => Scope::Namespace,
        pb::Scope::WorkloadSelector => Scope::WorkloadSelector,
    })
}

fn action(value: i32) -> Result<Action, RejectReason> {
    Ok(match number(value)? {
        pb::Action::Allow => Action::Allow,
        pb::Action::Deny => Action::Deny,
    })
}

fn one_match(from: pb::Match) -> Result<Match, RejectReason> {
    Ok(Match {
        namespaces: texts(from.namespaces)?,
        not_namespaces: texts(from.not_namespaces)?,
        principals: texts(from.principals)?,
        not_principals: texts(from.not_principals)?,
        service_accounts: accounts(from.service_accounts),
        not_service_accounts: accounts(from.not_service_accounts),
        source_ips: ranges(&from.source_ips)?,
        not_source_ips: ranges(&from.not_source_ips)?,
        destination_ips: ranges(&from.destination_ips)?,
        not_destination_ips: ranges(&from.not_destination_ips)?,
        destination_ports: from.destination_ports.into_iter().map(port).collect::<Result<_, _>>()?,
        not_destination_ports: from.not_destination_ports.into_iter().map(port).collect::<Result<_, _>>()?,
    })
}

fn texts(from: Vec<pb::StringMatch>) -> Result<Vec<StringMatch>, RejectReason> {
    use pb::string_match::MatchType;
    from.into_iter()
        .map(|text| match text.match_type {
            None => Err(RejectReason::StringMatch),
            Some(MatchType::Exact(text)) => Ok(StringMatch::Exact(text.into())),
            Some(MatchType::Prefix(text)) => Ok(StringMatch::Prefix(text.into())),
            Some(MatchType::Suffix(text)) => Ok(StringMatch::Suffix(text.into())),
            Some(MatchType::Presence(())) => Ok(StringMatch::Presence),
        })
        .collect()
}

fn ranges(from: &[pb::Address]) -> Result<Vec<IpNet>, RejectReason> {
    from.iter().map(|range| cidr(&range.address, range.length)).collect()
}

fn accounts(from: Vec<pb::ServiceAccountMatch>) -> Vec<ServiceAccountMatch> {
    let account = |account: pb::ServiceAccountMatch| ServiceAccountMatch {
        namespace: account.namespace.into(),
        service_account: account.service_account.into(),
    };
    from.into_iter().map(account).collect()
}
