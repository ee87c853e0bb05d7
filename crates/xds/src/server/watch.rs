//! One kind on one stream: what the client wants, what it has been sent, what it has accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use wire::discovery::DeltaDiscoveryRequest;

use super::{Change, Kind, Progress, Record, Selection, World, names_of};
use crate::WILDCARD;

/// Responses remembered until they are answered. A client that leaves more unanswered is taken to have accepted
/// none of the older ones.
const UNANSWERED: usize = 64;

/// What to send.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) removed: BTreeSet<String>,
    pub(super) aliases: bool,
}

impl Outcome {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.removed.is_empty()
    }

    /// Additions apart from removals.
    pub(super) fn split(self) -> (Option<Self>, Option<Self>) {
        let Self { records, removed, aliases } = self;
        let added = Self { records, removed: BTreeSet::new(), aliases };
        let removed = Self { records: Vec::new(), removed, aliases };
        ((!added.is_empty()).then_some(added), (!removed.is_empty()).then_some(removed))
    }
}

#[derive(Debug)]
enum Interest {
    /// Names are not stored: that would be every name for every client.
    Everything,
    Named(Named),
}

#[derive(Debug, Default)]
struct Named {
    /// Every key asked for, and the name of every record sent because of it.
    keys: BTreeSet<String>,
    /// The keys among them that nothing answers to.
    absent: BTreeSet<String>,
    /// What the client holds once it has accepted everything sent.
    sent: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Unanswered<W> {
    nonce: String,
    records: Vec<Arc<Record>>,
    removed: Vec<String>,
    world: Arc<W>,
}

/// What the client has accepted.
#[derive(Debug)]
struct Accepted<W> {
    /// The world whose records a client of everything holds.
    world: Option<Arc<W>>,
    /// The records a client of names holds.
    records: BTreeMap<Arc<str>, Arc<Record>>,
    /// Records it was sent and did not accept.
    refused: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Watch<W> {
    kind: Kind,
    interest: Interest,
    unanswered: VecDeque<Unanswered<W>>,
    accepted: Accepted<W>,
    last_sent: String,
    last_acked: String,
    last_error: String,
}

impl<W: World> Watch<W> {
    pub(super) fn new(kind: Kind, first: &DeltaDiscoveryRequest) -> Self {
        let wants_all = |list: &[String]| list.iter().any(|name| name == WILDCARD);
        let wildcard = first.resource_names_subscribe.is_empty()
            || (wants_all(&first.resource_names_subscribe) && !wants_all(&first.resource_names_unsubscribe));
        let everything = wildcard || kind.selection == Selection::Broadcast;
        Self {
            kind,
            interest: if everything { Interest::Everything } else { Interest::Named(Named::default()) },
            unanswered: VecDeque::new(),
            accepted: Accepted { world: None, records: BTreeMap::new(), refused: BTreeSet::new() },
            last_sent: String::new(),
            last_acked: String::new(),
            last_error: String::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn n_names(&self) -> usize {
        match &self.interest {
            Interest::Everything => 0,
            Interest::Named(named) => named.keys.len(),
        }
    }

    /// The answer to the first request. There always is one: clients count it to know that they are in step.
    pub(super) fn first(
        &mut self,
        request: DeltaDiscoveryRequest,
        world: &W,
        place: Option<&str>,
    ) -> Option<Outcome> {
        let versions = &request.initial_resource_versions;
        let unwanted = names_of(&request.resource_names_unsubscribe);
        let mut names = names_of(&request.resource_names_subscribe);
        names.extend(versions.keys().map(String::as_str));
        names.retain(|name| *name != WILDCARD && !unwanted.contains(name));
        let holds = |record: &Record| {
            versions
                .get(&*record.name)
                .is_some_and(|version| !version.is_empty() && *version == record.version)
        };
        let type_url = self.kind.type_url;
        Some(match &mut self.interest {
            Interest::Everything => everything(type_url, world, &names, holds),
            Interest::Named(named) => {
                let mut outcome = named.lookup(type_url, world, &names, place);
                outcome.records.retain(|record| {
                    let holds = holds(record);
                    if holds {
                        self.accepted.records.insert(Arc::clone(&record.name), Arc::clone(record));
                    }
                    !holds
                });
                outcome
            }
        })
    }

    /// The answer to a later change of subscription, if it needs one.
    pub(super) fn change(
        &mut self,
        request: &DeltaDiscoveryRequest,
        world: &W,
        place: Option<&str>,
    ) -> Option<Outcome> {
        let subscribed = &request.resource_names_subscribe;
        let unsubscribed = &request.resource_names_unsubscribe;
        if subscribed.is_empty() && unsubscribed.is_empty() {
            return None;
        }
        let type_url = self.kind.type_url;
        let names = names_of(subscribed);
        let wants_all = subscribed.iter().any(|name| name == WILDCARD)
            && !unsubscribed.iter().any(|name| name == WILDCARD);
        if wants_all {
            self.interest = Interest::Everything;
        }
        match &mut self.interest {
            Interest::Everything => Some(everything(type_url, world, &names, |_| false)),
            Interest::Named(named) => {
                let mut dropped = false;
                for name in names_of(unsubscribed) {
                    dropped |= named.drop_key(name);
                    // Whoever gives up a record gives it up under every key it was asked for.
                    for alias in world.get(type_url, name).map(|record| &record.aliases).into_iter().flatten()
                    {
                        dropped |= named.drop_key(alias);
                    }
                    self.accepted.records.remove(name);
                }
                let unknown: BTreeSet<&str> =
                    names.into_iter().filter(|name| !named.is_served(name)).collect();
                if unknown.is_empty() {
                    // An unsubscription is confirmed, without a word about what is still wanted.
                    return dropped.then(|| Outcome { aliases: true, ..Outcome::default() });
                }
                Some(named.lookup(type_url, world, &unknown, place))
            }
        }
    }

    /// What a change of the world means for this client.
    pub(super) fn push(&mut self, changes: &[Change], world: &W, place: Option<&str>) -> Option<Outcome> {
        if changes.is_empty() {
            return None;
        }
        let mut outcome = Outcome::default();
        match &mut self.interest {
            Interest::Everything => {
                for change in changes {
                    match (&change.before, &change.after) {
                        (_, Some(after)) => outcome.records.push(Arc::clone(after)),
                        (Some(before), None) => _ = outcome.removed.insert(before.name.to_string()),
                        (None, None) => {}
                    }
                }
            }
            Interest::Named(named) => named.push(self.kind.type_url, changes, world, place, &mut outcome),
        }
        (!outcome.is_empty()).then_some(outcome)
    }

    /// Notes a response as sent.
    pub(super) fn sent(&mut self, nonce: String, outcome: Outcome, world: &Arc<W>) {
        if self.unanswered.len() >= UNANSWERED {
            self.unanswered.pop_front();
        }
        self.last_sent.clone_from(&nonce);
        self.unanswered.push_back(Unanswered {
            nonce,
            records: outcome.records,
            removed: outcome.removed.into_iter().collect(),
            world: Arc::clone(world),
        });
    }

    /// Notes an acceptance; `false` when it is not for the last response.
    pub(super) fn acknowledged(&mut self, nonce: &str) -> bool {
        let is_last = nonce == self.last_sent;
        if is_last {
            self.last_acked = nonce.to_owned();
            self.last_error.clear();
        }
        // A client answers in order, so earlier responses without an answer of their own were taken as well.
        if let Some(position) = self.unanswered.iter().position(|sent| sent.nonce == nonce) {
            for sent in self.unanswered.drain(..=position).collect::<Vec<_>>() {
                self.accept(sent, &BTreeSet::new());
            }
        }
        is_last
    }

    /// Notes a refusal: of the resources its text names, or of all in that response.
    pub(super) fn refused(&mut self, nonce: &str, message: &str) {
        message.clone_into(&mut self.last_error);
        let Some(position) = self.unanswered.iter().position(|sent| sent.nonce == nonce) else { return };
        for sent in self.unanswered.drain(..=position).collect::<Vec<_>>() {
            if sent.nonce != nonce {
                self.accept(sent, &BTreeSet::new());
                continue;
            }
            let entries: Vec<&str> = message.split("; ").collect();
            let is_named = |record: &Arc<Record>| {
                let rest = |entry: &&str| {
                    entry.strip_prefix(&*record.name).is_some_and(|rest| rest.starts_with(": "))
                };
                entries.iter().any(rest)
            };
            let names = |records: Vec<&Arc<Record>>| -> BTreeSet<Arc<str>> {
                records.into_iter().map(|record| Arc::clone(&record.name)).collect()
            };
            let mut refused = names(sent.records.iter().filter(|record| is_named(record)).collect());
            if refused.is_empty() {
                refused = names(sent.records.iter().collect());
            }
            self.accept(sent, &refused);
        }
    }

    fn accept(&mut self, sent: Unanswered<W>, refused: &BTreeSet<Arc<str>>) {
        let named = matches!(self.interest, Interest::Named(_));
        for record in sent.records {
            if refused.contains(&record.name) {
                self.accepted.refused.insert(Arc::clone(&record.name));
                continue;
            }
            self.accepted.refused.remove(&record.name);
            if named {
                self.accepted.records.insert(Arc::clone(&record.name), record);
            }
        }
        for name in &sent.removed {
            self.accepted.refused.remove(name.as_str());
            self.accepted.records.remove(name.as_str());
        }
        self.accepted.world = Some(sent.world);
    }

    /// What the client has been sent and has accepted.
    pub(super) fn held(&self) -> Vec<Arc<Record>> {
        let is_held = |record: &&Arc<Record>| !self.accepted.refused.contains(&record.name);
        match (&self.interest, &self.accepted.world) {
            (Interest::Named(_), _) => self.accepted.records.values().cloned().collect(),
            (Interest::Everything, Some(world)) => {
                world.all(self.kind.type_url).filter(is_held).cloned().collect()
            }
            (Interest::Everything, None) => Vec::new(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let (wildcard, names) = match &self.interest {
            Interest::Everything => (true, Vec::new()),
            Interest::Named(named) => (false, named.keys.iter().cloned().collect()),
        };
        Progress {
            type_url: self.kind.type_url,
            sent: self.last_sent.clone(),
            acked: self.last_acked.clone(),
            last_error: self.last_error.clone(),
            names,
            wildcard,
        }
    }
}

/// Every record the client does not hold; names it knows that do not exist are removed.
fn everything<W: World>(
    type_url: &str,
    world: &W,
    names: &BTreeSet<&str>,
    holds: impl Fn(&Record) -> bool,
) -> Outcome {
    Outcome {
        records: world.all(type_url).filter(|record| !holds(record)).cloned().collect(),
        removed: names
            .iter()
            .filter(|name| world.get(type_url, name).is_none())
            .map(|name| (*name).to_owned())
            .collect(),
        aliases: false,
    }
}

impl Named {
    /// Whether asking for this key again would tell the client nothing new.
    fn is_served(&self, key: &str) -> bool {
        self.keys.contains(key) && !self.absent.contains(key)
    }

    fn drop_key(&mut self, key: &str) -> bool {
        self.absent.remove(key);
        self.sent.remove(key);
        self.keys.remove(key)
    }

    /// Subscribes to `names` and gives what answers to them, and what is at the client's place.
    fn lookup<W: World>(
        &mut self,
        type_url: &str,
        world: &W,
        names: &BTreeSet<&str>,
        place: Option<&str>,
    ) -> Outcome {
        let mut found: BTreeMap<Arc<str>, Arc<Record>> = BTreeMap::new();
        let mut missing = Vec::new();
        for name in names {
            self.keys.insert((*name).to_owned());
            let records = world.lookup(type_url, name);
            if records.is_empty() {
                missing.push(*name);
            } else {
                self.absent.remove(*name);
            }
            found.extend(records.into_iter().map(|record| (Arc::clone(&record.name), record)));
        }
        for record in place.map(|place| world.at(type_url, place)).unwrap_or_default() {
            if !self.sent.contains(&record.name) {
                found.insert(Arc::clone(&record.name), record);
            }
        }
        let mut outcome = Outcome { aliases: true, ..Outcome::default() };
        for name in missing {
            self.sent.remove(name);
            self.absent.insert(name.to_owned());
            outcome.removed.insert(name.to_owned());
        }
        for record in found.into_values() {
            self.send(record, &mut outcome);
        }
        outcome
    }

    fn push<W: World>(
        &mut self,
        type_url: &str,
        changes: &[Change],
        world: &W,
        place: Option<&str>,
        outcome: &mut Outcome,
    ) {
        outcome.aliases = true;
        let mut found: BTreeMap<Arc<str>, Arc<Record>> = BTreeMap::new();
        for change in changes {
            match (&change.before, &change.after) {
                (_, Some(after)) if self.wants(after, place) => {
                    found.insert(Arc::clone(&after.name), Arc::clone(after));
                }
                (Some(before), None) if self.sent.remove(&before.name) => {
                    // The name stays subscribed: should it come back, the client hears of it.
                    self.absent.insert(before.name.to_string());
                    outcome.removed.insert(before.name.to_string());
                }
                _ => {}
            }
        }
        // Keys that nothing answered to may have found an answer, for instance inside a range.
        for key in &self.absent {
            for record in world.lookup(type_url, key) {
                if !self.sent.contains(&record.name) {
                    found.insert(Arc::clone(&record.name), record);
                }
            }
        }
        for record in found.into_values() {
            self.send(record, outcome);
        }
        self.absent.retain(|key| world.lookup(type_url, key).is_empty());
    }

    fn wants(&self, record: &Record, place: Option<&str>) -> bool {
        self.keys.contains(&*record.name)
            || record.aliases.iter().any(|alias| self.keys.contains(alias))
            || record.parents.iter().any(|parent| self.sent.contains(parent) && self.keys.contains(&**parent))
            || (place.is_some() && record.place.as_deref() == place)
    }

    fn send(&mut self, record: Arc<Record>, outcome: &mut Outcome) {
        self.keys.insert(record.name.to_string());
        self.absent.remove(&*record.name);
        self.sent.insert(Arc::clone(&record.name));
        outcome.records.push(record);
    }
}
