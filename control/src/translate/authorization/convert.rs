//! Rules of a policy to clauses of matches (control-plane 4.2.2 to 4.2.9).
//!
//! Values that mean nothing are never dropped in a way that lets more through: see [`Matcher`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use wire::security::{
    Address, Clause, Match, Rule, ServiceAccountMatch, StringMatch, string_match::MatchType,
};

use super::super::address_bytes;
use super::UNSUPPORTED;
use crate::sources::objects::{Action, AuthorizationPolicy, Operation, PolicyRule, PolicySource, When};

/// A value that means nothing where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidValue {
    pub(crate) field: String,
    pub(crate) value: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} means nothing here", self.field, self.value)
    }
}

/// What became of a policy's rules.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) rules: Vec<Rule>,
    pub(super) invalid: Vec<InvalidValue>,
    /// Attributes of HTTP, which a node proxy does not see.
    http: BTreeSet<String>,
    deny: bool,
}

impl Converted {
    /// Reason and message of the policy's status (control-plane 4.5).
    pub(super) fn verdict(&self) -> (&'static str, String) {
        let http = self.http.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let invalid = self.invalid.iter().map(InvalidValue::to_string).collect::<Vec<_>>().join("; ");
        match (self.http.is_empty(), self.invalid.is_empty()) {
            (true, true) => ("Accepted", "attached to ztunnel".to_owned()),
            (true, false) => (UNSUPPORTED, format!("values that match nothing: {invalid}")),
            (false, _) if !self.deny => (
                UNSUPPORTED,
                format!(
                    "rules with HTTP attributes ({http}) are left out, which allows less; use a waypoint"
                ),
            ),
            (false, _) if self.rules.iter().any(can_match) => (
                UNSUPPORTED,
                format!("enforced without its HTTP attributes ({http}), which denies more; use a waypoint"),
            ),
            (false, _) => (
                UNSUPPORTED,
                format!("has no effect: HTTP attributes ({http}) need a waypoint and a targetRef"),
            ),
        }
    }
}

/// A clause of empty matches only never matches, and then its rule never does.
fn can_match(rule: &Rule) -> bool {
    rule.clauses
        .iter()
        .all(|clause| clause.matches.is_empty() || clause.matches.iter().any(|m| *m != Match::default()))
}

/// Converts all rules of a policy that node proxies enforce.
pub(super) fn rules(policy: &AuthorizationPolicy) -> Converted {
    let deny = policy.spec.action == Action::Deny;
    let mut converted = Converted { deny, ..Converted::default() };
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        let mut reader = RuleReader {
            namespace: &policy.metadata.namespace,
            deny,
            path: format!("spec.rules[{index}]"),
            invalid: Vec::new(),
            http: BTreeSet::new(),
        };
        let clauses = reader.clauses(rule);
        // A rule that allows by HTTP attributes allows nothing without them.
        if deny || reader.http.is_empty() {
            converted.rules.push(Rule { clauses });
        }
        converted.invalid.append(&mut reader.invalid);
        converted.http.append(&mut reader.http);
    }
    converted
}

/// All values of a policy that mean nothing: what an admission webhook would refuse.
pub(crate) fn invalid_values(policy: &AuthorizationPolicy) -> Vec<InvalidValue> {
    rules(policy).invalid
}

struct RuleReader<'p> {
    namespace: &'p str,
    deny: bool,
    path: String,
    invalid: Vec<InvalidValue>,
    http: BTreeSet<String>,
}

type List = Option<Vec<String>>;

impl RuleReader<'_> {
    fn clauses(&mut self, rule: &PolicyRule) -> Vec<Clause> {
        let mut clauses = Vec::new();
        if !rule.to.is_empty() {
            let matches =
                rule.to.iter().enumerate().map(|(i, to)| self.operation(i, &to.operation)).collect();
            clauses.push(Clause { matches });
        }
        if !rule.from.is_empty() {
            let matches =
                rule.from.iter().enumerate().map(|(i, from)| self.source(i, &from.source)).collect();
            clauses.push(Clause { matches });
        }
        let conditions = rule.when.iter().enumerate();
        clauses.extend(conditions.map(|(i, when)| Clause { matches: vec![self.condition(i, when)] }));
        clauses
    }

    fn operation(&mut self, index: usize, operation: &Operation) -> Match {
        self.note_http(&[
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
            ("paths", &operation.paths),
            ("notPaths", &operation.not_paths),
        ]);
        let mut matcher = Matcher::new(self, format!("to[{index}].operation"));
        let destination_ports = matcher.any("ports", values(&operation.ports), port);
        let not_destination_ports = matcher.none("notPorts", values(&operation.not_ports), port);
        matcher.finish(Match { destination_ports, not_destination_ports, ..Match::default() })
    }

    fn source(&mut self, index: usize, source: &PolicySource) -> Match {
        self.note_http(&[
            ("remoteIpBlocks", &source.remote_ip_blocks),
            ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ]);
        let namespace = self.namespace;
        let account = |text: &str| service_account(namespace, text);
        let mut matcher = Matcher::new(self, format!("from[{index}].source"));
        let built = Match {
            namespaces: matcher.any("namespaces", values(&source.namespaces), string),
            not_namespaces: matcher.none("notNamespaces", values(&source.not_namespaces), string),
            principals: matcher.any("principals", values(&source.principals), string),
            not_principals: matcher.none("notPrincipals", values(&source.not_principals), string),
            source_ips: matcher.any("ipBlocks", values(&source.ip_blocks), ip_block),
            not_source_ips: matcher.none("notIpBlocks", values(&source.not_ip_blocks), ip_block),
            service_accounts: matcher.any("serviceAccounts", values(&source.service_accounts), account),
            not_service_accounts: matcher.none(
                "notServiceAccounts",
                values(&source.not_service_accounts),
                account,
            ),
            ..Match::default()
        };
        matcher.finish(built)
    }

    fn condition(&mut self, index: usize, when: &When) -> Match {
        let (values, not_values) = (when.values.as_slice(), when.not_values.as_slice());
        let mut m = Match::default();
        let mut matcher = Matcher::new(self, format!("when[{index}]"));
        match when.key.as_str() {
            "source.ip" => {
                m.source_ips = matcher.any("values", values, ip_block);
                m.not_source_ips = matcher.none("notValues", not_values, ip_block);
            }
            "destination.ip" => {
                m.destination_ips = matcher.any("values", values, ip_block);
                m.not_destination_ips = matcher.none("notValues", not_values, ip_block);
            }
            "source.namespace" => {
                m.namespaces = matcher.any("values", values, string);
                m.not_namespaces = matcher.none("notValues", not_values, string);
            }
            "source.principal" => {
                m.principals = matcher.any("values", values, string);
                m.not_principals = matcher.none("notValues", not_values, string);
            }
            "destination.port" => {
                m.destination_ports = matcher.any("values", values, port);
                m.not_destination_ports = matcher.none("notValues", not_values, port);
            }
            key => {
                if !is_http_condition(key) {
                    matcher.invalid("key", key);
                }
                self.http.insert(key.to_owned());
                return m;
            }
        }
        // A condition without values never holds, whatever was meant: a DENY would do nothing unseen.
        if values.is_empty() && not_values.is_empty() {
            matcher.invalid("values", "");
        }
        matcher.finish(m)
    }

    fn note_http(&mut self, lists: &[(&str, &List)]) {
        let used = lists.iter().filter(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()));
        self.http.extend(used.map(|(name, _)| (*name).to_owned()));
    }
}

/// Reads the lists of one match and decides what remains of it when values mean nothing.
///
/// A positive value that means nothing matches nothing: the others of its list remain. If none
/// remains, an ALLOW's match matches nothing (it would widen without the list); a DENY's loses the
/// list (it denies more). What a negative value was meant to spare is unknown: an ALLOW's match
/// matches nothing, a DENY's spares nothing.
struct Matcher<'r, 'p> {
    reader: &'r mut RuleReader<'p>,
    path: String,
    /// A positive list has no value left.
    emptied: bool,
    /// A negative list lost a value.
    unsparing: bool,
}

impl<'r, 'p> Matcher<'r, 'p> {
    fn new(reader: &'r mut RuleReader<'p>, path: String) -> Self {
        Self { reader, path, emptied: false, unsparing: false }
    }

    fn any<T>(&mut self, field: &str, values: &[String], parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let parsed = self.parse(field, values, parse);
        self.emptied |= parsed.is_empty() && !values.is_empty();
        parsed
    }

    fn none<T>(&mut self, field: &str, values: &[String], parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let parsed = self.parse(field, values, parse);
        self.unsparing |= parsed.len() < values.len();
        parsed
    }

    fn parse<T>(&mut self, field: &str, values: &[String], parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut parsed = Vec::with_capacity(values.len());
        for value in values {
            match parse(value) {
                Some(value) => parsed.push(value),
                None => self.invalid(field, value),
            }
        }
        parsed
    }

    fn invalid(&mut self, field: &str, value: &str) {
        let field = format!("{}.{}.{field}", self.reader.path, self.path);
        self.reader.invalid.push(InvalidValue { field, value: value.to_owned() });
    }

    fn finish(self, mut built: Match) -> Match {
        if !self.reader.deny && (self.emptied || self.unsparing) {
            return Match::default();
        }
        if self.reader.deny && self.unsparing && !self.emptied && built == Match::default() {
            // An empty match would match nothing; no connection goes to port 0.
            built.not_destination_ports = vec![0];
        }
        built
    }
}

/// Conditions that are known but need HTTP, a request or a waypoint.
fn is_http_condition(key: &str) -> bool {
    const KEYS: [&str; 6] = [
        "remote.ip",
        "connection.sni",
        "source.serviceAccount",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
    ];
    const PREFIXES: [&str; 3] = ["request.headers[", "request.auth.claims[", "experimental."];
    KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn values(list: &List) -> &[String] {
    list.as_deref().unwrap_or_default()
}

/// `*`, `*suffix`, `prefix*` or exact; the leading star is looked at first.
#[expect(clippy::unnecessary_wraps, reason = "same shape as the parsers that can refuse")]
fn string(text: &str) -> Option<StringMatch> {
    let match_type = if text == "*" {
        MatchType::Presence(())
    } else if let Some(suffix) = text.strip_prefix('*') {
        MatchType::Suffix(suffix.to_owned())
    } else if let Some(prefix) = text.strip_suffix('*') {
        MatchType::Prefix(prefix.to_owned())
    } else {
        MatchType::Exact(text.to_owned())
    };
    Some(StringMatch { match_type: Some(match_type) })
}

fn port(text: &str) -> Option<u32> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u16>().ok().filter(|_| is_decimal).map(u32::from)
}

/// An address is a range of one; a range keeps its host bits.
fn ip_block(text: &str) -> Option<Address> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse::<IpAddr>().ok()?, Some(port(length)?)),
        None => (text.parse().ok()?, None),
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    (length <= longest).then(|| Address { address: address_bytes(address), length })
}

/// `namespace/account`, or an account of the policy's own namespace.
fn service_account(own_namespace: &str, text: &str) -> Option<ServiceAccountMatch> {
    let (namespace, account) = text.split_once('/').unwrap_or((own_namespace, text));
    let is_name = !namespace.is_empty() && !account.is_empty() && !account.contains('/');
    is_name
        .then(|| ServiceAccountMatch { namespace: namespace.to_owned(), service_account: account.to_owned() })
}
