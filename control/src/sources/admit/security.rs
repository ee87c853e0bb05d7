//! `security.istio.io`: the rules of its schema, and those of the webhook in front of it.

use super::super::Reason;
use super::super::objects::{AuthorizationPolicy, PeerAuthentication, PolicySource, PolicyTarget, Selector};
use super::{invalid, require};
use crate::translate::invalid_values;

const MAX_RULES: usize = 512;
const MAX_TARGETS: usize = 16;
const MAX_ACCOUNTS: usize = 16;
const MAX_ACCOUNT: usize = 320;
const MAX_LABEL_VALUE: usize = 63;

/// The second value is what a webhook would refuse; such a policy still converts, closed.
pub(super) fn authorization_policy(
    policy: AuthorizationPolicy,
) -> Result<(AuthorizationPolicy, Option<Reason>), Reason> {
    let spec = &policy.spec;
    let scopes = [spec.selector.is_some(), spec.target_ref.is_some(), spec.target_refs.is_some()];
    let n_scopes = scopes.into_iter().filter(|set| *set).count();
    require(
        n_scopes <= 1,
        || "spec".to_owned(),
        "only one of selector, targetRef and targetRefs can be set",
    )?;
    if let Some(selector) = &spec.selector {
        check_selector(selector)?;
    }
    if let Some(target) = &spec.target_ref {
        check_target(target, "spec.targetRef")?;
    }
    let targets = spec.target_refs.as_deref().unwrap_or_default();
    require(targets.len() <= MAX_TARGETS, || "spec.targetRefs".to_owned(), "at most 16")?;
    for (i, target) in targets.iter().enumerate() {
        check_target(target, &format!("spec.targetRefs[{i}]"))?;
    }
    require(spec.rules.len() <= MAX_RULES, || "spec.rules".to_owned(), "at most 512")?;
    for (i, rule) in spec.rules.iter().enumerate() {
        for (j, from) in rule.from.iter().enumerate() {
            check_source(&from.source, &format!("spec.rules[{i}].from[{j}].source"))?;
        }
        for (j, when) in rule.when.iter().enumerate() {
            require(!when.key.is_empty(), || format!("spec.rules[{i}].when[{j}].key"), "is required")?;
        }
    }
    let flaw = invalid_values(&policy)
        .into_iter()
        .next()
        .map(|bad| invalid(bad.field, format!("{:?} means nothing here and matches nothing", bad.value)));
    Ok((policy, flaw))
}

fn check_source(source: &PolicySource, path: &str) -> Result<(), Reason> {
    let accounts = source.service_accounts.is_some() || source.not_service_accounts.is_some();
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let clash = accounts && others.into_iter().any(Option::is_some);
    require(!clash, || path.to_owned(), "serviceAccounts cannot stand beside namespaces or principals")?;
    for list in [&source.service_accounts, &source.not_service_accounts].into_iter().flatten() {
        let field = || format!("{path}.serviceAccounts");
        require(list.len() <= MAX_ACCOUNTS, field, "at most 16")?;
        require(list.iter().all(|account| account.len() <= MAX_ACCOUNT), field, "at most 320 bytes each")?;
    }
    Ok(())
}

fn check_target(target: &PolicyTarget, path: &str) -> Result<(), Reason> {
    require(!target.name.is_empty(), || format!("{path}.name"), "is required")?;
    require(!target.kind.is_empty(), || format!("{path}.kind"), "is required")?;
    require(target.namespace.is_empty(), || format!("{path}.namespace"), "must be the policy's own")?;
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
            | ("networking.istio.io", "ServiceEntry")
    );
    require(known, || path.to_owned(), "must be a Service, ServiceEntry, Gateway or GatewayClass")
}

fn check_selector(selector: &Selector) -> Result<(), Reason> {
    let field = || "spec.selector.matchLabels".to_owned();
    for (key, value) in &selector.match_labels {
        require(!key.is_empty(), field, "a key is empty")?;
        require(!key.contains('*') && !value.contains('*'), field, "wildcards are not supported")?;
        require(value.len() <= MAX_LABEL_VALUE, field, "a value is longer than 63 bytes")?;
    }
    Ok(())
}

pub(super) fn peer_authentication(object: PeerAuthentication) -> Result<PeerAuthentication, Reason> {
    let spec = &object.spec;
    if let Some(selector) = &spec.selector {
        check_selector(selector)?;
    }
    if let Some(ports) = &spec.port_level_mtls {
        let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        require(selects, || "spec.portLevelMtls".to_owned(), "needs a selector")?;
        require(!ports.is_empty(), || "spec.portLevelMtls".to_owned(), "at least one port is required")?;
        for port in ports.keys() {
            let is_port = port.parse::<u16>().is_ok_and(|number| number > 0);
            require(is_port, || format!("spec.portLevelMtls[{port}]"), "must be 1 to 65535")?;
        }
    }
    Ok(object)
}
