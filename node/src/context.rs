//! What both ends of a connection are called, in metrics and in the log (data-path 10.4, 10.5).
//!
//! Put together once per pair of workloads and thread; a connection finds its own by comparing
//! pointers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use identity::SpiffeId;
use state::{Service, Workload};

use crate::access_log::{Direction, Ends, Named};
use crate::baggage::Baggage;
use crate::metrics::{Party, Reporter, Security, Series, ServiceLabels, Shard, TrafficLabels};

/// Contexts kept; more than the pairs that talk at any one time.
const MAX_CACHED: usize = 4096;

/// What is known about one end.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// Discovery knows it.
    Workload(Arc<Workload>),
    /// Only what the peer said about itself.
    Baggage(Baggage),
    /// Nothing.
    Unknown,
}

/// The facts that names are made of.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) direction: Direction,
    pub(crate) security: Security,
    pub(crate) source: Who,
    /// Proven by TLS.
    pub(crate) source_identity: Option<SpiffeId>,
    pub(crate) destination: Who,
    pub(crate) service: Option<Arc<Service>>,
}

/// The names, with the counters that go by them.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) series: Arc<Series>,
    pub(crate) ends: Ends,
    /// The authority that was asked for last.
    authority: RefCell<Arc<str>>,
}

impl Context {
    /// Connections of this context that ask for one authority in a row have one text of it.
    pub(crate) fn share(&self, authority: &mut Arc<str>) {
        let mut last = self.authority.borrow_mut();
        if *last == *authority {
            *authority = Arc::clone(&last);
        } else {
            *last = Arc::clone(authority);
        }
    }
}

/// A thread's contexts.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    cached: RefCell<HashMap<Key, Rc<Context>>>,
}

impl Contexts {
    /// The context of these facts.
    pub(crate) fn of(&self, facts: Facts, shard: &Shard) -> Rc<Context> {
        let key = Key(facts);
        if let Some(context) = self.cached.borrow().get(&key) {
            return Rc::clone(context);
        }
        let labels = key.0.labels();
        let series = match key.0.source {
            Who::Baggage(_) => shard.series_of_stranger(labels),
            Who::Workload(_) | Who::Unknown => shard.series(labels),
        };
        let authority = RefCell::new(Arc::from(""));
        let context = Rc::new(Context { series, ends: key.0.ends(), authority });
        let mut cached = self.cached.borrow_mut();
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(key, Rc::clone(&context));
        context
    }
}

impl Facts {
    fn labels(&self) -> TrafficLabels {
        let mut source = self.source.party();
        source.principal = principal(self.source_identity.as_ref());
        let mut destination = self.destination.party();
        if let Who::Workload(workload) = &self.destination {
            destination.principal = workload.identity.as_str().to_owned();
        }
        let unknown = |who: &Who| matches!(who, Who::Unknown);
        TrafficLabels {
            reporter: match self.direction {
                Direction::Outbound => Reporter::Source,
                Direction::Inbound => Reporter::Destination,
            },
            with_locality: !unknown(&self.source) || !unknown(&self.destination),
            source,
            service: self.service.as_deref().map(service_labels).unwrap_or_default(),
            destination,
            security: self.security,
        }
    }

    fn ends(&self) -> Ends {
        let (mut source, mut destination) = (self.source.named(), self.destination.named());
        if self.security == Security::MutualTls {
            source.identity = principal(self.source_identity.as_ref());
            if let Who::Workload(workload) = &self.destination {
                destination.identity = workload.identity.as_str().to_owned();
            }
        }
        let service = self.service.as_deref();
        let service = service.map(|service| service.key.hostname.to_string()).unwrap_or_default();
        Ends { source, service, destination, direction: self.direction }
    }
}

fn principal(identity: Option<&SpiffeId>) -> String {
    identity.map(|identity| identity.as_str().to_owned()).unwrap_or_default()
}

fn service_labels(service: &Service) -> ServiceLabels {
    ServiceLabels {
        hostname: service.key.hostname.to_string(),
        namespace: service.key.namespace.to_string(),
        name: service.name.to_string(),
    }
}

impl Who {
    /// Labels, but for the principal.
    pub(crate) fn party(&self) -> Party {
        match self {
            Self::Unknown => Party::default(),
            Self::Workload(workload) => Party {
                workload: workload.workload_name.to_string(),
                canonical_service: workload.canonical_name.to_string(),
                canonical_revision: workload.canonical_revision.to_string(),
                namespace: workload.namespace.to_string(),
                principal: String::new(),
                app: workload.canonical_name.to_string(),
                version: workload.canonical_revision.to_string(),
                cluster: workload.cluster_id.to_string(),
                region: workload.locality.region.to_string(),
                zone: workload.locality.zone.to_string(),
            },
            Self::Baggage(said) => Party {
                workload: said.workload.clone(),
                canonical_service: said.canonical_service.clone(),
                canonical_revision: said.canonical_revision.clone(),
                namespace: said.namespace.clone(),
                principal: String::new(),
                app: said.workload.clone(),
                version: said.canonical_revision.clone(),
                cluster: said.cluster.clone(),
                region: said.region.clone(),
                zone: said.zone.clone(),
            },
        }
    }

    fn named(&self) -> Named {
        match self {
            Self::Unknown => Named::default(),
            Self::Workload(workload) => Named {
                workload: workload.name.to_string(),
                namespace: workload.namespace.to_string(),
                identity: String::new(),
                cluster: workload.cluster_id.to_string(),
            },
            Self::Baggage(said) => Named {
                workload: said.canonical_service.clone(),
                namespace: said.namespace.clone(),
                identity: String::new(),
                cluster: said.cluster.clone(),
            },
        }
    }
}

/// Facts as a key: workloads and services are the same if they are the very same value.
#[derive(Debug)]
struct Key(Facts);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.direction == b.direction
            && a.security == b.security
            && same_who(&a.source, &b.source)
            && same_who(&a.destination, &b.destination)
            && a.source_identity == b.source_identity
            && same_service(a.service.as_ref(), b.service.as_ref())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let facts = &self.0;
        (facts.direction, facts.security).hash(hasher);
        for who in [&facts.source, &facts.destination] {
            match who {
                Who::Workload(workload) => Arc::as_ptr(workload).hash(hasher),
                Who::Baggage(said) => said.hash(hasher),
                Who::Unknown => 0.hash(hasher),
            }
        }
        facts.source_identity.hash(hasher);
        facts.service.as_ref().map(Arc::as_ptr).hash(hasher);
    }
}

fn same_who(a: &Who, b: &Who) -> bool {
    match (a, b) {
        (Who::Workload(a), Who::Workload(b)) => Arc::ptr_eq(a, b),
        (Who::Baggage(a), Who::Baggage(b)) => a == b,
        (Who::Unknown, Who::Unknown) => true,
        _ => false,
    }
}

fn same_service(a: Option<&Arc<Service>>, b: Option<&Arc<Service>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
