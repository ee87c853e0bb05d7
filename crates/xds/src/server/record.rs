//! What a server serves: records with names and versions, found by name and by the other keys they answer to.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// One resource, serialized once for every stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The resource's name.
    pub name: Arc<str>,
    /// The version of its payload.
    pub version: String,
    /// The serialized message.
    pub payload: Arc<[u8]>,
    /// Other keys under which a client may ask for it.
    pub aliases: Vec<String>,
    /// Names of records whose lookup also gives this one: asking for the parent asks for its members.
    pub parents: Vec<Arc<str>>,
    /// Where it is; clients at the same place are sent it unasked.
    pub place: Option<Arc<str>>,
}

/// A record that differs between two worlds.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record as it was.
    pub before: Option<Arc<Record>>,
    /// The record as it is.
    pub after: Option<Arc<Record>>,
}

/// The difference between two worlds, by type.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Type URL to what changed, by name.
    pub by_type: BTreeMap<&'static str, Vec<Change>>,
}

impl Changes {
    /// The changes of one type.
    #[must_use]
    pub fn of(&self, type_url: &str) -> &[Change] {
        self.by_type.get(type_url).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_type.values().all(Vec::is_empty)
    }
}

/// An immutable state of everything a server serves.
pub trait World: Debug + Send + Sync + 'static {
    /// What to call this state in responses.
    fn version(&self) -> String;

    /// The record of this name.
    fn get(&self, type_url: &str, name: &str) -> Option<&Arc<Record>>;

    /// Every record of a type, by name.
    fn all(&self, type_url: &str) -> Box<dyn Iterator<Item = &Arc<Record>> + '_>;

    /// Every record that answers to `key`: its own name, an alias, a member of what is found.
    fn lookup(&self, type_url: &str, key: &str) -> Vec<Arc<Record>>;

    /// The records at a place.
    fn at(&self, type_url: &str, place: &str) -> Vec<Arc<Record>>;

    /// What differs from an older state.
    fn changes_since(&self, older: &Self) -> Arc<Changes>;
}
