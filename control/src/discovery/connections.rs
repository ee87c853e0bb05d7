//! The open streams, for tools that ask what a proxy holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use xds::server::Session;

use super::ClientNode;
use super::access::Identified;
use crate::catalog::Catalog;

/// All open streams. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// One open stream.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    id: String,
    node: ClientNode,
    identified: Identified,
    connected_at: SystemTime,
    session: Arc<Mutex<Session<Catalog>>>,
    /// When the last response of each type left.
    sent_at: Mutex<BTreeMap<String, SystemTime>>,
}

impl Connections {
    pub(super) fn open(
        &self,
        node: ClientNode,
        identified: Identified,
        session: Session<Catalog>,
        now: SystemTime,
    ) -> Arc<Connection> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection {
            number,
            id: format!("{}-{number}", node.proxy),
            node,
            identified,
            connected_at: now,
            session: Arc::new(Mutex::new(session)),
            sent_at: Mutex::default(),
        });
        self.shared.open.lock().insert(number, Arc::clone(&connection));
        connection
    }

    pub(super) fn close(&self, connection: &Connection) {
        self.shared.open.lock().remove(&connection.number);
    }

    /// Every open stream, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Connection>> {
        self.shared.open.lock().values().cloned().collect()
    }

    /// The newest stream of a proxy `<pod>.<namespace>`, or the stream of a connection id.
    pub(crate) fn of_proxy(&self, proxy: &str) -> Option<Arc<Connection>> {
        let open = self.shared.open.lock();
        open.values()
            .rev()
            .find(|connection| connection.node.proxy == proxy || connection.id == proxy)
            .cloned()
    }
}

impl Connection {
    /// `<proxy>-<number>`
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What the client says about itself.
    pub(crate) fn node(&self) -> &ClientNode {
        &self.node
    }

    /// Where it calls from.
    pub(crate) fn peer(&self) -> &str {
        &self.identified.peer
    }

    /// Whether it proved who it is.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.identified.principal.is_some()
    }

    /// When it began.
    pub(crate) fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// What has been asked, sent and accepted. Lock it shortly.
    pub(crate) fn session(&self) -> &Arc<Mutex<Session<Catalog>>> {
        &self.session
    }

    /// When the last response of this type left.
    pub(crate) fn sent_at(&self, type_url: &str) -> Option<SystemTime> {
        self.sent_at.lock().get(type_url).copied()
    }

    pub(super) fn sends(&self, type_url: &str, now: SystemTime) {
        self.sent_at.lock().insert(type_url.to_owned(), now);
    }
}
