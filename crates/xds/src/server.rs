//! The server's role: one client's stream, answered from a [`World`].
//!
//! A [`Session`] holds what one client has asked for and what it has acknowledged. Requests are answered from the
//! world the session stands on; [`Session::push`] moves it to a newer one and gives the responses that close the
//! difference. However many worlds were skipped, one push covers them, so nothing queues per connection.
//!
//! Order inside a push: kinds that others refer to are added before and removed after everything else, so that a
//! client never holds a reference to something it has not been sent.

mod record;
mod serve;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use record::{Change, Changes, Record, World};
pub use serve::{Hooks, NoHooks, serve};
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use watch::{Outcome, Watch};

/// Names one stream may subscribe to.
pub const NAMES_LIMIT: usize = 1_000_000;

/// One kind of resource a server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its type URL.
    pub type_url: &'static str,
    /// Its name in metrics.
    pub short: &'static str,
    /// Who is sent what.
    pub selection: Selection,
}

/// Who is sent which resources of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything, or what the client names.
    Addressable,
    /// Everything to everybody, whatever they name. Other kinds refer to these.
    Broadcast,
}

/// What a request led to.
#[derive(Debug)]
pub enum Received {
    /// Send this.
    Answer(DeltaDiscoveryResponse),
    /// The last response was accepted.
    Acknowledged,
    /// The last response was refused, for this reason.
    Refused(String),
    /// It answers a response that is not the last one.
    Stale,
    /// Nothing to say.
    Nothing,
    /// The kind is not offered here.
    UnknownKind,
    /// The stream subscribes to more names than it may.
    TooManyNames,
}

/// The state of one kind on one stream, for people and tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The kind.
    pub type_url: &'static str,
    /// Nonce of the last response sent; empty before the first.
    pub sent: String,
    /// Nonce of the last response accepted.
    pub acked: String,
    /// The reason of the last refusal, until something is accepted.
    pub last_error: String,
    /// Names subscribed to; empty for everything.
    pub names: Vec<String>,
    /// Whether everything is wanted.
    pub wildcard: bool,
}

/// One client's stream.
#[derive(Debug)]
pub struct Session<W> {
    kinds: &'static [Kind],
    world: Arc<W>,
    /// Records at this place are sent unasked to clients that ask for names.
    place: Option<String>,
    watches: Vec<Option<Watch<W>>>,
    seed: u128,
    n_sent: u128,
}

impl<W: World> Session<W> {
    /// A stream that has asked for nothing yet. `seed` makes its nonces its own.
    #[must_use]
    pub fn new(kinds: &'static [Kind], world: Arc<W>, place: Option<String>, seed: u128) -> Self {
        let place = place.filter(|place| !place.is_empty());
        Self { kinds, world, place, watches: kinds.iter().map(|_| None).collect(), seed, n_sent: 0 }
    }

    /// The world this session's answers come from.
    #[must_use]
    pub fn world(&self) -> &Arc<W> {
        &self.world
    }

    /// The offered kind of this type.
    #[must_use]
    pub fn kind(&self, type_url: &str) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| kind.type_url == type_url)
    }

    /// Whether this kind has been asked for.
    #[must_use]
    pub fn is_watching(&self, selection: Selection) -> bool {
        self.watches.iter().flatten().any(|watch| watch.kind().selection == selection)
    }

    /// Whether this is the first request of its kind.
    #[must_use]
    pub fn is_first(&self, type_url: &str) -> bool {
        !self.watches.iter().flatten().any(|watch| watch.kind().type_url == type_url)
    }

    /// Handles one request.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Received {
        let Some(index) = self.kinds.iter().position(|kind| kind.type_url == request.type_url) else {
            return Received::UnknownKind;
        };
        let (Some(kind), Some(slot)) = (self.kinds.get(index), self.watches.get_mut(index)) else {
            return Received::UnknownKind;
        };
        if let Some(error) = request.error_detail {
            if let Some(watch) = slot {
                watch.refused(&request.response_nonce, &error.message);
            }
            return Received::Refused(error.message);
        }
        let names = request.resource_names_subscribe.len() + request.initial_resource_versions.len();
        let world = &*self.world;
        let outcome = match slot {
            None if names > NAMES_LIMIT => return Received::TooManyNames,
            None => {
                let watch = slot.insert(Watch::new(*kind, &request));
                watch.first(request, world, self.place.as_deref())
            }
            Some(watch) if watch.n_names() + names > NAMES_LIMIT => return Received::TooManyNames,
            Some(watch) => {
                let nonce = request.response_nonce.as_str();
                if !nonce.is_empty() {
                    if !watch.acknowledged(nonce) {
                        return Received::Stale;
                    }
                    if request.resource_names_subscribe.is_empty()
                        && request.resource_names_unsubscribe.is_empty()
                    {
                        return Received::Acknowledged;
                    }
                }
                watch.change(&request, world, self.place.as_deref())
            }
        };
        match outcome {
            Some(outcome) => Received::Answer(self.respond(index, outcome)),
            None => Received::Nothing,
        }
    }

    /// Moves to `world` and gives the responses that close the difference, in the order to send them.
    pub fn push(&mut self, world: Arc<W>) -> Vec<DeltaDiscoveryResponse> {
        let older = std::mem::replace(&mut self.world, world);
        let changes = self.world.changes_since(&older);
        let mut first = Vec::new();
        let mut middle = Vec::new();
        let mut last = Vec::new();
        for (index, slot) in self.watches.iter_mut().enumerate() {
            let Some(watch) = slot else { continue };
            let Some(outcome) =
                watch.push(changes.of(watch.kind().type_url), &*self.world, self.place.as_deref())
            else {
                continue;
            };
            match watch.kind().selection {
                Selection::Addressable => middle.push((index, outcome)),
                Selection::Broadcast => {
                    let (added, removed) = outcome.split();
                    first.extend(added.map(|outcome| (index, outcome)));
                    last.extend(removed.map(|outcome| (index, outcome)));
                }
            }
        }
        let ordered = first.into_iter().chain(middle).chain(last);
        ordered.map(|(index, outcome)| self.respond(index, outcome)).collect()
    }

    /// The records of a kind that the client has been sent and has acknowledged, by name.
    #[must_use]
    pub fn acknowledged(&self, type_url: &str) -> Vec<Arc<Record>> {
        let watch = self.watches.iter().flatten().find(|watch| watch.kind().type_url == type_url);
        watch.map(Watch::held).unwrap_or_default()
    }

    /// Where each kind stands.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        self.watches.iter().flatten().map(Watch::progress).collect()
    }

    fn respond(&mut self, index: usize, outcome: Outcome) -> DeltaDiscoveryResponse {
        self.n_sent += 1;
        let version = self.world.version();
        let unique = format!("{:032x}", self.seed.wrapping_add(self.n_sent));
        let (a, rest) = unique.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        let nonce = format!("{version}{a}-{b}-{c}-{d}-{e}");
        let type_url = self.kinds.get(index).map_or("", |kind| kind.type_url);
        let response = DeltaDiscoveryResponse {
            system_version_info: version,
            resources: outcome
                .records
                .iter()
                .map(|record| record.to_resource(type_url, outcome.aliases))
                .collect(),
            type_url: type_url.to_owned(),
            nonce: nonce.clone(),
            removed_resources: outcome.removed.iter().cloned().collect(),
        };
        if let Some(Some(watch)) = self.watches.get_mut(index) {
            watch.sent(nonce, outcome, &self.world);
        }
        response
    }
}

impl Record {
    fn to_resource(&self, type_url: &str, with_aliases: bool) -> Resource {
        Resource {
            version: self.version.clone(),
            resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: self.payload.to_vec() }),
            name: self.name.to_string(),
            aliases: if with_aliases { self.aliases.clone() } else { Vec::new() },
            ..Default::default()
        }
    }
}

/// Names that are no wildcard.
fn names_of(list: &[String]) -> BTreeSet<&str> {
    list.iter().map(String::as_str).filter(|name| *name != crate::WILDCARD).collect()
}
