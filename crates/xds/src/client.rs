//! The client's role: what is subscribed, what is held, and what to say about each response.
//!
//! One stream carries every kind. A [`Kind`] is either a wildcard subscription or on demand, where names are asked
//! for one at a time ([`Demand`]). What is held survives the stream: the next one opens with its names and versions.

mod backoff;
mod demand;
mod refusal;
mod run;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use backoff::{Backoff, Ending, Reason};
pub use demand::{Answer, Demand, DemandError, Demands, demands};
pub use refusal::{Refusal, Rejected, decode};
pub use run::{ConnectFailure, Connector, Metrics, NoMetrics, Options, run};
use wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};

use crate::WILDCARD;

/// What google.rpc calls INVALID_ARGUMENT: the code of a refusal.
const INVALID_ARGUMENT: i32 = 3;

/// Names answered as absent that are remembered per stream; past this the memory starts over.
const ABSENT_LIMIT: usize = 65_536;

/// One kind of resource to keep in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its type URL.
    pub type_url: String,
    /// Everything, or only what is asked for.
    pub scope: Scope,
}

/// How much of a kind the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every resource there is.
    Wildcard,
    /// Only names that were demanded.
    OnDemand,
}

/// One response, taken apart.
#[derive(Debug, Default)]
pub struct Update {
    /// The kind.
    pub type_url: String,
    /// Resources to put in place, in the order sent.
    pub resources: Vec<Resource>,
    /// Names to drop; applied after [`Self::resources`].
    pub removed: Vec<String>,
}

/// Applies updates to whatever the resources describe.
pub trait Handler {
    /// Applies every good resource and every removal as one step, and names the resources refused.
    fn apply(&mut self, update: &Update) -> Vec<Rejected>;

    /// Whether a demanded key can be answered from what has been applied.
    ///
    /// Servers answer a demand for an address under the resource's own name, so names alone do not tell.
    fn answers(&self, type_url: &str, key: &str) -> bool;

    /// The first answers to all wildcard kinds are in place. Called once.
    fn synced(&mut self) {}
}

/// What a response led to.
#[derive(Debug)]
pub struct Reply {
    /// The acknowledgement, or the refusal of the resources named in it.
    pub request: DeltaDiscoveryRequest,
    /// Demanded keys that were answered, and whether they exist.
    pub answered: Vec<(String, Answer)>,
    /// This response completed the first answers.
    pub now_synced: bool,
}

/// The client's side of the protocol. Does no I/O.
#[derive(Debug)]
pub struct Client {
    kinds: Vec<KindState>,
    synced: bool,
}

#[derive(Debug)]
struct KindState {
    kind: Kind,
    /// Name to version of everything held; sent when a stream opens.
    held: BTreeMap<String, String>,
    /// Keys somebody waits for; they travel with an empty version when a stream opens.
    pending: BTreeSet<String>,
    /// Keys this stream has answered as absent: some servers stay silent when asked again.
    absent: BTreeSet<String>,
    accepted: bool,
}

impl Client {
    /// A client of these kinds; streams open with them in this order.
    #[must_use]
    pub fn new(kinds: Vec<Kind>) -> Self {
        let state = |kind: Kind| KindState {
            accepted: kind.scope == Scope::OnDemand,
            kind,
            held: BTreeMap::new(),
            pending: BTreeSet::new(),
            absent: BTreeSet::new(),
        };
        Self { kinds: kinds.into_iter().map(state).collect(), synced: false }
    }

    /// Whether every wildcard kind has had an accepted answer. Never reverts.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// How many resources of a kind are held.
    #[must_use]
    pub fn held(&self, type_url: &str) -> usize {
        self.kinds.iter().find(|state| state.kind.type_url == type_url).map_or(0, |state| state.held.len())
    }

    /// The requests that open a stream, one per kind.
    pub fn open(&mut self, node: &Node) -> Vec<DeltaDiscoveryRequest> {
        self.kinds.iter_mut().map(|state| state.open(node)).collect()
    }

    /// Notes that somebody waits for `key`, and gives the request to send when a stream is open.
    ///
    /// `None` when the same key was already asked for and is still unanswered, or the kind is not on demand.
    pub fn demand(&mut self, type_url: &str, key: &str) -> Option<DeltaDiscoveryRequest> {
        let state = self.kind_mut(type_url)?;
        if state.kind.scope != Scope::OnDemand || !state.pending.insert(key.to_owned()) {
            return None;
        }
        Some(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: vec![key.to_owned()],
            ..Default::default()
        })
    }

    /// Whether this stream has said that `key` does not exist.
    #[must_use]
    pub fn known_absent(&self, type_url: &str, key: &str) -> bool {
        self.kinds.iter().any(|state| state.kind.type_url == type_url && state.absent.contains(key))
    }

    /// Nobody waits for `key` any longer.
    pub fn forget(&mut self, type_url: &str, key: &str) {
        if let Some(state) = self.kind_mut(type_url) {
            state.pending.remove(key);
        }
    }

    /// Applies one response through `handler` and says what to reply.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse, handler: &mut impl Handler) -> Reply {
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        let update = Update { type_url, resources, removed: removed_resources };
        let Some(state) = self.kinds.iter_mut().find(|state| state.kind.type_url == update.type_url) else {
            tracing::error!(type_url = %update.type_url, "unknown type of response");
            let refusal = Some(format!("unknown type: {}", update.type_url));
            return Reply {
                request: reply(update.type_url, nonce, refusal),
                answered: Vec::new(),
                now_synced: false,
            };
        };
        let mut rejected = handler.apply(&update);
        // Refusals of good messages come before those of unreadable ones.
        rejected.sort_by_key(|rejected| rejected.reason.is_unreadable());
        state.record(&update, &rejected);
        let answered = state.answered(&update, handler);
        state.accepted |= rejected.is_empty();

        let all_accepted = self.kinds.iter().all(|state| state.accepted);
        let now_synced = all_accepted && !self.synced;
        self.synced |= all_accepted;
        if now_synced {
            handler.synced();
        }
        let refusal = (!rejected.is_empty()).then(|| refusal::message(&rejected));
        Reply { request: reply(update.type_url, nonce, refusal), answered, now_synced }
    }

    fn kind_mut(&mut self, type_url: &str) -> Option<&mut KindState> {
        self.kinds.iter_mut().find(|state| state.kind.type_url == type_url)
    }
}

impl KindState {
    fn open(&mut self, node: &Node) -> DeltaDiscoveryRequest {
        self.absent.clear();
        let mut request = DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: self.kind.type_url.clone(),
            initial_resource_versions: self.held.clone(),
            ..Default::default()
        };
        for key in &self.pending {
            request.initial_resource_versions.entry(key.clone()).or_default();
        }
        if self.kind.scope == Scope::OnDemand {
            // Subscribe to everything and take it back: the protocol's way to subscribe to nothing.
            request.resource_names_subscribe = vec![WILDCARD.to_owned()];
            request.resource_names_unsubscribe = vec![WILDCARD.to_owned()];
        }
        request
    }

    fn record(&mut self, update: &Update, rejected: &[Rejected]) {
        let refused: BTreeSet<&str> = rejected.iter().map(|rejected| rejected.name.as_str()).collect();
        for resource in update.resources.iter().filter(|resource| !refused.contains(resource.name.as_str())) {
            self.held.insert(resource.name.clone(), resource.version.clone());
        }
        for name in &update.removed {
            self.held.remove(name);
            if self.kind.scope == Scope::OnDemand {
                if self.absent.len() >= ABSENT_LIMIT {
                    self.absent.clear();
                }
                self.absent.insert(name.clone());
            }
        }
    }

    /// A demand is answered by name, by alias, as removed, or because the state now knows the key.
    fn answered(&mut self, update: &Update, handler: &impl Handler) -> Vec<(String, Answer)> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let present: BTreeSet<&str> = update
            .resources
            .iter()
            .flat_map(|resource| std::iter::once(&resource.name).chain(&resource.aliases))
            .map(String::as_str)
            .collect();
        let removed: BTreeSet<&str> = update.removed.iter().map(String::as_str).collect();
        let mut answered = Vec::new();
        for key in &self.pending {
            if present.contains(key.as_str()) || handler.answers(&self.kind.type_url, key) {
                answered.push((key.clone(), Answer::Present));
            } else if removed.contains(key.as_str()) {
                answered.push((key.clone(), Answer::Absent));
            }
        }
        for (key, answer) in &answered {
            self.pending.remove(key);
            if *answer == Answer::Present {
                self.absent.remove(key);
            }
        }
        answered
    }
}

fn reply(type_url: String, nonce: String, refusal: Option<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url,
        response_nonce: nonce,
        error_detail: refusal.map(|message| Status { code: INVALID_ARGUMENT, message, details: Vec::new() }),
        ..Default::default()
    }
}
