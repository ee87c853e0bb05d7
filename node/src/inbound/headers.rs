//! What the headers of a CONNECT request mean (data-path 4.6).

mod text;

use std::sync::Arc;

use hbone::IncomingConnect;

use crate::baggage::Baggage;
use crate::context::Who;
use text::{forwarded_host, trace_id};

/// The headers that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers {
    /// `host=` of `forwarded`.
    pub(super) forwarded_host: Option<Arc<str>>,
    /// `x-forwarded-network`.
    pub(super) network: Option<String>,
    /// The id of the trace, to find the connection's lines by.
    pub(super) trace: Option<u128>,
}

impl Headers {
    pub(super) fn read(request: &IncomingConnect) -> Self {
        Self {
            forwarded_host: request.header("forwarded").and_then(forwarded_host).map(Arc::from),
            network: request.header("x-forwarded-network").map(str::to_owned),
            trace: request.header("traceparent").and_then(trace_id),
        }
    }
}

/// Who the source is as far as only the headers can tell: what the peer says about its workload. Read only for peers that
/// discovery does not know.
pub(super) fn said(request: &IncomingConnect) -> Who {
    let lines = request.headers().iter().filter(|(name, _)| name == "baggage");
    let baggage = Baggage::parse(lines.map(|(_, value)| value.as_slice()));
    if baggage == Baggage::default() { Who::Unknown } else { Who::Baggage(baggage) }
}
