//! Steps 6 and 7: a connection that policy allows and whose bytes flow.

use std::future::Future;

use crate::connections::InboundEntry;
use crate::failure::ConnectionError;
use crate::record::Record;
use crate::relay::Relay;

/// All that an idle connection holds beside its sockets.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) relay: Relay,
    pub(super) record: Record,
    pub(super) entry: InboundEntry,
}

impl Established {
    /// Waits for its end, or until policy no longer allows it.
    pub(super) async fn ended(&mut self) -> Result<(), ConnectionError> {
        while_allowed(&self.entry, &mut self.relay).await.and_then(|ended| ended)
    }

    /// Cuts what is left of it and records how it ended.
    pub(super) fn finish(self, result: Result<(), &ConnectionError>) {
        drop(self.relay);
        self.record.finish(result);
    }
}

/// Does `work` unless policy comes to forbid the connection.
pub(super) async fn while_allowed<T>(
    entry: &InboundEntry,
    work: impl Future<Output = T>,
) -> Result<T, ConnectionError> {
    tokio::select! {
        biased;
        () = entry.disallowed() => Err(ConnectionError::PolicyChanged),
        done = work => Ok(done),
    }
}
